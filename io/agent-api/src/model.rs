//! What do the API's objects look like as JSON?

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
pub struct EndpointPolicyStatus {
    /// What the datapath enforces now.
    pub realized: EndpointPolicy,
    /// What it is to enforce.
    pub spec: EndpointPolicy,
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

/// A state with a sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `Ok`, `Warning`, `Failure`, `Disabled`.
    pub state: String,
    /// The sentence.
    #[serde(default)]
    pub msg: String,
}

/// `GET /v1/healthz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct StatusResponse {
    /// The agent as a whole.
    pub cilium: Status,
    /// The Kubernetes API.
    pub kubernetes: KubernetesStatus,
    /// The CNI configuration file.
    pub cni_file: Status,
    /// Health of the other nodes.
    pub cilium_health: Status,
    /// Hubble.
    pub hubble: HubbleStatus,
    /// Addresses.
    pub ipam: IpamStatus,
    /// How packets are routed: `Tunnel [vxlan]`.
    pub routing: String,
    /// `true` where this agent serves services.
    pub kube_proxy_replacement: String,
    /// Device that leads out of the node, with its addresses.
    pub devices: Vec<String>,
    /// Masquerading.
    pub masquerading: MasqueradeStatus,
    /// Events read and lost.
    pub monitor: MonitorStatus,
    /// Endpoints: all and those that are ready.
    pub endpoints: [u32; 2],
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Program attachment: `TCX` or `Legacy TC`.
    pub attach_mode: String,
    /// The version.
    pub version: String,
    /// Kinds that this agent watches.
    pub k8s_api_versions: Vec<String>,
    /// Policy revision of the repository.
    pub policy_revision: u64,
    /// Policies in the datapath.
    pub policies: PolicyTables,
    /// How full the datapath's tables are.
    pub tables: Vec<TableFill>,
    /// The proxy.
    pub proxy: ProxyStatus,
}

/// The proxy for rules at the application's level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ProxyStatus {
    /// `Ok`; `Warning`: there is none, and what is redirected is refused; `Disabled`.
    pub state: String,
    /// Address of `cilium_host`.
    pub ip: String,
    /// Range of its ports.
    pub port_range: String,
    /// Rule sets that redirect.
    pub total_redirects: u32,
}

/// Policies in the datapath.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PolicyTables {
    /// Slots in use.
    pub used: u32,
    /// All slots.
    pub most: u32,
    /// Identities whose endpoints are locked down because their policy is not in the datapath, and why.
    pub locked: BTreeMap<u32, String>,
}

/// How full a table of the datapath is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TableFill {
    /// Its name.
    pub name: String,
    /// Entries.
    pub entries: u64,
    /// Entries that it can have.
    pub most: u64,
    /// There is hardly any room.
    pub nearly_full: bool,
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

/// The connection to the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesStatus {
    /// `Ok`, `Failure`.
    pub state: String,
    /// Version and platform, or what is wrong.
    #[serde(default)]
    pub msg: String,
}

/// Hubble's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HubbleStatus {
    /// `Ok`, `Disabled`.
    pub state: String,
    /// Flows in the ring, and its size.
    pub current_flows: u64,
    /// Size of the ring.
    pub max_flows: u64,
    /// Flows ever seen.
    pub seen_flows: u64,
    /// Flows in each second on average.
    pub flows_per_second: f64,
}

/// The addresses of the node's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamStatus {
    /// A line of text.
    pub status: String,
    /// Address to owner.
    #[serde(default)]
    pub allocations: BTreeMap<String, String>,
}

/// Masquerading of pods towards the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MasqueradeStatus {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
    /// Not towards this network.
    pub exclusion_cidr: String,
}

/// Events of the datapath.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorStatus {
    /// Processors.
    pub cpus: u32,
    /// Memory pages of the ring buffer.
    pub npages: u64,
    /// Size of a page.
    pub pagesize: u64,
    /// Entered the ring buffer.
    pub sent: u64,
    /// Found no room.
    pub lost: u64,
    /// Read by the agent.
    pub read: u64,
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

/// One event of the datapath, as `cilium-dbg monitor` reads it, one JSON object in each line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorEvent {
    /// The record of the ring buffer, hexadecimal.
    pub record: String,
    /// Processor; unknown with one ring buffer for all.
    #[serde(default)]
    pub cpu: u32,
    /// Name of the device.
    #[serde(default)]
    pub interface: String,
}
