//! How does a packet pass a simulated node? The environment of the pipeline over the node's tables.

use super::node::{Node, SocketName};
use crate::env::{Change, Env, Socket, Tables, Wanted};
use crate::packet::Packet;
use abi::config::NodeConfig;
use abi::conntrack::{CtEntry, CtKey};
use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::event::{Event, Record};
use abi::fragment::{FragmentKey, FragmentPorts};
use abi::identity::Identity;
use abi::ipcache::RemoteEndpoint;
use abi::metrics::{Metric, MetricKey};
use abi::nat::{NatEntry, NatKey};
use abi::policy::{Class, CountedVerdict, VerdictKey};
use abi::proxy::{MARK_MASK, MARK_TO_PROXY, ProxySocket, SocketCookie};
use abi::service::{Backend, ReverseNat, Service, ServiceKey};
use abi::{Mac, Plain, V4, V6, bytes_of, from_bytes};
use core::cell::{Cell, RefCell};
use std::vec::Vec;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dropped.
    Dropped,
    /// Left to the node's stack.
    Stack,
    /// Given to the proxy: to its socket of the connection, or to the one that listens.
    Proxy(Wanted),
    /// Left to the node's stack with a mark for the proxy.
    Marked(u32),
    /// Handed to the other end of a veth.
    Peer(u32),
    /// Sent out of an interface.
    Device(u32),
    /// Sent into the tunnel.
    Tunnel {
        /// As whom.
        identity: Identity,
        /// To which node.
        remote: V4,
    },
}

/// Everything that came of a packet.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Where it went.
    pub action: Action,
    /// Its bytes then.
    pub packet: Vec<u8>,
    /// What was told.
    pub events: Vec<Event>,
}

/// A packet on a simulated node.
#[derive(Debug)]
pub struct Passage<'a> {
    node: &'a Node,
    packet: Vec<u8>,
    ifindex: u32,
    came_by: u32,
    tunnel: Option<(u32, V4)>,
    now: u32,
    random: Cell<u64>,
    events: RefCell<Vec<Event>>,
    way: Option<Action>,
    mark: u32,
    cookie: SocketCookie,
    given: Option<Wanted>,
}

/// Result of a redirection, as in the kernel.
const REDIRECT: i32 = 7;

impl<'a> Passage<'a> {
    /// A packet at an interface, at a second since boot, with a seed of random numbers.
    pub fn new(
        node: &'a Node,
        packet: &[u8],
        ifindex: u32,
        tunnel: Option<(u32, V4)>,
        (now, seed): (u32, u64),
    ) -> Self {
        let random = Cell::new(seed | 1);
        let (packet, events) = (packet.to_vec(), RefCell::default());
        Passage {
            node,
            packet,
            ifindex,
            came_by: 0,
            tunnel,
            now,
            random,
            events,
            way: None,
            mark: 0,
            cookie: [0; 2],
            given: None,
        }
    }

    /// The same, forwarded by the node that got it by this interface.
    pub fn forwarded(self, came_by: u32) -> Self {
        Passage { came_by, ..self }
    }

    /// The same, with a mark, sent by a socket of this cookie.
    pub fn marked(self, mark: u32, cookie: SocketCookie) -> Self {
        Passage { mark, cookie, ..self }
    }

    /// What came of it, given the program's result.
    pub fn outcome(self, result: i32) -> Outcome {
        let action = match (result, self.way) {
            (REDIRECT, Some(way)) => way,
            (crate::forward::PASS, _) => self.passed(),
            _ => Action::Dropped,
        };
        Outcome { action, packet: self.packet, events: self.events.into_inner() }
    }

    fn passed(&self) -> Action {
        match self.given {
            Some(socket) => Action::Proxy(socket),
            None if self.mark & MARK_MASK == MARK_TO_PROXY => Action::Marked(self.mark),
            None => Action::Stack,
        }
    }

    fn redirect(&mut self, way: Action) -> i32 {
        self.way = Some(way);
        REDIRECT
    }

    fn replace_sum(&mut self, at: u32, from: &[u16], to: &[u16], zero_means_none: bool) -> bool {
        let at = at as usize;
        let Some(field) = self.packet.get(at..).and_then(|tail| tail.first_chunk::<2>()) else { return false };
        let old = u16::from_be_bytes(*field);
        if zero_means_none && old == 0 {
            return true;
        }
        let new = match updated(old, from, to) {
            0 if zero_means_none => 0xffff,
            new => new,
        };
        self.packet[at..at + 2].copy_from_slice(&new.to_be_bytes());
        true
    }
}

/// The checksum after a change of words (RFC 1624).
fn updated(checksum: u16, from: &[u16], to: &[u16]) -> u16 {
    let removed: u32 = from.iter().map(|w| u32::from(!w)).sum();
    let added: u32 = to.iter().map(|w| u32::from(*w)).sum();
    let mut total = u32::from(!checksum) + removed + added;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// The 16 bit words of a number that lies in memory as in the packet.
fn words(number: u32, size: u8) -> Vec<u16> {
    let bytes = number.to_ne_bytes();
    bytes.chunks(2).take(usize::from(size) / 2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect()
}

macro_rules! tables {
    ($addr:ty, $family:ident) => {
        impl Tables<$addr> for Passage<'_> {
            fn endpoint(&self, addr: &$addr) -> Option<Endpoint> {
                self.node.$family.endpoints.get(addr).copied()
            }
            fn remote(&self, addr: &$addr) -> Option<RemoteEndpoint> {
                self.node.$family.remote(addr)
            }
            fn connection(&self, key: &CtKey<$addr>) -> Option<&CtEntry> {
                self.node.$family.connections.get(key)
            }
            fn connect(&self, key: &CtKey<$addr>, fill: impl FnOnce(&mut CtEntry)) -> bool {
                let mut entry = CtEntry::default();
                fill(&mut entry);
                self.node.$family.connections.put(key, entry)
            }
            fn service(&self, key: &ServiceKey<$addr>) -> Option<Service> {
                self.node.$family.services.get(key).copied()
            }
            fn backend(&self, id: u32) -> Option<Backend<$addr>> {
                self.node.$family.backends.get(&id).copied()
            }
            fn reverse_nat(&self, index: u16) -> Option<ReverseNat<$addr>> {
                self.node.$family.reverse_nat.get(&u32::from(index)).copied()
            }
            fn nat(&self, key: &NatKey<$addr>) -> Option<&NatEntry<$addr>> {
                self.node.$family.nat.get(key)
            }
            fn nat_insert(&self, key: &NatKey<$addr>, entry: &NatEntry<$addr>, only_new: bool) -> bool {
                let taken = only_new && self.node.$family.nat.get(key).is_some();
                !taken && self.node.$family.nat.put(key, entry.clone())
            }
            fn fragment(&self, key: &FragmentKey<$addr>) -> Option<&FragmentPorts> {
                self.node.$family.fragments.get(key)
            }
            fn fragment_insert(&self, key: &FragmentKey<$addr>, ports: &FragmentPorts) -> bool {
                self.node.$family.fragments.put(key, ports.clone())
            }
            fn socket(&mut self, packet: &Packet<$addr>, which: Wanted, assign: bool) -> Socket {
                let there = match which {
                    Wanted::Listening(port) => self.node.listeners.contains(&(packet.protocol, port)),
                    Wanted::Connected => self.node.$family.sockets.contains(&SocketName::receiving(packet)),
                };
                match (there, assign, self.node.assigns) {
                    (false, ..) => Socket::None,
                    (true, true, false) => Socket::Refused,
                    (true, true, true) => {
                        self.given = Some(which);
                        Socket::Found
                    }
                    (true, false, _) => Socket::Found,
                }
            }
        }
    };
}

tables!(V4, v4);
tables!(V6, v6);

impl Env for Passage<'_> {
    fn config(&self) -> Option<&NodeConfig> {
        self.node.config.as_ref()
    }
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
    fn came_by(&self) -> u32 {
        self.came_by
    }
    fn mark(&self) -> u32 {
        self.mark
    }
    fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }
    fn socket_cookie(&self) -> SocketCookie {
        self.cookie
    }
    fn proxy_socket(&self, cookie: &SocketCookie) -> Option<ProxySocket> {
        self.node.proxy_sockets.get(cookie).copied()
    }
    fn device(&self, ifindex: u32) -> Option<Endpoint> {
        self.node.devices.get(&ifindex).copied()
    }
    fn policy(&self, endpoint: u32) -> Option<EndpointPolicy> {
        // as an array in the kernel: what was never written is zero
        (endpoint < 65536).then(|| self.node.endpoint_policies.get(&endpoint).copied().unwrap_or_default())
    }
    fn class(&self, slot: u32, identity: Identity) -> Option<Class> {
        self.node.policies.get(&slot)?.classes.get(&identity).copied()
    }
    fn verdict(&self, slot: u32, key: &VerdictKey) -> Option<&CountedVerdict> {
        self.node.policies.get(&slot)?.verdict(key)
    }
    fn metric(&self, key: &MetricKey) -> Option<&Metric> {
        self.node.metrics.get(usize::from(key.reason) + 256 * usize::from(key.direction))
    }
    fn emit(&self, events: u32, fill: impl FnOnce(&mut Record)) {
        let mut record = Record::default();
        fill(&mut record);
        let mut all = self.events.borrow_mut();
        let before = all.len();
        all.extend(record.events());
        debug_assert_eq!(all.len() - before, events as usize, "counted as told");
    }
    fn opaque(&self, numbers: [u32; 3]) -> [u32; 3] {
        numbers
    }
    fn seconds(&self) -> u32 {
        self.now
    }
    fn nanoseconds(&self) -> u64 {
        u64::from(self.now) * 1_000_000_000
    }
    fn random(&self) -> u32 {
        // xorshift: any sequence will do
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 16) as u32
    }
    fn length(&self) -> u32 {
        self.packet.len() as u32
    }
    fn load<T: Plain + Copy>(&self, at: usize) -> Option<T> {
        from_bytes(self.packet.get(at..at.checked_add(size_of::<T>())?)?)
    }
    fn load_at<T: Plain + Copy + Default>(&self, at: u32) -> Option<T> {
        self.load(at as usize)
    }
    fn address_frame(&mut self, destination: Mac, source: Mac) -> bool {
        self.store(0, destination.0) && self.store(6, source.0)
    }
    fn store<T: Plain + Copy>(&mut self, at: u32, value: T) -> bool {
        let at = at as usize;
        let Some(place) = self.packet.get_mut(at..at + size_of::<T>()) else { return false };
        place.copy_from_slice(bytes_of(&value));
        true
    }
    fn correct_l3(&mut self, at: u32, from: u32, to: u32) -> bool {
        self.replace_sum(at, &words(from, 4), &words(to, 4), false)
    }
    fn correct_l4(&mut self, at: u32, c: Change) -> bool {
        self.replace_sum(at, &words(c.from, c.size), &words(c.to, c.size), c.udp)
    }
    fn tunnel_key(&self) -> Option<(u32, V4)> {
        self.tunnel
    }
    fn to_tunnel(&mut self, identity: Identity, remote: V4, _ifindex: u32) -> Option<i32> {
        Some(self.redirect(Action::Tunnel { identity, remote }))
    }
    fn to_peer(&mut self, ifindex: u32) -> i32 {
        self.redirect(Action::Peer(ifindex))
    }
    fn to_device(&mut self, ifindex: u32) -> i32 {
        self.redirect(Action::Device(ifindex))
    }
    fn for_host(&mut self) {}
    fn back(&mut self) -> i32 {
        let ifindex = self.ifindex;
        self.redirect(Action::Device(ifindex))
    }
}
