//! Which numbers mean which security identity?

/// A security identity. Reserved ones are below 256, cluster-wide ones below 2^16, node-local CIDR ones from 2^24 on,
/// node-local remote-node ones from 2^25 on.
pub type Identity = u32;

/// Nothing is known of the peer.
pub const UNKNOWN: Identity = 0;
/// The own node, processes with the host's network included.
pub const HOST: Identity = 1;
/// Anything outside of the cluster.
pub const WORLD: Identity = 2;
/// In the cluster, but not managed by the agent.
pub const UNMANAGED: Identity = 3;
/// The health endpoint of a node.
pub const HEALTH: Identity = 4;
/// An endpoint whose labels are not known yet.
pub const INIT: Identity = 5;
/// Another node of the cluster.
pub const REMOTE_NODE: Identity = 6;
/// A node (or address) that serves the Kubernetes API.
pub const KUBE_APISERVER: Identity = 7;
/// Ingress and gateway traffic that a node's proxy sends.
pub const INGRESS: Identity = 8;
/// Outside of the cluster, IPv4 (used where both families are on).
pub const WORLD_IPV4: Identity = 9;
/// Outside of the cluster, IPv6 (used where both families are on).
pub const WORLD_IPV6: Identity = 10;
/// First identity of a workload.
pub const MINIMAL_ALLOCATED: Identity = 256;
/// Last identity of a workload in a cluster with id 0.
pub const MAXIMAL_ALLOCATED: Identity = 65535;
/// First identity of a CIDR; they mean something on one node only.
pub const LOCAL_CIDR: Identity = 1 << 24;
/// First identity of a remote node with labels; they mean something on one node only.
pub const LOCAL_REMOTE_NODE: Identity = 2 << 24;

/// True for identities that mean something on one node only and so may not travel in packets.
pub const fn is_node_local(id: Identity) -> bool {
    id >= LOCAL_CIDR
}
