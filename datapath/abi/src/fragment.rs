//! Which ports has a datagram whose first fragment was seen? Keys and value of the fragment maps.

use crate::{Port, V4, V6, shared::Shared};

/// Key of `cilium_ipv4_frag_datagrams`/`cilium_ipv6_frag_datagrams`: what all fragments of a datagram share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct FragmentKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Identification as it lies in the packet (16 bits in IPv4).
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub pad: [u8; 3],
}

crate::plain!(FragmentKey<V4>: V4, V4, u32, u8, [u8; 3]);
crate::plain!(FragmentKey<V6>: V6, V6, u32, u8, [u8; 3]);

/// Key of `cilium_ipv4_frag_datagrams`.
pub type FragmentKey4 = FragmentKey<V4>;
/// Key of `cilium_ipv6_frag_datagrams`.
pub type FragmentKey6 = FragmentKey<V6>;

/// What the first fragment said.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct FragmentPorts {
    /// Source port, or ICMP type and code.
    pub source_port: Port,
    /// Destination port, or ICMP identifier.
    pub destination_port: Port,
    /// Second since boot after which the entry means nothing.
    pub expires: Shared<u32>,
}

crate::plain!(FragmentPorts: Port, Port, Shared<u32>);

/// Seconds for which the ports of a datagram are remembered.
pub const LIFETIME: u32 = 30;
