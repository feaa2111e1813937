//! Why do agent and proxy not understand each other?

use std::path::PathBuf;

/// What went wrong between agent and proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("listen on {path}: {source}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody listens there.
    #[error("connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    /// The other side is none that may speak here.
    #[error("the other side runs as user {found}, expected {expected:?}")]
    Stranger {
        /// Its user.
        found: u32,
        /// Who may.
        expected: Vec<u32>,
    },
    /// No hello came in time.
    #[error("no hello within {0} seconds")]
    Silent(u64),
    /// Something came before the hello, or the connection ended.
    #[error("expected a hello, found {0}")]
    NoHello(&'static str),
    /// The other side is of another build.
    #[error("the other side speaks version {found}, expected {expected}")]
    Version {
        /// Its version.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A frame does not hold a message. What it held is not told: it may hold secrets.
    #[error("a frame of {length} bytes holds no message: {reason}")]
    Garbage {
        /// Its length.
        length: usize,
        /// The category and place of the fault.
        reason: String,
    },
    /// A message does not fit a frame.
    #[error("{what} takes {length} bytes, more than a frame's {limit}")]
    TooLong {
        /// Which.
        what: String,
        /// Its length.
        length: usize,
        /// The most.
        limit: usize,
    },
}
