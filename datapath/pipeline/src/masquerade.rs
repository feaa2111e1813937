//! Under whose name does a pod's packet leave the node, and whose is the answer?

use crate::env::{Env, Tables};
use crate::family::Family;
use crate::packet::{Packet, Shape, TCP, UDP};
use crate::service;
use abi::config::FLAG_MASQUERADE;
use abi::nat::{NatEntry, NatKey};
use abi::shared::Shared;
use abi::{DropReason, Port, endpoint, policy};

/// Ports that are tried before the packet is dropped.
const TRIES: u32 = 16;

/// Gives a pod's packet the node's address; other packets stay as they are.
#[inline(always)]
pub fn leave<A: Family, E: Env + Tables<A>>(env: &mut E, p: &mut Packet<A>) -> Result<(), DropReason> {
    let Some(config) = env.config() else { return Err(DropReason::NO_CONFIG) };
    let (node, low, high) = (A::node(config), config.nat_min_port, config.nat_max_port);
    if config.flags & FLAG_MASQUERADE == 0 || p.destination.native(config) {
        return Ok(());
    }
    match env.endpoint(&p.source) {
        Some(own) if own.flags & endpoint::FLAG_HOST == 0 => {}
        _ => return Ok(()),
    }
    if p.later_fragment != 0 {
        return Err(DropReason::FRAG_NOSUPPORT);
    }
    match (p.shape, p.protocol) {
        (Shape::PORTS, TCP | UDP) | (Shape::ECHO_REQUEST | Shape::ECHO_REPLY, _) => {}
        _ => return Err(DropReason::NAT_UNSUPP_PROTO),
    }
    let own_port = if p.shape == Shape::ECHO_REPLY { p.destination_port } else { p.source_port };
    let now = env.seconds();
    let key = out_key(p, own_port);
    if let Some(known) = env.nat(&key) {
        known.last_used.set(now);
        let (addr, port) = (known.addr, known.port);
        return rename(env, p, addr, port);
    }
    let port = allocate(env, p, node, own_port, (low, high), now)?;
    let entry = NatEntry { addr: node, port, pad: 0, last_used: Shared::new(now) };
    if !env.nat_insert(&key, &entry, false) {
        return Err(DropReason::NAT_NO_MAPPING);
    }
    rename(env, p, node, port)
}

#[inline(always)]
fn out_key<A: Family>(p: &Packet<A>, own_port: Port) -> NatKey<A> {
    let other = if p.shape == Shape::PORTS { p.destination_port } else { Port(0) };
    NatKey {
        source: p.source,
        destination: p.destination,
        source_port: own_port,
        destination_port: other,
        protocol: p.protocol,
        direction: policy::DIR_EGRESS,
        pad: 0,
    }
}

/// Reserves a port of the node for the answers: the pod's own if it is in range and free.
#[inline(always)]
fn allocate<A: Family, E: Env + Tables<A>>(
    env: &E,
    p: &Packet<A>,
    node: A,
    own: Port,
    (low, high): (u16, u16),
    now: u32,
) -> Result<Port, DropReason> {
    let answer = NatEntry { addr: p.source, port: own, pad: 0, last_used: Shared::new(now) };
    let other = if p.shape == Shape::PORTS { p.destination_port } else { Port(0) };
    let span = (high.saturating_sub(low)) as u32 + 1;
    let mut candidate = own.number();
    let mut i = 0;
    while i < TRIES {
        if candidate >= low && candidate <= high {
            let key = NatKey {
                source: p.destination,
                destination: node,
                source_port: other,
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

#[inline(always)]
fn rename<A: Family, E: Env>(env: &mut E, p: &mut Packet<A>, addr: A, port: Port) -> Result<(), DropReason> {
    service::pretend(env, p, addr, port)
}

/// Gives the answer to a masqueraded packet its pod's address; false: it is the node's own.
#[inline(always)]
pub fn enter<A: Family, E: Env + Tables<A>>(env: &mut E, p: &mut Packet<A>) -> Result<bool, DropReason> {
    let own_port = match p.shape {
        Shape::PORTS | Shape::ECHO_REPLY => p.destination_port,
        _ => return Ok(false),
    };
    let key = NatKey {
        source: p.source,
        destination: p.destination,
        source_port: if p.shape == Shape::PORTS { p.source_port } else { Port(0) },
        destination_port: own_port,
        protocol: p.protocol,
        direction: policy::DIR_INGRESS,
        pad: 0,
    };
    let Some(known) = env.nat(&key) else { return Ok(false) };
    known.last_used.set(env.seconds());
    let (addr, port) = (known.addr, known.port);
    service::redirect(env, p, addr, port)?;
    Ok(true)
}
