//! Who asks the observer? Clients of its gRPC services, over TCP and a Unix socket.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
};

use flow::{
    filter::Filters,
    mask::Mask,
    proto::{
        self,
        observer::{
            GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
            GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest,
            GetNodesResponse, ServerStatusRequest, ServerStatusResponse,
        },
        peer::{ChangeNotification, NotifyRequest},
    },
    wkt::Timestamp,
};
use futures::{StreamExt, future::try_join_all, stream::BoxStream};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    query::Query,
    ring::Entry,
    rpc::{
        observer::observer_server::{Observer, ObserverServer},
        peer::peer_server::{Peer, PeerServer},
    },
    store::Hubble,
    stream::{self, Answers},
};

/// The name under which clients ask for the observer's health.
pub const HEALTH_SERVICE: &str = "hubble.server.Observer";

/// Why serving did not begin or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A TCP address cannot be listened on.
    #[error("listen on TCP {address}: {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A Unix socket cannot be listened on.
    #[error("listen on Unix socket {}: {source}", path.display())]
    Unix {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reflection cannot be built of our own descriptors.
    #[error("reflection: {0}")]
    Reflection(String),
    /// The server failed.
    #[error("serve gRPC: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Sockets to serve.
#[derive(Debug, Default)]
pub struct Listeners {
    /// TCP sockets.
    pub tcp: Vec<TcpListener>,
    /// Unix sockets.
    pub unix: Vec<UnixListener>,
}

impl Listeners {
    /// No socket.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on a TCP address as well.
    pub async fn with_tcp(mut self, address: SocketAddr) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Tcp { address, source })?;
        self.tcp.push(listener);
        Ok(self)
    }

    /// Listens on a Unix socket as well, for the owner and the group. A socket that nobody serves any more is replaced.
    pub fn with_unix(mut self, path: impl AsRef<Path>) -> Result<Self, ServeError> {
        let path = path.as_ref();
        self.unix.push(bind_unix(path).map_err(|source| ServeError::Unix { path: path.to_owned(), source })?);
        Ok(self)
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if fs::symlink_metadata(path).is_ok() {
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it"));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

impl Hubble {
    /// Serves observer, peer, health and reflection until stopped.
    pub async fn serve(&self, listeners: Listeners, stop: CancellationToken) -> Result<(), ServeError> {
        let routes = Routes::new(ObserverServer::new(self.clone())).add_service(PeerServer::new(self.clone()));
        let (routes, _health) = with_health(routes).await?;
        serve_routes(routes, listeners, stop).await
    }
}

/// Adds the health service (serving) and reflection.
pub async fn with_health(routes: Routes) -> Result<(Routes, HealthReporter), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in ["", HEALTH_SERVICE, "observer.Observer", "peer.Peer"] {
        reporter.set_service_status(service, ServingStatus::Serving).await;
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = reflection().build_v1().map_err(|error| ServeError::Reflection(error.to_string()))?;
    let v1alpha = reflection().build_v1alpha().map_err(|error| ServeError::Reflection(error.to_string()))?;
    Ok((routes.add_service(health).add_service(v1).add_service(v1alpha), reporter))
}

/// Serves on all sockets until stopped; if one fails, all end.
pub async fn serve_routes(routes: Routes, listeners: Listeners, stop: CancellationToken) -> Result<(), ServeError> {
    let tcp = listeners.tcp.into_iter().map(|listener| {
        let (routes, stop) = (routes.clone(), stop.clone());
        let serving = async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await
        };
        serving.boxed_serving()
    });
    let unix = listeners.unix.into_iter().map(|listener| {
        let (routes, stop) = (routes.clone(), stop.clone());
        let serving = async move {
            let incoming = UnixListenerStream::new(listener);
            Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await
        };
        serving.boxed_serving()
    });
    try_join_all(tcp.chain(unix)).await?;
    Ok(())
}

trait Boxed: Future<Output = Result<(), tonic::transport::Error>> + Send + Sized + 'static {
    fn boxed_serving(self) -> std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>> {
        Box::pin(self)
    }
}

impl<F: Future<Output = Result<(), tonic::transport::Error>> + Send + 'static> Boxed for F {}

#[tonic::async_trait]
impl Observer for Hubble {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        let query = Query::try_from(&request)?;
        let invalid = |error: &dyn std::error::Error| Status::invalid_argument(error.to_string());
        let filters = Filters::new(&request.whitelist, &request.blacklist).map_err(|error| invalid(&error))?;
        let paths = request.field_mask.map(|mask| mask.paths).unwrap_or_default();
        let mask = Mask::new(&paths).map_err(|error| invalid(&error))?;
        Ok(Response::new(stream::flows(self.inner.clone(), query, filters, mask)))
    }

    async fn get_agent_events(
        &self,
        request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        let query = Query::try_from(request.get_ref())?;
        let answers = stream::events(self.inner.clone(), query, |inner, entry| match entry {
            Entry::Agent(time, event) => Some(GetAgentEventsResponse {
                agent_event: Some((**event).clone()),
                node_name: inner.directory.node().full_name(),
                time: Some(Timestamp::from_nanos(*time)),
            }),
            _ => None,
        });
        Ok(Response::new(answers))
    }

    async fn get_debug_events(
        &self,
        request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        let query = Query::try_from(request.get_ref())?;
        let answers = stream::events(self.inner.clone(), query, |inner, entry| match entry {
            Entry::Debug(time, event) => Some(GetDebugEventsResponse {
                debug_event: Some((**event).clone()),
                node_name: inner.directory.node().full_name(),
                time: Some(Timestamp::from_nanos(*time)),
            }),
            _ => None,
        });
        Ok(Response::new(answers))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Err(Status::unimplemented("GetNodes not implemented: ask relay, an agent knows of its own node only"))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        Ok(Response::new(GetNamespacesResponse { namespaces: self.namespaces() }))
    }

    async fn server_status(&self, _: Request<ServerStatusRequest>) -> Result<Response<ServerStatusResponse>, Status> {
        Ok(Response::new(self.status()))
    }
}

#[tonic::async_trait]
impl Peer for Hubble {
    type NotifyStream = BoxStream<'static, Result<ChangeNotification, Status>>;

    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        Ok(Response::new(self.peers().follow().map(Ok).boxed()))
    }
}
