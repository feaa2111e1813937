//! Under whose name does a pod's packet leave the node, and whose is the answer?

use crate::env::{Change, Env, Tables};
use crate::family::Family;
use crate::packet::{Packet, Shape, TCP, UDP};
use crate::{quoted, service, track};
use abi::config::FLAG_MASQUERADE;
use abi::conntrack::KIND_CONNECTION;
use abi::nat::{NatEntry, NatKey};
use abi::shared::Shared;
use abi::{DropReason, Port, endpoint, policy};

/// Ports that are tried before the packet is dropped.
const TRIES: u32 = 16;

/// Gives a pod's packet (or the proxy's in its name) the node's address; other packets, and answers to those who asked the pod by its own address,
/// stay as they are.
#[inline(always)]
pub fn leave<A: Family, E: Env + Tables<A>>(
    env: &mut E,
    p: &mut Packet<A>,
    quoted: &mut Packet<A>,
    of_proxy: bool,
) -> Result<(), DropReason> {
    let Some(config) = env.config() else { return Err(DropReason::NO_CONFIG) };
    let (node, range) = (A::node(config), (config.nat_min_port, config.nat_max_port));
    if config.flags & FLAG_MASQUERADE == 0 || p.destination.native(config) || p.destination.is_multicast() {
        return Ok(());
    }
    match env.endpoint(&p.source) {
        Some(own) if own.flags & endpoint::FLAG_HOST == 0 => {}
        _ => return Ok(()),
    }
    if p.shape == Shape::ERROR {
        return leave_error(env, p, quoted, node);
    }
    let now = env.seconds();
    if !of_proxy && track::find(env, p, KIND_CONNECTION, now).is_some_and(|known| known.reply) {
        return Ok(());
    }
    match (p.shape, p.protocol) {
        (Shape::PORTS, TCP | UDP) | (Shape::ECHO_REQUEST, _) => {}
        _ => return Err(DropReason::NAT_UNSUPP_PROTO),
    }
    let port = mapping(env, p, node, range, now)?;
    service::pretend(env, p, node, port)
}

/// The node's port for the packet's flow: the one that it has, or a new one.
#[inline(never)]
fn mapping<A: Family, E: Env + Tables<A>>(
    env: &E,
    p: &Packet<A>,
    node: A,
    range: (u16, u16),
    now: u32,
) -> Result<Port, DropReason> {
    let key = out_key((p.source, p.source_port), (p.destination, p.destination_port), p.protocol);
    if let Some(known) = env.nat(&key) {
        known.last_used.set(now);
        return Ok(known.port);
    }
    let port = allocate(env, p, node, range, now)?;
    let entry = NatEntry { addr: node, port, pad: 0, last_used: Shared::new(now) };
    if env.nat_insert(&key, &entry, false) { Ok(port) } else { Err(DropReason::NAT_NO_MAPPING) }
}

#[inline(always)]
fn out_key<A>((source, source_port): (A, Port), (destination, destination_port): (A, Port), protocol: u8) -> NatKey<A> {
    let direction = policy::DIR_EGRESS;
    NatKey { source, destination, source_port, destination_port, protocol, direction, pad: 0 }
}

/// Reserves a port of the node for the answers: the pod's own if it is in range and free.
#[inline(always)]
fn allocate<A: Family, E: Env + Tables<A>>(
    env: &E,
    p: &Packet<A>,
    node: A,
    (low, high): (u16, u16),
    now: u32,
) -> Result<Port, DropReason> {
    let answer = NatEntry { addr: p.source, port: p.source_port, pad: 0, last_used: Shared::new(now) };
    let span = (high.saturating_sub(low)) as u32 + 1;
    let mut candidate = p.source_port.number();
    let mut i = 0;
    while i < TRIES {
        if candidate >= low && candidate <= high {
            let key = NatKey {
                source: p.destination,
                destination: node,
                source_port: p.destination_port,
                destination_port: Port::new(candidate),
                protocol: p.protocol,
                direction: policy::DIR_INGRESS,
                pad: 0,
            };
            if env.nat_insert(&key, &answer, true) {
                return Ok(Port::new(candidate));
            }
        }
        candidate = low.wrapping_add((env.random() % span) as u16);
        i += 1;
    }
    Err(DropReason::NAT_NO_MAPPING)
}

/// Gives the answer to a masqueraded packet its pod's address; false: it is the node's own.
#[inline(always)]
pub fn enter<A: Family, E: Env + Tables<A>>(
    env: &mut E,
    p: &mut Packet<A>,
    quoted: &mut Packet<A>,
) -> Result<bool, DropReason> {
    let before = p.destination;
    match p.shape {
        Shape::PORTS | Shape::ECHO_REPLY => enter_named(env, p)?,
        Shape::ERROR => enter_error(env, p, quoted)?,
        _ => {}
    }
    Ok(p.destination != before)
}

#[inline(never)]
fn enter_named<A: Family, E: Env + Tables<A>>(env: &mut E, p: &mut Packet<A>) -> Result<(), DropReason> {
    let key = in_key(p.source, p.source_port, p.destination, p.destination_port, p.protocol);
    let Some(known) = env.nat(&key) else { return Ok(()) };
    known.last_used.set(env.seconds());
    let (addr, port) = (known.addr, known.port);
    service::redirect(env, p, addr, port)
}

#[inline(always)]
fn in_key<A>(source: A, source_port: Port, destination: A, destination_port: Port, protocol: u8) -> NatKey<A> {
    let direction = policy::DIR_INGRESS;
    NatKey { source, destination, source_port, destination_port, protocol, direction, pad: 0 }
}

/// An ICMP error about a masqueraded packet goes to its pod, and quotes the packet as the pod sent it.
#[inline(never)]
fn enter_error<A: Family, E: Env + Tables<A>>(
    env: &mut E,
    p: &mut Packet<A>,
    inner: &mut Packet<A>,
) -> Result<(), DropReason> {
    if quoted::parse(env, p, inner).is_none() {
        return Ok(());
    }
    let key = in_key(inner.destination, inner.destination_port, inner.source, inner.source_port, inner.protocol);
    let Some(known) = env.nat(&key) else { return Ok(()) };
    let (addr, port) = (known.addr, known.port);
    requote(env, p, inner, (A::SOURCE, addr), (0, port))?;
    if !p.destination.rewrite(env, A::DESTINATION, addr, p.checksum()) {
        return Err(DropReason::WRITE_ERROR);
    }
    p.destination = addr;
    Ok(())
}

/// A pod's ICMP error about an answer that came to it under the node's name leaves under the node's name.
#[inline(never)]
fn leave_error<A: Family, E: Env + Tables<A>>(
    env: &mut E,
    p: &mut Packet<A>,
    inner: &mut Packet<A>,
    node: A,
) -> Result<(), DropReason> {
    if quoted::parse(env, p, inner).is_none() {
        return Err(DropReason::NAT_UNSUPP_PROTO);
    }
    let own = (inner.destination, inner.destination_port);
    let Some(known) = env.nat(&out_key(own, (inner.source, inner.source_port), inner.protocol)) else {
        return Err(DropReason::NAT_NO_MAPPING);
    };
    let port = known.port;
    requote(env, p, inner, (A::DESTINATION, node), (2, port))?;
    if !p.source.rewrite(env, A::SOURCE, node, p.checksum()) {
        return Err(DropReason::WRITE_ERROR);
    }
    p.source = node;
    Ok(())
}

/// Writes another address and port (or echo identifier) into the packet that an error quotes. `field` is where the
/// address would be in a packet of its own, `place` where the port is in its layer 4 header.
#[inline(always)]
fn requote<A: Family, E: Env>(
    env: &mut E,
    outer: &Packet<A>,
    inner: &Packet<A>,
    (field, addr): (u32, A),
    (place, port): (u32, Port),
) -> Result<(), DropReason> {
    let (from, old_port) = if field == A::SOURCE {
        (inner.source, inner.source_port)
    } else {
        (inner.destination, inner.destination_port)
    };
    let checksum = outer.l4 + 2;
    let at = if inner.shape == Shape::PORTS { inner.l4 + place } else { inner.l4 + 4 };
    let change = Change { from: old_port.0 as u32, to: port.0 as u32, size: 2, udp: false, pseudo: false };
    let written = env.correct_l4(checksum, change)
        && env.store(at, port.0)
        && from.requote(env, outer.quoted, field - 14, addr, checksum);
    if written { Ok(()) } else { Err(DropReason::WRITE_ERROR) }
}
