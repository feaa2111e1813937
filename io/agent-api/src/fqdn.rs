//! What does the agent say of names that DNS answers gave addresses?

use serde::{Deserialize, Serialize};

/// An answer and its addresses: `GET /v1/fqdn/cache`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DnsLookup {
    /// The endpoint that got it.
    pub endpoint_id: u32,
    /// The name, with a dot at its end.
    pub fqdn: String,
    /// The addresses.
    pub ips: Vec<String>,
    /// When it came (RFC 3339).
    pub lookup_time: String,
    /// Seconds for which it holds.
    pub ttl: u32,
    /// Until when (RFC 3339).
    pub expiration_time: String,
    /// `lookup`; `connection` if only a connection still holds it.
    pub source: String,
}

/// A question for the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheQuery {
    /// Names that this pattern means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matchpattern: Option<String>,
    /// Of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of this endpoint, as it may be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// With this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Names that policies speak of: `GET /v1/fqdn/names`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameManager {
    /// The selectors.
    #[serde(rename = "FQDNPolicySelectors")]
    pub selectors: Vec<NameSelector>,
}

/// A name or a pattern of policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSelector {
    /// As a policy has it.
    #[serde(rename = "selectorString")]
    pub selector: String,
    /// Its addresses now.
    pub addresses: Vec<String>,
}

/// How an endpoint came to reach an address by a name: `GET /v1/fqdn/why`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NameReason {
    /// The answer; its addresses are the one that was asked for.
    pub lookup: DnsLookup,
    /// The rules for the endpoint that speak of the name: policy, section and selector.
    pub rules: Vec<String>,
}
