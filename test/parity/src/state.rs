//! Which node do both datapaths get?

use crate::tables::{Family, Tables};
use abi::config::{self, NodeConfig};
use abi::endpoint::{Endpoint, EndpointPolicy, FLAG_HOST, FLAG_NOT_READY, MODE_EGRESS, MODE_INGRESS};
use abi::identity;
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use abi::policy::{
    DIR_EGRESS, DIR_INGRESS, PREFIX_ANY_PROTOCOL, PREFIX_FULL, PREFIX_PROTOCOL, VerdictEntry, VerdictKey,
};
use abi::service::{Backend, FLAG_CLUSTER_IP, ReverseNat, Service, ServiceKey};
use abi::{Mac, Port, V4};
use pipeline::native::Policy;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Parties of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The pod at the interface of the test.
    Client,
    /// Another pod of the node.
    Server,
    /// A pod of another node.
    Remote,
    /// The node's gateway address.
    Router,
    /// The node.
    Node,
    /// Another node.
    OtherNode,
    /// Outside, with an identity of its own.
    Known,
    /// Outside.
    World,
    /// A service.
    Vip,
    /// Source of pods that reach themselves through a service.
    Loopback,
    /// A group.
    Group,
}

impl Who {
    /// All of them.
    pub const ALL: [Who; 11] = [
        Who::Client,
        Who::Server,
        Who::Remote,
        Who::Router,
        Who::Node,
        Who::OtherNode,
        Who::Known,
        Who::World,
        Who::Vip,
        Who::Loopback,
        Who::Group,
    ];

    /// IPv4 address.
    pub fn v4(self) -> Ipv4Addr {
        match self {
            Who::Client => Ipv4Addr::new(10, 0, 1, 11),
            Who::Server => Ipv4Addr::new(10, 0, 1, 12),
            Who::Remote => Ipv4Addr::new(10, 0, 2, 13),
            Who::Router => Ipv4Addr::new(10, 0, 1, 1),
            Who::Node => Ipv4Addr::new(172, 18, 0, 2),
            Who::OtherNode => Ipv4Addr::new(172, 18, 0, 3),
            Who::Known => Ipv4Addr::new(8, 8, 8, 8),
            Who::World => Ipv4Addr::new(1, 1, 1, 1),
            Who::Vip => Ipv4Addr::new(10, 96, 0, 5),
            Who::Loopback => Ipv4Addr::new(169, 254, 42, 1),
            Who::Group => Ipv4Addr::new(224, 0, 0, 5),
        }
    }

    /// IPv6 address.
    pub fn v6(self) -> Ipv6Addr {
        let [a, b, c, d] = self.v4().octets().map(u16::from);
        match self {
            Who::Loopback => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0x2a01),
            Who::Group => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 5),
            _ => Ipv6Addr::new(0xfd00, 0, 0, 0, a, b, c, d),
        }
    }

    /// Address of a family.
    pub fn ip(self, version: u8) -> IpAddr {
        if version == 4 { self.v4().into() } else { self.v6().into() }
    }
}

/// Where the proxy listens.
pub const PROXY_PORT: Port = Port::new(10_001);
/// The interface at which the tests' packets are: the loopback, which every network namespace has.
pub const CLIENT_IF: u32 = 1;
const SERVER_IF: u32 = 22;
const CLIENT_ID: u32 = 101;
const SERVER_ID: u32 = 102;
const SLOTS: [u32; 2] = [3, 4];
/// Reverse NAT index of the service.
const REV_NAT: u16 = 9;

/// Identities that occur.
const IDENTITIES: [u32; 7] =
    [identity::HOST, identity::WORLD, identity::REMOTE_NODE, 1001, 1002, 1003, identity::LOCAL_CIDR + 1];

/// A node, independent of how it is kept.
#[derive(Debug)]
pub struct State {
    /// Its configuration.
    pub config: NodeConfig,
    /// Its own addresses and its pods.
    pub endpoints: Vec<(Who, Endpoint)>,
    /// The IP cache beside the pods.
    pub ipcache: Vec<(Who, RemoteEndpoint)>,
    /// Endpoint, policy, and the tables of its slot.
    pub policies: Vec<(u32, EndpointPolicy, Policy)>,
    /// The service's backend.
    pub backend: Option<Who>,
}

impl State {
    /// Any node.
    pub fn random(rng: &mut StdRng) -> State {
        let pod = |id, identity, ifindex, rng: &mut StdRng| {
            let flags = if rng.random_ratio(1, 20) { FLAG_NOT_READY } else { 0 };
            let mac = |side| Mac([2, side, 0, 0, 0, ifindex as u8]);
            Endpoint { ifindex, id, identity, flags, mac: mac(1), node_mac: mac(2), pad: 0 }
        };
        let host = Endpoint { identity: identity::HOST, flags: FLAG_HOST, ..Endpoint::default() };
        let remote = |identity, node: Option<Who>| {
            let tunnel_endpoint = node.map_or(V4(0), |n| n.v4().into());
            RemoteEndpoint { identity, tunnel_endpoint, flags: 0 }
        };
        State {
            config: random_config(rng),
            endpoints: vec![
                (Who::Client, pod(CLIENT_ID, 1001, CLIENT_IF, rng)),
                (Who::Server, pod(SERVER_ID, 1002, SERVER_IF, rng)),
                (Who::Router, host),
                (Who::Node, host),
            ],
            ipcache: vec![
                (Who::Remote, remote(1003, Some(Who::OtherNode))),
                (Who::OtherNode, remote(identity::REMOTE_NODE, None)),
                (Who::Known, remote(identity::LOCAL_CIDR + 1, None)),
            ],
            policies: vec![(CLIENT_ID, SLOTS[0]), (SERVER_ID, SLOTS[1])]
                .into_iter()
                .map(|(id, slot)| random_policy(rng, id, slot))
                .collect(),
            backend: *[Some(Who::Server), Some(Who::Remote), Some(Who::Client), None].choose(rng).unwrap_or(&None),
        }
    }

    /// The tables that both datapaths get.
    pub fn tables(&self) -> Tables {
        Tables {
            config: self.config,
            v4: self.family(&|who| who.v4().into(), 32),
            v6: self.family(&|who| who.v6().into(), 128),
            devices: self.endpoints.iter().filter(|(_, e)| e.ifindex != 0).map(|(_, e)| (e.ifindex, *e)).collect(),
            policies: self.policies.clone(),
        }
    }

    fn family<A: Copy + Default>(&self, addr: &dyn Fn(Who) -> A, bits: u32) -> Family<A> {
        let world = RemoteEndpoint { identity: identity::WORLD, ..RemoteEndpoint::default() };
        let known =
            |(who, remote): &(Who, RemoteEndpoint)| (IpcacheKey { prefix_len: bits, addr: addr(*who) }, *remote);
        let mut ipcache: Vec<_> = self.ipcache.iter().map(known).collect();
        ipcache.push((IpcacheKey { prefix_len: 0, addr: A::default() }, world));
        let key = |port, protocol, backend_slot| ServiceKey {
            addr: addr(Who::Vip),
            port,
            backend_slot,
            protocol,
            pad: [0; 3],
        };
        let flags = FLAG_CLUSTER_IP;
        let mut services = vec![(key(Port(0), 0, 0), Service { flags, ..Service::default() })];
        let mut backends = Vec::new();
        for (backend_id, protocol) in [(1, wire::TCP), (2, wire::UDP)] {
            let count = u16::from(self.backend.is_some());
            services.push((
                key(Port::new(80), protocol, 0),
                Service { count, rev_nat: REV_NAT, flags, ..Service::default() },
            ));
            if let Some(who) = self.backend {
                services.push((key(Port::new(80), protocol, 1), Service { backend_id, ..Service::default() }));
                backends.push((backend_id, Backend { addr: addr(who), port: Port::new(8080), protocol, pad: 0 }));
            }
        }
        let reverse = ReverseNat { addr: addr(Who::Vip), port: Port::new(80), pad: 0 };
        Family {
            endpoints: self.endpoints.iter().map(|(who, e)| (addr(*who), *e)).collect(),
            ipcache,
            services,
            backends,
            reverse_nat: vec![(u32::from(REV_NAT), reverse)],
        }
    }

    /// While connections run: another policy for an endpoint, which is the answer, or another identity for an address.
    pub fn change(&mut self, rng: &mut StdRng) -> Option<u32> {
        if rng.random() {
            let place = rng.random_range(0..self.policies.len());
            let (id, before, _) = self.policies[place];
            let (_, mut policy, tables) = random_policy(rng, id, before.slot);
            let modes = MODE_EGRESS | MODE_INGRESS;
            policy.revision_and_modes =
                (policy.revision_and_modes & modes) | ((before.revision_and_modes & !modes) + 1);
            self.policies[place] = (id, policy, tables);
            return Some(id);
        }
        let place = rng.random_range(0..self.ipcache.len());
        if self.ipcache[place].0 != Who::OtherNode {
            self.ipcache[place].1.identity = *IDENTITIES.choose(rng).unwrap_or(&identity::WORLD);
        }
        self.config.ipcache_generation += 1;
        None
    }
}

fn random_config(rng: &mut StdRng) -> NodeConfig {
    let mut flags = config::FLAG_IPV4
        | config::FLAG_IPV6
        | config::FLAG_MASQUERADE
        | config::FLAG_POLICY_VERDICT_EVENTS
        | config::FLAG_DROP_EVENTS
        | config::FLAG_TRACE_EVENTS;
    if rng.random() {
        flags |= config::FLAG_PROXY;
    }
    for flag in [config::FLAG_IPV6, config::FLAG_POLICY_AUDIT, config::FLAG_DROP_EVENTS, config::FLAG_TRACE_EVENTS] {
        if rng.random_ratio(1, 10) {
            flags ^= flag;
        }
    }
    NodeConfig {
        ipcache_generation: 1,
        flags,
        router4: Who::Router.v4().into(),
        node4: Who::Node.v4().into(),
        router6: Who::Router.v6().into(),
        node6: Who::Node.v6().into(),
        tunnel_ifindex: 5,
        host_ifindex: 6,
        net_ifindex: 7,
        uplink_ifindex: 8,
        // every port will do, so that no random number decides which
        nat_min_port: 1,
        nat_max_port: 65535,
        monitor_aggregation: *[0, 3, 3, 3].choose(rng).unwrap_or(&3),
        native_cidr4: Who::Known.v4().into(),
        native_cidr4_len: *[0, 8, 32].choose(rng).unwrap_or(&0),
        native_cidr6: Who::Known.v6().into(),
        native_cidr6_len: *[0, 90, 128].choose(rng).unwrap_or(&0),
        ..NodeConfig::default()
    }
}

fn random_policy(rng: &mut StdRng, endpoint: u32, slot: u32) -> (u32, EndpointPolicy, Policy) {
    let (mut classes, mut verdicts) = (HashMap::new(), Vec::new());
    for identity in IDENTITIES {
        if rng.random_ratio(1, 2) {
            classes.insert(identity, rng.random_range(1..4));
        }
    }
    // without the base entries nothing passes: rare, but to be agreed on
    let bases = !rng.random_ratio(1, 30);
    for class in 0..4 {
        for direction in [DIR_INGRESS, DIR_EGRESS] {
            if bases {
                verdicts.push((key(class, direction, PREFIX_ANY_PROTOCOL, 0, 0), entry(rng)));
            }
            for _ in 0..rng.random_range(0..4) {
                let protocol = *[1, 6, 6, 17, 58, 132].choose(rng).unwrap_or(&6);
                let prefix_len =
                    *[PREFIX_PROTOCOL, PREFIX_PROTOCOL + 10, PREFIX_FULL].choose(rng).unwrap_or(&PREFIX_FULL);
                let port = *[8, 128, 80, 53, 8080, 4000].choose(rng).unwrap_or(&80);
                verdicts.push((key(class, direction, prefix_len, protocol, port), entry(rng)));
            }
        }
    }
    unique(&mut verdicts);
    let modes = [0, MODE_INGRESS, MODE_EGRESS, MODE_INGRESS | MODE_EGRESS];
    let revision_and_modes = rng.random_range(1..1000) | modes.choose(rng).copied().unwrap_or(0);
    (endpoint, EndpointPolicy { slot, revision_and_modes }, Policy::new(classes, verdicts))
}

/// The last entry of a key is the one that a map keeps.
fn unique(verdicts: &mut Vec<(VerdictKey, VerdictEntry)>) {
    let mut seen = std::collections::HashSet::new();
    verdicts.reverse();
    verdicts.retain(|(key, _)| seen.insert(*key));
}

fn key(class: u32, direction: u8, prefix_len: u32, protocol: u8, port: u16) -> VerdictKey {
    let free = PREFIX_FULL.saturating_sub(prefix_len).min(16);
    let port = if free == 16 { 0 } else { port >> free << free };
    VerdictKey { prefix_len, class, direction, protocol, port: Port::new(port) }
}

fn entry(rng: &mut StdRng) -> VerdictEntry {
    // mostly allowed, so that there are connections
    let verdict = *[0, 1, 2, 2, 2, 2, 2, 3].choose(rng).unwrap_or(&2);
    VerdictEntry {
        rule_set: rng.random_range(1..100),
        verdict,
        match_type: rng.random_range(0..7),
        proxy_port: *[Port(0), PROXY_PORT, PROXY_PORT, Port::new(PROXY_PORT.number() + 1)]
            .choose(rng)
            .unwrap_or(&PROXY_PORT),
    }
}
