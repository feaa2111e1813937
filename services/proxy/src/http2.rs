//! How does HTTP/2 go from client to server, stream by stream?
//!
//! Each request is judged when its headers are whole. Bodies and trailers go on as they come. One connection to the
//! server serves all streams of one client's connection.

mod deadline;
mod idle;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proxy_api::Settings;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use idle::{Moved, Watched};

use crate::judge::{Asked, Decision, Judged, denied_body, grpc_message, grpc_status, is_grpc};
use crate::shared::{Connection, Used, millis};
use crate::wire::{Buffer, Fronted, Wire};

/// Bytes that a stream may send before it is told that they were taken.
const WINDOW: u32 = 64 << 10;
/// The same for a connection.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Streams that a client may reset before they are looked at; more end the connection (CVE-2023-44487).
const MOST_RESETS: usize = 20;

type Body = Either<Watched, Full<Bytes>>;

/// A client's connection and its one to the server.
struct Session {
    connection: Connection,
    upstream: Mutex<Upstream>,
    active: AtomicUsize,
    begun: AtomicUsize,
    /// Nothing can pass here any more: the client is to connect anew.
    over: CancellationToken,
}

/// How the server is reached.
#[derive(Default)]
struct Upstream {
    server: Option<Server>,
    /// A connection that is there already.
    ready: Option<Wire>,
    /// When it could not be reached last.
    failed: Option<Instant>,
}

/// The connection to the server that takes new streams.
struct Server {
    sender: SendRequest<Watched>,
    used: Used,
    /// It takes no more; the streams that it has go on.
    over: bool,
}

impl Server {
    /// For one stream more.
    fn take(&mut self, settings: &Settings) -> SendRequest<Watched> {
        self.over = self.used.is_over(settings);
        self.sender.clone()
    }
}

/// A client that begins with HTTP/2's preface, which is in the buffer.
pub async fn run(connection: Connection, client: Wire, front: Buffer, server: Option<Wire>) {
    let settings = connection.shared.settings.load_full();
    let drain = connection.shared.drain.clone();
    let session = Arc::new(Session {
        connection,
        upstream: Mutex::new(Upstream { ready: server, ..Upstream::default() }),
        active: AtomicUsize::new(0),
        begun: AtomicUsize::new(0),
        over: CancellationToken::new(),
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(settings.limits.streams)
        .max_header_list_size(settings.limits.head_bytes)
        .max_pending_accept_reset_streams(MOST_RESETS)
        .max_local_error_reset_streams(MOST_RESETS)
        .max_send_buf_size(WINDOW as usize)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let service = {
        let session = Arc::clone(&session);
        service_fn(move |request| answer(Arc::clone(&session), request))
    };
    let mut serving = pin!(builder.serve_connection(TokioIo::new(Fronted::new(front, client)), service));
    let (idle, upstream_idle) = (millis(settings.timeouts.idle), millis(settings.timeouts.upstream_idle));
    let tick = idle.min(upstream_idle);
    let (mut draining, mut quiet_for) = (false, Duration::ZERO);
    loop {
        let begun = session.begun.load(Ordering::Relaxed);
        tokio::select! {
            _ = serving.as_mut() => return,
            () = either(&drain, &session.over), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(tick) => {
                let quiet = session.active.load(Ordering::Relaxed) == 0 && session.begun.load(Ordering::Relaxed) == begun;
                quiet_for = if quiet { quiet_for + tick } else { Duration::ZERO };
                if quiet_for >= upstream_idle {
                    // The client's stays for longer.
                    session.upstream.lock().await.server = None;
                }
                if draining && quiet_for >= idle {
                    return;
                }
                if quiet_for >= idle {
                    draining = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

async fn either(one: &CancellationToken, other: &CancellationToken) {
    tokio::select! {
        () = one.cancelled() => {}
        () = other.cancelled() => {}
    }
}

/// Counts a stream until it has its answer.
struct Active<'a>(&'a AtomicUsize);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(session: Arc<Session>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    session.begun.fetch_add(1, Ordering::Relaxed);
    session.active.fetch_add(1, Ordering::Relaxed);
    let _active = Active(&session.active);
    let connection = &session.connection;
    let kind = Client { grpc: is_grpc(request.headers()), head: request.method() == Method::HEAD };
    let authority = match authority(&request) {
        Ok(authority) => authority,
        Err(why) => {
            connection.record_malformed(why);
            return Ok(local(StatusCode::BAD_REQUEST, format!("{why}\r\n"), kind));
        }
    };
    let path = request.uri().path_and_query().map_or("", |path| path.as_str()).to_owned();
    let asked = l7::http::Request {
        method: request.method().as_str(),
        path: &path,
        authority: &authority,
        headers: request.headers(),
    };
    let (decision, judged) = connection.judge(&Asked { request: asked, protocol: "HTTP/2", lines: request.headers() });
    let edits = match decision {
        Decision::Forward(edits) => edits,
        Decision::Deny { last } => {
            if last {
                session.over.cancel();
            }
            let body = denied_body(&connection.shared.settings.load().denied_message);
            return Ok(session.told(judged.as_ref(), local(StatusCode::FORBIDDEN, body, kind), ""));
        }
    };
    let mut request = request;
    for edit in edits {
        edit.apply(request.headers_mut());
    }
    Ok(match session.forward(request, kind).await {
        Ok(response) => {
            if let Some(judged) = &judged {
                connection.record_answer(judged, response.status().as_u16(), Some(response.headers()), "");
            }
            response.map(Either::Left)
        }
        Err(Failed { code, status, why }) => {
            connection.shared.counters.requests_error.add();
            let mut response = local(code, format!("{why}\r\n"), kind);
            if let Some(status) = status {
                response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
            }
            session.told(judged.as_ref(), response, why)
        }
    })
}

/// Why there is no answer of the server.
struct Failed {
    code: StatusCode,
    /// What a client of gRPC is told, if it is not what it is told of such a code.
    status: Option<&'static str>,
    why: &'static str,
}

impl Failed {
    fn of(code: StatusCode, why: &'static str) -> Failed {
        Failed { code, status: None, why }
    }

    fn late(deadline: Option<Instant>) -> Failed {
        let exceeded = deadline.is_some_and(|deadline| deadline <= Instant::now());
        let status = exceeded.then_some(deadline::EXCEEDED);
        Failed { status, ..Failed::of(StatusCode::GATEWAY_TIMEOUT, "the server did not answer in time") }
    }
}

impl Session {
    /// An answer of our own, recorded.
    fn told(&self, judged: Option<&Judged>, response: Response<Body>, why: &str) -> Response<Body> {
        if let Some(judged) = judged {
            self.connection.record_answer(judged, response.status().as_u16(), None, why);
        }
        response
    }

    async fn forward(&self, request: Request<Incoming>, client: Client) -> Result<Response<Watched>, Failed> {
        let timeouts = self.connection.shared.settings.load().timeouts;
        let (moved, idle) = (Moved::now(), millis(timeouts.stream_idle));
        let mut request = request;
        let lasts = if client.grpc { deadline::of(request.headers_mut(), timeouts.grpc_most) } else { None };
        let deadline = lasts.map(|lasts| Instant::now() + lasts);
        // As in Cilium, calls of gRPC have no other time for their answer than their own.
        let patience = Instant::now() + millis(if client.grpc { 0 } else { timeouts.request });
        let until = deadline.map_or(patience, |deadline| deadline.min(patience));
        let mut request = request.map(|body| Watched::request(body, Arc::clone(&moved)));
        *request.version_mut() = Version::HTTP_2;
        let mut again = true;
        loop {
            let server = tokio::select! {
                server = self.server() => server,
                () = moved.late(idle, until) => return Err(Failed::late(deadline)),
            };
            let unreachable = Failed::of(StatusCode::SERVICE_UNAVAILABLE, "the server cannot be reached");
            let mut server = server.ok_or(unreachable)?;
            let sent = tokio::select! {
                sent = server.try_send_request(request) => sent,
                () = moved.late(idle, until) => return Err(Failed::late(deadline)),
            };
            match sent {
                Ok(response) => return Ok(response.map(|body| Watched::answer(body, moved, idle, deadline))),
                // The connection ended before this request was sent on it: another one is as good.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if std::mem::take(&mut again) => request = unsent,
                    _ => return Err(Failed::of(StatusCode::BAD_GATEWAY, "the server ended without an answer")),
                },
            }
        }
    }

    /// The connection to the server; a new one if the last has ended. Streams that wait for the same attempt share its end.
    async fn server(&self) -> Option<SendRequest<Watched>> {
        let asked = Instant::now();
        let mut upstream = self.upstream.lock().await;
        let settings = self.connection.shared.settings.load_full();
        if let Some(known) = upstream.server.as_mut().filter(|known| !known.over && !known.sender.is_closed()) {
            return Some(known.take(&settings));
        }
        if upstream.failed.is_some_and(|failed| failed >= asked) {
            return None;
        }
        let Some(sender) = self.begin(upstream.ready.take(), &settings).await else {
            upstream.failed = Some(Instant::now());
            return None;
        };
        Some(upstream.server.insert(Server { sender, used: Used::default(), over: false }).take(&settings))
    }

    /// Begins HTTP/2 with the server.
    async fn begin(&self, ready: Option<Wire>, settings: &Settings) -> Option<SendRequest<Watched>> {
        let wire = match ready {
            Some(wire) => wire,
            None => self.connect().await.ok()?,
        };
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(WINDOW as usize)
            .max_header_list_size(settings.limits.head_bytes);
        let (sender, running) = builder.handshake(TokioIo::new(wire)).await.ok()?;
        tokio::spawn(async move {
            // Streams are told themselves.
            let _ = running.await;
        });
        Some(sender)
    }
}

impl Session {
    /// Connects, by TLS if the rules say so.
    async fn connect(&self) -> std::io::Result<Wire> {
        let connection = &self.connection;
        let Ok((_, rules)) = connection.now() else { return Err(std::io::ErrorKind::PermissionDenied.into()) };
        let stream = connection.connect().await?;
        match &rules.originate {
            Some(connector) => crate::tls::originate(connection, connector, stream, None, vec![b"h2".to_vec()]).await,
            None => Ok(Wire::Tcp(stream)),
        }
    }
}

/// Whom a request is for; all that says so says the same.
fn authority(request: &Request<Incoming>) -> Result<String, &'static str> {
    let uri = request.uri();
    if request.method() == Method::CONNECT {
        return Err("CONNECT is not supported on HTTP/2");
    }
    if !(uri.path().starts_with('/') || (uri.path() == "*" && request.method() == Method::OPTIONS)) {
        return Err("malformed request target");
    }
    let named = uri.authority().map(http::uri::Authority::as_str);
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    let contradicts = host.is_some_and(|host| named.is_some_and(|named| named.as_bytes() != host));
    if hosts.next().is_some() || contradicts {
        return Err("contradicting hosts");
    }
    let authority = match (named, host) {
        (Some(named), _) => named,
        (None, Some(host)) => std::str::from_utf8(host).map_err(|_| "malformed host")?,
        (None, None) => "",
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte);
    if authority.bytes().all(allowed) { Ok(authority.to_owned()) } else { Err("malformed host") }
}

/// How a client understands answers.
#[derive(Clone, Copy)]
struct Client {
    /// It reads the status of gRPC.
    grpc: bool,
    /// It asked for a head.
    head: bool,
}

/// An answer of our own, as clients of HTTP or of gRPC understand it.
fn local(code: StatusCode, body: String, client: Client) -> Response<Body> {
    let kind = if client.grpc { "application/grpc" } else { "text/plain" };
    let (code, body, status) = match client.grpc {
        true => (StatusCode::OK, String::new(), Some((grpc_status(code.as_u16()), grpc_message(&body)))),
        false => (code, body, None),
    };
    let length = body.len();
    let body = if client.head { Full::default() } else { Full::from(body) };
    let mut response = Response::new(Either::Right(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    if client.head {
        // Else it is the body that says so.
        headers.insert(CONTENT_LENGTH, length.into());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some((status, message)) = status {
        headers.insert("grpc-status", HeaderValue::from_static(status));
        if let Ok(message) = HeaderValue::from_str(&message) {
            headers.insert("grpc-message", message);
        }
    }
    response
}
