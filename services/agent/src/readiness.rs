//! Is the agent ready? Asked by the kubelet's probes.

use std::net::Ipv4Addr;

use crate::daemon::{Daemon, Message, Sender};
use crate::health;

/// Answers `GET /healthz` on the loopback device: 200 when the cluster is known, else 503.
pub async fn serve(port: u16, sender: Sender) {
    let listener = match tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(port, %error, "readiness cannot be served"),
    };
    while let Ok((stream, _)) = listener.accept().await {
        let sender = sender.clone();
        tokio::spawn(async move {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let call = Box::new(move |daemon: &mut Daemon| {
                // Whoever asked may be gone by now.
                let _ = reply.send(daemon.core.is_synced());
            });
            let asked = sender.send(Message::Call(call)).await.is_ok();
            let ready = asked && answer.await.unwrap_or(false);
            health::answer_with(stream, if ready { "200 OK" } else { "503 Service Unavailable" }).await;
        });
    }
}
