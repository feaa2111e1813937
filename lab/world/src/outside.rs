//! Who answers at the addresses that are not the cluster's?

use crate::config::{Addresses, Config, Kind, Server};
use crate::datagram::Datagrams;
use crate::http::{self, Body, Ends, accept, connection, text};
use crate::message::{self, Request, Transport};
use crate::name_server::{self, NameServer};
use crate::sockets::{listen, listen_everywhere};
use crate::zone::{Problem, Zone};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hyper::body::Incoming;
use hyper::{Request as HttpRequest, Response, StatusCode, header};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tracing::{info, warn};

/// How long a connection to an echo or banner server may be silent.
const IDLE: Duration = Duration::from_secs(300);
const NAME_SERVICE: u16 = 53;
/// The largest datagram.
const DATAGRAM: usize = 65_535;

/// Why the outside cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wrong zone.
    #[error(transparent)]
    Zone(#[from] Problem),
    /// No listening at this address.
    #[error("listen at {address} port {port}: {error}")]
    Listen {
        /// `any` or an address.
        address: String,
        /// Which port.
        port: u16,
        /// Why not.
        error: io::Error,
    },
    /// A listener ended.
    #[error("a listener ended: {0}")]
    Ended(io::Error),
}

type Task = BoxFuture<'static, io::Result<()>>;

/// Serves the outside for ever, in the network namespace that it is called in.
pub async fn run(config: Config) -> Result<(), Error> {
    let mut tasks: Vec<Task> = names(&config)?;
    tasks.extend(servers(&config.servers)?);
    info!(names = config.zone.len(), servers = config.servers.len(), "the outside answers");
    let mut running: FuturesUnordered<Task> = tasks.into_iter().collect();
    match running.next().await {
        Some(Err(error)) => Err(Error::Ended(error)),
        Some(Ok(())) | None => std::future::pending().await,
    }
}

/// The zone as a name server.
struct Names(Zone);

impl NameServer for Names {
    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match message::read(bytes, transport) {
            Request::Question(question) => Some(question.answer(self.0.reply(&question.query))),
            Request::Refused(answer) => Some(answer),
            Request::Ignored => None,
        }
    }
}

fn names(config: &Config) -> Result<Vec<Task>, Error> {
    let server = Arc::new(Names(config.names()?));
    let mut tasks: Vec<Task> = Vec::new();
    let (datagrams, listeners) = match &config.dns {
        Addresses::Any => (
            Datagrams::bind_everywhere(NAME_SERVICE).map_err(|e| failed("any", NAME_SERVICE, e))?,
            vec![listen_everywhere(NAME_SERVICE).map_err(|e| failed("any", NAME_SERVICE, e))?],
        ),
        Addresses::These(these) => (each(these, NAME_SERVICE, Datagrams::bind)?, each(these, NAME_SERVICE, listen)?),
    };
    for socket in datagrams {
        tasks.push(Box::pin(name_server::datagrams(socket, server.clone())));
    }
    for listener in listeners {
        tasks.push(Box::pin(name_server::streams(listener, server.clone())));
    }
    Ok(tasks)
}

/// Sockets at the addresses that can be had: without IPv6 those of IPv4 do. None at all is an error.
fn each<T>(these: &[IpAddr], port: u16, bind: impl Fn(SocketAddr) -> io::Result<T>) -> Result<Vec<T>, Error> {
    let mut bound = Vec::new();
    let mut last = None;
    for address in these {
        match bind((*address, port).into()) {
            Ok(socket) => bound.push(socket),
            Err(error) => {
                warn!(%address, port, %error, "not listening");
                last = Some(failed(&address.to_string(), port, error));
            }
        }
    }
    match last {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

fn servers(all: &[Server]) -> Result<Vec<Task>, Error> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut by_port: BTreeMap<u16, Vec<Server>> = BTreeMap::new();
    for server in all {
        if server.kind == Kind::UdpEcho {
            let sockets = match &server.address {
                Addresses::Any => Datagrams::bind_everywhere(server.port).map_err(|e| failed("any", server.port, e))?,
                Addresses::These(these) => each(these, server.port, Datagrams::bind)?,
            };
            tasks.extend(sockets.into_iter().map(|s| Box::pin(send_back(s)) as Task));
        } else {
            by_port.entry(server.port).or_default().push(server.clone());
        }
    }
    for (port, servers) in by_port {
        let servers: Arc<[Server]> = servers.into();
        for listener in listeners(port, &servers)? {
            tasks.push(Box::pin(at_port(listener, servers.clone())));
        }
    }
    Ok(tasks)
}

/// One listener for all addresses if a server is for any, else one for each address that is named.
fn listeners(port: u16, servers: &[Server]) -> Result<Vec<TcpListener>, Error> {
    let mut named = Vec::new();
    for server in servers {
        match &server.address {
            Addresses::Any => return Ok(vec![listen_everywhere(port).map_err(|e| failed("any", port, e))?]),
            Addresses::These(these) => named.extend(these.iter().copied()),
        }
    }
    named.sort_unstable();
    named.dedup();
    each(&named, port, listen)
}

fn failed(address: &str, port: u16, error: io::Error) -> Error {
    Error::Listen { address: address.to_string(), port, error }
}

async fn at_port(listener: TcpListener, servers: Arc<[Server]>) -> io::Result<()> {
    loop {
        let stream = accept(&listener).await;
        let Ok(ends) = Ends::of(&stream) else { continue };
        let Some(server) = server_for(&servers, ends.local.ip()) else { continue };
        tokio::spawn(attend(stream, server.clone()));
    }
}

/// Who serves `address`: a server that names it, else one for any.
fn server_for(servers: &[Server], address: IpAddr) -> Option<&Server> {
    let named = servers.iter().find(|s| s.address.names(address));
    named.or_else(|| servers.iter().find(|s| s.address == Addresses::Any))
}

async fn attend(stream: TcpStream, server: Server) {
    let body: Arc<str> = server.body.unwrap_or_default().into();
    match server.kind {
        Kind::Http => connection(stream, move |request, ends| page(request, ends, body.clone())).await,
        Kind::TcpEcho => drop(echo(stream).await),
        Kind::Banner => drop(banner(stream, &body).await),
        Kind::UdpEcho => {}
    }
}

async fn page(request: HttpRequest<Incoming>, ends: Ends, body: Arc<str>) -> Response<Body> {
    if !body.is_empty() {
        return text(StatusCode::OK, body.to_string());
    }
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    let host = host.or(request.uri().host()).unwrap_or_default();
    text(StatusCode::OK, said(host, request.method().as_str(), request.uri().path(), ends))
}

/// What a web server outside says that has no text of its own.
fn said(host: &str, method: &str, path: &str, ends: Ends) -> String {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if name.eq_ignore_ascii_case("ifconfig.me") {
        return format!("{}\n", ends.peer.ip());
    }
    format!("{method} {path} at {host} ({}), asked by {}\n", ends.local.ip(), ends.peer.ip())
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = timeout(IDLE, stream.read(&mut buffer)).await??;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..n]).await?;
    }
}

async fn banner(mut stream: TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    let mut buffer = vec![0; 1024];
    while timeout(IDLE, stream.read(&mut buffer)).await?? > 0 {}
    Ok(())
}

/// Sends every datagram back for ever.
pub async fn send_back(socket: Datagrams) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok((n, exchange)) = socket.receive(&mut buffer).await else { continue };
        let _ = socket.answer(&buffer[..n], exchange).await;
    }
}

/// Serves one HTTP answer at a listener; for programs whose health is asked.
pub(crate) async fn constant(
    listener: TcpListener,
    answer: impl Fn() -> (StatusCode, &'static str) + Clone + Send + 'static,
) -> io::Result<()> {
    http::serve(listener, move |_, _| {
        let (status, body) = answer();
        async move { text(status, body) }
    })
    .await
}

#[cfg(test)]
mod tests;
