//! The part of the Kubernetes API that lab serves: which settings does it take, and how is it started and stopped?
//!
//! `serve` listens on the given sockets, keeps every object in one embedded store and answers what stock `kubectl` and
//! client libraries ask. Everything about a node's pods (logs, exec, port-forward) is passed to that node's kubelet.

mod api;
mod apply;
mod auth;
mod conversion;
mod crd;
mod defaults;
mod discovery;
mod fields;
mod gc;
mod http;
mod kinds;
mod lifecycle;
mod meta;
mod openapi;
mod patch;
pub mod pki;
mod proxy;
mod rbac;
mod registry;
mod render;
mod request;
mod schema;
mod selector;
mod services;
mod status;
mod store;
mod table;
mod token;
mod validation;
mod verbs;
mod watch;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

pub use status::Status;

/// What the server is started with.
pub struct Config {
    /// Sockets that are already bound; each connection is TLS, HTTP/1.1 or HTTP/2 by ALPN.
    pub listeners: Vec<std::net::TcpListener>,
    /// Who signed client certificates, and who signs service accounts' tokens.
    pub authority: pki::Authority,
    /// The server's own certificate and key.
    pub identity: pki::Identity,
    /// Bearer tokens beside those of service accounts.
    pub tokens: Vec<StaticToken>,
    /// The store's file; created if missing.
    pub store: PathBuf,
    /// Where services' addresses are taken from: one range per IP family, the first is the default family.
    pub service_cidrs: Vec<IpNet>,
    /// Ports for services of type NodePort (30000-32767 in a usual cluster).
    pub node_ports: RangeInclusive<u16>,
    /// Endpoints of the service `default/kubernetes`: how pods reach this server.
    pub advertise: Vec<SocketAddr>,
    /// What `/version` says, for example `v1.34.0`.
    pub version: String,
    /// Where each node's kubelet listens.
    pub kubelets: Arc<dyn KubeletResolver>,
}

/// A bearer token and whom it stands for.
#[derive(Clone, Debug)]
pub struct StaticToken {
    /// The token itself.
    pub token: String,
    /// User name.
    pub user: String,
    /// Groups; `system:masters` may do everything.
    pub groups: Vec<String>,
}

/// Where a kubelet listens for `/containerLogs`, `/exec`, `/attach` and `/portForward` (plain HTTP/1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletAddress {
    /// A socket in the file system.
    Unix(PathBuf),
    /// An address that the server can connect to.
    Tcp(SocketAddr),
}

/// Finds a node's kubelet by the node's name.
pub trait KubeletResolver: Send + Sync {
    /// None if no such node is known.
    fn kubelet(&self, node: &str) -> Option<KubeletAddress>;
}

impl<F: Fn(&str) -> Option<KubeletAddress> + Send + Sync> KubeletResolver for F {
    fn kubelet(&self, node: &str) -> Option<KubeletAddress> {
        self(node)
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be opened or read.
    #[error("store {path}: {reason}")]
    Store { path: PathBuf, reason: String },
    /// A certificate, key or TLS setting is wrong.
    #[error("tls: {0}")]
    Tls(String),
    /// A socket is not usable.
    #[error("listener: {0}")]
    Listener(#[from] std::io::Error),
    /// A setting contradicts another one.
    #[error("setting {name}: {reason}")]
    Setting { name: &'static str, reason: String },
}

/// A running server.
pub struct Handle {
    addresses: Vec<SocketAddr>,
    stop: tokio_util::sync::CancellationToken,
    tasks: tokio_util::task::TaskTracker,
    api: Arc<api::Api>,
}

impl Handle {
    /// The addresses that it listens on, in the order of `Config::listeners`.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The newest resource version.
    #[must_use]
    pub fn resource_version(&self) -> u64 {
        self.api.store.resource_version()
    }

    /// A token for a service account, as a pod gets it; valid for `seconds`.
    ///
    /// # Errors
    /// If the service account does not exist.
    pub fn service_account_token(&self, namespace: &str, name: &str, seconds: u64) -> Result<String, Status> {
        token::for_service_account(&self.api, namespace, name, &[], seconds, None).map(|(token, _)| token)
    }

    /// Stops accepting, ends watches, waits for running requests (bounded) and closes the store.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(std::time::Duration::from_secs(3), self.tasks.wait()).await;
        self.api.store.close();
    }
}

/// Starts the server. It runs until `Handle::shutdown`.
///
/// # Errors
/// If the store, the certificates or a listener is unusable.
pub async fn serve(config: Config) -> Result<Handle, Error> {
    http::start(config).await
}
