//! What is known of a connection? One entry of `cilium_ct4`/`cilium_ct6` for both directions.

use crate::{Addr, Port, V4, V6, identity::Identity, shared::Shared};

/// Key of a connection, the same for both of its directions: the lower (address, port) pair comes first.
///
/// ICMP echo is keyed as (requester, responder) instead, with the echo identifier as `port_a` and 0 as `port_b`, so that
/// a request of the other side is a connection of its own (an echo request is never a reply).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct CtKey<A> {
    /// The lower address as the number that its bytes are in memory (or the requester's).
    pub addr_a: A,
    /// The other address.
    pub addr_b: A,
    /// Port of `addr_a`.
    pub port_a: Port,
    /// Port of `addr_b`.
    pub port_b: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// `KIND_*`.
    pub kind: u8,
    /// Always zero.
    pub pad: u16,
}

crate::plain!(CtKey<V4>: V4, V4, Port, Port, u8, u8, u16);
crate::plain!(CtKey<V6>: V6, V6, Port, Port, u8, u8, u16);

impl<A: Addr> CtKey<A> {
    /// The key of a connection with ports, and whether this sender is `addr_a` of it.
    pub fn between(source: (A, Port), destination: (A, Port), protocol: u8, kind: u8) -> (Self, bool) {
        let from_a = if source.0 == destination.0 { source.1 <= destination.1 } else { source.0.before(destination.0) };
        let ((addr_a, port_a), (addr_b, port_b)) = if from_a { (source, destination) } else { (destination, source) };
        (CtKey { addr_a, addr_b, port_a, port_b, protocol, kind, pad: 0 }, from_a)
    }
}

/// A connection between two addresses as the wire shows them after service translation.
pub const KIND_CONNECTION: u8 = 0;
/// A client's connection to a service address: leads to the backend that was chosen.
pub const KIND_SERVICE: u8 = 1;
/// The proxy's own connection to a server, in its client's name. A kind of its own, so that its port may be one that the
/// client uses too.
pub const KIND_UPSTREAM: u8 = 2;

/// Key of `cilium_ct4`.
pub type CtKey4 = CtKey<V4>;
/// Key of `cilium_ct6`.
pub type CtKey6 = CtKey<V6>;

/// A connection. Times are seconds since boot; counters are of this node's view.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct CtEntry {
    /// Packets from the initiator, and to it.
    pub packets: [Shared<u64>; 2],
    /// Bytes from the initiator, and to it.
    pub bytes: [Shared<u64>; 2],
    /// The entry means nothing after this second since boot.
    pub expires: Shared<u32>,
    /// `FLAG_*`.
    pub flags: Shared<u32>,
    /// `revision_and_modes` of the initiator's endpoint whose egress policy admitted it; 0: not asked on this node.
    pub egress_revision: Shared<u32>,
    /// The same of the responder's endpoint and its ingress policy.
    pub ingress_revision: Shared<u32>,
    /// IP cache generation for which the identities and `tunnel_endpoint` hold.
    pub ipcache_generation: Shared<u32>,
    /// Identity of the initiator.
    pub source_identity: Shared<Identity>,
    /// Identity of the responder.
    pub destination_identity: Shared<Identity>,
    /// Where packets to the initiator's peer go by tunnel, 0: not by tunnel.
    pub tunnel_endpoint: Shared<u32>,
    /// Rule set that admitted it at egress.
    pub egress_rule_set: Shared<u32>,
    /// Rule set that admitted it at ingress.
    pub ingress_rule_set: Shared<u32>,
    /// Reverse NAT index of the service that the client asked for, 0: none.
    pub rev_nat: Shared<u16>,
    /// Proxy port to which the connection was redirected last, 0: never.
    pub proxy_port: Shared<Port>,
    /// For [`KIND_SERVICE`]: the chosen backend. Else, if it was redirected: the endpoint whose policy did that.
    pub backend: Shared<u32>,
    /// TCP flags seen from the initiator, and to it.
    pub tcp_flags: [Shared<u8>; 2],
    /// What the proxy has to do with it, `PROXY_*`; 0: nothing.
    pub proxy: Shared<u8>,
    /// Always zero.
    pub pad: u8,
    /// When a trace event was last sent for packets from the initiator, and to it (seconds since boot).
    pub reported: [Shared<u32>; 2],
    /// Second since boot at which the connection began.
    pub created: u32,
}

crate::plain!(CtEntry: [Shared<u64>; 2], [Shared<u64>; 2], Shared<u32>, Shared<u32>, Shared<u32>, Shared<u32>, Shared<u32>, Shared<Identity>, Shared<Identity>, Shared<u32>, Shared<u32>, Shared<u32>, Shared<u16>, Shared<Port>, Shared<u32>, [Shared<u8>; 2], Shared<u8>, u8, [Shared<u32>; 2], u32);

/// The initiator is `addr_a`.
pub const FLAG_INITIATOR_A: u32 = 1 << 0;
/// A packet after the first has been seen in both directions.
pub const FLAG_SEEN_REPLY: u32 = 1 << 1;
/// FIN or RST seen from the initiator.
pub const FLAG_TX_CLOSING: u32 = 1 << 2;
/// FIN or RST seen from the responder.
pub const FLAG_RX_CLOSING: u32 = 1 << 3;
/// TCP: a packet without SYN has been seen.
pub const FLAG_SEEN_NON_SYN: u32 = 1 << 4;
/// A pod that reaches itself through a service address.
pub const FLAG_LOOPBACK: u32 = 1 << 5;
/// The initiator came out of the tunnel: replies go back the same way.
pub const FLAG_FROM_TUNNEL: u32 = 1 << 6;

/// The initiator's egress policy redirects the connection to the proxy.
pub const PROXY_EGRESS: u8 = 1 << 0;
/// The responder's ingress policy redirects the connection to the proxy.
pub const PROXY_INGRESS: u8 = 1 << 1;
/// The proxy began the connection in the name of a client whose egress policy it asked.
pub const PROXY_FROM_EGRESS: u8 = 1 << 2;
/// The proxy began the connection in the name of a client about whom it asked the responder's ingress policy.
pub const PROXY_FROM_INGRESS: u8 = 1 << 3;
/// Its packets go to the proxy, whatever its policies say now: only the proxy can end it in order.
pub const PROXY_REDIRECTED: u8 = 1 << 4;
/// Either of the proxy's own connections.
pub const PROXY_UPSTREAM: u8 = PROXY_FROM_EGRESS | PROXY_FROM_INGRESS;

/// Lifetime of an established TCP connection, seconds.
pub const LIFETIME_TCP: u32 = 8000;
/// Lifetime of everything that is not TCP, seconds.
pub const LIFETIME_ANY: u32 = 60;
/// Lifetime of a TCP connection of which only SYNs were seen, seconds.
pub const LIFETIME_SYN: u32 = 60;
/// Lifetime after both sides closed, seconds.
pub const LIFETIME_CLOSE: u32 = 10;
/// A running connection is reported again after this many seconds (monitor aggregation interval).
pub const REPORT_INTERVAL: u32 = 5;

/// The second of a time in nanoseconds since boot, as the programs count: times in entries are such seconds. A 2^24th of 10^9
/// nanoseconds, times 2^32: a division would take longer than reading the clock, and this is late by 17 ms at most, and by
/// another second after 60 years.
#[inline(always)]
pub const fn second(nanoseconds: u64) -> u32 {
    (((nanoseconds >> 24) * 72_057_594) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::second;

    #[test]
    fn seconds_are_counted_late_by_little_and_never_early() {
        for seconds in [0u64, 1, 59, 3_600, 86_400 * 365, 86_400 * 365 * 20] {
            let at = seconds * 1_000_000_000;
            assert!(u64::from(second(at)) <= seconds && u64::from(second(at + 999_999_999)) <= seconds);
            let late = 17_000_000 + seconds;
            assert_eq!(u64::from(second(at + late)), seconds, "{seconds}");
        }
    }
}
