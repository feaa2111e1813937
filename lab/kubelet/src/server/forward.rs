//! How does a client reach a port of a pod?

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::query::Query;
use super::{Refused, find, goodbye};
use crate::kubelet::Node;
use crate::namespaces::Kind;
use crate::pod::PodState;
use crate::{Error, Result, While};

/// One connection to a port of the pod, made inside its network namespace: `?port=N`. Each binary message is data; the
/// first byte says which of the two channels of the port's pair it is (0 data, 1 error).
pub(super) async fn port_forward(
    State(node): State<Arc<Node>>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> std::result::Result<Response, Refused> {
    let query = Query::parse(query);
    let ports: Vec<u16> = query
        .all("port")
        .iter()
        .chain(&query.all("ports"))
        .flat_map(|text| text.split(',').map(str::parse).collect::<Vec<_>>())
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Refused(StatusCode::BAD_REQUEST, "parameter port is no port".to_string()))?;
    let [port] = ports[..] else {
        return Err(Refused(StatusCode::BAD_REQUEST, "exactly one parameter port is expected".into()));
    };
    let state = find(&node, &namespace, &pod)?;
    let protocols = ["v4.channel.k8s.io", "portforward.k8s.io", "v4.base64.channel.k8s.io"];
    Ok(upgrade.protocols(protocols).on_upgrade(move |socket| async move {
        forward(&state, port, socket).await;
    }))
}

async fn forward(state: &PodState, port: u16, mut socket: WebSocket) {
    // Each channel begins with the port's number.
    for channel in [0u8, 1] {
        let [low, high] = port.to_le_bytes();
        if socket.send(Message::Binary(vec![channel, low, high].into())).await.is_err() {
            return;
        }
    }
    let stream = match connect(state, port).await {
        Ok(stream) => stream,
        Err(error) => {
            let mut message = vec![1u8];
            message.extend_from_slice(format!("port {port}: {error}").as_bytes());
            let _ = socket.send(Message::Binary(message.into())).await;
            let _ = socket.send(goodbye()).await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = stream.into_split();
    let mut part = vec![0u8; 16 << 10];
    loop {
        tokio::select! {
            read = from_pod.read(&mut part) => match read {
                Ok(n @ 1..) => {
                    let mut message = vec![0u8];
                    message.extend_from_slice(&part[..n]);
                    if socket.send(Message::Binary(message.into())).await.is_err() { break }
                }
                _ => break,
            },
            said = socket.recv() => match said {
                Some(Ok(Message::Binary(bytes))) => match bytes.split_first() {
                    Some((0, data)) => if to_pod.write_all(data).await.is_err() { break },
                    _ => continue,
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            }
        }
    }
    let _ = socket.send(goodbye()).await;
}

/// Connects to the pod's loopback address inside its network namespace.
async fn connect(state: &PodState, port: u16) -> Result<TcpStream> {
    let namespaces = state.namespaces()?;
    let net = namespaces.into_iter().find(|n| n.kind() == Kind::Net);
    let inside = move || -> Result<Vec<(std::net::SocketAddr, tokio::net::TcpSocket)>> {
        let v4 = tokio::net::TcpSocket::new_v4().while_doing(|| "open a socket".into())?;
        let mut all = vec![(std::net::SocketAddr::from(([127, 0, 0, 1], port)), v4)];
        if let Ok(v6) = tokio::net::TcpSocket::new_v6() {
            all.push((std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)), v6));
        }
        Ok(all)
    };
    let sockets = match net {
        Some(net) => net.within(inside)??,
        None => inside()?,
    };
    let mut last = None;
    for (address, socket) in sockets {
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(Error::System {
        what: format!("connect to port {port} of the pod"),
        source: last.unwrap_or_else(|| std::io::ErrorKind::NotConnected.into()),
    })
}
