//! What does the agent tell of itself?

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Node;

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
    /// How many ports of endpoints are redirected.
    pub total_redirects: u32,
    /// Which.
    pub redirects: Vec<ProxyRedirect>,
    /// What rules miss of Secrets, so that they allow nothing.
    pub missing: Vec<String>,
}

/// A port of an endpoint whose connections go to the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ProxyRedirect {
    /// `endpoint:direction:protocol:port:`
    pub name: String,
    /// What is read there: `http`, `dns`, ...
    pub proxy: String,
    /// The proxy's port.
    pub proxy_port: u16,
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
