//! What does the API tell of an endpoint, and what does the plugin ask for one?

use serde::{Deserialize, Serialize};

use super::Identity;

/// An endpoint as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its number on this node.
    pub id: u32,
    /// What it was asked to be.
    #[serde(default)]
    pub spec: serde_json::Value,
    /// What it is.
    pub status: EndpointStatus,
}

/// What an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointStatus {
    /// The names by which others know it.
    pub external_identifiers: ExternalIdentifiers,
    /// Its security identity, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// The labels that make up its identity.
    pub labels: EndpointLabels,
    /// Ports with names.
    #[serde(rename = "namedPorts", default)]
    pub named_ports: Vec<NamedPort>,
    /// Its device and addresses.
    pub networking: Networking,
    /// The policy that holds for it now.
    pub policy: EndpointPolicyStatus,
    /// `ready`, `waiting-for-identity`, `regenerating`, ...
    pub state: String,
}

/// The names by which others know an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExternalIdentifiers {
    /// Container and interface.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cni_attachment_id: String,
    /// The runtime's name of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// The pod's namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub k8s_namespace: String,
    /// The pod's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub k8s_pod_name: String,
    /// `namespace/name` of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
}

/// Labels of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointLabels {
    /// Known of it, but not part of its identity.
    #[serde(default)]
    pub derived: Vec<String>,
    /// Part of its identity.
    #[serde(default)]
    pub security_relevant: Vec<String>,
}

/// A port with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
}

/// Device and addresses of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Networking {
    /// One pair of addresses.
    pub addressing: Vec<AddressPair>,
    /// The device inside of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_interface_name: String,
    /// Ethernet address of the host's side.
    #[serde(default)]
    pub host_mac: String,
    /// Number of the host's side.
    #[serde(default)]
    pub interface_index: u32,
    /// Name of the host's side.
    #[serde(default)]
    pub interface_name: String,
    /// Ethernet address of the container's side.
    #[serde(default)]
    pub mac: String,
}

/// The addresses of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// IPv4, if there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipv4: String,
    /// IPv6, if there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipv6: String,
}

/// Which policy holds for an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointPolicyStatus {
    /// What the datapath enforces now.
    pub realized: EndpointPolicy,
    /// What it is to enforce.
    pub spec: EndpointPolicy,
    /// What was said on connections that go to the proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy_statistics: Vec<ProxyStatistics>,
}

/// What was said on connections of one port that go to the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ProxyStatistics {
    /// The proxy's port.
    pub allocated_proxy_port: u16,
    /// `ingress` or `egress`.
    pub location: String,
    /// The port; 0: any.
    pub port: u16,
    /// What is read there: `http`, `dns`, ...
    pub protocol: String,
    /// How often.
    pub statistics: RequestResponseStatistics,
}

/// Requests and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestResponseStatistics {
    /// Requests.
    pub requests: MessageForwardingStatistics,
    /// Answers.
    pub responses: MessageForwardingStatistics,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageForwardingStatistics {
    /// Denied.
    pub denied: u64,
    /// No good ones, or something failed.
    pub error: u64,
    /// Passed on.
    pub forwarded: u64,
    /// All.
    pub received: u64,
}

/// A policy of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointPolicy {
    /// The identity for which it was made.
    pub id: u32,
    /// `none`, `ingress`, `egress`, `both`.
    pub policy_enabled: String,
    /// The repository's revision for which it was made.
    pub policy_revision: u64,
    /// Slot of the tables.
    #[serde(default)]
    pub slot: u32,
    /// Identities that may come in with some port.
    #[serde(default)]
    pub allowed_ingress_identities: Vec<u32>,
    /// Identities to which it may go with some port.
    #[serde(default)]
    pub allowed_egress_identities: Vec<u32>,
}

/// What the plugin asks for a container: `PUT /v1/endpoint/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointChangeRequest {
    /// Its addresses, allocated before.
    pub addressing: AddressPair,
    /// The runtime's name of the container.
    pub container_id: String,
    /// The device inside.
    pub container_interface_name: String,
    /// Container and device.
    pub cni_attachment_id: String,
    /// Ethernet address of the host's side.
    pub host_mac: String,
    /// Ethernet address of the container's side.
    pub mac: String,
    /// Number of the host's side.
    pub interface_index: u32,
    /// Name of the host's side.
    pub interface_name: String,
    /// Number of the container's network namespace.
    #[serde(default)]
    pub netns_cookie: String,
    /// The pod's namespace.
    #[serde(default)]
    pub k8s_namespace: String,
    /// The pod's name.
    #[serde(default)]
    pub k8s_pod_name: String,
    /// The pod's UID.
    #[serde(default)]
    pub k8s_uid: String,
}
