//! What does the agent say of how often rules decided?

use serde::{Deserialize, Serialize};

/// Rules that decided together, and how often, since the agent began: `GET /v1/policy/hits`.
///
/// The policy is asked at the first packet of a connection, at each packet that is denied, and once more when the policy
/// of a running connection changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuleSetHits {
    /// `ingress` or `egress`, seen from the endpoints of the policy.
    pub direction: String,
    /// `allow`, `redirect`, `deny` or `default-deny`.
    pub verdict: String,
    /// What decided where no rule did, such as `default-deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implicit: Option<String>,
    /// The rules; with a default denial, those that closed the endpoint.
    pub rules: Vec<RuleName>,
    /// Packets that asked.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// When the last one did (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hit: Option<String>,
}

/// A rule of a policy object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuleName {
    /// Kind of the object.
    pub kind: String,
    /// Its namespace; empty for cluster-wide ones.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// `ingress`, `egress`, `ingressDeny` or `egressDeny`.
    pub section: String,
    /// Which of the object's specs: 0 is `spec`, or the first of `specs` if there is none.
    pub spec: usize,
    /// Which rule of the section.
    pub index: usize,
    /// Labels of the rule.
    pub labels: Vec<String>,
}
