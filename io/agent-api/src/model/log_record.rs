//! What is told of a request or an answer that a proxy saw? As Cilium's monitor knows it.

use serde::{Deserialize, Serialize};

/// One request or answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogRecord {
    /// `Ingress` or `Egress`: whose policy was asked.
    pub observation_point: String,
    /// `Request` or `Response`.
    pub flow_type: String,
    /// `Forwarded`, `Denied` or `Error`.
    pub verdict: String,
    /// The client.
    pub source: LogParty,
    /// The server.
    pub destination: LogParty,
    /// What was said.
    pub said: Said,
}

/// One side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogParty {
    /// Its endpoint on this node; 0: none.
    pub endpoint: u32,
    /// Its security identity.
    pub identity: u32,
    /// Its labels.
    pub labels: Vec<String>,
}

/// What was said, by protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// HTTP
    Http {
        /// The answer's code; 0 for requests.
        code: u16,
        /// The method.
        method: String,
        /// The URL.
        url: String,
        /// `HTTP/1.1`, ...
        protocol: String,
        /// Headers by their canonical names, sorted.
        headers: Vec<(String, String)>,
    },
    /// DNS
    Dns {
        /// The name.
        query: String,
        /// Types that were asked for.
        types: Vec<String>,
        /// Addresses of the answer.
        ips: Vec<String>,
        /// Its time to live.
        ttl: u32,
        /// Names that the name stands for.
        cnames: Vec<String>,
        /// Its code.
        rcode: u16,
    },
    /// Another protocol.
    Other {
        /// Its name.
        proto: String,
        /// What is told of it.
        fields: Vec<(String, String)>,
    },
}

impl Default for Said {
    fn default() -> Self {
        Said::Other { proto: "unknown-l7".into(), fields: Vec::new() }
    }
}
