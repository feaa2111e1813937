//! What do the tests stand on? A node with two pods, whose policies allow or deny at a word.

use crate::native::{Action, Hook, Input, Node, Outcome, Policy, run};
use abi::config::{self, NodeConfig};
use abi::endpoint::{Endpoint, EndpointPolicy, FLAG_HOST, MODE_EGRESS, MODE_INGRESS};
use abi::event::{self, Event};
use abi::identity;
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use abi::policy::{self, DIR_EGRESS, DIR_INGRESS, VerdictEntry, VerdictKey};
use abi::{DropReason, Mac, Port, V4, V6};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec::Vec;
use wire::Frame;

pub const CLIENT: u32 = 1001;
pub const SERVER: u32 = 1002;
pub const REMOTE: u32 = 1003;
pub const CLIENT_IF: u32 = 11;
pub const SERVER_IF: u32 = 12;
pub const OVERLAY_IF: u32 = 5;
pub const HOST_IF: u32 = 3;
pub const UPLINK_IF: u32 = 2;
pub const CLIENT_EP: u32 = 101;
pub const SERVER_EP: u32 = 102;

/// Addresses by what they are, in both families.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Who {
    Client,
    Server,
    Remote,
    Router,
    Node,
    OtherNode,
    World,
    Vip,
    Loopback,
}

impl Who {
    pub fn v4(self) -> Ipv4Addr {
        match self {
            Who::Client => Ipv4Addr::new(10, 0, 1, 11),
            Who::Server => Ipv4Addr::new(10, 0, 1, 12),
            Who::Remote => Ipv4Addr::new(10, 0, 2, 13),
            Who::Router => Ipv4Addr::new(10, 0, 1, 1),
            Who::Node => Ipv4Addr::new(172, 18, 0, 2),
            Who::OtherNode => Ipv4Addr::new(172, 18, 0, 3),
            Who::World => Ipv4Addr::new(1, 1, 1, 1),
            Who::Vip => Ipv4Addr::new(10, 96, 0, 5),
            Who::Loopback => Ipv4Addr::new(169, 254, 42, 1),
        }
    }

    pub fn v6(self) -> Ipv6Addr {
        let net = match self {
            Who::World => 0x2001,
            Who::Loopback => return Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0x2a01),
            _ => 0xfd00,
        };
        let [a, b, c, d] = self.v4().octets().map(u16::from);
        Ipv6Addr::new(net, 0, 0, 0, a, b, c, d)
    }

    pub fn ip(self, version: u8) -> IpAddr {
        if version == 4 { self.v4().into() } else { self.v6().into() }
    }
}

/// Both families, for tests that hold for both.
pub const FAMILIES: [u8; 2] = [4, 6];

/// A frame between two parties.
pub fn frame(version: u8, from: Who, to: Who) -> Frame {
    Frame::between(from.ip(version), to.ip(version))
}

/// A node with its clock.
pub struct Bed {
    pub node: Node,
    pub now: u32,
}

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;
pub const SYN_ACK: u8 = SYN | ACK;

impl Bed {
    /// No policy: everything passes, nothing is enforced.
    pub fn open() -> Bed {
        let mut bed = Bed { node: Node::default(), now: 1000 };
        bed.node.config = Some(config());
        bed.endpoint(Who::Client, endpoint(CLIENT_EP, CLIENT, CLIENT_IF));
        bed.endpoint(Who::Server, endpoint(SERVER_EP, SERVER, SERVER_IF));
        for own in [Who::Router, Who::Node] {
            let host = Endpoint { identity: identity::HOST, flags: FLAG_HOST, ..Endpoint::default() };
            bed.node.v4.endpoints.insert(own.v4().into(), host);
            bed.node.v6.endpoints.insert(own.v6().into(), host);
        }
        bed.known(Who::Remote, REMOTE, Some(Who::OtherNode));
        bed.known(Who::OtherNode, identity::REMOTE_NODE, None);
        bed.everybody(identity::WORLD);
        bed.policy(CLIENT_EP, 1, Verdicts::open());
        bed.policy(SERVER_EP, 2, Verdicts::open());
        bed
    }

    fn endpoint(&mut self, who: Who, endpoint: Endpoint) {
        self.node.v4.endpoints.insert(who.v4().into(), endpoint);
        self.node.v6.endpoints.insert(who.v6().into(), endpoint);
        self.node.devices.insert(endpoint.ifindex, endpoint);
    }

    /// What the IP cache knows.
    pub fn known(&mut self, who: Who, identity: u32, behind: Option<Who>) {
        let tunnel_endpoint = behind.map_or(V4(0), |node| node.v4().into());
        let remote = RemoteEndpoint { identity, tunnel_endpoint, flags: 0 };
        self.node.v4.ipcache.push((IpcacheKey { prefix_len: 32, addr: who.v4().into() }, remote));
        self.node.v6.ipcache.push((IpcacheKey { prefix_len: 128, addr: who.v6().into() }, remote));
    }

    fn everybody(&mut self, identity: u32) {
        let remote = RemoteEndpoint { identity, ..RemoteEndpoint::default() };
        self.node.v4.ipcache.push((IpcacheKey { prefix_len: 0, addr: V4(0) }, remote));
        self.node.v6.ipcache.push((IpcacheKey { prefix_len: 0, addr: V6([0; 4]) }, remote));
    }

    /// Gives an endpoint another policy in its slot, with a new revision.
    pub fn policy(&mut self, endpoint: u32, slot: u32, verdicts: Verdicts) {
        self.node.policies.insert(slot, verdicts.policy);
        let before = self.node.endpoint_policies.get(&endpoint).map_or(0, |p| p.revision_and_modes);
        let revision = (before & !(MODE_EGRESS | MODE_INGRESS)) + 1;
        let policy = EndpointPolicy { slot, revision_and_modes: revision | verdicts.modes };
        self.node.endpoint_policies.insert(endpoint, policy);
    }

    pub fn at(&self, hook: Hook, ifindex: u32, packet: &[u8]) -> Seen {
        let input = Input { hook, ifindex, packet, now: self.now, seed: u64::from(self.now) };
        Seen(run(&self.node, &input))
    }

    pub fn sent_by_client(&self, packet: &[u8]) -> Seen {
        self.at(Hook::Container, CLIENT_IF, packet)
    }

    pub fn sent_by_server(&self, packet: &[u8]) -> Seen {
        self.at(Hook::Container, SERVER_IF, packet)
    }
}

/// What came of a packet, and what to say of it.
pub struct Seen(pub Outcome);

impl Seen {
    pub fn action(&self) -> Action {
        self.0.action
    }

    /// Passed to the server or the client.
    pub fn arrives_at(&self, ifindex: u32) -> bool {
        self.0.action == Action::Peer(ifindex)
    }

    /// The reason of the one drop event; there must be exactly one, and the packet must be gone.
    pub fn dropped(&self) -> Option<DropReason> {
        let mut reasons = self.0.events.iter().filter(|e| e.kind == event::KIND_DROP);
        let reason = reasons.next().map(|e| DropReason(e.code));
        assert!(reasons.next().is_none(), "one packet, one drop: {:?}", self.0.events);
        assert_eq!(reason.is_some(), self.0.action == Action::Dropped, "{:?}", self.0);
        reason
    }

    /// The observation points that were reported, with the connection's state.
    pub fn traces(&self) -> Vec<(u8, u8)> {
        self.kind(event::KIND_TRACE).map(|e| (e.code, e.detail)).collect()
    }

    pub fn kind(&self, kind: u8) -> impl Iterator<Item = &Event> {
        self.0.events.iter().filter(move |e| e.kind == kind)
    }
}

fn endpoint(id: u32, identity: u32, ifindex: u32) -> Endpoint {
    let mac = |side: u8| Mac([2, side, 0, 0, 0, ifindex as u8]);
    Endpoint { ifindex, id, identity, flags: 0, mac: mac(1), node_mac: mac(2), pad: 0 }
}

fn config() -> NodeConfig {
    NodeConfig {
        ipcache_generation: 1,
        flags: config::FLAG_IPV4
            | config::FLAG_IPV6
            | config::FLAG_MASQUERADE
            | config::FLAG_POLICY_VERDICT_EVENTS
            | config::FLAG_DROP_EVENTS
            | config::FLAG_TRACE_EVENTS,
        router4: Who::Router.v4().into(),
        node4: Who::Node.v4().into(),
        router6: Who::Router.v6().into(),
        node6: Who::Node.v6().into(),
        tunnel_ifindex: OVERLAY_IF,
        host_ifindex: HOST_IF,
        net_ifindex: 4,
        uplink_ifindex: UPLINK_IF,
        router_mac: Mac([2, 9, 9, 9, 9, 9]),
        nat_min_port: 50000,
        nat_max_port: 50003,
        monitor_aggregation: 3,
        ..NodeConfig::default()
    }
}

/// A policy in words.
pub struct Verdicts {
    policy: Policy,
    modes: u32,
}

/// Where the proxy listens in these tests.
pub const PROXY_PORT: Port = Port::new(10_001);

/// Number of the rule set that allows in these tests.
pub const ALLOWING: u32 = 77;

impl Verdicts {
    /// No policy.
    pub fn open() -> Self {
        let allow = VerdictEntry { verdict: policy::VERDICT_ALLOW, ..VerdictEntry::default() };
        Verdicts::based(0, [allow, allow])
    }

    /// Ingress is enforced and nothing allows it.
    pub fn closed_to_all() -> Self {
        let allow = VerdictEntry { verdict: policy::VERDICT_ALLOW, ..VerdictEntry::default() };
        Verdicts::based(MODE_INGRESS, [VerdictEntry::default(), allow])
    }

    /// Egress is enforced and nothing allows it.
    pub fn silent() -> Self {
        let allow = VerdictEntry { verdict: policy::VERDICT_ALLOW, ..VerdictEntry::default() };
        Verdicts::based(MODE_EGRESS, [allow, VerdictEntry::default()])
    }

    fn based(modes: u32, [ingress, egress]: [VerdictEntry; 2]) -> Self {
        let key = |direction| VerdictKey {
            prefix_len: policy::PREFIX_ANY_PROTOCOL,
            class: 0,
            direction,
            protocol: 0,
            port: Port(0),
        };
        let verdicts = [(key(DIR_INGRESS), ingress), (key(DIR_EGRESS), egress)];
        Verdicts { policy: Policy::new(Default::default(), verdicts), modes }
    }

    /// Everybody may on this protocol and port.
    pub fn allow(self, direction: u8, protocol: u8, port: u16) -> Self {
        self.entry(0, direction, (protocol, port), policy::VERDICT_ALLOW)
    }

    /// Nobody may on this protocol and port, by a deny rule.
    pub fn deny(self, direction: u8, protocol: u8, port: u16) -> Self {
        self.entry(0, direction, (protocol, port), policy::VERDICT_DENY)
    }

    /// One identity may, on this protocol and port; it gets a class of its own.
    pub fn allow_from(mut self, identity: u32, direction: u8, protocol: u8, port: u16) -> Self {
        let class = identity + 1;
        self.policy.classes.insert(identity, class);
        let bases: Vec<_> = self.policy.verdicts.iter().filter(|(k, _)| k.class == 0).cloned().collect();
        self.policy.verdicts.extend(bases.into_iter().map(|(k, v)| (VerdictKey { class, ..k }, v)));
        self.entry(class, direction, (protocol, port), policy::VERDICT_ALLOW)
    }

    /// Everybody may on this protocol and port if the proxy agrees.
    pub fn redirect(mut self, direction: u8, protocol: u8, port: u16) -> Self {
        self = self.entry(0, direction, (protocol, port), policy::VERDICT_REDIRECT);
        let (_, counted) = self.policy.verdicts.last_mut().unwrap();
        counted.entry.proxy_port = PROXY_PORT;
        self
    }

    fn entry(mut self, class: u32, direction: u8, (protocol, port): (u8, u16), verdict: u8) -> Self {
        let prefix_len = policy::PREFIX_FULL;
        let key = VerdictKey { prefix_len, class, direction, protocol, port: Port::new(port) };
        let match_type = policy::MATCH_L3_L4;
        let entry = VerdictEntry { rule_set: ALLOWING, verdict, match_type, proxy_port: Port(0) };
        self.policy.verdicts.push((key, entry.into()));
        self
    }
}
