//! What does a node's datapath know, independent of which of the two datapaths it is?

use crate::state::PROXY_PORT;
use abi::config::NodeConfig;
use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use abi::service::{Backend, ReverseNat, Service, ServiceKey};
use abi::{V4, V6};
use bpf::SlotDump;
use pipeline::native::{self, Node, Policy};
use std::hash::Hash;

/// A node's tables.
#[derive(Debug, Default)]
pub struct Tables {
    /// Configuration.
    pub config: NodeConfig,
    /// IPv4.
    pub v4: Family<V4>,
    /// IPv6.
    pub v6: Family<V6>,
    /// Endpoints by interface.
    pub devices: Vec<(u32, Endpoint)>,
    /// Endpoint, policy, and the tables of its slot.
    pub policies: Vec<(u32, EndpointPolicy, Policy)>,
}

/// One family's tables.
#[derive(Debug, Default)]
pub struct Family<A> {
    /// Endpoints by address.
    pub endpoints: Vec<(A, Endpoint)>,
    /// IP cache.
    pub ipcache: Vec<(IpcacheKey<A>, RemoteEndpoint)>,
    /// Services with backend slots.
    pub services: Vec<(ServiceKey<A>, Service)>,
    /// Backends.
    pub backends: Vec<(u32, Backend<A>)>,
    /// Service addresses.
    pub reverse_nat: Vec<(u32, ReverseNat<A>)>,
}

impl Tables {
    /// A native node with these tables.
    pub fn native(self) -> Node {
        let mut node = Node::default();
        node.listeners.extend([(wire::TCP, PROXY_PORT), (wire::UDP, PROXY_PORT)]);
        // nor do test runs in the kernel give a packet to a socket
        node.assigns = false;
        self.renew(&mut node, |_| true);
        node
    }

    /// Gives a native node these tables; its connections stay, and so do policies of endpoints that are not picked, with
    /// what they counted.
    pub fn renew(self, node: &mut Node, picked: impl Fn(u32) -> bool) {
        node.config = Some(self.config);
        fill(&mut node.v4, self.v4);
        fill(&mut node.v6, self.v6);
        node.devices = self.devices.into_iter().collect();
        for (id, policy, tables) in self.policies {
            node.endpoint_policies.insert(id, policy);
            if picked(id) {
                node.policies.insert(policy.slot, tables);
            }
        }
    }

    /// The policies as the kernel's slots have them.
    pub fn slots(&self) -> Vec<(u32, SlotDump)> {
        let slot = |(_, policy, tables): &(u32, EndpointPolicy, Policy)| {
            let classes = tables.classes.iter().map(|(identity, class)| (*identity, *class)).collect();
            (policy.slot, SlotDump { classes, verdicts: tables.verdicts.clone() })
        };
        self.policies.iter().map(slot).collect()
    }
}

fn fill<A: Hash + Eq + Copy>(family: &mut native::Family<A>, tables: Family<A>) {
    family.endpoints = tables.endpoints.into_iter().collect();
    family.ipcache = tables.ipcache;
    family.services = tables.services.into_iter().collect();
    family.backends = tables.backends.into_iter().collect();
    family.reverse_nat = tables.reverse_nat.into_iter().collect();
}
