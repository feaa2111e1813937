//! What is told of a packet: events and counters.

use crate::env::Env;
use crate::family::Family;
use crate::packet::{Packet, Shape};
use abi::config;
use abi::event::{self, Event};
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
}

abi::plain!(About: Identity, Identity, u32, u32, u32, u32, u8, u8, u8, u8, u8, u8, u16);

/// Sends an event about a packet, if events of its kind are wanted.
#[inline(never)]
pub fn packet<A: Family, E: Env>(env: &E, p: &Packet<A>, about: &About) {
    if !wanted(env, about.kind) {
        return;
    }
    let (time, length) = (env.nanoseconds(), env.length());
    let (destination_mac, source_mac): (Mac, Mac) =
        (Mac(env.load(0).unwrap_or_default()), Mac(env.load(6).unwrap_or_default()));
    env.emit(|e| {
        head(e, about, time, length);
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
        e.source_mac = source_mac;
        e.destination_mac = destination_mac;
        if p.later_fragment != 0 {
            e.flags |= event::FLAG_FRAGMENT;
        }
    });
}

/// Sends an event about a frame that is not a readable IP packet.
#[inline(always)]
pub fn frame<E: Env>(env: &E, about: &About) {
    if !wanted(env, about.kind) {
        return;
    }
    let (time, length) = (env.nanoseconds(), env.length());
    let (destination_mac, source_mac) = (Mac(env.load(0).unwrap_or_default()), Mac(env.load(6).unwrap_or_default()));
    let ether_type = env.load(12).unwrap_or_default();
    env.emit(|e| {
        head(e, about, time, length);
        e.ether_type = ether_type;
        e.source_mac = source_mac;
        e.destination_mac = destination_mac;
    });
}

#[inline(always)]
fn head(e: &mut Event, about: &About, time: u64, length: u32) {
    *e = Event::default();
    e.time = time;
    e.source_identity = about.source;
    e.destination_identity = about.destination;
    e.endpoint = about.endpoint;
    e.ifindex = about.ifindex;
    e.length = length;
    e.rule_set = about.rule_set;
    e.revision = about.revision;
    e.kind = about.kind;
    e.code = about.code;
    e.detail = about.detail;
    e.direction = about.direction;
    e.flags = about.flags;
    e.rev_nat = about.rev_nat;
}

#[inline(always)]
fn wanted<E: Env>(env: &E, kind: u8) -> bool {
    let flag = match kind {
        event::KIND_DROP => config::FLAG_DROP_EVENTS,
        event::KIND_TRACE => config::FLAG_TRACE_EVENTS,
        _ => config::FLAG_POLICY_VERDICT_EVENTS,
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

/// A drop: event and counter.
#[inline(always)]
pub fn dropped<A: Family, E: Env>(env: &E, p: &Packet<A>, reason: DropReason, about: &About) {
    count(env, reason.0, about.direction);
    packet(env, p, &About { kind: event::KIND_DROP, code: reason.0, detail: 0, ..*about });
}
