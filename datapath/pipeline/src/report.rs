//! What is told of a packet: events and counters. All events of a packet are one record with one time stamp.

use crate::env::Env;
use crate::family::Family;
use crate::packet::{Packet, Shape};
use abi::config;
use abi::event::{self, Event, Record};
use abi::identity::Identity;
use abi::metrics::MetricKey;
use abi::{DropReason, Mac, Port};

/// What an event says beside the packet.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct About {
    /// Identity of the source.
    pub source: Identity,
    /// Identity of the destination.
    pub destination: Identity,
    /// Endpoint of this node.
    pub endpoint: u32,
    /// Interface.
    pub ifindex: u32,
    /// Rule set.
    pub rule_set: u32,
    /// Policy revision.
    pub revision: u32,
    /// Kind of event.
    pub kind: u8,
    /// See [`Event::code`].
    pub code: u8,
    /// See [`Event::detail`].
    pub detail: u8,
    /// See [`Event::direction`].
    pub direction: u8,
    /// See [`Event::flags`].
    pub flags: u8,
    /// Always zero.
    pub pad: u8,
    /// See [`Event::rev_nat`].
    pub rev_nat: u16,
    /// See [`Event::proxy_port`].
    pub proxy_port: Port,
    /// Always zero.
    pub pad2: [u8; 2],
}

abi::plain!(About: Identity, Identity, u32, u32, u32, u32, u8, u8, u8, u8, u8, u8, u16, Port, [u8; 2]);

/// What the policies said of a packet's two ends, if they were asked.
pub type Verdicts = [event::Verdict; 2];

/// Tells of a packet: the verdicts that are to be told, and what became of it, if events of that kind are wanted.
#[inline(never)]
pub fn packet<A: Family, E: Env>(env: &E, p: &Packet<A>, about: &About, verdicts: &Verdicts) {
    let kind = if wanted(env, about.kind) { about.kind } else { 0 };
    let events = (kind != 0) as u32 + verdicts[0].told as u32 + verdicts[1].told as u32;
    if events == 0 {
        return;
    }
    let macs = env.load(0).unwrap_or_default();
    env.emit(events, |record| {
        let e = &mut record.event;
        framed(env, e, about, macs);
        e.kind = kind;
        e.source = p.source.widen();
        e.destination = p.destination.widen();
        e.source_port = p.source_port;
        e.destination_port = p.destination_port;
        if p.shape != Shape::PORTS {
            e.source_port = Port(u16::from_ne_bytes([p.icmp_type, p.icmp_code]));
            e.destination_port = if p.source_port.0 != 0 { p.source_port } else { p.destination_port };
        }
        e.ip_version = A::VERSION;
        e.protocol = p.protocol;
        e.tcp_flags = p.tcp_flags;
        e.ether_type = A::ETHER_TYPE.to_be();
        if p.later_fragment != 0 {
            e.flags |= event::FLAG_FRAGMENT;
        }
        record.verdicts = *verdicts;
    });
}

/// Tells of a frame that is not a readable IP packet, if that is wanted.
#[inline(always)]
pub fn frame<E: Env>(env: &E, about: &About) {
    if !wanted(env, about.kind) {
        return;
    }
    let macs = env.load(0).unwrap_or_default();
    let ether_type = env.load(12).unwrap_or_default();
    env.emit(1, |record| {
        *record = Record::default();
        framed(env, &mut record.event, about, macs);
        record.event.ether_type = ether_type;
    });
}

/// Writes what is known of any frame; `macs` are its first twelve bytes. Field by field: the kernel's stack has no room for
/// a whole event.
#[inline(always)]
fn framed<E: Env>(env: &E, e: &mut Event, about: &About, macs: [u16; 6]) {
    let mac = |i: usize| {
        let ([a, b], [c, d], [e, f]) = (macs[i].to_ne_bytes(), macs[i + 1].to_ne_bytes(), macs[i + 2].to_ne_bytes());
        Mac([a, b, c, d, e, f])
    };
    e.time = env.nanoseconds();
    e.source_identity = about.source;
    e.destination_identity = about.destination;
    e.endpoint = about.endpoint;
    e.ifindex = about.ifindex;
    e.length = env.length();
    e.rule_set = about.rule_set;
    e.revision = about.revision;
    e.kind = about.kind;
    e.code = about.code;
    e.detail = about.detail;
    e.direction = about.direction;
    e.flags = about.flags;
    e.destination_mac = mac(0);
    e.source_mac = mac(3);
    e.rev_nat = about.rev_nat;
    e.proxy_port = about.proxy_port;
    e.pad = [0; 3];
}

/// Are events of this kind wanted?
#[inline(always)]
pub fn wanted<E: Env>(env: &E, kind: u8) -> bool {
    let flag = match kind {
        event::KIND_DROP => config::FLAG_DROP_EVENTS,
        event::KIND_TRACE => config::FLAG_TRACE_EVENTS,
        event::KIND_POLICY_VERDICT => config::FLAG_POLICY_VERDICT_EVENTS,
        _ => 0,
    };
    env.config().is_some_and(|c| c.flags & flag != 0)
}

/// Counts a packet's fate: reason 0 is forwarded.
#[inline(always)]
pub fn count<E: Env>(env: &E, reason: u8, direction: u8) {
    let direction = if direction == event::DIR_UNKNOWN { 0 } else { direction + 1 };
    let key = MetricKey { reason, direction, pad: 0 };
    let length = env.length() as u64;
    if let Some(m) = env.metric(&key) {
        m.packets.set(m.packets.get() + 1);
        m.bytes.set(m.bytes.get() + length);
    }
}

/// A drop: counter and event, after what the policies said. `about` says what it is about.
#[inline(always)]
pub fn dropped<A: Family, E: Env>(env: &E, p: &Packet<A>, reason: DropReason, about: &mut About, verdicts: &Verdicts) {
    // one way for all reasons: the kernel's verifier need not go it for each of them
    let [reason, ..] = env.opaque([reason.0 as u32, 0, 0]);
    count(env, reason as u8, about.direction);
    about.kind = event::KIND_DROP;
    about.code = reason as u8;
    about.detail = 0;
    packet(env, p, about, verdicts);
}
