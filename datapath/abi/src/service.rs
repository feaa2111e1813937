//! Which backends stand behind a service address? Keys and values of the load-balancing maps.

use crate::{Port, V4, V6, shared::Shared};

/// Key of `cilium_lb4_services`/`cilium_lb6_services`: slot 0 is the service, slots 1 to n its backends.
///
/// For each ClusterIP there is one entry more, with port, slot and protocol 0 and [`FLAG_CLUSTER_IP`]: what no other
/// entry of the address takes is dropped by it. Without it such packets would leave for the network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct ServiceKey<A> {
    /// The service's address.
    pub addr: A,
    /// The service's port.
    pub port: Port,
    /// 0, or the number of a backend slot.
    pub backend_slot: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub pad: [u8; 3],
}

crate::plain!(ServiceKey<V4>: V4, Port, u16, u8, [u8; 3]);
crate::plain!(ServiceKey<V6>: V6, Port, u16, u8, [u8; 3]);

/// Key of `cilium_lb4_services`.
pub type ServiceKey4 = ServiceKey<V4>;
/// Key of `cilium_lb6_services`.
pub type ServiceKey6 = ServiceKey<V6>;

/// A service (slot 0) or one of its backend slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Service {
    /// In a backend slot: the backend's id.
    pub backend_id: u32,
    /// In slot 0: number of backends. No backends: packets are dropped with `NO_SERVICE`.
    pub count: u16,
    /// Index into the reverse NAT map.
    pub rev_nat: u16,
    /// `FLAG_*`.
    pub flags: u32,
    /// Session affinity in seconds, 0: none.
    pub affinity_timeout: u32,
}

crate::plain!(Service: u32, u16, u16, u32, u32);

/// The address is a ClusterIP: a port that the service does not have is dropped, never sent to the network.
pub const FLAG_CLUSTER_IP: u32 = 1 << 0;

/// Value of `cilium_lb4_backends`/`cilium_lb6_backends`, by backend id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Backend<A> {
    /// The backend's address.
    pub addr: A,
    /// The backend's port.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub pad: u8,
}

crate::plain!(Backend<V4>: V4, Port, u8, u8);
crate::plain!(Backend<V6>: V6, Port, u8, u8);

/// Value of `cilium_lb4_reverse_nat`/`cilium_lb6_reverse_nat`, by reverse NAT index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct ReverseNat<A> {
    /// The service's address.
    pub addr: A,
    /// The service's port.
    pub port: Port,
    /// Always zero.
    pub pad: u16,
}

crate::plain!(ReverseNat<V4>: V4, Port, u16);
crate::plain!(ReverseNat<V6>: V6, Port, u16);

/// Key of `cilium_lb4_reverse_sk`/`cilium_lb6_reverse_sk`: which service did this socket ask for?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct SocketKey<A> {
    /// The socket's cookie, low word first.
    pub cookie: [u32; 2],
    /// The backend's address.
    pub addr: A,
    /// The backend's port.
    pub port: Port,
    /// Always zero.
    pub pad: u16,
}

crate::plain!(SocketKey<V4>: [u32; 2], V4, Port, u16);
crate::plain!(SocketKey<V6>: [u32; 2], V6, Port, u16);

/// Key of `cilium_lb_affinity`: which client asked which service?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct AffinityKey {
    /// The client: its address (see [`crate::Addr::widen`]), or the cookie of its network namespace for sockets.
    pub client: [u32; 4],
    /// Reverse NAT index of the service.
    pub rev_nat: u16,
    /// 4 or 6; plus 0x80 if `client` is a cookie.
    pub kind: u8,
    /// Always zero.
    pub pad: u8,
}

crate::plain!(AffinityKey: [u32; 4], u16, u8, u8);

/// Value of `cilium_lb_affinity`.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Affinity {
    /// The backend that the client was given.
    pub backend: Shared<u32>,
    /// Second since boot at which it was last used.
    pub last_used: Shared<u32>,
}

crate::plain!(Affinity: Shared<u32>, Shared<u32>);
