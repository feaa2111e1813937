//! How does a plugin say what went wrong?

use std::fmt;

/// Error codes of the CNI specification, and our own from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The configuration's version is not supported.
    IncompatibleVersion = 1,
    /// The container is not known.
    UnknownContainer = 3,
    /// A necessary environment variable is missing or wrong.
    Environment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The input is not JSON of the right shape.
    Decode = 6,
    /// The network configuration makes no sense.
    Configuration = 7,
    /// Try again later: the agent does not answer.
    TryAgain = 11,
    /// STATUS: no container can be added now.
    NotAvailable = 50,
    /// The agent refused.
    Agent = 100,
    /// The kernel refused.
    Kernel = 101,
    /// CHECK: the container's network is not as it was made.
    Differs = 102,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    /// Kind of error.
    pub code: Code,
    /// What was tried.
    pub message: String,
    /// What happened.
    pub details: String,
}

impl CniError {
    /// `message` says what was tried, `details` what happened.
    pub fn new(code: Code, message: impl Into<String>, details: impl fmt::Display) -> Self {
        CniError { code, message: message.into(), details: details.to_string() }
    }

    /// As the runtime reads it.
    pub fn to_json(&self, version: &str) -> String {
        let (code, msg, details) = (self.code as u32, &self.message, &self.details);
        serde_json::json!({ "cniVersion": version, "code": code, "msg": msg, "details": details }).to_string()
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.details)
    }
}

impl std::error::Error for CniError {}
