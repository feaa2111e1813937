//! What was asked, by whom, of whom? The server that tells; it also sends bytes, streams, and datagrams back.

use crate::{Error, arguments, listening};
use futures::stream::{self, Stream, StreamExt};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use world::http::{Body, Ends, text};

const PORT: &str = "80";
/// Of a request's body at most this much is repeated.
const REPEATED: usize = 64 * 1024;
const CHUNK: usize = 64 * 1024;
static ZEROS: [u8; CHUNK] = [b'x'; CHUNK];

/// Serves HTTP and UDP at the ports of `--port`, else of `PORTS`, else at 80.
pub async fn run(args: Vec<String>, environment: Option<String>) -> Result<(), Error> {
    let named = arguments::option(&args, "port").or_else(|| arguments::option(&args, "ports"));
    let ports = arguments::ports(&named.or(environment).unwrap_or_else(|| PORT.to_string()))?;
    let mut tasks = Vec::new();
    for port in ports {
        tasks.push(listening::http(port, respond)?);
        tasks.extend(listening::udp_echo(port)?);
    }
    listening::all(tasks).await
}

/// `GET /bytes/N`, `GET /stream?seconds=S&interval_ms=I`, `/status/CODE`; anything else is told back.
async fn respond(request: Request<Incoming>, ends: Ends) -> Response<Body> {
    let path = request.uri().path();
    if let Some(number) = path.strip_prefix("/bytes/") {
        return match number.parse() {
            Ok(n) => streamed(bytes(n)),
            Err(_) => text(StatusCode::BAD_REQUEST, format!("{number:?} is not a number of bytes\n")),
        };
    }
    if path == "/stream" {
        let query = request.uri().query().unwrap_or_default();
        let (Ok(seconds), Ok(interval)) = (number(query, "seconds", 10), number(query, "interval_ms", 1000)) else {
            return text(StatusCode::BAD_REQUEST, "seconds and interval_ms are numbers\n");
        };
        return streamed(lines(Duration::from_secs(seconds), Duration::from_millis(interval.max(1))));
    }
    let status = path.strip_prefix("/status/").and_then(|code| code.parse().ok()).unwrap_or(StatusCode::OK);
    told(request, ends, status).await
}

async fn told(request: Request<Incoming>, ends: Ends, status: StatusCode) -> Response<Body> {
    let mut page = told_of(request.method().as_str(), &request.uri().to_string(), ends);
    for (name, value) in request.headers() {
        let _ = writeln!(page, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    if let Ok(body) = Limited::new(request.into_body(), REPEATED).collect().await {
        let body = body.to_bytes();
        if !body.is_empty() {
            let _ = writeln!(page, "\n{}", String::from_utf8_lossy(&body));
        }
    }
    text(status, page)
}

fn told_of(method: &str, uri: &str, ends: Ends) -> String {
    format!("{method} {uri}\nhost name: {}\nfrom: {}\nat: {}\n", listening::own_name(), ends.peer, ends.local)
}

fn number(query: &str, key: &str, default: u64) -> Result<u64, std::num::ParseIntError> {
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key));
    value.map_or(Ok(default), |(_, v)| v.parse())
}

fn streamed(parts: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Response<Body> {
    let frames = parts.map(|part| Ok::<_, Infallible>(Frame::data(part)));
    Response::new(BodyExt::boxed(StreamBody::new(frames)))
}

fn bytes(n: u64) -> impl Stream<Item = Bytes> + Send + Sync {
    stream::unfold(n, |left| async move {
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        (part > 0).then(|| (Bytes::from_static(&ZEROS[..part]), left - part as u64))
    })
}

/// A line with its number at once and then in each interval until the time is over.
fn lines(total: Duration, interval: Duration) -> impl Stream<Item = Bytes> + Send + Sync {
    let start = Instant::now();
    stream::unfold(0u32, move |n| async move {
        let due = interval * n;
        if n > 0 && due >= total {
            return None;
        }
        sleep_until(start + due).await;
        Some((Bytes::from(format!("{n}\n")), n + 1))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fetch::{Service, ask, get};
    use hyper::Method;
    use world::sockets::listen_everywhere;

    fn server() -> Service {
        let listener = listen_everywhere(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(world::http::serve(listener, respond));
        Service { host: "127.0.0.1".into(), port }
    }

    #[tokio::test]
    async fn tells_what_was_asked() {
        let server = server();
        let answer = ask(&server, Method::PUT, "/upload?x=1", Bytes::from("content")).await.unwrap();
        let page = String::from_utf8(answer.body.to_vec()).unwrap();
        for part in ["PUT /upload?x=1\n", "from: 127.0.0.1:", "connection: close", "\ncontent\n"] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert_eq!(get(&server, "/status/403").await.unwrap().status, 403);
    }

    #[tokio::test]
    async fn sends_as_much_as_is_asked_for() {
        let server = server();
        for n in [0, 1, 65_536, 200_000] {
            assert_eq!(get(&server, &format!("/bytes/{n}")).await.unwrap().body.len(), n);
        }
        assert_eq!(get(&server, "/bytes/many").await.unwrap().status, 400);
        assert_eq!(get(&server, "/stream?seconds=1&interval_ms=300").await.unwrap().body, "0\n1\n2\n3\n");
        assert_eq!(get(&server, "/stream?seconds=x").await.unwrap().status, 400);
    }
}
