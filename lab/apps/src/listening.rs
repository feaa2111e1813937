//! How do the programs serve ports?

use crate::Error;
use futures::future::{BoxFuture, try_join_all};
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::future::Future;
use std::io;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::info;
use world::datagram::Datagrams;
use world::http::{self, Body, Ends};
use world::sockets::listen_everywhere;

/// Something that goes on for ever.
pub type Task = BoxFuture<'static, io::Result<()>>;

/// Serves HTTP at a port of all addresses, beginning when it is polled; the port is taken at once.
pub fn http<H, F>(port: u16, handler: H) -> Result<Task, Error>
where
    H: Fn(Request<Incoming>, Ends) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = listen_everywhere(port).map_err(|error| Error::Listen { port, error })?;
    info!(port, "listening");
    Ok(Box::pin(http::serve(listener, handler)))
}

/// Serves gRPC at a port of all addresses, as [`http`] does.
pub fn grpc(port: u16, services: Routes) -> Result<Task, Error> {
    let listener = listen_everywhere(port).map_err(|error| Error::Listen { port, error })?;
    info!(port, "listening");
    Ok(Box::pin(grpc_at(listener, services)))
}

/// The same at a listener.
pub async fn grpc_at(listener: TcpListener, services: Routes) -> io::Result<()> {
    let incoming = TcpListenerStream::new(listener);
    Server::builder().add_routes(services).serve_with_incoming(incoming).await.map_err(io::Error::other)
}

/// Sends datagrams at a port of all addresses back.
pub fn udp_echo(port: u16) -> Result<Vec<Task>, Error> {
    let sockets = Datagrams::bind_everywhere(port).map_err(|error| Error::Listen { port, error })?;
    Ok(sockets.into_iter().map(|s| Box::pin(world::outside::send_back(s)) as Task).collect())
}

/// Goes on until one of them fails.
pub async fn all(tasks: Vec<Task>) -> Result<(), Error> {
    try_join_all(tasks).await?;
    std::future::pending().await
}

/// The pod's own name.
pub fn own_name() -> String {
    nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}
