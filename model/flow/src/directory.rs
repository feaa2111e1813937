//! Who is behind an address, an identity, an interface, a rule set? What the decoder asks of whoever knows.

use std::{net::IpAddr, sync::Arc};

use abi::identity::{self, Identity};

use crate::proto::flow::{Policy, Service, Workload};

/// The node at which events are seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node, without the cluster's.
    pub name: String,
    /// Labels as `key=value`.
    pub labels: Vec<String>,
}

impl Node {
    /// `cluster/node`, as flows carry it.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.cluster, self.name)
    }
}

/// What is known of an address. The agent keeps one value for each address and replaces it when something changes, so
/// that a stored event goes on to speak of whoever had the address when it happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peer {
    /// Number of the endpoint if it is one of this node, else 0.
    pub endpoint: u32,
    /// Its security identity by the agent's knowledge; the event's own identity has precedence.
    pub identity: Identity,
    /// Namespace of the pod, empty if it is none.
    pub namespace: String,
    /// Name of the pod, empty if it is none.
    pub pod: String,
    /// Its labels, as `source:key=value`. May be empty for remote peers: then the identity's are used.
    pub labels: Vec<String>,
    /// What owns the pod. Used for endpoints of this node only.
    pub workloads: Vec<Workload>,
}

/// The agent's knowledge. Look-ups happen while events are stored and while they are read, so they must be quick and
/// must not block; the values are shared.
pub trait Directory: Send + Sync + 'static {
    /// The node itself.
    fn node(&self) -> Arc<Node>;
    /// Who has an address, cluster-wide: endpoints of this node, pods elsewhere, nodes, the address cache's prefixes.
    fn peer(&self, _address: IpAddr) -> Option<Arc<Peer>> {
        None
    }
    /// Labels of an identity, as `source:key=value`. Reserved identities need not be known here.
    fn labels(&self, _identity: Identity) -> Option<Arc<[String]>> {
        None
    }
    /// The DNS names that an endpoint of this node got this address for.
    fn names(&self, _endpoint: u32, _address: IpAddr) -> Option<Arc<[String]>> {
        None
    }
    /// The service with this address and port.
    fn service(&self, _address: IpAddr, _port: u16) -> Option<Service> {
        None
    }
    /// Name of a network interface of this node.
    fn interface(&self, _index: u32) -> Option<Arc<str>> {
        None
    }
    /// The policies that a rule set of an endpoint of this node stands for.
    fn policies(&self, _endpoint: u32, _rule_set: u32) -> Option<Arc<[Policy]>> {
        None
    }
}

/// Name of a reserved identity.
pub fn reserved_name(id: Identity) -> Option<&'static str> {
    Some(match id {
        identity::UNKNOWN => "unknown",
        identity::HOST => "host",
        identity::WORLD => "world",
        identity::UNMANAGED => "unmanaged",
        identity::HEALTH => "health",
        identity::INIT => "init",
        identity::REMOTE_NODE => "remote-node",
        identity::KUBE_APISERVER => "kube-apiserver",
        identity::INGRESS => "ingress",
        identity::WORLD_IPV4 => "world-ipv4",
        identity::WORLD_IPV6 => "world-ipv6",
        _ => return None,
    })
}

/// Number of a reserved identity's name.
pub fn reserved_identity(name: &str) -> Option<Identity> {
    RESERVED.iter().copied().find(|id| reserved_name(*id) == Some(name))
}

/// All reserved identities that a packet can have.
pub const RESERVED: &[Identity] = &[
    identity::HOST,
    identity::WORLD,
    identity::UNMANAGED,
    identity::HEALTH,
    identity::INIT,
    identity::REMOTE_NODE,
    identity::KUBE_APISERVER,
    identity::INGRESS,
    identity::WORLD_IPV4,
    identity::WORLD_IPV6,
];
