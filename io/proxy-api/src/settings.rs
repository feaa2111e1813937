//! What does the agent set for the proxy as a whole?

use serde::{Deserialize, Serialize};

use crate::facts::Direction;

/// What comes in at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// TCP connections: HTTP, TLS, ...
    Tcp,
    /// DNS over UDP and TCP.
    Dns,
}

/// A port on 127.0.0.1 and ::1 to which the datapath assigns connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listener {
    /// What comes there.
    pub traffic: Traffic,
    /// By which policy. A connection of the other direction is refused.
    pub direction: Direction,
    /// The port.
    pub port: u16,
}

/// Settings of the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Times, in milliseconds.
    pub timeouts: Timeouts,
    /// How much the proxy takes on.
    pub limits: Limits,
    /// What is left out of access records.
    pub redaction: Redaction,
    /// Body of the answer 403 to a denied request; CR LF follows if it does not end in it (`http-403-msg`).
    pub denied_message: String,
    /// A request passes only if all that its path may mean to a server is allowed (`http-normalize-path`).
    pub judge_all_meanings: bool,
    /// Code of the answer to a denied DNS question: 5, REFUSED, or 3, NXDOMAIN (`tofqdns-dns-reject-response-code`).
    pub dns_reject_code: u8,
    /// More of DNS.
    pub dns: DnsSettings,
    /// Tell of requests and answers at all.
    pub records: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            redaction: Redaction::default(),
            denied_message: "Access denied".into(),
            judge_all_meanings: true,
            dns_reject_code: 5,
            dns: DnsSettings::default(),
            records: true,
        }
    }
}

/// Times in milliseconds; 0: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// Until the server has accepted the connection (`proxy-connect-timeout`).
    pub connect: u64,
    /// Until a request's head is complete, from its first byte; and a TLS handshake.
    pub head: u64,
    /// A client's connection without a request.
    pub idle: u64,
    /// A connection to a server without a request (`proxy-idle-timeout-seconds`). The client's stays.
    pub upstream_idle: u64,
    /// From the end of a request's head until the head of the answer (`http-request-timeout`).
    pub request: u64,
    /// The latest deadline of a call of gRPC, where its client has one; 0: the client's (`http-max-grpc-timeout`).
    pub grpc_most: u64,
    /// A request or an answer of which nothing moves (`http-stream-idle-timeout`).
    pub stream_idle: u64,
    /// How long a connection to a server may last; it ends with the answer that it is at then
    /// (`proxy-max-connection-duration-seconds`). The client's stays.
    pub upstream_duration: u64,
    /// How long connections may go on after the proxy was told to stop.
    pub drain: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: 2_000,
            head: 60_000,
            idle: 3_600_000,
            upstream_idle: 60_000,
            request: 3_600_000,
            grpc_most: 0,
            stream_idle: 300_000,
            upstream_duration: 0,
            drain: 60_000,
        }
    }
}

/// Settings of DNS; times in milliseconds, 0: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsSettings {
    /// Until a server has answered.
    pub timeout: u64,
    /// Until an answer is given to its client though the datapath may not know its addresses
    /// (`tofqdns-proxy-response-max-delay`).
    pub response_max_delay: u64,
    /// Without a question on a TCP connection.
    pub idle: u64,
    /// Questions that may wait for answers, of all endpoints together; 0: any number (`dnsproxy-concurrency-limit`).
    pub questions: u32,
    /// The same of one endpoint.
    pub questions_per_endpoint: u32,
}

impl Default for DnsSettings {
    fn default() -> Self {
        DnsSettings {
            timeout: 10_000,
            response_max_delay: 100,
            idle: 10_000,
            questions: 0,
            questions_per_endpoint: 1_000,
        }
    }
}

/// How much the proxy takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Connections at a time (`proxy-max-active-downstream-connections`).
    pub connections: u32,
    /// Of those, from or to one endpoint.
    pub connections_per_endpoint: u32,
    /// Bytes of a request's or answer's head.
    pub head_bytes: u32,
    /// Header lines of a head.
    pub headers: u32,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Requests on one connection to a server; 0: any number (`proxy-max-requests-per-connection`). The client's stays.
    pub upstream_requests: u32,
    /// Bytes of a request to a Kafka broker. Longer ones pass only where no rule asks for their topics.
    pub kafka_request_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 50_000,
            connections_per_endpoint: 20_000,
            head_bytes: 60 << 10,
            headers: 100,
            streams: 100,
            upstream_requests: 0,
            kafka_request_bytes: 8 << 20,
        }
    }
}

/// What is left out of access records (`hubble-redact-*`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Redaction {
    /// Anything at all.
    pub enabled: bool,
    /// The query of URLs.
    pub url_query: bool,
    /// The password of URLs.
    pub user_info: bool,
    /// Headers whose values stay, in lower case. With none here and none denied, all values go.
    pub headers_allow: Vec<String>,
    /// Headers whose values go, in lower case.
    pub headers_deny: Vec<String>,
}
