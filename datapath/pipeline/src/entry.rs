//! Where does a packet enter the datapath? One function for each hook.

use crate::env::{Env, Tables};
use crate::family::Family;
use crate::forward::{self, DROP, Origin, PASS, Sender};
use crate::packet::{Packet, Parse};
use crate::report::{self, About};
use crate::work::Work;
use crate::{masquerade, neighbour};
use abi::endpoint::{self, Endpoint};
use abi::identity::{self, Identity};
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
        return refused(env, &work.packet, DropReason::UNKNOWN_L3);
    }
    match sender(env, &work.packet) {
        Ok(me) => forward::forward(env, work, Origin::CONTAINER, Sender::container(me)),
        Err(reason) => refused(env, &work.packet, reason),
    }
}

/// A packet whose sender is known by its interface alone.
#[inline(always)]
fn refused_unread<E: Env>(env: &E, reason: DropReason) -> i32 {
    let me = env.device(env.ifindex()).unwrap_or_default();
    unreadable(env, reason, me.identity, me.id)
}

#[inline(always)]
fn refused<A: Family, E: Env>(env: &E, p: &Packet<A>, reason: DropReason) -> i32 {
    let me = env.device(env.ifindex()).unwrap_or_default();
    let about = About {
        source: me.identity,
        endpoint: me.id,
        ifindex: env.ifindex(),
        direction: policy::DIR_EGRESS,
        ..About::default()
    };
    report::dropped(env, p, reason, &about);
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
                return DROP;
            }
            neighbour::solicited(env, &me, asker).unwrap_or_else(|reason| unreadable(env, reason, me.identity, me.id))
        }
        neighbour::NEIGHBOUR_ADVERTISEMENT => DROP,
        neighbour::ROUTER_SOLICITATION | neighbour::ROUTER_ADVERTISEMENT | 137 | 130..=132 | 143 => FORBIDDEN,
        _ => NOT_DISCOVERY,
    }
}

#[inline(never)]
fn forbidden<E: Env>(env: &E, work: &mut Work<V6>) -> i32 {
    match V6::read(env, &mut work.packet) {
        Ok(()) => refused(env, &work.packet, DropReason::FORBIDDEN_ICMP6),
        Err(reason) => refused_unread(env, reason),
    }
}

/// A packet out of the tunnel.
#[inline(always)]
pub fn overlay<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    if let Err(reason) = A::read(env, &mut work.packet) {
        return unreadable(env, reason, 0, 0);
    }
    match tunnelled(env, &work.packet) {
        Ok(source) => forward::forward(env, work, Origin::OVERLAY, Sender::elsewhere(source)),
        Err(reason) => {
            let about = About { ifindex: env.ifindex(), direction: policy::DIR_INGRESS, ..About::default() };
            report::dropped(env, &work.packet, reason, &about);
            DROP
        }
    }
}

/// Who sent a packet through the tunnel. Only nodes of the cluster may, and only in the name of others than themselves
/// as this node, of nobody, and of numbers that mean something on one node only.
#[inline(always)]
fn tunnelled<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>) -> Result<Identity, DropReason> {
    let (claimed, node) = env.tunnel_key().ok_or(DropReason::NO_TUNNEL_KEY)?;
    let sender: Option<abi::ipcache::RemoteEndpoint> = Tables::<V4>::remote(env, &node);
    match sender.map(|s| s.identity) {
        Some(identity::REMOTE_NODE | identity::KUBE_APISERVER) => {}
        Some(id) if id >= identity::LOCAL_REMOTE_NODE => {}
        _ => return Err(DropReason::INVALID_IDENTITY),
    }
    if claimed == identity::HOST || claimed == identity::UNKNOWN || identity::is_node_local(claimed) {
        return Err(DropReason::INVALID_IDENTITY);
    }
    let known = env.remote(&p.source);
    // the inner source must lie behind the node that sent it, where this node knows better
    if let Some(k) = known
        && k.tunnel_endpoint.0 != 0
        && k.tunnel_endpoint != node
    {
        return Err(DropReason::INVALID_SIP);
    }
    if env.endpoint(&p.source).is_some() {
        return Err(DropReason::INVALID_SIP);
    }
    if claimed == identity::REMOTE_NODE
        && let Some(k) = known
        && (k.identity == identity::KUBE_APISERVER || k.identity >= identity::LOCAL_REMOTE_NODE)
    {
        return Ok(k.identity);
    }
    Ok(claimed)
}

/// A packet of the node's own stack, on its way to a pod.
#[inline(always)]
pub fn host<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    if let Err(reason) = A::read(env, &mut work.packet) {
        return unreadable(env, reason, identity::HOST, 0);
    }
    let source = match env.endpoint(&work.packet.source) {
        Some(own) if own.flags & endpoint::FLAG_HOST != 0 => identity::HOST,
        Some(own) => own.identity,
        None => outside(env, &work.packet.source),
    };
    forward::forward(env, work, Origin::HOST, Sender::elsewhere(source))
}

/// The identity of an address outside of this node; never the node's own.
#[inline(always)]
fn outside<A: Family, E: Tables<A>>(env: &E, addr: &A) -> Identity {
    match env.remote(addr) {
        Some(r) if r.identity != identity::HOST => r.identity,
        _ => identity::WORLD,
    }
}

/// A packet from outside of the node.
#[inline(always)]
pub fn netdev<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    let p = &mut work.packet;
    if A::read(env, p).is_err() {
        return PASS;
    }
    let own = match masquerade::enter(env, p) {
        Ok(translated) => translated,
        Err(reason) => {
            let about = About { ifindex: env.ifindex(), direction: policy::DIR_INGRESS, ..About::default() };
            report::dropped(env, p, reason, &about);
            return DROP;
        }
    };
    match env.endpoint(&p.destination) {
        Some(to) if to.flags & endpoint::FLAG_HOST == 0 => {}
        _ if own => {}
        _ => return PASS,
    }
    let source = outside(env, &p.source);
    forward::forward(env, work, Origin::NETDEV, Sender::elsewhere(source))
}

/// A packet that leaves the node.
#[inline(always)]
pub fn to_netdev<A: Parse, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    let p = &mut work.packet;
    if A::read(env, p).is_err() {
        return PASS;
    }
    match masquerade::leave(env, p) {
        Ok(()) => PASS,
        Err(reason) => {
            let me = env.endpoint(&p.source).unwrap_or_default();
            let about = About {
                source: me.identity,
                endpoint: me.id,
                ifindex: env.ifindex(),
                direction: policy::DIR_EGRESS,
                ..About::default()
            };
            report::dropped(env, p, reason, &about);
            DROP
        }
    }
}
