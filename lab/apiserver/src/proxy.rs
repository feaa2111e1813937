//! How do logs, exec, attach and port-forward reach the kubelet of the pod's node?
//!
//! The request is rewritten to the kubelet's path and sent on; after an upgrade both byte streams are joined unchanged.
//! Kubelets speak WebSocket; for clients that speak SPDY their streams are translated.

mod inflate;
mod spdy;
mod streams;
mod websocket;

use base64::Engine as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::api::Api;
use crate::http::Body;
use crate::meta;
use crate::status::Status;
use crate::verbs::Call;
use crate::{KubeletAddress, http};

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

const WEBSOCKET: &str = "websocket";
const SPDY: &str = "spdy/3.1";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOL: &str = "x-stream-protocol-version";

pub async fn serve(call: Call, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let pod = call.current()?;
    let node = meta::text(&pod.value, "/spec/nodeName");
    if node.is_empty() {
        let message = format!("pod {} does not have a host assigned", call.name());
        return Err(Status::bad_request(message));
    }
    let path = kubelet_path(&call, &pod.value)?;
    let upgrade = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok()).map(str::to_lowercase);
    match upgrade.as_deref() {
        None if call.subresource() != "log" => Err(Status::bad_request("Upgrade request required")),
        Some(SPDY) => translate(call, request, node, &path).await,
        // Port-forward inside of a WebSocket is SPDY inside of a WebSocket: clients then speak SPDY itself.
        Some(WEBSOCKET)
            if call.subresource() == "portforward" && offers(&request, "sec-websocket-protocol", TUNNEL) =>
        {
            Err(Status::bad_request("unable to upgrade: port-forward is served over SPDY/3.1"))
        }
        None | Some(WEBSOCKET) => forward(request, connect(&call.api, node).await?, &path, node).await,
        Some(other) => {
            Err(Status::bad_request(format!("unable to upgrade to {other:?}: websocket and SPDY/3.1 are served")))
        }
    }
}

/// Whether one of the request's headers of this name lists the value.
fn offers(request: &Request<Incoming>, header: &str, value: &str) -> bool {
    let all = request.headers().get_all(header).into_iter().filter_map(|one| one.to_str().ok());
    all.flat_map(|text| text.split(',')).any(|one| one.trim().eq_ignore_ascii_case(value))
}

/// Serves a client that speaks SPDY, by a WebSocket to the kubelet.
async fn translate(
    call: Call,
    mut request: Request<Incoming>,
    node: &str,
    path: &str,
) -> Result<Response<Body>, Status> {
    let ports = call.subresource() == "portforward";
    let protocol = if ports { "portforward.k8s.io" } else { "v4.channel.k8s.io" };
    if !offers(&request, PROTOCOL, protocol) {
        let mut status = Status::bad_request(format!("unable to upgrade: the protocol {protocol} is served"));
        status.code = 403;
        return Err(status);
    }
    let upgraded = hyper::upgrade::on(&mut request);
    if ports {
        let (node, path) = (node.to_owned(), path.to_owned());
        tokio::spawn(async move {
            let Ok(client) = upgraded.await else { return };
            let dial = move |port: u16| {
                let (api, node, path) = (call.api.clone(), node.clone(), format!("{path}?port={port}"));
                async move { socket(&api, &node, &path).await.map_err(|status| status.message) }
            };
            streams::forward(TokioIo::new(client), dial).await;
        });
    } else {
        let kubelet = socket(&call.api, node, path).await?;
        let expected = streams::expected(&call.query);
        tokio::spawn(async move {
            let Ok(client) = upgraded.await else { return };
            streams::exec(TokioIo::new(client), kubelet, expected).await;
        });
    }
    let mut response = Response::new(http::whole(hyper::body::Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(PROTOCOL, HeaderValue::from_static(protocol));
    Ok(response)
}

/// A WebSocket to the kubelet.
async fn socket(api: &Api, node: &str, path: &str) -> Result<streams::Socket, Status> {
    let fault = |error: &dyn std::fmt::Display| Status::internal(format!("node {node}: {error}"));
    let stream = connect(api, node).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| fault(&error))?;
    tokio::spawn(connection.with_upgrades());
    let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
    let request = Request::get(path)
        .header(HOST, "kubelet")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, WEBSOCKET)
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", key)
        .header("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io")
        .body(http::whole(hyper::body::Bytes::new()))
        .map_err(|error| fault(&error))?;
    let mut answer = sender.send_request(request).await.map_err(|error| fault(&error))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(&mut answer).await.map_err(|error| fault(&error))?;
        return Ok(streams::Socket::new(Box::new(TokioIo::new(upgraded))));
    }
    let code = answer.status().as_u16();
    let text = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let mut status = if code < 500 { Status::bad_request(text) } else { Status::internal(text) };
    status.code = code;
    Err(status)
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

async fn connect(api: &Api, node: &str) -> Result<Box<dyn Stream>, Status> {
    let fault =
        |reason: &dyn std::fmt::Display| Status::internal(format!("error dialing backend: node {node}: {reason}"));
    let address = api.kubelets.kubelet(node).ok_or_else(|| fault(&"no kubelet of that name is known"))?;
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
