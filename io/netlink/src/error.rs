//! What failed, on which device, and what did the kernel say?

use std::io;

/// A refused or impossible operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a netlink request.
    #[error("{operation}: {source}")]
    Kernel {
        /// What was asked, with the device's name.
        operation: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The netlink connection failed, or the answer was not understood.
    #[error("{operation}: {reason}")]
    Protocol {
        /// What was asked, with the device's name.
        operation: String,
        /// What came instead of an answer.
        reason: String,
    },
    /// There is no such device.
    #[error("no network device {0:?}")]
    NoDevice(String),
}

impl Error {
    pub(crate) fn io(operation: impl Into<String>, source: io::Error) -> Self {
        Error::Kernel { operation: operation.into(), source }
    }

    pub(crate) fn errno(operation: impl Into<String>, source: nix::errno::Errno) -> Self {
        Error::io(operation, source.into())
    }

    /// For `map_err` on a netlink request: names the operation.
    pub(crate) fn during(operation: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
        move |error| match error {
            rtnetlink::Error::NetlinkError(message) => Error::io(operation, message.to_io()),
            other => Error::Protocol { operation: operation.into(), reason: other.to_string() },
        }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Kernel { source, .. } => source.raw_os_error(),
            Error::NoDevice(_) => Some(libc::ENODEV),
            Error::Protocol { .. } => None,
        }
    }

    /// The thing exists already.
    pub fn is_exists(&self) -> bool {
        self.raw_os_error() == Some(libc::EEXIST)
    }

    /// The thing does not exist (any more).
    pub fn is_missing(&self) -> bool {
        matches!(
            self.raw_os_error(),
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
        )
    }
}

/// "It is there already" counts as success.
pub(crate) fn ignore_exists(result: crate::Result<()>) -> crate::Result<()> {
    match result {
        Err(e) if e.is_exists() => Ok(()),
        other => other,
    }
}

/// "It is gone already" counts as success.
pub(crate) fn ignore_missing(result: crate::Result<()>) -> crate::Result<()> {
    match result {
        Err(e) if e.is_missing() => Ok(()),
        other => other,
    }
}
