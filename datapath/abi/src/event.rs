//! What does the datapath tell user space of a packet? One record of the ring buffer `cilium_events`, of one to three events.

use crate::{Mac, Port, identity::Identity};

/// A drop, a trace point or a policy verdict. The size is fixed, so that the programs reserve and fill it in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since boot (`CLOCK_MONOTONIC`).
    pub time: u64,
    /// Source and destination address, see [`crate::Addr::widen`].
    pub source: [u32; 4],
    /// See `source`.
    pub destination: [u32; 4],
    /// Identity of the source.
    pub source_identity: Identity,
    /// Identity of the destination, 0 where unknown.
    pub destination_identity: Identity,
    /// Endpoint (of this node) at which it was seen, 0: none.
    pub endpoint: u32,
    /// Interface: where the packet goes (trace) or was seen (drop, verdict).
    pub ifindex: u32,
    /// Length of the packet in bytes from the Ethernet header on.
    pub length: u32,
    /// For verdicts and policy drops: the rule set that decided. For traces: the one that admitted the connection.
    pub rule_set: u32,
    /// Policy revision (without the mode bits) under which it was decided.
    pub revision: u32,
    /// Source port, or the ICMP type and code in its two bytes.
    pub source_port: Port,
    /// Destination port, or the ICMP identifier.
    pub destination_port: Port,
    /// `KIND_*`; the numbers are the message types of Cilium's monitor.
    pub kind: u8,
    /// Drop: reason. Trace: `TRACE_*`. Verdict: `VERDICT_*` of [`crate::policy`].
    pub code: u8,
    /// Trace: `CT_*`. Verdict: `MATCH_*` of [`crate::policy`].
    pub detail: u8,
    /// 4, 6, or 0 if the packet is not IP.
    pub ip_version: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags as in the header.
    pub tcp_flags: u8,
    /// Verdicts and policy drops: direction, `DIR_*` of [`crate::policy`], seen from `endpoint`. Else [`DIR_UNKNOWN`].
    pub direction: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Ethernet source.
    pub source_mac: Mac,
    /// Ethernet destination.
    pub destination_mac: Mac,
    /// EtherType in network order, for packets that are not IP.
    pub ether_type: u16,
    /// Where a service was asked for: its reverse NAT index. Else 0.
    pub rev_nat: u16,
    /// Where a redirect was decided: the proxy's port.
    pub proxy_port: Port,
    /// Always zero.
    pub pad: [u16; 3],
}

crate::plain!(Event: u64, [u32; 4], [u32; 4], Identity, Identity, u32, u32, u32, u32, u32, Port, Port, u8, u8, u8, u8, u8, u8, u8, u8, Mac, Mac, u16, u16, Port, [u16; 3]);

/// What a policy said of a packet: at one end of its connection, that of an endpoint of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Verdict {
    /// The endpoint whose policy was asked.
    pub endpoint: u32,
    /// Interface.
    pub ifindex: u32,
    /// Rule set that decided.
    pub rule_set: u32,
    /// Policy revision.
    pub revision: u32,
    /// `VERDICT_*` of [`crate::policy`].
    pub verdict: u8,
    /// `MATCH_*` of [`crate::policy`].
    pub match_type: u8,
    /// See [`Event::flags`].
    pub flags: u8,
    /// 1: it is to be told; 0: nobody was asked, or nobody wants to know.
    pub told: u8,
}

crate::plain!(Verdict: u32, u32, u32, u32, u8, u8, u8, u8);

/// One record of the ring buffer: all that is told of one packet, with one time stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Record {
    /// What became of the packet. Kind 0: that is not told; the packet's description counts for the verdicts alone.
    pub event: Event,
    /// What the policies of sender and receiver said before, in this order.
    pub verdicts: [Verdict; 2],
}

crate::plain!(Record: Event, [Verdict; 2]);

impl Record {
    /// The events, in the order in which they happened.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let sides = self.verdicts.iter().zip([crate::policy::DIR_EGRESS, crate::policy::DIR_INGRESS]);
        let verdicts = sides.filter(|(verdict, _)| verdict.told != 0).map(|(verdict, direction)| Event {
            kind: KIND_POLICY_VERDICT,
            code: verdict.verdict,
            detail: verdict.match_type,
            direction,
            endpoint: verdict.endpoint,
            ifindex: verdict.ifindex,
            rule_set: verdict.rule_set,
            revision: verdict.revision,
            flags: verdict.flags | self.event.flags & FLAG_FRAGMENT,
            proxy_port: redirected(verdict, self.event.proxy_port),
            ..self.event
        });
        verdicts.chain((self.event.kind != 0).then_some(self.event))
    }
}

/// The proxy's port belongs to the verdict that redirects.
fn redirected(verdict: &Verdict, port: Port) -> Port {
    if verdict.verdict == crate::policy::VERDICT_REDIRECT { port } else { Port(0) }
}

/// A packet was dropped.
pub const KIND_DROP: u8 = 1;
/// A packet passed an observation point.
pub const KIND_TRACE: u8 = 4;
/// A policy was asked.
pub const KIND_POLICY_VERDICT: u8 = 9;

/// The direction makes no sense or is not known.
pub const DIR_UNKNOWN: u8 = 255;

/// The packet is a reply.
pub const FLAG_REPLY: u8 = 1 << 0;
/// The verdict was to drop, but the endpoint is in audit mode.
pub const FLAG_AUDITED: u8 = 1 << 1;
/// The packet is a fragment after the first.
pub const FLAG_FRAGMENT: u8 = 1 << 2;

/// Observation points, with Cilium's numbers: delivered to a local endpoint.
pub const TRACE_TO_LXC: u8 = 0;
/// Handed to the L7 proxy.
pub const TRACE_TO_PROXY: u8 = 1;
/// Handed to the node itself.
pub const TRACE_TO_HOST: u8 = 2;
/// Handed to the node's network stack to be routed.
pub const TRACE_TO_STACK: u8 = 3;
/// Sent into the tunnel.
pub const TRACE_TO_OVERLAY: u8 = 4;
/// Received from an endpoint.
pub const TRACE_FROM_LXC: u8 = 5;
/// Received from the L7 proxy.
pub const TRACE_FROM_PROXY: u8 = 6;
/// Received from the node itself.
pub const TRACE_FROM_HOST: u8 = 7;
/// Received from the node's network stack.
pub const TRACE_FROM_STACK: u8 = 8;
/// Received from the tunnel.
pub const TRACE_FROM_OVERLAY: u8 = 9;
/// Received from a network device.
pub const TRACE_FROM_NETWORK: u8 = 10;
/// Sent to a network device.
pub const TRACE_TO_NETWORK: u8 = 11;

/// Connection states of trace events, with Cilium's numbers: first packet.
pub const CT_NEW: u8 = 0;
/// Later packet in the direction of the first.
pub const CT_ESTABLISHED: u8 = 1;
/// Packet in the other direction.
pub const CT_REPLY: u8 = 2;
/// ICMP error about a known connection.
pub const CT_RELATED: u8 = 3;
/// Connection tracking was not asked.
pub const CT_UNKNOWN: u8 = 4;
