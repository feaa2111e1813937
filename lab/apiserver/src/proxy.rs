//! How do logs, exec, attach and port-forward reach the kubelet of the pod's node?
//!
//! The request is rewritten to the kubelet's path and sent on; after an upgrade both byte streams are joined unchanged.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::http::Body;
use crate::meta;
use crate::status::Status;
use crate::verbs::Call;
use crate::{KubeletAddress, http};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Protocols of streams that kubelets of lab speak.
const WEBSOCKET: &str = "websocket";

pub async fn serve(call: Call, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let pod = call.current()?;
    let node = meta::text(&pod.value, "/spec/nodeName");
    if node.is_empty() {
        let message = format!("pod {} does not have a host assigned", call.name());
        return Err(Status::bad_request(message));
    }
    let path = kubelet_path(&call, &pod.value)?;
    let upgrade = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok()).map(str::to_lowercase);
    if let Some(other) = upgrade.as_deref().filter(|protocol| *protocol != WEBSOCKET) {
        return Err(unsupported_upgrade(other));
    }
    if upgrade.is_none() && call.subresource() != "log" {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let stream = connect(&call, node).await?;
    forward(request, stream, &path, node).await
}

/// Clients that know only SPDY are told what would work.
fn unsupported_upgrade(protocol: &str) -> Status {
    Status::bad_request(format!(
        "unable to upgrade to {protocol:?}: streams are served over WebSocket (kubectl 1.30 or newer uses it)"
    ))
}

/// The path and query that the kubelet knows.
fn kubelet_path(call: &Call, pod: &serde_json::Value) -> Result<String, Status> {
    let (namespace, name) = (call.namespace().unwrap_or_default(), call.name());
    let query = |skipped: &str| call.query.without(skipped);
    Ok(match call.subresource() {
        "portforward" => format!("/portForward/{namespace}/{name}{}", query("")),
        sub => {
            let container = container(call, pod, sub)?;
            let start = match sub {
                "log" => "containerLogs",
                other => other,
            };
            format!("/{start}/{namespace}/{name}/{container}{}", query("container"))
        }
    })
}

/// The container that is meant.
fn container(call: &Call, pod: &serde_json::Value, sub: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        meta::list(pod, &format!("/spec/{list}")).iter().filter_map(|one| one["name"].as_str()).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    match call.query.get("container") {
        Some(wanted) if main.contains(&wanted) || init.contains(&wanted) => Ok(wanted.to_owned()),
        Some(wanted) => Err(Status::bad_request(format!("container {wanted} is not valid for pod {}", call.name()))),
        None if main.len() == 1 || sub != "log" => Ok(main.first().copied().unwrap_or_default().to_owned()),
        None => {
            let list = |names: &[&str]| names.join(" ");
            let inits = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", list(&init))
            };
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{}]{inits}",
                call.name(),
                list(&main)
            )))
        }
    }
}

async fn connect(call: &Call, node: &str) -> Result<Box<dyn Stream>, Status> {
    let fault =
        |reason: &dyn std::fmt::Display| Status::internal(format!("error dialing backend: node {node}: {reason}"));
    let address = call.api.kubelets.kubelet(node).ok_or_else(|| fault(&"no kubelet of that name is known"))?;
    match address {
        KubeletAddress::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(&path).await;
            stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| fault(&error))
        }
        KubeletAddress::Tcp(address) => {
            let stream = tokio::net::TcpStream::connect(address).await;
            stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| fault(&error))
        }
    }
}

async fn forward(
    mut request: Request<Incoming>,
    stream: Box<dyn Stream>,
    path: &str,
    node: &str,
) -> Result<Response<Body>, Status> {
    let fault = |error: &dyn std::fmt::Display| Status::internal(format!("node {node}: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| fault(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to kubelet ended");
        }
    });
    let client = hyper::upgrade::on(&mut request);
    let mut inner = Request::new(http::whole(hyper::body::Bytes::new()));
    *inner.method_mut() = if request.method() == Method::POST { Method::POST } else { Method::GET };
    *inner.uri_mut() = path.parse().map_err(|error: hyper::http::uri::InvalidUri| fault(&error))?;
    for (name, value) in request.headers() {
        // The kubelet trusts its socket; who the user is, is not its business.
        if *name != AUTHORIZATION && *name != HOST && *name != HeaderName::from_static("content-length") {
            inner.headers_mut().append(name.clone(), value.clone());
        }
    }
    inner.headers_mut().insert(HOST, HeaderValue::from_static("kubelet"));
    let mut answer = sender.send_request(inner).await.map_err(|error| fault(&error))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let kubelet = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let (Ok(client), Ok(kubelet)) = (client.await, kubelet.await) {
                let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut kubelet).await;
            }
        });
        let mut response = Response::new(http::whole(hyper::body::Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = answer.headers().clone();
        return Ok(response);
    }
    let mut response = answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
    response.headers_mut().remove(CONNECTION);
    response.headers_mut().remove("transfer-encoding");
    Ok(response)
}
