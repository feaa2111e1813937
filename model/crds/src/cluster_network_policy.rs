//! What does ClusterNetworkPolicy look like?

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::metadata_schema;
use crate::selector::LabelSelector;

/// Rules of the cluster's administrators, before or after those of namespaces, in policy.networking.k8s.io/v1alpha2.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicy {
    /// policy.networking.k8s.io/v1alpha2
    #[serde(default)]
    pub api_version: String,
    /// ClusterNetworkPolicy
    #[serde(default)]
    pub kind: String,
    /// Name and labels.
    #[schemars(schema_with = "metadata_schema")]
    pub metadata: ObjectMeta,
    /// The rules.
    pub spec: ClusterNetworkPolicySpec,
    /// Whether the policy is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::open_object")]
    pub status: Option<serde_json::Value>,
}

/// The rules of a ClusterNetworkPolicy.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// Admin: before all others. Baseline: after all others.
    #[schemars(extend("enum" = ["Admin", "Baseline"]))]
    pub tier: String,
    /// Lower numbers are asked first.
    #[schemars(extend("format" = "int32", "minimum" = 0, "maximum" = 1000))]
    pub priority: i32,
    /// The pods that the policy is for.
    pub subject: ClusterNetworkPolicySubject,
    /// What may come in; the first rule that matches decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 25))]
    pub ingress: Option<Vec<ClusterNetworkPolicyIngressRule>>,
    /// What may go out; the first rule that matches decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 25))]
    pub egress: Option<Vec<ClusterNetworkPolicyEgressRule>>,
}

/// Pods: those of some namespaces, or some of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ClusterNetworkPolicySubject {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Pods of some namespaces.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// The namespaces; an empty selector selects all.
    pub namespace_selector: LabelSelector,
    /// The pods within them; an empty selector selects all.
    pub pod_selector: LabelSelector,
}

/// What may come in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["action", "from"]))]
pub struct ClusterNetworkPolicyIngressRule {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 100))]
    pub name: Option<String>,
    /// Accept, Deny, or Pass: the next tier decides.
    #[schemars(extend("enum" = ["Accept", "Deny", "Pass"]))]
    pub action: String,
    /// From whom; absent or empty: from everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "maxItems" = 25))]
    pub from: Option<Vec<ClusterNetworkPolicyIngressPeer>>,
    /// On which ports; absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "maxItems" = 25))]
    pub protocols: Option<Vec<ClusterNetworkPolicyProtocol>>,
}

/// What may go out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["action", "to"]))]
pub struct ClusterNetworkPolicyEgressRule {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 100))]
    pub name: Option<String>,
    /// Accept, Deny, or Pass: the next tier decides.
    #[schemars(extend("enum" = ["Accept", "Deny", "Pass"]))]
    pub action: String,
    /// To whom; absent or empty: to everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "maxItems" = 25))]
    pub to: Option<Vec<ClusterNetworkPolicyEgressPeer>>,
    /// On which ports; absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "maxItems" = 25))]
    pub protocols: Option<Vec<ClusterNetworkPolicyProtocol>>,
}

/// A peer of what comes in: one of these.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ClusterNetworkPolicyIngressPeer {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// A peer of what goes out: one of these.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ClusterNetworkPolicyEgressPeer {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// Nodes by labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "maxItems" = 25))]
    pub networks: Option<Vec<String>>,
    /// Names; `*.` in front stands for any number of labels. With Accept only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "maxItems" = 25))]
    pub domain_names: Option<Vec<String>>,
}

/// Ports: one of these.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ClusterNetworkPolicyProtocol {
    /// Ports of TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<DestinationPort>,
    /// Ports of UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<DestinationPort>,
    /// Ports of SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<DestinationPort>,
    /// Ports that have this name, of any protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Ports of one protocol.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct DestinationPort {
    /// The port or ports; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<Port>,
}

/// A number or a range: one of these.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Port {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32", "minimum" = 1, "maximum" = 65535))]
    pub number: Option<i32>,
    /// Several ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
}

/// From one port to another, both included.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct PortRange {
    /// The first.
    #[schemars(extend("format" = "int32", "minimum" = 1, "maximum" = 65535))]
    pub start: i32,
    /// The last.
    #[schemars(extend("format" = "int32", "minimum" = 1, "maximum" = 65535))]
    pub end: i32,
}

impl DestinationPort {
    /// The end of the range as it is written; 0 if there is none.
    pub fn written_end(&self) -> u16 {
        let range = self.destination_port.as_ref().and_then(|port| port.range.as_ref());
        range.and_then(|range| u16::try_from(range.end).ok()).unwrap_or(0)
    }
}
