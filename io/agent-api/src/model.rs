//! What do the API's objects look like as JSON?

mod endpoint;
mod log_record;
mod status;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use endpoint::{
    AddressPair, Endpoint, EndpointChangeRequest, EndpointLabels, EndpointPolicy, EndpointPolicyStatus, EndpointStatus,
    ExternalIdentifiers, MessageForwardingStatistics, NamedPort, Networking, ProxyStatistics,
    RequestResponseStatistics,
};
pub use log_record::{LogParty, LogRecord, Said};
pub use status::{
    HubbleStatus, IpamStatus, KubernetesStatus, MasqueradeStatus, MonitorStatus, PolicyTables, ProxyRedirect,
    ProxyStatus, Status, StatusResponse, TableFill,
};

/// A security identity and its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub id: u32,
    /// Its labels, sorted.
    pub labels: Vec<String>,
    /// SHA-256 of the labels, hexadecimal.
    #[serde(rename = "labelsSHA256", default, skip_serializing_if = "String::is_empty")]
    pub labels_sha256: String,
}

/// Something that the IP cache knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpEntry {
    /// The prefix.
    pub cidr: String,
    /// Its identity.
    pub identity: u32,
    /// The node behind which it lies, if it is another one.
    #[serde(rename = "hostIP", default, skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    /// Where it is known from, and of what.
    #[serde(default)]
    pub metadata: IpMetadata,
}

/// Where an IP cache entry comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpMetadata {
    /// `k8s`, `custom-resource`, `generated`, `agent-local`.
    #[serde(default)]
    pub source: String,
    /// Pod's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Pod's namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// All policies: `GET /v1/policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The rules as JSON text.
    pub policy: String,
    /// The repository's revision.
    pub revision: u64,
}

/// A selector of a policy and what it selects now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// The selector as text.
    pub selector: String,
    /// The identities that it selects now.
    pub identities: Vec<u32>,
    /// How many rules use it.
    pub users: u32,
    /// Labels of the policies that use it.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// A service: `GET /v1/service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Service {
    /// Index for reverse NAT.
    pub id: u32,
    /// `ClusterIP`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Address, port, protocol that clients use.
    pub frontend: ServiceAddress,
    /// What stands behind.
    pub backends: Vec<ServiceBackend>,
    /// Name of the service.
    #[serde(default)]
    pub name: String,
    /// Namespace of the service.
    #[serde(default)]
    pub namespace: String,
}

/// Where a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// Address.
    pub ip: String,
    /// Port.
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
}

/// What stands behind a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceBackend {
    /// Its number.
    pub id: u32,
    /// Where it is.
    #[serde(flatten)]
    pub address: ServiceAddress,
    /// `active`, `terminating`, ...
    pub state: String,
}

/// A node of the cluster as this agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `cluster/name`.
    pub name: String,
    /// Own node.
    #[serde(default)]
    pub local: bool,
    /// Its own address, IPv4.
    #[serde(default)]
    pub ipv4: String,
    /// Its own address, IPv6.
    #[serde(default)]
    pub ipv6: String,
    /// Its pods' networks.
    #[serde(default)]
    pub pod_cidrs: Vec<String>,
}

/// A map of the datapath.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Map {
    /// Its name.
    pub name: String,
    /// Number of entries.
    pub num_entries: u64,
    /// Number of entries whose last write failed.
    pub num_errors: u64,
    /// Writes go through the agent's copy of it.
    pub cache_enabled: bool,
}

/// A number that is counted or measured: `GET /v1/metrics`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// What tells it from others of its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How much it is.
    pub value: f64,
}

/// What `POST /v1/ipam` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IpamResponse {
    /// The addresses of the new endpoint.
    pub address: AddressPair,
    /// The addresses of the gateway.
    pub host_addressing: AddressPair,
    /// The gateway's Ethernet address.
    pub gateway_mac: String,
    /// Largest packet of the device.
    pub device_mtu: u32,
    /// Largest packet on the way to other nodes.
    pub route_mtu: u32,
}

/// Settings: `GET /v1/config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DaemonConfig {
    /// Settings that were given or took their default, by flag.
    pub daemon_configuration_map: BTreeMap<String, String>,
    /// Settings that may change at run time.
    pub immutable: BTreeMap<String, String>,
    /// `default`, `always`, `never`.
    pub policy_enforcement: String,
}

/// One event of the datapath or of a proxy, as `cilium-dbg monitor` reads it, one JSON object in each line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorEvent {
    /// The record of the ring buffer, hexadecimal; empty if it is a proxy's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub record: String,
    /// What a proxy saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogRecord>,
    /// Processor; unknown with one ring buffer for all.
    #[serde(default)]
    pub cpu: u32,
    /// Name of the device.
    #[serde(default)]
    pub interface: String,
}
