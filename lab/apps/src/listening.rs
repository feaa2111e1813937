//! How do the programs serve ports?

use crate::Error;
use futures::future::{BoxFuture, try_join_all};
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::future::Future;
use std::io;
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
