//! What is told of one request or answer?

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::facts::{Direction, Protocol};

/// Records in the order in which things happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// How many were lost before these, because the agent was away or slow.
    pub lost: u64,
    /// The records.
    pub records: Vec<Record>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It went on.
    Forwarded,
    /// Policy refused it.
    Denied,
    /// It was no good request, or something failed.
    Error,
}

/// Request or answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A request.
    Request,
    /// An answer.
    Response,
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Its security identity.
    pub identity: u32,
    /// Its address and port.
    pub address: SocketAddr,
}

/// What is told of one request or answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// What became of it.
    pub verdict: Verdict,
    /// Request or answer. Source and destination are the connection's, client and server, for both.
    pub kind: Kind,
    /// The endpoint whose policy is asked.
    pub endpoint: u32,
    /// Which of its policies.
    pub direction: Direction,
    /// The rules that decided.
    pub rule_set: u32,
    /// What carries it.
    pub protocol: Protocol,
    /// The client.
    pub source: Party,
    /// The server.
    pub destination: Party,
    /// Why, if it was denied or failed.
    pub info: String,
    /// What was said.
    pub application: Application,
}

/// What was said, by protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Application {
    /// HTTP
    Http(Http),
    /// Kafka
    Kafka(Kafka),
    /// DNS
    Dns(Dns),
    /// A TLS client's wish.
    Tls(Tls),
}

/// An HTTP request or answer. Redacted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Http {
    /// The method of the request.
    pub method: String,
    /// The URL of the request, absolute.
    pub url: String,
    /// `HTTP/1.1`, ...
    pub protocol: String,
    /// Headers of the request or of the answer.
    pub headers: Vec<(String, String)>,
    /// Headers that a rule found missing.
    pub missing: Vec<(String, String)>,
    /// Headers that a rule refused.
    pub rejected: Vec<(String, String)>,
    /// The answer's code.
    pub code: Option<u16>,
    /// From request to answer, in nanoseconds.
    pub latency: Option<u64>,
}

/// A request to a Kafka broker or its answer: one record for each topic of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kafka {
    /// Kind of the request, by name or, if it is not known, by number.
    pub api_key: String,
    /// Version of its layout.
    pub api_version: i16,
    /// Number by which the client knows the answer.
    pub correlation_id: i32,
    /// The topic; empty: none is named.
    pub topic: String,
    /// Error of an answer that the proxy gave.
    pub error_code: Option<i16>,
    /// From request to answer, in nanoseconds.
    pub latency: Option<u64>,
}

/// A DNS question or answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dns {
    /// The name, with a dot at its end.
    pub query: Arc<str>,
    /// The type that was asked for, by number.
    pub query_type: u16,
    /// The answer's code.
    pub code: Option<u16>,
    /// Addresses in the answer.
    pub addresses: Vec<IpAddr>,
    /// The smallest time to live of the answer, in seconds.
    pub ttl: Option<u32>,
    /// Names that the name stands for.
    pub cnames: Vec<String>,
    /// Types of the answer's records, by number.
    pub answer_types: Vec<u16>,
    /// From question to answer, in nanoseconds.
    pub latency: Option<u64>,
}

/// What a TLS client asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tls {
    /// The server name, if it said one.
    pub server_name: Option<String>,
}
