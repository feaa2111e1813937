//! Who answers requests on the socket, and how are paths and errors mapped?

use std::convert::Infallible;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::fqdn::{CacheQuery, DnsLookup, NameManager, NameReason};
use crate::hits::RuleSetHits;
use crate::model::{
    DaemonConfig, Endpoint, EndpointChangeRequest, Identity, IpEntry, IpamResponse, Map, Metric, MonitorEvent, Node,
    Policy, Selector, Service, StatusResponse,
};

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is one already.
    #[error("{0}")]
    Conflict(String),
    /// Not now: starting, or out of something.
    #[error("{0}")]
    Unavailable(String),
    /// The agent failed.
    #[error("{0}")]
    Failed(String),
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::Invalid(_) => StatusCode::BAD_REQUEST,
            ApiError::Conflict(_) => StatusCode::CONFLICT,
            ApiError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.to_string())).into_response()
    }
}

/// What calls return.
pub type Answer<T> = Result<T, ApiError>;

/// The one who answers.
pub trait Agent: Send + Sync + 'static {
    /// `GET /v1/healthz`
    fn status(&self) -> impl Future<Output = Answer<StatusResponse>> + Send;
    /// `GET /v1/endpoint`
    fn endpoints(&self) -> impl Future<Output = Answer<Vec<Endpoint>>> + Send;
    /// `PUT /v1/endpoint/{id}`: answers when the endpoint is ready, its policy in place and its programs attached.
    fn create_endpoint(&self, request: EndpointChangeRequest) -> impl Future<Output = Answer<Endpoint>> + Send;
    /// `DELETE /v1/endpoint/{selector}`
    fn delete_endpoint(&self, selector: String) -> impl Future<Output = Answer<()>> + Send;
    /// `GET /v1/identity`
    fn identities(&self) -> impl Future<Output = Answer<Vec<Identity>>> + Send;
    /// `GET /v1/ip`
    fn ips(&self) -> impl Future<Output = Answer<Vec<IpEntry>>> + Send;
    /// `GET /v1/policy`
    fn policy(&self) -> impl Future<Output = Answer<Policy>> + Send;
    /// `GET /v1/policy/selectors`
    fn selectors(&self) -> impl Future<Output = Answer<Vec<Selector>>> + Send;
    /// `GET /v1/fqdn/cache`
    fn name_cache(&self, query: CacheQuery) -> impl Future<Output = Answer<Vec<DnsLookup>>> + Send;
    /// `DELETE /v1/fqdn/cache`: forgets names.
    fn clean_names(&self, query: CacheQuery) -> impl Future<Output = Answer<()>> + Send;
    /// `GET /v1/fqdn/names`
    fn names(&self) -> impl Future<Output = Answer<NameManager>> + Send;
    /// `GET /v1/policy/hits`
    fn policy_hits(&self) -> impl Future<Output = Answer<Vec<RuleSetHits>>> + Send;
    /// `GET /v1/fqdn/why`: of an endpoint and an address.
    fn why_name(&self, query: CacheQuery) -> impl Future<Output = Answer<Vec<NameReason>>> + Send;
    /// `GET /v1/config`
    fn configuration(&self) -> impl Future<Output = Answer<DaemonConfig>> + Send;
    /// `GET /v1/service`
    fn services(&self) -> impl Future<Output = Answer<Vec<Service>>> + Send;
    /// `GET /v1/cluster/nodes`
    fn nodes(&self) -> impl Future<Output = Answer<Vec<Node>>> + Send;
    /// `GET /v1/map`
    fn maps(&self) -> impl Future<Output = Answer<Vec<Map>>> + Send;
    /// `GET /v1/metrics`
    fn metrics(&self) -> impl Future<Output = Answer<Vec<Metric>>> + Send;
    /// `POST /v1/ipam`: allocates an address of each family that is on.
    fn allocate(&self, owner: String) -> impl Future<Output = Answer<IpamResponse>> + Send;
    /// `DELETE /v1/ipam/{ip}`
    fn release(&self, address: IpAddr) -> impl Future<Output = Answer<()>> + Send;
    /// `GET /v1/monitor`: events from now on, until the receiver goes.
    fn monitor(&self) -> impl Future<Output = Answer<mpsc::Receiver<MonitorEvent>>> + Send;
}

/// Serves requests on the socket (mode 0660, whatever was there before is replaced) until the task is dropped.
pub async fn serve<A: Agent>(path: &Path, agent: Arc<A>) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    axum::serve(listener, router(agent)).await
}

/// The paths and who answers them.
pub fn router<A: Agent>(agent: Arc<A>) -> Router {
    Router::new()
        .route("/v1/healthz", get(async |State(a): State<Arc<A>>| a.status().await.map(Json)))
        .route("/v1/endpoint", get(async |State(a): State<Arc<A>>| a.endpoints().await.map(Json)))
        .route("/v1/endpoint/{*selector}", get(one_endpoint::<A>).put(put_endpoint::<A>).delete(remove_endpoint::<A>))
        .route("/v1/identity", get(async |State(a): State<Arc<A>>| a.identities().await.map(Json)))
        .route("/v1/identity/{id}", get(one_identity::<A>))
        .route("/v1/ip", get(async |State(a): State<Arc<A>>| a.ips().await.map(Json)))
        .route("/v1/policy", get(async |State(a): State<Arc<A>>| a.policy().await.map(Json)))
        .route("/v1/policy/selectors", get(async |State(a): State<Arc<A>>| a.selectors().await.map(Json)))
        .route("/v1/fqdn/cache", get(name_cache::<A>).delete(clean_names::<A>))
        .route("/v1/fqdn/names", get(async |State(a): State<Arc<A>>| a.names().await.map(Json)))
        .route("/v1/fqdn/why", get(why_name::<A>))
        .route("/v1/policy/hits", get(async |State(a): State<Arc<A>>| a.policy_hits().await.map(Json)))
        .route("/v1/config", get(async |State(a): State<Arc<A>>| a.configuration().await.map(Json)))
        .route("/v1/service", get(async |State(a): State<Arc<A>>| a.services().await.map(Json)))
        .route("/v1/cluster/nodes", get(async |State(a): State<Arc<A>>| a.nodes().await.map(Json)))
        .route("/v1/map", get(async |State(a): State<Arc<A>>| a.maps().await.map(Json)))
        .route("/v1/metrics", get(async |State(a): State<Arc<A>>| a.metrics().await.map(Json)))
        .route("/v1/ipam", post(allocate::<A>))
        .route("/v1/ipam/{ip}", delete(release::<A>))
        .route("/v1/monitor", get(monitor::<A>))
        .with_state(agent)
}

async fn one_endpoint<A: Agent>(State(a): State<Arc<A>>, UrlPath(selector): UrlPath<String>) -> Answer<Json<Endpoint>> {
    let wanted = EndpointSelector::parse(&selector)?;
    let found = a.endpoints().await?.into_iter().find(|endpoint| wanted.matches(endpoint));
    found.map(Json).ok_or_else(|| ApiError::NotFound(format!("endpoint {selector} not found")))
}

async fn put_endpoint<A: Agent>(
    State(a): State<Arc<A>>,
    Json(request): Json<EndpointChangeRequest>,
) -> Answer<(StatusCode, Json<Endpoint>)> {
    Ok((StatusCode::CREATED, Json(a.create_endpoint(request).await?)))
}

async fn remove_endpoint<A: Agent>(State(a): State<Arc<A>>, UrlPath(selector): UrlPath<String>) -> Answer<()> {
    EndpointSelector::parse(&selector)?;
    a.delete_endpoint(selector).await
}

async fn one_identity<A: Agent>(State(a): State<Arc<A>>, UrlPath(id): UrlPath<u32>) -> Answer<Json<Identity>> {
    let found = a.identities().await?.into_iter().find(|identity| identity.id == id);
    found.map(Json).ok_or_else(|| ApiError::NotFound(format!("identity {id} not found")))
}

async fn name_cache<A: Agent>(
    State(a): State<Arc<A>>,
    Query(query): Query<CacheQuery>,
) -> Answer<Json<Vec<DnsLookup>>> {
    a.name_cache(query).await.map(Json)
}

async fn clean_names<A: Agent>(State(a): State<Arc<A>>, Query(query): Query<CacheQuery>) -> Answer<()> {
    a.clean_names(query).await
}

async fn why_name<A: Agent>(State(a): State<Arc<A>>, Query(query): Query<CacheQuery>) -> Answer<Json<Vec<NameReason>>> {
    a.why_name(query).await.map(Json)
}

#[derive(Deserialize)]
struct AllocateQuery {
    #[serde(default)]
    owner: String,
}

async fn allocate<A: Agent>(
    State(a): State<Arc<A>>,
    Query(query): Query<AllocateQuery>,
) -> Answer<(StatusCode, Json<IpamResponse>)> {
    Ok((StatusCode::CREATED, Json(a.allocate(query.owner).await?)))
}

async fn release<A: Agent>(State(a): State<Arc<A>>, UrlPath(ip): UrlPath<IpAddr>) -> Answer<()> {
    a.release(ip).await
}

async fn monitor<A: Agent>(State(a): State<Arc<A>>) -> Answer<Response> {
    let events = a.monitor().await?;
    let lines = futures_lines(events);
    Ok(Body::from_stream(lines).into_response())
}

fn futures_lines(events: mpsc::Receiver<MonitorEvent>) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold(events, async |mut events| {
        let event = events.recv().await?;
        let mut line = serde_json::to_vec(&event).ok()?;
        line.push(b'\n');
        Some((Ok(Bytes::from(line)), events))
    })
}

/// How a request names an endpoint: by number, or `prefix:value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointSelector {
    /// Its number on this node.
    Id(u32),
    /// The container.
    Container(String),
    /// The container and the device in it.
    Attachment(String),
    /// `namespace/name` of the pod.
    Pod(String),
    /// An address.
    Address(IpAddr),
}

impl EndpointSelector {
    /// Parses `5`, `endpoint-id:5`, `container-id:..`, `cni-attachment-id:..:eth0`, `pod-name:ns/name`,
    /// `cep-name:ns/name`, `ipv4:..`, `ipv6:..`.
    pub fn parse(text: &str) -> Answer<Self> {
        let bad = || {
            ApiError::Invalid(format!(
                "{text:?} names no endpoint: want a number or PREFIX:VALUE with one of the prefixes endpoint-id, container-id, cni-attachment-id, pod-name, cep-name, ipv4, ipv6"
            ))
        };
        if let Ok(id) = text.parse() {
            return Ok(EndpointSelector::Id(id));
        }
        let (prefix, value) = text.split_once(':').ok_or_else(bad)?;
        Ok(match prefix {
            "endpoint-id" | "cilium-local" => EndpointSelector::Id(value.parse().map_err(|_| bad())?),
            "container-id" => EndpointSelector::Container(value.into()),
            "cni-attachment-id" => EndpointSelector::Attachment(value.into()),
            "pod-name" | "cep-name" => EndpointSelector::Pod(value.into()),
            "ipv4" | "ipv6" => EndpointSelector::Address(value.parse().map_err(|_| bad())?),
            _ => return Err(bad()),
        })
    }

    /// Does it name this endpoint?
    pub fn matches(&self, endpoint: &Endpoint) -> bool {
        let names = &endpoint.status.external_identifiers;
        match self {
            EndpointSelector::Id(id) => endpoint.id == *id,
            EndpointSelector::Container(id) => !id.is_empty() && names.container_id == *id,
            EndpointSelector::Attachment(id) => !id.is_empty() && names.cni_attachment_id == *id,
            EndpointSelector::Pod(name) => !name.is_empty() && names.pod_name == *name,
            EndpointSelector::Address(address) => {
                let text = address.to_string();
                endpoint.status.networking.addressing.iter().any(|pair| pair.ipv4 == text || pair.ipv6 == text)
            }
        }
    }
}
