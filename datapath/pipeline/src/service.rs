//! Which backend answers for a service address, and how is its packet rewritten, there and back?

use crate::env::{Change, Env, Tables};
use crate::family::Family;
use crate::packet::{Packet, Shape, TCP, UDP};
use crate::track;
use abi::conntrack;
use abi::service::{Backend, FLAG_CLUSTER_IP, ServiceKey};
use abi::shared::Shared;
use abi::{DropReason, Port};

/// A service's backend for one connection. Every field has a value whatever came of the search: the kernel's verifier
/// refuses code that copies what was never written.
#[derive(Clone, Copy, Default)]
struct Chosen<A> {
    /// Why the packet goes nowhere, 0: it does.
    refused: u8,
    /// There is a backend.
    found: bool,
    addr: A,
    port: Port,
    rev_nat: u16,
}

/// Sends a packet to a service address on to a backend; what it returns is the service's reverse NAT index, 0 if the
/// address is no service's.
#[inline(never)]
pub fn translate<A: Family, E: Env + Tables<A>>(env: &mut E, p: &mut Packet<A>) -> Result<u16, DropReason> {
    let mut chosen = Chosen::default();
    choose(env, p, &mut chosen);
    if chosen.refused != 0 {
        return Err(DropReason(chosen.refused));
    }
    if !chosen.found {
        return Ok(0);
    }
    redirect(env, p, chosen.addr, chosen.port)?;
    if p.source == p.destination {
        // a pod that reaches itself through a service would see its own address as a stranger's
        let port = p.source_port;
        pretend(env, p, A::loopback(), port)?;
    }
    Ok(chosen.rev_nat)
}

/// Makes the answer of a backend come from the service that its client asked.
#[inline(never)]
pub fn restore<A: Family, E: Env + Tables<A>>(env: &mut E, p: &mut Packet<A>, index: u16) -> Result<(), DropReason> {
    let Some(service) = env.reverse_nat(index) else { return Ok(()) };
    let own = p.source;
    if p.destination == A::loopback() {
        let port = p.destination_port;
        redirect(env, p, own, port)?;
    }
    pretend(env, p, service.addr, service.port)
}

/// Finds the backend for a packet: the one that its connection has, or one at random.
#[inline(always)]
fn choose<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, chosen: &mut Chosen<A>) {
    let front = ServiceKey {
        addr: p.destination,
        port: p.destination_port,
        backend_slot: 0,
        protocol: p.protocol,
        pad: [0; 3],
    };
    let service = if p.shape == Shape::PORTS { env.service(&front) } else { None };
    let Some(service) = service else {
        chosen.refused = no_service(env, p);
        return;
    };
    chosen.rev_nat = service.rev_nat;
    let (key, _) = track::key(p, conntrack::KIND_SERVICE);
    let now = env.seconds();
    if let Some(known) = env.connection(&key)
        && known.expires.get() >= now
        && let Some(backend) = env.backend(known.backend.get())
    {
        known.expires.set(now + conntrack::LIFETIME_ANY);
        take(chosen, &backend);
        return;
    }
    chosen.refused = DropReason::NO_SERVICE.0;
    if service.count == 0 {
        return;
    }
    let slot = (env.random() % service.count as u32) as u16 + 1;
    let Some(place) = env.service(&ServiceKey { backend_slot: slot, ..front }) else { return };
    let Some(backend) = env.backend(place.backend_id) else { return };
    let noted = env.connect(&key, |entry| {
        entry.backend = Shared::new(place.backend_id);
        entry.rev_nat = Shared::new(service.rev_nat);
        entry.expires = Shared::new(now + conntrack::LIFETIME_ANY);
        entry.created = now;
    });
    chosen.refused = if noted { 0 } else { DropReason::CT_CREATE_FAILED.0 };
    take(chosen, &backend);
}

#[inline(always)]
fn take<A: Copy>(chosen: &mut Chosen<A>, backend: &Backend<A>) {
    chosen.found = true;
    chosen.addr = backend.addr;
    chosen.port = backend.port;
}

/// A ClusterIP answers on the ports of its services alone; nothing for it goes to the network.
#[inline(always)]
fn no_service<A: Family, E: Tables<A>>(env: &E, p: &Packet<A>) -> u8 {
    let any = ServiceKey { addr: p.destination, port: Port(0), backend_slot: 0, protocol: 0, pad: [0; 3] };
    match env.service(&any) {
        Some(service) if service.flags & FLAG_CLUSTER_IP != 0 => DropReason::NO_SERVICE.0,
        _ => 0,
    }
}

/// Sends the packet to another address and port.
#[inline(always)]
pub fn redirect<A: Family, E: Env>(env: &mut E, p: &mut Packet<A>, addr: A, port: Port) -> Result<(), DropReason> {
    if addr != p.destination && !p.destination.rewrite(env, A::DESTINATION, addr, p.checksum()) {
        return Err(DropReason::WRITE_ERROR);
    }
    write_port(env, p, p.destination_port, port, 2)?;
    p.destination = addr;
    p.destination_port = port;
    Ok(())
}

/// Makes the packet come from another address and port.
#[inline(always)]
pub fn pretend<A: Family, E: Env>(env: &mut E, p: &mut Packet<A>, addr: A, port: Port) -> Result<(), DropReason> {
    if addr != p.source && !p.source.rewrite(env, A::SOURCE, addr, p.checksum()) {
        return Err(DropReason::WRITE_ERROR);
    }
    write_port(env, p, p.source_port, port, 0)?;
    p.source = addr;
    p.source_port = port;
    Ok(())
}

/// Writes a port (or an echo identifier) and corrects the checksum.
#[inline(always)]
fn write_port<A: Family, E: Env>(
    env: &mut E,
    p: &Packet<A>,
    from: Port,
    to: Port,
    offset: u32,
) -> Result<(), DropReason> {
    if from == to || p.later_fragment != 0 {
        return Ok(());
    }
    let failed = DropReason::WRITE_ERROR;
    let (at, checksum, udp) = match (p.shape, p.protocol) {
        (Shape::PORTS, TCP) => (p.l4 + offset, p.l4 + 16, false),
        (Shape::PORTS, UDP) => (p.l4 + offset, p.l4 + 6, A::VERSION == 4),
        (Shape::ECHO_REQUEST | Shape::ECHO_REPLY, _) => (p.l4 + 4, p.l4 + 2, false),
        _ => return Err(DropReason::NAT_UNSUPP_PROTO),
    };
    let change = Change { from: from.0 as u32, to: to.0 as u32, size: 2, udp, pseudo: false };
    if env.correct_l4(checksum, change) && env.store(at, to.0) { Ok(()) } else { Err(failed) }
}
