//! What are the maps called, in the object file and as pinned files?

/// Endpoints by IPv4 address.
pub const LXC4: &str = "cilium_lxc";
/// Endpoints by IPv6 address.
pub const LXC6: &str = "cilium_lxc6";
/// Endpoints by interface index.
pub const DEVICES: &str = "cilium_devices";
/// Policy of each endpoint, by endpoint id.
pub const EP_POLICY: &str = "cilium_ep_policy";
/// Array of maps: identity to class, by policy slot.
pub const POLICY_CLASSES: &str = "cilium_policy_classes";
/// Array of maps: class, direction, protocol, port to verdict, by policy slot.
pub const POLICY_VERDICTS: &str = "cilium_policy_verdicts";
/// IP cache, IPv4.
pub const IPCACHE4: &str = "cilium_ipcache";
/// IP cache, IPv6.
pub const IPCACHE6: &str = "cilium_ipcache6";
/// Connections, IPv4.
pub const CT4: &str = "cilium_ct4";
/// Connections, IPv6.
pub const CT6: &str = "cilium_ct6";
/// Masquerading, IPv4.
pub const SNAT4: &str = "cilium_snat_v4_external";
/// Masquerading, IPv6.
pub const SNAT6: &str = "cilium_snat_v6_external";
/// Ring buffer of events.
pub const EVENTS: &str = "cilium_events";
/// Exact counts of sent and lost events.
pub const EVENT_COUNTERS: &str = "cilium_event_counters";
/// Packets by fate.
pub const METRICS: &str = "cilium_metrics";
/// The node's configuration.
pub const NODE_CONFIG: &str = "cilium_node_config";
/// Services, IPv4.
pub const LB4_SERVICES: &str = "cilium_lb4_services";
/// Services, IPv6.
pub const LB6_SERVICES: &str = "cilium_lb6_services";
/// Backends, IPv4.
pub const LB4_BACKENDS: &str = "cilium_lb4_backends";
/// Backends, IPv6.
pub const LB6_BACKENDS: &str = "cilium_lb6_backends";
/// Reverse NAT, IPv4.
pub const LB4_REVERSE_NAT: &str = "cilium_lb4_reverse_nat";
/// Reverse NAT, IPv6.
pub const LB6_REVERSE_NAT: &str = "cilium_lb6_reverse_nat";
/// Which service a socket asked for, IPv4.
pub const LB4_REVERSE_SK: &str = "cilium_lb4_reverse_sk";
/// Which service a socket asked for, IPv6.
pub const LB6_REVERSE_SK: &str = "cilium_lb6_reverse_sk";
/// Ports of fragmented datagrams, IPv4.
pub const FRAGMENTS4: &str = "cilium_ipv4_frag_datagrams";
/// Ports of fragmented datagrams, IPv6.
pub const FRAGMENTS6: &str = "cilium_ipv6_frag_datagrams";
/// Which backend a client was given, for services with session affinity.
pub const LB_AFFINITY: &str = "cilium_lb_affinity";
/// The proxy's sockets towards servers.
pub const PROXY_SOCKETS: &str = "cilium_proxy_sockets";
