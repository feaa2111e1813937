//! What does a simulated node know? The same tables as in the kernel.

use super::shelf::Shelf;
use crate::packet::Packet;
use abi::Addr;
use abi::config::NodeConfig;
use abi::conntrack::{CtEntry, CtKey};
use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::fragment::{FragmentKey, FragmentPorts};
use abi::identity::Identity;
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use abi::metrics::Metric;
use abi::nat::{NatEntry, NatKey};
use abi::policy::{Class, CountedVerdict, PREFIX_FULL, VerdictEntry, VerdictKey};
use abi::proxy::{ProxySocket, SocketCookie};
use abi::service::{Backend, ReverseNat, Service, ServiceKey};
use abi::{Port, V4, V6};
use core::hash::Hash;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

/// Places in each table of connections and translations.
const PLACES: usize = 4096;

/// The tables of one address family.
#[derive(Debug)]
pub struct Family<A: Hash + Eq + Copy> {
    /// Endpoints by address.
    pub endpoints: HashMap<A, Endpoint>,
    /// The IP cache.
    pub ipcache: Vec<(IpcacheKey<A>, RemoteEndpoint)>,
    /// Connections.
    pub connections: Shelf<CtKey<A>, CtEntry>,
    /// Masqueraded flows.
    pub nat: Shelf<NatKey<A>, NatEntry<A>>,
    /// Fragmented datagrams.
    pub fragments: Shelf<FragmentKey<A>, FragmentPorts>,
    /// Services.
    pub services: HashMap<ServiceKey<A>, Service>,
    /// Backends.
    pub backends: HashMap<u32, Backend<A>>,
    /// Service addresses by reverse NAT index.
    pub reverse_nat: HashMap<u32, ReverseNat<A>>,
    /// Connected sockets of the node itself.
    pub sockets: HashSet<SocketName<A>>,
}

/// A connected socket, by the packets that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketName<A> {
    /// IP protocol number.
    pub protocol: u8,
    /// Whence they come.
    pub source: (A, Port),
    /// Whither they go.
    pub destination: (A, Port),
}

impl<A: Copy> SocketName<A> {
    /// The socket that receives this packet.
    pub fn receiving(packet: &Packet<A>) -> Self {
        SocketName {
            protocol: packet.protocol,
            source: (packet.source, packet.source_port),
            destination: (packet.destination, packet.destination_port),
        }
    }
}

impl<A: Hash + Eq + Copy> Family<A> {
    fn new(places: usize) -> Self {
        Family {
            endpoints: HashMap::new(),
            ipcache: Vec::new(),
            connections: Shelf::new(places),
            nat: Shelf::new(places),
            fragments: Shelf::new(places),
            services: HashMap::new(),
            backends: HashMap::new(),
            reverse_nat: HashMap::new(),
            sockets: HashSet::new(),
        }
    }
}

impl<A: Addr + Hash> Family<A> {
    /// The longest prefix of the IP cache that covers an address.
    pub fn remote(&self, addr: &A) -> Option<RemoteEndpoint> {
        let covers = |key: &IpcacheKey<A>| covered(key.addr.widen(), addr.widen(), key.prefix_len);
        let longest = self.ipcache.iter().filter(|(key, _)| covers(key)).max_by_key(|(key, _)| key.prefix_len);
        longest.map(|(_, remote)| *remote)
    }
}

/// Do two addresses agree in their first bits?
fn covered(a: [u32; 4], b: [u32; 4], bits: u32) -> bool {
    let bytes = |words: [u32; 4]| words.map(u32::to_ne_bytes).concat();
    let number = |words| bytes(words).iter().fold(0u128, |n, byte| n << 8 | u128::from(*byte));
    bits == 0 || (number(a) ^ number(b)) >> (128 - bits.min(128)) == 0
}

/// A policy slot.
#[derive(Debug, Default, Clone)]
pub struct Policy {
    /// Identity to class.
    pub classes: HashMap<Identity, Class>,
    /// Verdicts, in any order.
    pub verdicts: Vec<(VerdictKey, CountedVerdict)>,
}

impl Policy {
    /// A policy that nobody has asked so far.
    pub fn new(
        classes: HashMap<Identity, Class>,
        verdicts: impl IntoIterator<Item = (VerdictKey, VerdictEntry)>,
    ) -> Self {
        Policy { classes, verdicts: verdicts.into_iter().map(|(key, entry)| (key, entry.into())).collect() }
    }

    /// The verdict of the longest matching key.
    pub fn verdict(&self, asked: &VerdictKey) -> Option<&CountedVerdict> {
        let matching = self.verdicts.iter().filter(|(key, _)| matches(key, asked));
        matching.max_by_key(|(key, _)| key.prefix_len).map(|(_, entry)| entry)
    }
}

fn matches(key: &VerdictKey, asked: &VerdictKey) -> bool {
    let bits = |k: &VerdictKey| {
        let class = u32::from_be_bytes(k.class.to_ne_bytes());
        u64::from(class) << 32 | u64::from(k.direction) << 24 | u64::from(k.protocol) << 16 | u64::from(k.port.number())
    };
    let length = key.prefix_len.min(PREFIX_FULL);
    length == 0 || (bits(key) ^ bits(asked)) >> (64 - length) == 0
}

/// A simulated node.
#[derive(Debug)]
pub struct Node {
    /// Its configuration; without one nothing passes.
    pub config: Option<NodeConfig>,
    /// IPv4.
    pub v4: Family<V4>,
    /// IPv6.
    pub v6: Family<V6>,
    /// Endpoints by interface.
    pub devices: HashMap<u32, Endpoint>,
    /// Policy of each endpoint.
    pub endpoint_policies: HashMap<u32, EndpointPolicy>,
    /// Policy slots.
    pub policies: HashMap<u32, Policy>,
    /// Protocols and ports at which the proxy listens.
    pub listeners: HashSet<(u8, Port)>,
    /// In whose name sockets of the proxy speak.
    pub proxy_sockets: HashMap<SocketCookie, ProxySocket>,
    /// Sockets can be given packets.
    pub assigns: bool,
    /// Packets by fate; the place is reason + 256 × direction.
    pub metrics: Vec<Metric>,
}

impl Default for Node {
    fn default() -> Self {
        Node::with_places(PLACES)
    }
}

impl Node {
    /// A node without configuration and endpoints, whose tables of connections have this many places.
    pub fn with_places(places: usize) -> Self {
        Node {
            config: None,
            v4: Family::new(places),
            v6: Family::new(places),
            devices: HashMap::new(),
            endpoint_policies: HashMap::new(),
            policies: HashMap::new(),
            listeners: HashSet::new(),
            proxy_sockets: HashMap::new(),
            assigns: true,
            metrics: (0..1024).map(|_| Metric::default()).collect(),
        }
    }

    /// Packets that met a fate (0: forwarded; else the drop reason) in a direction (plus 1, 0: unknown).
    pub fn counted(&self, reason: u8, direction: u8) -> u64 {
        let place = usize::from(reason) + 256 * usize::from(direction);
        self.metrics.get(place).map_or(0, |m| m.packets.get())
    }
}
