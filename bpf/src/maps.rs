//! Which maps do the programs use? The agent makes and pins them under these names, in sizes of its own.

use abi::config::NodeConfig;
use abi::conntrack::{CtEntry, CtKey4, CtKey6};
use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::event::Record;
use abi::fragment::{FragmentKey4, FragmentKey6, FragmentPorts};
use abi::ipcache::RemoteEndpoint;
use abi::metrics::{EventCounters, Metric};
use abi::nat::{NatEntry, NatKey4, NatKey6};
use abi::policy::CountedVerdict;
use abi::proxy::{ProxySocket, SocketCookie};
use abi::service::{Affinity, AffinityKey, Backend, ReverseNat, Service, ServiceKey4, ServiceKey6, SocketKey};
use abi::{V4, V6};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;

/// Elements are allocated one by one.
const ONE_BY_ONE: usize = 1;

pub type Classes = HashMap<u32, u32, 64, ONE_BY_ONE>;
pub type Verdicts = LpmTrie<[u32; 2], CountedVerdict, 64>;

#[btf_map(name = "cilium_lxc")]
pub static LXC4: HashMap<V4, Endpoint, 65535, ONE_BY_ONE> = HashMap::new();
#[btf_map(name = "cilium_lxc6")]
pub static LXC6: HashMap<V6, Endpoint, 65535, ONE_BY_ONE> = HashMap::new();
#[btf_map(name = "cilium_devices")]
pub static DEVICES: HashMap<u32, Endpoint, 65535, ONE_BY_ONE> = HashMap::new();
#[btf_map(name = "cilium_ep_policy")]
pub static EP_POLICY: Array<EndpointPolicy, 65536> = Array::new();
#[btf_map(name = "cilium_policy_classes")]
pub static POLICY_CLASSES: ArrayOfMaps<Classes, 16384> = ArrayOfMaps::new();
#[btf_map(name = "cilium_policy_verdicts")]
pub static POLICY_VERDICTS: ArrayOfMaps<Verdicts, 16384> = ArrayOfMaps::new();
#[btf_map(name = "cilium_ipcache")]
pub static IPCACHE4: LpmTrie<[u32; 1], RemoteEndpoint, 512000> = LpmTrie::new();
#[btf_map(name = "cilium_ipcache6")]
pub static IPCACHE6: LpmTrie<[u32; 4], RemoteEndpoint, 512000> = LpmTrie::new();
#[btf_map(name = "cilium_ct4")]
pub static CT4: LruHashMap<CtKey4, CtEntry, 131072> = LruHashMap::new();
#[btf_map(name = "cilium_ct6")]
pub static CT6: LruHashMap<CtKey6, CtEntry, 131072> = LruHashMap::new();
#[btf_map(name = "cilium_snat_v4_external")]
pub static SNAT4: LruHashMap<NatKey4, NatEntry<V4>, 131072> = LruHashMap::new();
#[btf_map(name = "cilium_snat_v6_external")]
pub static SNAT6: LruHashMap<NatKey6, NatEntry<V6>, 131072> = LruHashMap::new();
#[btf_map(name = "cilium_events")]
pub static EVENTS: RingBuf<Record, 8388608> = RingBuf::new();
#[btf_map(name = "cilium_event_counters")]
pub static EVENT_COUNTERS: PerCpuArray<EventCounters, 1> = PerCpuArray::new();
#[btf_map(name = "cilium_metrics")]
pub static METRICS: PerCpuArray<Metric, 1024> = PerCpuArray::new();
#[btf_map(name = "cilium_node_config")]
pub static NODE_CONFIG: Array<NodeConfig, 1> = Array::new();
#[btf_map(name = "cilium_lb4_services")]
pub static LB4_SERVICES: HashMap<ServiceKey4, Service, 65536, ONE_BY_ONE> = HashMap::new();
#[btf_map(name = "cilium_lb6_services")]
pub static LB6_SERVICES: HashMap<ServiceKey6, Service, 65536, ONE_BY_ONE> = HashMap::new();
#[btf_map(name = "cilium_lb4_backends")]
pub static LB4_BACKENDS: HashMap<u32, Backend<V4>, 65536, ONE_BY_ONE> = HashMap::new();
#[btf_map(name = "cilium_lb6_backends")]
pub static LB6_BACKENDS: HashMap<u32, Backend<V6>, 65536, ONE_BY_ONE> = HashMap::new();
#[btf_map(name = "cilium_lb4_reverse_nat")]
pub static LB4_REVERSE_NAT: HashMap<u32, ReverseNat<V4>, 65536, ONE_BY_ONE> = HashMap::new();
#[btf_map(name = "cilium_lb6_reverse_nat")]
pub static LB6_REVERSE_NAT: HashMap<u32, ReverseNat<V6>, 65536, ONE_BY_ONE> = HashMap::new();
#[btf_map(name = "cilium_lb4_reverse_sk")]
pub static LB4_REVERSE_SK: LruHashMap<SocketKey<V4>, ReverseNat<V4>, 65536> = LruHashMap::new();
#[btf_map(name = "cilium_lb6_reverse_sk")]
pub static LB6_REVERSE_SK: LruHashMap<SocketKey<V6>, ReverseNat<V6>, 65536> = LruHashMap::new();
#[btf_map(name = "cilium_lb_affinity")]
pub static LB_AFFINITY: LruHashMap<AffinityKey, Affinity, 65536> = LruHashMap::new();
#[btf_map(name = "cilium_ipv4_frag_datagrams")]
pub static FRAGMENTS4: LruHashMap<FragmentKey4, FragmentPorts, 8192> = LruHashMap::new();
#[btf_map(name = "cilium_ipv6_frag_datagrams")]
pub static FRAGMENTS6: LruHashMap<FragmentKey6, FragmentPorts, 8192> = LruHashMap::new();
#[btf_map(name = "cilium_proxy_sockets")]
pub static PROXY_SOCKETS: LruHashMap<SocketCookie, ProxySocket, 65536> = LruHashMap::new();
#[btf_map(name = "cilium_scratch")]
pub static SCRATCH: PerCpuArray<CtEntry, 1> = PerCpuArray::new();
#[btf_map(name = "cilium_opaque")]
pub static OPAQUE: PerCpuArray<[u32; 4], 1> = PerCpuArray::new();
#[btf_map(name = "cilium_work")]
pub static WORK: PerCpuArray<[u64; 48], 1> = PerCpuArray::new();
