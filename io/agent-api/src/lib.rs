//! What may one ask the agent on its unix socket, and what does it answer?
//!
//! The paths and the JSON follow Cilium's agent API (version 1), as far as an answer exists.

pub mod client;
mod fqdn;
mod hits;
pub mod model;
pub mod queue;
pub mod server;

pub use client::{Client, ClientError};
pub use fqdn::{CacheQuery, DnsLookup, NameManager, NameReason, NameSelector};
pub use hits::{RuleName, RuleSetHits};
pub use model::*;
pub use server::{Agent, ApiError, serve};

/// Where the agent listens, if nothing else is said.
pub const DEFAULT_SOCKET: &str = "/var/run/cilium/cilium.sock";

/// The environment variable that names another socket.
pub const SOCKET_VARIABLE: &str = "CILIUM_SOCK";

/// The socket to ask: that of the environment, or the usual one.
pub fn socket_path() -> std::path::PathBuf {
    std::env::var_os(SOCKET_VARIABLE).map_or_else(|| DEFAULT_SOCKET.into(), Into::into)
}
