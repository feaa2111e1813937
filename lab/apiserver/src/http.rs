//! How do connections become requests, and results become responses?

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, WARNING};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::auth::{self, User};
use crate::status::Status;
use crate::{Config, Error, Handle, discovery, gc, lifecycle, openapi, rbac, request, verbs};

/// A response's body: whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The largest request body, as in a usual cluster.
const LARGEST: usize = 3 * 1024 * 1024;

/// A body that is known as a whole.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A response with one content type.
pub fn respond(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(bytes));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
pub fn json(code: u16, value: &Value) -> Response<Body> {
    respond(code, "application/json", value.to_string())
}

pub fn failure(status: &Status) -> Response<Body> {
    json(status.code, &status.to_json())
}

/// Adds `Warning` headers, which clients print.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// Reads a request's body.
///
/// # Errors
/// If it is too large or ends early.
pub async fn body(request: Request<Incoming>) -> Result<Bytes, Status> {
    match Limited::new(request.into_body(), LARGEST).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Status::too_large(LARGEST)),
        Err(error) => Err(Status::bad_request(format!("the request's body could not be read: {error}"))),
    }
}

fn tls(config: &Config) -> Result<TlsAcceptor, Error> {
    let fault = |error: &dyn std::fmt::Display| Error::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(config.authority.identity.certificate.as_bytes())
        .map_err(|error| fault(&error))?;
    roots.add(authority).map_err(|error| fault(&error))?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| fault(&error))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(config.identity.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| fault(&error))?;
    let key = PrivateKeyDer::from_pem_slice(config.identity.key.as_bytes()).map_err(|error| fault(&error))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|error| fault(&error))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Opens the store, listens, and runs what the server does by itself.
///
/// # Errors
/// If the store, the certificates or a listener is unusable.
pub async fn start(mut config: Config) -> Result<Handle, Error> {
    let acceptor = tls(&config)?;
    let api = Api::open(&config).await?;
    let tasks = TaskTracker::new();
    let mut addresses = Vec::new();
    for listener in std::mem::take(&mut config.listeners) {
        listener.set_nonblocking(true)?;
        addresses.push(listener.local_addr()?);
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tasks.spawn(accept(listener, acceptor.clone(), api.clone(), tasks.clone()));
    }
    tasks.spawn(gc::run(api.clone()));
    tasks.spawn(lifecycle::run(api.clone()));
    Ok(Handle { addresses, stop: api.stop.clone(), tasks, api })
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, api: Arc<Api>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = api.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                tasks.spawn(connection(stream, acceptor.clone(), api.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "apiserver: accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, acceptor: TlsAcceptor, api: Arc<Api>) {
    let handshake = tokio::time::timeout(std::time::Duration::from_secs(10), acceptor.accept(stream)).await;
    let Ok(Ok(stream)) = handshake else { return };
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|one| auth::from_certificate(one));
    let peer = Arc::new(peer);
    let shared = api.clone();
    let service = hyper::service::service_fn(move |request| {
        let (api, peer) = (shared.clone(), peer.clone());
        async move { Ok::<_, Infallible>(handle(api, (*peer).clone(), request).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1000);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = api.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn handle(api: Arc<Api>, peer: Option<User>, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = route(api, peer, request).await.unwrap_or_else(|status| failure(&status));
    tracing::debug!(%method, path, code = response.status().as_u16(), "request");
    response
}

async fn route(api: Arc<Api>, peer: Option<User>, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let path = request.uri().path().to_owned();
    let first = path.split('/').nth(1).unwrap_or_default();
    match first {
        "healthz" | "livez" | "readyz" => return Ok(respond(200, "text/plain; charset=utf-8", "ok")),
        "version" => return Ok(json(200, &discovery::version(&api.version))),
        _ => {}
    }
    let user = auth::authenticate(&api, peer.as_ref(), request.headers())?;
    let target = request::target(&path).filter(|target| !target.resource.is_empty());
    if let Some(target) = target {
        return verbs::serve(api, user, target, request).await;
    }
    let action = rbac::Action { verb: "get", path: &path, ..rbac::Action::default() };
    if !rbac::allows(&api.store, &user, &action) {
        return Err(Status::forbidden("", "", "", &format!("User {:?} cannot get path {path:?}", user.name)));
    }
    let accept = request.headers().get(hyper::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match first {
        "api" | "apis" => discovery::serve(&api, &path, accept),
        "openapi" => openapi::serve(&api, &path, accept),
        _ => Err(Status::no_such_path()),
    }
}
