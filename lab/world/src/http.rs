//! How do the lab's web servers take connections and answer them?

use crate::sockets::canonical;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

/// What is answered.
pub type Body = BoxBody<Bytes, Infallible>;

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub peer: SocketAddr,
    /// The address that the client asked.
    pub local: SocketAddr,
}

impl Ends {
    /// The ends of a connection that was just accepted.
    pub fn of(stream: &TcpStream) -> io::Result<Ends> {
        Ok(Ends { peer: canonical(stream.peer_addr()?), local: canonical(stream.local_addr()?) })
    }
}

/// Answers requests at `listener` by `handler` for ever; HTTP/1 and HTTP/2 without TLS.
pub async fn serve<H, F>(listener: TcpListener, handler: H) -> io::Result<()>
where
    H: Fn(Request<Incoming>, Ends) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    loop {
        let stream = accept(&listener).await;
        tokio::spawn(connection(stream, handler.clone()));
    }
}

/// The next connection. Failures to accept (no descriptor free, a client that is gone already) pass.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(e) => {
                debug!(error = %e, "accept");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Answers the requests of one connection.
pub async fn connection<H, F>(stream: TcpStream, handler: H)
where
    H: Fn(Request<Incoming>, Ends) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Ok(ends) = Ends::of(&stream) else { return };
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let head = request.method() == Method::HEAD;
        let answer = handler(request, ends);
        async move {
            let answer = answer.await;
            Ok::<_, Infallible>(if head { bodiless(answer) } else { answer })
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    if let Err(e) = builder.serve_connection(TokioIo::new(stream), service).await {
        debug!(peer = %ends.peer, error = e, "connection");
    }
}

/// The same for HEAD: the length without the body, which on HTTP/2 nobody else leaves out.
fn bodiless(answer: Response<Body>) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    Response::from_parts(parts, Full::default().boxed())
}

/// An answer of plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", body)
}

/// An answer of JSON.
pub fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    answer(status, "application/json", body.to_string())
}

/// An answer of HTML.
pub fn html(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    answer(status, "text/html; charset=utf-8", body)
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
