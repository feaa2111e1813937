//! Whose is a connection that was redirected to the proxy?

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// Whose policy redirected: that of the receiver or of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Policy of the endpoint that receives.
    Ingress,
    /// Policy of the endpoint that sends.
    Egress,
}

/// What the datapath decided of a redirected connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The endpoint whose policy redirected it.
    pub endpoint: u32,
    /// Which of its two policies.
    pub direction: Direction,
    /// Security identity of the client.
    pub source_identity: u32,
    /// Security identity of the server.
    pub destination_identity: u32,
    /// The rules that decide about what is said on it.
    pub rule_set: u32,
    /// Revision of the policy by which it was redirected.
    pub revision: u64,
}

/// Who knows what the datapath decided, and tells it who speaks for whom.
///
/// The proxy asks when it accepts a connection, and again before each request: what is answered then holds for that
/// request, so that a change of policy reaches running connections. `None` refuses.
pub trait Redirected: Send + Sync + 'static {
    /// What was decided of the connection from `peer` (the client) to `local` (the address that it meant).
    fn facts(&self, protocol: Protocol, peer: SocketAddr, local: SocketAddr) -> Option<Facts>;

    /// Tells that this socket, bound to the client's address and not yet connected, will speak to the server in the name
    /// of the client of a connection with these facts; and marks it so.
    fn speak_for(&self, socket: BorrowedFd<'_>, facts: &Facts) -> std::io::Result<()>;

    /// The agent has come back: it may have made anew what is asked here.
    fn renew(&self) -> std::io::Result<()> {
        Ok(())
    }
}
