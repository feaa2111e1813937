//! How is a rule of a network policy written?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ports::{IcmpRule, PortDenyRule, PortRule};
use crate::selector::LabelSelector;

/// Who may talk to or be talked to by whom. A subject that a rule selects is closed in each direction that the rule
/// has a section for, and open to what some rule allows there, except for what some rule denies.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "x-one-of" = [{ "required": ["endpointSelector"] }, { "required": ["nodeSelector"] }],
    "x-any-of" = [{ "required": ["ingress"] }, { "required": ["ingressDeny"] }, { "required": ["egress"] }, { "required": ["egressDeny"] }],
))]
pub struct Rule {
    /// The pods that the rule is for; in a namespaced policy those of its namespace. Not together with nodeSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_selector: Option<LabelSelector>,
    /// The nodes that the rule is for. Clusterwide policies only. Not together with endpointSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// What may come in. A rule without peers and ports allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<IngressRule>>,
    /// What may not come in, whatever else allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_deny: Option<Vec<IngressDenyRule>>,
    /// What may go out. A rule without peers and ports allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
    /// What may not go out, whatever else allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_deny: Option<Vec<EgressDenyRule>>,
    /// Labels of the rule, to tell it from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<RuleLabel>>,
    /// Whether the rule closes what it selects. By default it does, in each direction that it has a section for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_default_deny: Option<DefaultDeny>,
    /// What the rule is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What flows say that this rule decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogConfig>,
}

/// A label of a rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct RuleLabel {
    /// Key of the label.
    pub key: String,
    /// Source of the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Value of the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Whether a rule closes what it selects.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct DefaultDeny {
    /// For what comes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<bool>,
    /// For what goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<bool>,
}

/// What flows say that a rule decided.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct LogConfig {
    /// A short text of the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32, "pattern" = "^\\PC*$"))]
    pub value: Option<String>,
}

/// Mutual authentication.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Authentication {
    /// Whether both sides must prove who they are.
    #[schemars(extend("enum" = ["disabled", "required", "test-always-fail"]))]
    pub mode: String,
}

/// What may come in: from any of the peers, on any of the ports.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressRule {
    /// Who.
    #[serde(flatten)]
    pub from: IngressPeers,
    /// To which ports; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortRule>>,
    /// Which ICMP messages; not together with toPorts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<IcmpRule>>,
    /// Whether both sides must prove who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

/// What may not come in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressDenyRule {
    /// Who.
    #[serde(flatten)]
    pub from: IngressPeers,
    /// To which ports; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortDenyRule>>,
    /// Which ICMP messages; not together with toPorts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<IcmpRule>>,
}

/// Where traffic may come from: one kind of peers in a rule. A kind that is there but empty selects nobody.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressPeers {
    /// Pods by labels; in a namespaced policy those of its namespace unless a selector names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_endpoints: Option<Vec<LabelSelector>>,
    /// No longer usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 0, "items" = { "type": "string" }))]
    pub from_requires: Option<Vec<serde_json::Value>>,
    /// Addresses outside of the cluster, as prefixes or single addresses.
    #[serde(default, rename = "fromCIDR", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("items" = { "type": "string", "format": "cidr" }))]
    pub from_cidr: Option<Vec<String>>,
    /// Addresses outside of the cluster, as prefixes with exceptions or by groups.
    #[serde(default, rename = "fromCIDRSet", skip_serializing_if = "Option::is_none")]
    pub from_cidr_set: Option<Vec<CidrRule>>,
    /// Peers that are known by name: all, world, cluster, cluster-mesh, host, init, ingress, unmanaged, remote-node,
    /// health, none, kube-apiserver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("items" = { "type": "string", "enum": ["all", "world", "cluster", "cluster-mesh", "host", "init",
        "ingress", "unmanaged", "remote-node", "health", "none", "kube-apiserver"] }))]
    pub from_entities: Option<Vec<String>>,
    /// Groups of a cloud provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_groups: Option<Vec<Group>>,
    /// Nodes by labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_nodes: Option<Vec<LabelSelector>>,
}

/// What may go out: to any of the peers, on any of the ports.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// Who.
    #[serde(flatten)]
    pub to: EgressPeers,
    /// To which ports; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortRule>>,
    /// Names; the addresses that DNS answers gave for them.
    #[serde(default, rename = "toFQDNs", skip_serializing_if = "Option::is_none")]
    pub to_fqdns: Option<Vec<FqdnSelector>>,
    /// Which ICMP messages; not together with toPorts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<IcmpRule>>,
    /// Whether both sides must prove who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

/// What may not go out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressDenyRule {
    /// Who.
    #[serde(flatten)]
    pub to: EgressPeers,
    /// To which ports; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortDenyRule>>,
    /// Names; the addresses that DNS answers gave for them. Cilium's definition does not have this field.
    #[serde(default, rename = "toFQDNs", skip_serializing_if = "Option::is_none")]
    pub to_fqdns: Option<Vec<FqdnSelector>>,
    /// Which ICMP messages; not together with toPorts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<IcmpRule>>,
}

/// Where traffic may go: one kind of peers in a rule. A kind that is there but empty selects nobody.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressPeers {
    /// Pods by labels; in a namespaced policy those of its namespace unless a selector names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_endpoints: Option<Vec<LabelSelector>>,
    /// No longer usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 0, "items" = { "type": "string" }))]
    pub to_requires: Option<Vec<serde_json::Value>>,
    /// Addresses outside of the cluster, as prefixes or single addresses.
    #[serde(default, rename = "toCIDR", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("items" = { "type": "string", "format": "cidr" }))]
    pub to_cidr: Option<Vec<String>>,
    /// Addresses outside of the cluster, as prefixes with exceptions or by groups.
    #[serde(default, rename = "toCIDRSet", skip_serializing_if = "Option::is_none")]
    pub to_cidr_set: Option<Vec<CidrRule>>,
    /// Peers that are known by name: all, world, cluster, cluster-mesh, host, init, ingress, unmanaged, remote-node,
    /// health, none, kube-apiserver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("items" = { "type": "string", "enum": ["all", "world", "cluster", "cluster-mesh", "host", "init",
        "ingress", "unmanaged", "remote-node", "health", "none", "kube-apiserver"] }))]
    pub to_entities: Option<Vec<String>>,
    /// Services of the cluster: their backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_services: Option<Vec<Service>>,
    /// Groups of a cloud provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_groups: Option<Vec<Group>>,
    /// Nodes by labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_nodes: Option<Vec<LabelSelector>>,
}

/// Addresses: one of cidr, cidrGroupRef and cidrGroupSelector.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "x-one-of" = [{ "required": ["cidr"] }, { "required": ["cidrGroupRef"] }, { "required": ["cidrGroupSelector"] }],
))]
pub struct CidrRule {
    /// A prefix, as in 192.0.2.0/24.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cidr"))]
    pub cidr: Option<String>,
    /// Name of a CiliumCIDRGroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 253, "pattern" = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub cidr_group_ref: Option<String>,
    /// CiliumCIDRGroups by labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr_group_selector: Option<LabelSelector>,
    /// Prefixes within cidr that are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("items" = { "type": "string", "format": "cidr" }))]
    pub except: Option<Vec<String>>,
}

/// Names: one of matchName and matchPattern.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-one-of" = [{ "required": ["matchName"] }, { "required": ["matchPattern"] }]))]
pub struct FqdnSelector {
    /// This name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 255, "pattern" = "^([-a-zA-Z0-9_]+[.]?)+$"))]
    pub match_name: Option<String>,
    /// Names like this: * stands for part of one label, **. in front for any number of labels, a lone * for all names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 255, "pattern" = "^([-a-zA-Z0-9_*]+[.]?)+$"))]
    pub match_pattern: Option<String>,
}

/// A service of the cluster: one of k8sService and k8sServiceSelector.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// By name.
    #[serde(default, rename = "k8sService", skip_serializing_if = "Option::is_none")]
    pub k8s_service: Option<K8sService>,
    /// By labels.
    #[serde(default, rename = "k8sServiceSelector", skip_serializing_if = "Option::is_none")]
    pub k8s_service_selector: Option<K8sServiceSelector>,
}

/// A service by name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct K8sService {
    /// Name of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Services by labels.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct K8sServiceSelector {
    /// Labels of the services.
    pub selector: LabelSelector,
    /// Their namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A group of a cloud provider.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// A group of AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsGroup>,
}

/// A group of AWS.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsGroup {
    /// Tags of instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Ids of security groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups_ids: Option<Vec<String>>,
    /// Names of security groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups_names: Option<Vec<String>>,
    /// The region; no longer used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}
