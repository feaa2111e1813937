//! What went wrong, and what can the user do about it?

use std::{io, path::PathBuf};

use flow::{filter::FilterError, mask::MaskError, print::JsonError, time::InvalidTime};
use hubble::client::{ConnectError, InvalidAddress};

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such command.
    #[error("unknown command \"{name}\" for \"{of}\": see {of} --help")]
    Command {
        /// What was typed.
        name: String,
        /// After what.
        of: String,
    },
    /// No such flag.
    #[error("unknown flag: {flag}: see {path} --help")]
    Flag {
        /// What was typed.
        flag: String,
        /// Of which command.
        path: String,
    },
    /// A flag without its value.
    #[error("flag needs an argument: {0}")]
    NoValue(String),
    /// A value that a flag cannot take.
    #[error("invalid argument \"{value}\" for \"--{flag}\" flag: {why}")]
    Value {
        /// The flag.
        flag: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Flags or arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// A wrong filter, found before the server is asked.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A wrong field.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// A wrong time.
    #[error("failed to parse the {flag} time: {source}")]
    Time {
        /// `since` or `until`.
        flag: &'static str,
        /// Why.
        source: InvalidTime,
    },
    /// A wrong address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// No connection.
    #[error(
        "{0}\nIs the server running? Forward relay's port with 'cilium hubble port-forward', or name the server by --server or HUBBLE_SERVER."
    )]
    Connect(#[from] ConnectError),
    /// The server refused.
    #[error("{message}{hint}")]
    Server {
        /// What it said.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// An answer that cannot be printed.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration file that cannot be understood.
    #[error("configuration file {}: {why}", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Output that cannot be written.
    #[error("write output: {0}")]
    Output(#[source] io::Error),
    /// The reader of the output has gone, which is no failure.
    #[error("output closed")]
    Closed,
    /// No runtime.
    #[error("start: {0}")]
    Start(#[source] io::Error),
}

impl Error {
    pub(crate) fn value(flag: &str, value: &str, why: impl Into<String>) -> Self {
        Error::Value { flag: flag.to_owned(), value: value.to_owned(), why: why.into() }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Error::File { path, source }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        let hint = match status.code() {
            Code::Unavailable => "\nThe connection was lost: ask again, or see 'hubble status'.",
            Code::Unimplemented => "\nThis server cannot answer that: agents list no nodes, relay has no agent events.",
            Code::DeadlineExceeded => "\nThe server is slow: try a longer --request-timeout.",
            _ => "",
        };
        let message = match status.message() {
            "" => format!("{:?}", status.code()),
            message => message.to_owned(),
        };
        Error::Server { message: flow::print::clean(&message).into_owned(), hint }
    }
}

impl From<io::Error> for Error {
    /// Of output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Error::Closed,
            _ => Error::Output(error),
        }
    }
}
