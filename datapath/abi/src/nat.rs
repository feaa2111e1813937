//! Which pod hides behind a port of the node? Keys and values of the masquerading maps.

use crate::{Port, V4, V6, shared::Shared};

/// Key of `cilium_snat_v4_external`/`cilium_snat_v6_external`: the flow as seen before (egress) or after (reply)
/// translation, both entries exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct NatKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port or ICMP identifier.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// `DIR_*` of [`crate::policy`].
    pub direction: u8,
    /// Always zero.
    pub pad: u16,
}

crate::plain!(NatKey<V4>: V4, V4, Port, Port, u8, u8, u16);
crate::plain!(NatKey<V6>: V6, V6, Port, Port, u8, u8, u16);

/// Key for IPv4.
pub type NatKey4 = NatKey<V4>;
/// Key for IPv6.
pub type NatKey6 = NatKey<V6>;

/// What the source (egress) or the destination (reply) becomes.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct NatEntry<A> {
    /// The address to write.
    pub addr: A,
    /// The port to write.
    pub port: Port,
    /// Always zero.
    pub pad: u16,
    /// Second since boot of the last packet.
    pub last_used: Shared<u32>,
}

crate::plain!(NatEntry<V4>: V4, Port, u16, Shared<u32>);
crate::plain!(NatEntry<V6>: V6, Port, u16, Shared<u32>);
