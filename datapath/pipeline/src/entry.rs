//! Where does a packet enter the datapath? One function for each hook.

use crate::env::{Env, Tables};
use crate::family::Family;
use crate::forward::{self, DROP, PASS};
use crate::packet::{Packet, Parse};
use crate::report::{self, About, Verdicts};
use crate::road::{Origin, Road, Sender};
use crate::work::Work;
use crate::{masquerade, neighbour, proxy};
use abi::endpoint::{self, Endpoint};
use abi::identity::{self, Identity};
use abi::proxy::{MARK_MASK, MARK_TO_PROXY};
use abi::{DropReason, V4, V6, event, policy};

/// The EtherType, in host order.
#[inline(always)]
pub fn ether_type<E: Env>(env: &E) -> u16 {
    u16::from_be(env.load(12).unwrap_or_default())
}

/// A packet that cannot be read, or of a family that is off.
#[inline(always)]
fn unreadable<E: Env>(env: &E, reason: DropReason, source: Identity, endpoint: u32) -> i32 {
    let about = About {
        kind: event::KIND_DROP,
        code: reason.0,
        source,
        endpoint,
        ifindex: env.ifindex(),
        direction: if endpoint != 0 { policy::DIR_EGRESS } else { event::DIR_UNKNOWN },
        ..About::default()
    };
    report::count(env, reason.0, about.direction);
    report::frame(env, &about);
    DROP
}

/// Is the family on?
#[inline(always)]
fn enabled<A: Family, E: Env>(env: &E) -> bool {
    env.config().is_some_and(|c| c.flags & A::ENABLED != 0)
}

/// A frame from a pod that is not IP.
#[inline(always)]
pub fn container_other<E: Env>(env: &mut E) -> i32 {
    let Some(me) = env.device(env.ifindex()) else { return unreadable(env, DropReason::EP_NOT_READY, 0, 0) };
    if ether_type(env) != 0x0806 {
        return unreadable(env, DropReason::UNKNOWN_L3, me.identity, me.id);
    }
    match neighbour::arp(env, &me) {
        Ok(action) => action,
        Err(reason) => unreadable(env, reason, me.identity, me.id),
    }
}

/// The endpoint that sent the packet, proved by address and interface.
#[inline(always)]
fn sender<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>) -> Result<Endpoint, DropReason> {
    match env.endpoint(&p.source) {
        Some(me) if me.ifindex == env.ifindex() && me.flags & endpoint::FLAG_HOST == 0 => Ok(me),
        _ => Err(DropReason::INVALID_SIP),
    }
}

/// An IPv4 packet from a pod.
#[inline(always)]
pub fn container4<E: Env>(env: &mut E, work: &mut Work<V4>) -> i32 {
    container::<V4, E>(env, work)
}

/// An IPv6 packet from a pod.
#[inline(always)]
pub fn container6<E: Env>(env: &mut E, work: &mut Work<V6>) -> i32 {
    match discovery(env) {
        NOT_DISCOVERY => container::<V6, E>(env, work),
        FORBIDDEN => forbidden(env, work),
        action => action,
    }
}

/// No action of a program: the packet goes the common road.
const NOT_DISCOVERY: i32 = -2;
/// No action of a program: a message that pods must not send.
const FORBIDDEN: i32 = -3;

#[inline(always)]
fn container<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    if let Err(reason) = A::read(env, &mut work.packet) {
        return refused_unread(env, reason);
    }
    if !enabled::<A, E>(env) {
        return refused(env, work, DropReason::UNKNOWN_L3);
    }
    if A::VERSION == 6 && work.packet.protocol == 58 && neighbour::is_discovery(work.packet.icmp_type) {
        // behind extension headers, where it has no business to be (RFC 6980)
        return refused(env, work, DropReason::FORBIDDEN_ICMP6);
    }
    match sender(env, &work.packet) {
        Ok(me) => forward::forward(env, work, Origin::CONTAINER, Sender::container(me)),
        Err(reason) => refused(env, work, reason),
    }
}

/// A packet whose sender is known by its interface alone.
#[inline(always)]
fn refused_unread<E: Env>(env: &E, reason: DropReason) -> i32 {
    let me = env.device(env.ifindex()).unwrap_or_default();
    unreadable(env, reason, me.identity, me.id)
}

#[inline(always)]
fn refused<A: Family, E: Env>(env: &E, work: &mut Work<A>, reason: DropReason) -> i32 {
    let me = env.device(env.ifindex()).unwrap_or_default();
    let sender = About { source: me.identity, endpoint: me.id, direction: policy::DIR_EGRESS, ..About::default() };
    told_of(env, work, reason, sender)
}

/// Drops a packet before it came to any policy.
#[inline(always)]
fn told_of<A: Family, E: Env>(env: &E, work: &mut Work<A>, reason: DropReason, about: About) -> i32 {
    let Work { packet, road, .. } = work;
    road.about = About { ifindex: env.ifindex(), ..about };
    road.verdicts = Verdicts::default();
    report::dropped(env, packet, reason, &mut road.about, &road.verdicts);
    DROP
}

/// Neighbour discovery of a pod: solicitations are answered, the rest is the router's business alone.
#[inline(never)]
fn discovery<E: Env>(env: &mut E) -> i32 {
    // with the family off the common road says so; messages of discovery have no extension headers (RFC 6980)
    let next: u8 = env.load(14 + 6).unwrap_or_default();
    let message: u8 = env.load(14 + 40).unwrap_or_default();
    if !enabled::<V6, E>(env) || next != 58 {
        return NOT_DISCOVERY;
    }
    match message {
        neighbour::NEIGHBOUR_SOLICITATION => {
            let me = env.device(env.ifindex()).unwrap_or_default();
            let asker = V6(env.load(14 + 8).unwrap_or_default());
            if me.id == 0 {
                return unreadable(env, DropReason::EP_NOT_READY, 0, 0);
            }
            neighbour::solicited(env, &me, asker).unwrap_or_else(|reason| unreadable(env, reason, me.identity, me.id))
        }
        neighbour::ROUTER_SOLICITATION
        | neighbour::ROUTER_ADVERTISEMENT
        | neighbour::NEIGHBOUR_ADVERTISEMENT
        | 137
        | 130..=132
        | 143 => FORBIDDEN,
        _ => NOT_DISCOVERY,
    }
}

#[inline(never)]
fn forbidden<E: Env>(env: &E, work: &mut Work<V6>) -> i32 {
    match V6::read(env, &mut work.packet) {
        Ok(()) => refused(env, work, DropReason::FORBIDDEN_ICMP6),
        Err(reason) => refused_unread(env, reason),
    }
}

/// A packet out of the tunnel.
#[inline(always)]
pub fn overlay<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    if let Err(reason) = A::read(env, &mut work.packet) {
        return unreadable(env, reason, 0, 0);
    }
    match env.tunnel_key() {
        Some((claimed, node)) => forward::forward(env, work, Origin::OVERLAY, Sender::tunnelled(claimed, node)),
        None => unreadable(env, DropReason::NO_TUNNEL_KEY, 0, 0),
    }
}

/// A frame out of the tunnel that is not IP.
#[inline(always)]
pub fn overlay_other<E: Env>(env: &E) -> i32 {
    unreadable(env, DropReason::UNKNOWN_L3, 0, 0)
}

/// A packet of the node's stack, on its way to a pod: the node's own, or one that it forwards. Only what did not come in
/// from somewhere is the node's own, whatever its source address says.
#[inline(always)]
pub fn host<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    if let Err(reason) = A::read(env, &mut work.packet) {
        return unreadable(env, reason, identity::HOST, 0);
    }
    if env.mark() & MARK_MASK == MARK_TO_PROXY {
        // only what is decided below goes there
        env.set_mark(0);
    }
    if work.packet.destination.is_multicast() {
        // the stack's own announcements are for nobody here
        return PASS;
    }
    let came_by = env.came_by();
    let source = match env.endpoint(&work.packet.source) {
        Some(own) if own.flags & endpoint::FLAG_HOST != 0 && came_by == 0 => identity::HOST,
        Some(own) if own.flags & endpoint::FLAG_HOST == 0 && (came_by == 0 || came_by == own.ifindex) => own.identity,
        Some(own) if own.flags & endpoint::FLAG_HOST == 0 => {
            return refused(env, work, DropReason::INVALID_SIP);
        }
        // the node's address on what is not the node's: forged, or given by a translation of others
        Some(_) => identity::WORLD,
        None => identity::UNKNOWN,
    };
    forward::forward(env, work, Origin::HOST, Sender::elsewhere(source))
}

/// A packet from outside of the node.
#[inline(always)]
pub fn netdev<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    let Work { packet: p, quoted, .. } = work;
    if A::read(env, p).is_err() {
        return PASS;
    }
    if env.endpoint(&p.source).is_some() {
        // nothing of this node comes from outside, also not into a connection that there is
        let about = About { direction: policy::DIR_INGRESS, ..About::default() };
        return told_of(env, work, DropReason::INVALID_SIP, about);
    }
    match masquerade::enter(env, p, quoted) {
        Ok(true) => {}
        Ok(false) => match env.endpoint(&p.destination) {
            Some(to) if to.flags & endpoint::FLAG_HOST == 0 => {}
            _ => return PASS,
        },
        Err(reason) => {
            return told_of(env, work, reason, About { direction: policy::DIR_INGRESS, ..About::default() });
        }
    }
    forward::forward(env, work, Origin::NETDEV, Sender::elsewhere(identity::UNKNOWN))
}

/// A packet that leaves the node.
#[inline(always)]
pub fn to_netdev<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    let Work { packet: p, quoted, road } = work;
    if A::read(env, p).is_err() {
        return PASS;
    }
    let proxied = if proxy::is_on(env) { way_out(env, p, road) } else { Ok(WayOut::Usual) };
    let left = match proxied {
        Ok(WayOut::Tunnel) => return through_tunnel(env, road),
        Ok(way) => masquerade::leave(env, p, quoted, way == WayOut::Masqueraded),
        Err(reason) => Err(reason),
    };
    match left {
        Ok(()) => PASS,
        Err(reason) => {
            let me = env.endpoint(&p.source).unwrap_or_default();
            let direction = policy::DIR_EGRESS;
            let about = About { source: me.identity, endpoint: me.id, direction, ..About::default() };
            told_of(env, work, reason, about)
        }
    }
}

/// How a packet leaves, as far as the proxy has to do with it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum WayOut {
    /// It has not.
    Usual,
    /// In a pod's name, to be masqueraded as the pod's.
    Masqueraded,
    /// To a client that asked through the tunnel.
    Tunnel,
}

#[inline(always)]
fn way_out<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> Result<WayOut, DropReason> {
    if env.came_by() != 0 {
        return Ok(WayOut::Usual);
    }
    if proxy::is_marked(env) && proxy::leave(env, p, road)? {
        return Ok(WayOut::Masqueraded);
    }
    proxy::detour(env, p, road);
    Ok(if road.target.tunnel.0 == 0 { WayOut::Usual } else { WayOut::Tunnel })
}

#[inline(always)]
fn through_tunnel<E: Env>(env: &mut E, road: &Road) -> i32 {
    let Some(tunnel) = env.config().map(|c| c.tunnel_ifindex) else { return DROP };
    env.to_tunnel(road.from.identity, road.target.tunnel, tunnel).unwrap_or(DROP)
}

/// A packet that comes in at `cilium_net`: what `from_host` sends to the proxy is given to it here.
#[inline(always)]
pub fn to_host<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    if env.mark() & MARK_MASK != MARK_TO_PROXY {
        return PASS;
    }
    if let Err(reason) = A::read(env, &mut work.packet) {
        return unreadable(env, reason, identity::HOST, 0);
    }
    // it is addressed to the Ethernet of the other end
    env.for_host();
    match proxy::arrive(env, &work.packet) {
        Ok(()) => PASS,
        Err(reason) => {
            let to = env.endpoint(&work.packet.destination).unwrap_or_default();
            let about =
                About { endpoint: to.id, destination: to.identity, direction: policy::DIR_INGRESS, ..About::default() };
            told_of(env, work, reason, about)
        }
    }
}
