//! Lab's kubelet: pods as processes in namespaces of their own, their network by CNI.

pub mod backoff;
pub mod catalogue;
pub mod cgroup;
pub mod cni;
pub mod container;
pub mod environment;
pub mod events;
pub mod files;
pub mod init;
pub mod logs;
pub mod mounts;
pub mod namespaces;
pub mod node;
pub mod plan;
pub mod pod;
pub mod probe;
pub mod prober;
pub mod process;
pub mod root;
pub mod server;
pub mod spawner;
pub mod status;
pub mod streams;
pub mod volumes;

mod kubelet;
pub use kubelet::{Settings, run};

/// What the kubelet can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or file operation.
    #[error("{what}: {source}")]
    System {
        /// What was being done, and with what.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The API server refused or could not be reached.
    #[error("API server: {0}")]
    Api(#[from] Box<kube::Error>),
    /// What was asked for cannot be done as written.
    #[error("{0}")]
    Invalid(String),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Error {
        Error::Api(Box::new(error))
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Names what was being done when an I/O error came.
pub trait While<T> {
    /// `what` is put before the reason.
    fn while_doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> While<T> for std::io::Result<T> {
    fn while_doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::System { what: what(), source })
    }
}

impl<T> While<T> for nix::Result<T> {
    fn while_doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::System { what: what(), source: e.into() })
    }
}
