//! How does one service ask another: by name, on a connection of its own, within bounds?

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// A resolver that gets no answer gives up after two tries of five seconds; this is a little more.
const LOOKUP: Duration = Duration::from_millis(10_500);
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(3);
const LONGEST: usize = 1 << 20;

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Service {
    /// A service from `host:port` or `host`.
    pub fn parse(text: &str, port: u16) -> Service {
        match text.rsplit_once(':') {
            Some((host, digits)) if !host.is_empty() && !host.ends_with(':') => match digits.parse() {
                Ok(port) => Service { host: host.trim_matches(['[', ']']).to_string(), port },
                Err(_) => Service { host: text.to_string(), port },
            },
            _ => Service { host: text.trim_matches(['[', ']']).to_string(), port },
        }
    }

    /// As it stands in a URL.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The name was not resolved.
    #[error("look up {host}: {error}")]
    Lookup {
        /// Which name.
        host: String,
        /// Why not.
        error: io::Error,
    },
    /// No connection to any address of the name.
    #[error("connect to {to}: {error}")]
    Connect {
        /// Whom.
        to: String,
        /// Why not.
        error: io::Error,
    },
    /// The connection was made but there is no answer.
    #[error("ask {to}: {error}")]
    Exchange {
        /// Whom.
        to: String,
        /// What went wrong.
        error: String,
    },
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON if the status says success.
    pub fn json(&self) -> Option<serde_json::Value> {
        self.status.is_success().then(|| serde_json::from_slice(&self.body).ok()).flatten()
    }
}

/// `GET path`.
pub async fn get(service: &Service, path: &str) -> Result<Answer, Failure> {
    ask(service, Method::GET, path, Bytes::new()).await
}

/// Asks on a connection that is closed afterwards.
pub async fn ask(service: &Service, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
    let stream = connect(service).await?;
    let failed = |error: String| Failure::Exchange { to: service.authority(), error };
    match timeout(ANSWER, exchange(stream, service, method, path, body)).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed(format!("no answer within {ANSWER:?}"))),
    }
}

async fn connect(service: &Service) -> Result<TcpStream, Failure> {
    let lookup = |error| Failure::Lookup { host: service.host.clone(), error };
    let addresses = timeout(LOOKUP, lookup_host((service.host.as_str(), service.port)))
        .await
        .map_err(|e| lookup(e.into()))?
        .map_err(lookup)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
    let all = async {
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Some(stream),
                Err(error) => last = error,
            }
        }
        None
    };
    match timeout(CONNECT, all).await {
        Ok(Some(stream)) => Ok(stream),
        Ok(None) => Err(Failure::Connect { to: service.authority(), error: last }),
        Err(passed) => Err(Failure::Connect { to: service.authority(), error: passed.into() }),
    }
}

async fn exchange(
    stream: TcpStream,
    service: &Service,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Answer, String> {
    let text = |e: hyper::Error| e.to_string();
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, service.authority())
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, "axoneme-lab")
        .body(Full::new(body))
        .map_err(|e| e.to_string())?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|e| e.to_string())?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    let mut connection = std::pin::pin!(connection);
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => {
            ended.map_err(text)?;
            answered.await
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use world::http::{serve, text};
    use world::sockets::listen_everywhere;

    #[test]
    fn services_are_hosts_with_ports() {
        for (text, host, port) in [
            ("details", "details", 9080),
            ("emoji-svc.emojivoto:8080", "emoji-svc.emojivoto", 8080),
            ("[::1]:80", "::1", 80),
            ("10.0.0.1:1", "10.0.0.1", 1),
        ] {
            assert_eq!(Service::parse(text, 9080), Service { host: host.into(), port });
        }
    }

    #[tokio::test]
    async fn an_answer_is_whole_and_a_refusal_is_told() {
        let listener = listen_everywhere(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(serve(listener, |request, _| async move {
            let close = request.headers().get(header::CONNECTION).is_some_and(|v| v == "close");
            text(StatusCode::OK, format!("{} {close}", request.uri().path()).repeat(1000))
        }));
        let service = Service { host: "127.0.0.1".into(), port };
        let answer = get(&service, "/x").await.unwrap();
        assert_eq!(answer.body, "/x true".repeat(1000));
        server.abort();
        let _ = server.await;
        assert!(matches!(get(&service, "/x").await, Err(Failure::Connect { .. })));
    }
}
