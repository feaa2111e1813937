//! What does the API server ask of this kubelet: logs, commands in containers, connections to pods?

mod exec;
mod forward;
mod log;
mod query;
mod terminal;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tokio::task::JoinHandle;

use crate::kubelet::Node;
use crate::pod::PodState;
use crate::streams::{self, Channel};
use crate::{Result, While};

/// Starts to listen on the kubelet's socket.
pub fn start(node: Arc<Node>) -> Result<JoinHandle<std::io::Result<()>>> {
    let path = node.settings.socket.clone();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).while_doing(|| format!("create {}", folder.display()))?;
    }
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).while_doing(|| format!("listen on {}", path.display()))?;
    let routes = Router::new()
        .route("/healthz", any(|| async { "ok" }))
        .route("/pods", any(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", any(log::container_logs))
        .route("/exec/{namespace}/{pod}/{container}", any(exec::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(exec::attach))
        .route("/portForward/{namespace}/{pod}", any(forward::port_forward))
        .with_state(node);
    Ok(tokio::spawn(async move { axum::serve(listener, routes).await }))
}

/// A refusal: code and reason, sent as the API's `Status`.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused(code, message) = self;
        let reason = match code {
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::BAD_REQUEST => "BadRequest",
            _ => "InternalError",
        };
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code.as_u16(),
        });
        (code, axum::Json(status)).into_response()
    }
}

fn find(node: &Node, namespace: &str, pod: &str) -> std::result::Result<Arc<PodState>, Refused> {
    node.pod(namespace, pod)
        .ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("pod {namespace}/{pod} is not on this node")))
}

async fn pods(State(node): State<Arc<Node>>) -> Response {
    let list = node.names();
    axum::Json(list).into_response()
}

/// Namespace, pod and container of a request.
type Container = axum::extract::Path<(String, String, String)>;

/// A close without code is an error to clients.
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))
}

fn binary(channel: Channel, bytes: &[u8]) -> Message {
    Message::Binary(streams::message(channel, bytes).into())
}
