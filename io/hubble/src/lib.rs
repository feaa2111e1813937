//! Hubble's gRPC: observer, peer, and their clients.
#![forbid(unsafe_code)]

pub mod client;
pub mod peers;
mod query;
pub mod ring;
pub mod server;
mod store;
mod stream;

pub use peers::{PeerAddress, Peers};
pub use ring::Capacity;
pub use server::{Listeners, ServeError};
pub use store::{Config, Hubble, read_clock};

/// Generated servers and clients.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod rpc {
    /// Package `observer`.
    pub mod observer {
        include!(concat!(env!("OUT_DIR"), "/observer.rs"));
    }
    /// Package `peer`.
    pub mod peer {
        include!(concat!(env!("OUT_DIR"), "/peer.rs"));
    }
}
