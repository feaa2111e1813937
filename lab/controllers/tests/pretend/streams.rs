//! What a pretended kubelet answers for logs, exec and port-forward.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery};
use axum::response::Response;
use axum::routing::any;

/// Listens on a free port for all nodes.
pub async fn serve(tasks: &mut tokio::task::JoinSet<()>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let routes = Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", any(logs))
        .route("/exec/{namespace}/{pod}/{container}", any(exec))
        .route("/portForward/{namespace}/{pod}", any(port_forward));
    tasks.spawn(async move {
        let _ = axum::serve(listener, routes).await;
    });
    address
}

type Container = Path<(String, String, String)>;

async fn logs(Path((namespace, pod, container)): Container, RawQuery(query): RawQuery) -> String {
    format!("{namespace}/{pod}/{container} {}\n", query.unwrap_or_default())
}

fn words(query: Option<String>, name: &str) -> Vec<String> {
    let query = query.unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).collect()
}

async fn exec(_: Container, RawQuery(query): RawQuery, upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["v5.channel.k8s.io", "v4.channel.k8s.io"]).on_upgrade(move |socket| run(socket, query))
}

/// `echo WORDS` prints them, `cat` copies its input, `false` fails with 3.
async fn run(mut socket: WebSocket, query: Option<String>) {
    let command = words(query, "command");
    let channel = |channel: u8, text: &[u8]| Message::Binary([&[channel], text].concat().into());
    let mut status = r#"{"metadata":{},"status":"Success"}"#;
    match command.first().map(String::as_str) {
        Some("echo") => {
            let _ = socket.send(channel(1, format!("{}\n", command[1..].join(" ")).as_bytes())).await;
            let _ = socket.send(channel(2, b"to stderr\n")).await;
        }
        Some("cat") => {
            while let Some(Ok(Message::Binary(bytes))) = socket.recv().await {
                match bytes.split_first() {
                    Some((0, data)) => drop(socket.send(channel(1, data)).await),
                    Some((255, _)) => break,
                    _ => {}
                }
            }
        }
        _ => {
            status = r#"{"metadata":{},"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code: exit status 3","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        }
    }
    let _ = socket.send(channel(3, status.as_bytes())).await;
    let _ = socket.send(Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))).await;
}

async fn port_forward(_: Path<(String, String)>, RawQuery(query): RawQuery, upgrade: WebSocketUpgrade) -> Response {
    let port: u16 = words(query, "port").first().and_then(|text| text.parse().ok()).unwrap_or(0);
    upgrade.protocols(["v4.channel.k8s.io"]).on_upgrade(move |socket| answer(socket, port))
}

/// Every port answers HTTP with its number.
async fn answer(mut socket: WebSocket, port: u16) {
    let [low, high] = port.to_le_bytes();
    for channel in [0, 1] {
        let _ = socket.send(Message::Binary(vec![channel, low, high].into())).await;
    }
    while let Some(Ok(Message::Binary(bytes))) = socket.recv().await {
        if bytes.len() > 1 {
            let text =
                format!("\0HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nport {port}\n", format!("port {port}\n").len());
            let _ = socket.send(Message::Binary(text.into_bytes().into())).await;
        }
    }
}
