//! What does the datapath need of its surroundings? One implementation is the kernel, another a simulated node.

use abi::config::NodeConfig;
use abi::conntrack::{CtEntry, CtKey};
use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::event::Record;
use abi::fragment::{FragmentKey, FragmentPorts};
use abi::identity::Identity;
use abi::ipcache::RemoteEndpoint;
use abi::metrics::Metric;
use abi::metrics::MetricKey;
use abi::nat::{NatEntry, NatKey};
use abi::policy::{Class, CountedVerdict, VerdictKey};
use abi::proxy::{ProxySocket, SocketCookie};
use abi::service::{Backend, ReverseNat, Service, ServiceKey};
use abi::{Mac, Plain, Port, V4};

use crate::packet::Packet;

/// The tables of one address family.
pub trait Tables<A> {
    /// The endpoint of this node with this address.
    fn endpoint(&self, addr: &A) -> Option<Endpoint>;
    /// What the IP cache knows of an address.
    fn remote(&self, addr: &A) -> Option<RemoteEndpoint>;
    /// A connection.
    fn connection(&self, key: &CtKey<A>) -> Option<&CtEntry>;
    /// Notes a connection as `fill` makes it out of an empty one; false if there is no room.
    fn connect(&self, key: &CtKey<A>, fill: impl FnOnce(&mut CtEntry)) -> bool;
    /// A service or one of its backend slots.
    fn service(&self, key: &ServiceKey<A>) -> Option<Service>;
    /// A backend by number.
    fn backend(&self, id: u32) -> Option<Backend<A>>;
    /// The service address behind a reverse NAT index.
    fn reverse_nat(&self, index: u16) -> Option<ReverseNat<A>>;
    /// A masqueraded flow.
    fn nat(&self, key: &NatKey<A>) -> Option<&NatEntry<A>>;
    /// Notes a masqueraded flow; false if the key is taken (with `only_new`) or there is no room.
    fn nat_insert(&self, key: &NatKey<A>, entry: &NatEntry<A>, only_new: bool) -> bool;
    /// The ports of a fragmented datagram.
    fn fragment(&self, key: &FragmentKey<A>) -> Option<&FragmentPorts>;
    /// Notes the ports of a fragmented datagram; false if there is no room.
    fn fragment_insert(&self, key: &FragmentKey<A>, ports: &FragmentPorts) -> bool;
    /// Looks for a socket of this node for the packet and, if `assign`, gives the packet to it.
    fn socket(&mut self, packet: &Packet<A>, which: Wanted, assign: bool) -> Socket;
}

/// Which socket is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// That of the packet's connection. One that listens is not meant.
    Connected,
    /// The proxy's that listens at this port of the loopback address.
    Listening(Port),
}

/// What came of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Socket {
    /// There is none.
    None,
    /// There is one, and if that was wanted, the packet is its.
    Found,
    /// There is one, and the kernel does not give it the packet.
    Refused,
}

/// Everything else: the packet, the policies, the clock, and the ways out.
pub trait Env: Tables<V4> + Tables<abi::V6> {
    /// The node's configuration.
    fn config(&self) -> Option<&NodeConfig>;
    /// Interface on which the program runs.
    fn ifindex(&self) -> u32;
    /// Interface by which the node got the packet that it forwards; 0: the packet is the node's own.
    fn came_by(&self) -> u32;
    /// The packet's mark.
    fn mark(&self) -> u32;
    /// Changes it.
    fn set_mark(&mut self, mark: u32);
    /// The cookie of the socket that sent the packet; zeros: none of this node's.
    fn socket_cookie(&self) -> SocketCookie;
    /// In whose name a socket of the proxy speaks.
    fn proxy_socket(&self, cookie: &SocketCookie) -> Option<ProxySocket>;
    /// The endpoint behind an interface.
    fn device(&self, ifindex: u32) -> Option<Endpoint>;
    /// Policy of an endpoint of this node.
    fn policy(&self, endpoint: u32) -> Option<EndpointPolicy>;
    /// Class of a peer in a policy slot.
    fn class(&self, slot: u32, identity: Identity) -> Option<Class>;
    /// Verdict of a policy slot.
    fn verdict(&self, slot: u32, key: &VerdictKey) -> Option<&CountedVerdict>;
    /// Counters of a fate on this processor.
    fn metric(&self, key: &MetricKey) -> Option<&Metric>;
    /// Sends a record of so many events, or counts these as lost.
    fn emit(&self, events: u32, fill: impl FnOnce(&mut Record));
    /// The same numbers, of which the kernel's verifier knows nothing more: paths that differ in them alone become one.
    fn opaque(&self, numbers: [u32; 3]) -> [u32; 3];
    /// Seconds since boot.
    fn seconds(&self) -> u32;
    /// Nanoseconds since boot.
    fn nanoseconds(&self) -> u64;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// Length of the packet.
    fn length(&self) -> u32;
    /// Bytes at a fixed offset from the Ethernet header.
    fn load<T: Plain + Copy>(&self, at: usize) -> Option<T>;
    /// Bytes at an offset that the packet itself determines.
    fn load_at<T: Plain + Copy + Default>(&self, at: u32) -> Option<T>;
    /// Writes the Ethernet addresses.
    fn address_frame(&mut self, destination: Mac, source: Mac) -> bool;
    /// Writes bytes.
    fn store<T: Plain + Copy>(&mut self, at: u32, value: T) -> bool;
    /// Corrects the checksum at `at` of an IPv4 header in which a 32 bit word changed.
    fn correct_l3(&mut self, at: u32, from: u32, to: u32) -> bool;
    /// Corrects the checksum at `at` for a changed word of `size` (2 or 4) bytes. `udp`: zero means none. `pseudo`: the
    /// word is part of the pseudo header.
    fn correct_l4(&mut self, at: u32, change: Change) -> bool;
    /// The identity and the outer source address of a packet from the tunnel.
    fn tunnel_key(&self) -> Option<(u32, V4)>;
    /// Sends the packet into the tunnel.
    fn to_tunnel(&mut self, identity: Identity, remote: V4, ifindex: u32) -> Option<i32>;
    /// Hands the packet to the other end of a veth, in its namespace.
    fn to_peer(&mut self, ifindex: u32) -> i32;
    /// Sends the packet out of an interface.
    fn to_device(&mut self, ifindex: u32) -> i32;
    /// Whatever its Ethernet destination, the packet is for this node.
    fn for_host(&mut self);
    /// Sends the packet back out of the interface it came from.
    fn back(&mut self) -> i32;
}

/// A word that changed under a layer 4 checksum.
#[derive(Clone, Copy)]
pub struct Change {
    /// Old value, as it lies in the packet.
    pub from: u32,
    /// New value.
    pub to: u32,
    /// Bytes: 2 or 4.
    pub size: u8,
    /// The checksum is UDP's over IPv4: zero means that there is none.
    pub udp: bool,
    /// The word is in the pseudo header.
    pub pseudo: bool,
}
