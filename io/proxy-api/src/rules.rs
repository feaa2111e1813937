//! What may be said on redirected connections?

use serde::{Deserialize, Serialize};

use crate::hidden::Hidden;

/// How a rule set reads what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parser {
    /// HTTP/1 or HTTP/2.
    Http,
    /// DNS
    Dns,
    /// TLS whose server name is read; nothing is decrypted unless there are contexts.
    Tls,
    /// Kafka
    Kafka,
    /// Bytes, of which nothing is asked.
    Tcp,
}

/// What one rule set of the datapath's verdicts asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSet {
    /// Its number, as the verdicts have it.
    pub id: u32,
    /// How it reads.
    pub parser: Parser,
    /// Requests that may pass, any of them; absent: all. An empty list lets nothing pass.
    ///
    /// Secrets are resolved: `value` has the secret's value and `secret` still names it, which keeps the value out of
    /// records. A secret that there is none of leaves `value` empty: that rule allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Hidden<Vec<crds::HttpRule>>>,
    /// Requests to Kafka brokers that may pass; absent: all. An empty list lets nothing pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Vec<crds::KafkaRule>>,
    /// Names that may be asked for; absent: all. An empty list lets nothing pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<crds::DnsRule>>,
    /// Names and patterns of names that may not be asked for, whatever `dns` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_names: Vec<String>,
    /// Server names that TLS clients may ask for; none: any, and none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<String>,
    /// TLS that ends at the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating_tls: Option<TlsServer>,
    /// TLS that begins at the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originating_tls: Option<TlsClient>,
    /// Set if something that it needs is not there (a TLS secret): why all is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

impl RuleSet {
    /// A rule set that asks nothing.
    pub fn open(id: u32, parser: Parser) -> Self {
        RuleSet {
            id,
            parser,
            http: None,
            kafka: None,
            dns: None,
            denied_names: Vec::new(),
            server_names: Vec::new(),
            terminating_tls: None,
            originating_tls: None,
            broken: None,
        }
    }
}

/// What a TLS server has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsServer {
    /// Certificates as PEM, its own first.
    pub certificates: String,
    /// Private key as PEM.
    pub key: Hidden<String>,
    /// Certificates, as PEM, that a client's must come from; absent: clients need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<String>,
}

/// What a TLS client has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsClient {
    /// Certificates, as PEM, that the server's must come from.
    pub trusted: String,
    /// Its own certificates and private key as PEM, if it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<(String, Hidden<String>)>,
}

/// A change of rule sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesUpdate {
    /// Number of the change; grows.
    pub revision: u64,
    /// All others go.
    pub whole: bool,
    /// The last part of this change; nothing of it holds before.
    pub last: bool,
    /// New ones and those that are different now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<RuleSet>,
    /// Those that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<u32>,
}

impl RulesUpdate {
    /// In parts whose rule sets take no more than `limit` bytes by `size`, unless one alone does.
    pub(crate) fn split(self, limit: usize, size: impl Fn(&RuleSet) -> usize) -> Vec<RulesUpdate> {
        let RulesUpdate { revision, whole, removed, .. } = self;
        let empty = || RulesUpdate { revision, whole, last: false, set: Vec::new(), removed: Vec::new() };
        let mut parts = vec![RulesUpdate { removed, ..empty() }];
        let mut filled = 0;
        for set in self.set {
            let length = size(&set);
            if filled + length > limit && filled > 0 {
                parts.push(empty());
                filled = 0;
            }
            filled += length;
            if let Some(part) = parts.last_mut() {
                part.set.push(set);
            }
        }
        if let Some(part) = parts.last_mut() {
            part.last = self.last;
        }
        parts
    }

    /// Adds a later part of the same change. A part of another change starts anew.
    pub(crate) fn join(self, part: RulesUpdate) -> RulesUpdate {
        if part.revision != self.revision {
            return part;
        }
        let RulesUpdate { mut set, mut removed, revision, whole, .. } = self;
        set.extend(part.set);
        removed.extend(part.removed);
        RulesUpdate { revision, whole, last: part.last, set, removed }
    }
}
