//! How does one ask the agent?

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::fqdn::{CacheQuery, DnsLookup, NameReason};
use crate::model::{Endpoint, EndpointChangeRequest, IpamResponse, MonitorEvent};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("cannot reach the agent at {socket}: {reason}; is the agent running?")]
    Unreachable {
        /// The socket.
        socket: String,
        /// Why.
        reason: String,
    },
    /// The connection broke or the answer was not understood.
    #[error("{request}: {reason}")]
    Broken {
        /// What was asked.
        request: String,
        /// What happened.
        reason: String,
    },
    /// The agent refused.
    #[error("{request}: {message} (status {status})")]
    Refused {
        /// What was asked.
        request: String,
        /// HTTP status.
        status: u16,
        /// The agent's words.
        message: String,
    },
}

impl ClientError {
    /// The agent says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused { status: 404, .. })
    }

    /// Trying again later makes sense: the agent is down, starting or stopping.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            ClientError::Unreachable { .. } | ClientError::Broken { .. } | ClientError::Refused { status: 503, .. }
        )
    }
}

/// A client of the agent; each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    /// For the agent behind this socket.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Client { socket: socket.as_ref().to_owned(), patience: Duration::from_secs(90) }
    }

    /// Gives up on a single request after this time.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Client { patience, ..self }
    }

    /// `GET` of a path such as `/v1/endpoint`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, Vec::new()).await
    }

    /// `GET /v1/fqdn/cache`.
    pub async fn name_cache(&self, query: &CacheQuery) -> Result<Vec<DnsLookup>, ClientError> {
        self.get(&format!("/v1/fqdn/cache?{}", pairs(query))).await
    }

    /// `DELETE /v1/fqdn/cache`.
    pub async fn clean_names(&self, query: &CacheQuery) -> Result<(), ClientError> {
        self.request(Method::DELETE, &format!("/v1/fqdn/cache?{}", pairs(query)), Vec::new()).await.map(drop)
    }

    /// `GET /v1/fqdn/why`.
    pub async fn why_name(&self, query: &CacheQuery) -> Result<Vec<NameReason>, ClientError> {
        self.get(&format!("/v1/fqdn/why?{}", pairs(query))).await
    }

    /// `POST /v1/ipam`.
    pub async fn allocate(&self, owner: &str) -> Result<IpamResponse, ClientError> {
        self.json(Method::POST, &format!("/v1/ipam?owner={}", escape(owner)), Vec::new()).await
    }

    /// `DELETE /v1/ipam/{ip}`.
    pub async fn release(&self, address: &str) -> Result<(), ClientError> {
        self.request(Method::DELETE, &format!("/v1/ipam/{}", escape(address)), Vec::new()).await.map(drop)
    }

    /// `PUT /v1/endpoint/{id}`.
    pub async fn create_endpoint(&self, endpoint: &EndpointChangeRequest) -> Result<Endpoint, ClientError> {
        let path = format!("/v1/endpoint/cni-attachment-id:{}", escape(&endpoint.cni_attachment_id));
        let body = serde_json::to_vec(endpoint);
        let body = body.map_err(|e| ClientError::Broken { request: path.clone(), reason: e.to_string() })?;
        self.json(Method::PUT, &path, body).await
    }

    /// `DELETE /v1/endpoint/{selector}`.
    pub async fn delete_endpoint(&self, selector: &str) -> Result<(), ClientError> {
        self.request(Method::DELETE, &format!("/v1/endpoint/{}", escape(selector)), Vec::new()).await.map(drop)
    }

    /// `GET /v1/monitor`: calls back for each event until the callback says stop or the agent goes.
    pub async fn monitor(&self, mut on_event: impl FnMut(MonitorEvent) -> bool) -> Result<(), ClientError> {
        let name = "GET /v1/monitor".to_owned();
        let broken = |reason: String| ClientError::Broken { request: name.clone(), reason };
        let mut body = self.send(Method::GET, "/v1/monitor", Vec::new()).await?.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|e| broken(e.to_string()))?.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let event = serde_json::from_slice(&line).map_err(|e| broken(e.to_string()))?;
                if !on_event(event) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, ClientError> {
        let name = format!("{method} {path}");
        let bytes = self.request(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Broken { request: name, reason: e.to_string() })
    }

    async fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ClientError> {
        let name = format!("{method} {path}");
        let work = async {
            let response = self.send(method, path, body).await?;
            let collected = response.into_body().collect().await;
            collected
                .map(|b| b.to_bytes())
                .map_err(|e| ClientError::Broken { request: name.clone(), reason: e.to_string() })
        };
        let late = || format!("no answer within {} seconds", self.patience.as_secs());
        match tokio::time::timeout(self.patience, work).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Broken { request: name.clone(), reason: late() }),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response<Incoming>, ClientError> {
        let name = format!("{method} {path}");
        let broken = |reason: String| ClientError::Broken { request: name.clone(), reason };
        let unreachable = |error: std::io::Error| ClientError::Unreachable {
            socket: self.socket.display().to_string(),
            reason: error.to_string(),
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| broken(e.to_string()))?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("Host", "localhost");
        let request = request.header("Content-Type", "application/json").body(Full::new(Bytes::from(body)));
        let request = request.map_err(|e| broken(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(|e| broken(e.to_string()))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(name, response).await) }
    }
}

async fn refusal(request: String, response: Response<Incoming>) -> ClientError {
    let status: StatusCode = response.status();
    let body = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    let message = serde_json::from_slice::<String>(&body).unwrap_or(text);
    ClientError::Refused { request, status: status.as_u16(), message }
}

/// Percent-encodes everything that may not stand in a path or a query value.
/// As the query of a URL.
fn pairs(query: &CacheQuery) -> String {
    let CacheQuery { matchpattern, source, endpoint, address } = query;
    let all = [("matchpattern", matchpattern), ("source", source), ("endpoint", endpoint), ("address", address)];
    let given = all.iter().filter_map(|(name, value)| Some(format!("{name}={}", escape(value.as_deref()?))));
    given.collect::<Vec<_>>().join("&")
}

fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
