//! What do the programs know of their node? The one value of `cilium_node_config`.

use crate::{Mac, V4, V6};

/// Set by the agent before the programs are attached; `ipcache_generation` moves while they run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct NodeConfig {
    /// Changes whenever something that the IP cache said before is no longer true.
    pub ipcache_generation: u32,
    /// `FLAG_*`.
    pub flags: u32,
    /// Address of `cilium_host`, the gateway of the node's pods.
    pub router4: V4,
    /// The node's own address, to which pods are masqueraded and from which tunnels start.
    pub node4: V4,
    /// As `router4`.
    pub router6: V6,
    /// As `node4`.
    pub node6: V6,
    /// Interface of the tunnel, 0: no tunnel.
    pub tunnel_ifindex: u32,
    /// `cilium_host`.
    pub host_ifindex: u32,
    /// `cilium_net`.
    pub net_ifindex: u32,
    /// The device that leads out of the node.
    pub uplink_ifindex: u32,
    /// MAC of `cilium_host`: what pods see as their gateway where no device of their own answers.
    pub router_mac: Mac,
    /// First port of masquerading.
    pub nat_min_port: u16,
    /// Last port of masquerading.
    pub nat_max_port: u16,
    /// Monitor aggregation: 0 none, 1 and 2 low, 3 medium, 4 maximum (the levels of `monitor-aggregation`).
    pub monitor_aggregation: u16,
    /// Destinations in this network are not masqueraded: address and prefix length.
    pub native_cidr4: V4,
    /// See `native_cidr4`.
    pub native_cidr4_len: u32,
    /// As `native_cidr4`.
    pub native_cidr6: V6,
    /// See `native_cidr6`.
    pub native_cidr6_len: u32,
}

crate::plain!(NodeConfig: u32, u32, V4, V4, V6, V6, u32, u32, u32, u32, Mac, u16, u16, u16, V4, u32, V6, u32);

/// IPv4 is on.
pub const FLAG_IPV4: u32 = 1 << 0;
/// IPv6 is on; where it is off its packets are dropped with `UNKNOWN_L3`.
pub const FLAG_IPV6: u32 = 1 << 1;
/// Pods are masqueraded towards the world.
pub const FLAG_MASQUERADE: u32 = 1 << 2;
/// Policy verdicts are reported.
pub const FLAG_POLICY_VERDICT_EVENTS: u32 = 1 << 3;
/// Denials are reported but do not drop.
pub const FLAG_POLICY_AUDIT: u32 = 1 << 4;
/// Drops are reported.
pub const FLAG_DROP_EVENTS: u32 = 1 << 5;
/// Traces are reported.
pub const FLAG_TRACE_EVENTS: u32 = 1 << 6;
/// Policies of this node redirect to the proxy, or did: its connections to servers are looked for.
pub const FLAG_PROXY: u32 = 1 << 7;
