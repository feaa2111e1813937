//! Which packets go to the proxy, which come from it, and which policy is still to be asked of them?
//!
//! A client's connection that a policy redirects ends at the proxy: its packets are given to a socket there, and the
//! proxy's answers carry the server's address. The proxy's own connection to the server (`KIND_UPSTREAM`) carries the
//! client's address; its answers are given to the proxy's socket. Neither end of a redirected connection ever speaks to
//! the other without the proxy: where it has no socket for a packet, the packet is dropped.

use crate::deliver;
use crate::env::{Env, Socket, Tables, Wanted};
use crate::family::Family;
use crate::forward::{self, HAND, LATER, PASS};
use crate::packet::{Packet, Shape, TCP, UDP};
use crate::road::{Hand, Origin, Road, Sender};
use crate::track;
use crate::work::Work;
use abi::config::FLAG_PROXY;
use abi::conntrack::{
    self, CtEntry, KIND_CONNECTION, KIND_UPSTREAM, PROXY_EGRESS, PROXY_FROM_EGRESS, PROXY_FROM_INGRESS, PROXY_INGRESS,
    PROXY_REDIRECTED, PROXY_UPSTREAM,
};
use abi::endpoint;
use abi::identity;
use abi::proxy::ProxySocket;
use abi::{DropReason, Port, V4, event, policy, proxy};

/// Does any policy of this node redirect, or did one?
#[inline(always)]
pub fn is_on<E: Env>(env: &E) -> bool {
    env.config().is_some_and(|c| c.flags & FLAG_PROXY != 0)
}

/// Might the proxy have sent this packet of the node's stack? It carries its mark and came in by no device.
#[inline(always)]
pub fn is_marked<E: Env>(env: &E) -> bool {
    let magic = env.mark() & proxy::MARK_MASK;
    (magic == proxy::MARK_FROM_EGRESS || magic == proxy::MARK_FROM_INGRESS) && env.came_by() == 0
}

/// Is the packet of the node's own stack, as the proxy's are?
#[inline(always)]
fn of_stack<E: Env>(env: &E, road: &Road) -> bool {
    road.origin == Origin::HOST && env.came_by() == 0
}

/// The live connection that the packet is of, if it is known. Without one `road` says whether the proxy begins one
/// (`proxy`), or why the packet may begin none (`refused`).
///
/// Packets that the stack marks as the proxy's are looked for among its own connections. The mark alone opens nothing:
/// whoever may send raw packets on the node can set it; a new connection must be of a socket of which the proxy has told.
#[inline(never)]
pub fn connection<'a, A: Family, E: Env + Tables<A>>(
    env: &'a E,
    p: &Packet<A>,
    road: &mut Road,
) -> Option<&'a CtEntry> {
    if road.origin == Origin::HOST && is_on(env) && is_marked(env) {
        road.kind = KIND_UPSTREAM;
        if let Some(entry) = track::live(env, p, KIND_UPSTREAM, road.now) {
            return Some(entry);
        }
        if let Some(socket) = env.proxy_socket(&env.socket_cookie()) {
            speaks(road, &socket);
            return None;
        }
    }
    road.kind = KIND_CONNECTION;
    let stood_between = match track::live(env, p, KIND_CONNECTION, road.now) {
        Some(entry) => {
            let proxied = entry.proxy.get() & PROXY_REDIRECTED != 0;
            // a server speaks to the proxy, not to the proxy's client
            if !proxied || !track::is_reply(entry, p) || of_stack(env, road) {
                return Some(entry);
            }
            true
        }
        None if is_on(env) => false,
        None => return None,
    };
    let answered = track::live(env, p, KIND_UPSTREAM, road.now);
    if let Some(entry) = answered
        && track::is_reply(entry, p)
    {
        road.kind = KIND_UPSTREAM;
        return Some(entry);
    }
    // nor does a client speak in the proxy's place to the proxy
    let poses = answered.is_some_and(|entry| entry.proxy.get() & PROXY_REDIRECTED != 0);
    if stood_between || poses {
        road.refused = DropReason::UNKNOWN_CT.0;
    }
    None
}

/// The proxy begins a connection in a client's name.
#[inline(always)]
fn speaks(road: &mut Road, socket: &ProxySocket) {
    road.proxy = if socket.magic == proxy::MARK_FROM_EGRESS { PROXY_FROM_EGRESS } else { PROXY_FROM_INGRESS };
    if road.from.identity == identity::UNKNOWN {
        road.from.identity = socket.client;
    }
}

/// A packet of the node's stack that [`forward::forward`] left to be judged: is it an answer of the node itself to the
/// proxy? Their connection passed no program on its way there, so that it is known to nobody but the kernel.
#[inline(always)]
pub fn node_answers<A: Family, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    let Work { packet: p, road, .. } = work;
    let may = is_on(env) && !is_marked(env) && of_stack(env, road) && p.shape == Shape::PORTS;
    if !may || known_to_us(env, p, road) || env.socket(p, Wanted::Connected, false) != Socket::Found {
        return LATER;
    }
    road.hand = Hand::SERVER;
    match forward::complain(env, p, road) {
        Ok(()) => HAND,
        Err(reason) => forward::dropped(env, p, road, reason),
    }
}

#[inline(always)]
fn known_to_us<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &Road) -> bool {
    track::live(env, p, KIND_CONNECTION, road.now).is_some() || track::live(env, p, KIND_UPSTREAM, road.now).is_some()
}

/// Whether a packet of a known connection goes to the proxy. A running connection that is redirected from now on ends: its
/// client's next packet makes the proxy, which knows nothing of it, reset it; nothing comes to its client any more.
#[inline(always)]
pub fn stands_between<E: Env>(env: &E, road: &mut Road, before: u8) -> Result<(), DropReason> {
    let (reply, redirected) = (road.reply != 0, road.proxy & PROXY_REDIRECTED != 0);
    let upstream = road.proxy & PROXY_UPSTREAM != 0;
    if reply && redirected && (before & PROXY_REDIRECTED == 0 || upstream && !of_stack(env, road)) {
        return Err(DropReason::UNKNOWN_CT);
    }
    if reply && upstream {
        road.hand = Hand::SERVER;
    } else if !reply && redirected {
        road.hand = Hand::CLIENT;
    }
    Ok(())
}

/// What follows from the answers of both policies. A TCP connection that was once redirected stays with the proxy, which
/// alone can end it in order; what it may say there the proxy asks anew.
#[inline(always)]
pub fn decide<A: Family>(p: &Packet<A>, road: &mut Road) {
    let (egress, ingress) = (road.egress.proxy_port, road.ingress.proxy_port);
    if egress.0 | ingress.0 == 0 {
        if p.protocol != TCP {
            road.proxy &= !PROXY_REDIRECTED;
        }
        return;
    }
    let (side, port) = if egress.0 != 0 { (PROXY_EGRESS, egress) } else { (PROXY_INGRESS, ingress) };
    road.proxy |= side | PROXY_REDIRECTED;
    road.proxy_port = port;
    road.about.proxy_port = port;
}

/// Whether an ICMP error about a connection of pods goes to the proxy: it is the other end of those that are redirected.
#[inline(always)]
pub fn complained<E: Env>(env: &E, road: &Road, proxy: u8) -> Hand {
    if proxy & PROXY_REDIRECTED != 0 && !of_stack(env, road) { Hand::ERROR } else { Hand::NONE }
}

/// Gives the packet of `work`, which [`forward::later`] judged, to the proxy, tells of it, and lets the node's stack have it.
#[inline(always)]
pub fn hand_over<A: Family, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    let Work { packet, road, .. } = work;
    match hand(env, packet, road) {
        Ok(action) => action,
        Err(reason) => forward::dropped(env, packet, road, reason),
    }
}

#[inline(always)]
fn hand<A: Family, E: Env + Tables<A>>(env: &mut E, p: &Packet<A>, road: &mut Road) -> Result<i32, DropReason> {
    let port = if road.hand == Hand::CLIENT { road.proxy_port } else { Port(0) };
    if road.hand == Hand::CLIENT && road.proxy & PROXY_INGRESS != 0 {
        road.about.endpoint = road.target.endpoint.id;
        road.about.direction = policy::DIR_INGRESS;
    }
    if road.hand != Hand::ERROR {
        if poses(env, p, road) {
            return Err(DropReason::UNKNOWN_CT);
        }
        // on its way out of the stack a packet can be given to nobody: see `arrive`
        let here = road.origin != Origin::HOST;
        give(env, p, port, here)?;
    }
    road.about.ifindex = 0;
    road.about.proxy_port = port;
    let direction = road.about.direction;
    deliver::tell(env, p, road, event::TRACE_TO_PROXY, direction)?;
    env.set_mark(proxy::to_proxy(port));
    env.for_host();
    Ok(PASS)
}

/// Does a pod speak with the addresses of a connection between the proxy and itself? That is where a pod's connection passes
/// the proxy twice, for both ends' policies.
#[inline(always)]
fn poses<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &Road) -> bool {
    if road.hand != Hand::CLIENT || road.origin != Origin::CONTAINER || p.protocol != TCP {
        return false;
    }
    let known = track::find(env, p, KIND_UPSTREAM, road.now);
    known.is_some_and(|known| !known.reply && known.entry.proxy.get() & PROXY_REDIRECTED != 0)
}

/// Finds the proxy's socket for a packet and, if it can be given there, gives it. Port 0: the packet answers the proxy.
#[inline(always)]
fn give<A: Family, E: Env + Tables<A>>(env: &mut E, p: &Packet<A>, port: Port, here: bool) -> Result<(), DropReason> {
    if p.shape != Shape::PORTS || (p.protocol != TCP && p.protocol != UDP) {
        return Err(DropReason::PROXY_UNKNOWN_PROTO);
    }
    let mut socket = Socket::None;
    // datagrams of all clients come to one socket
    if p.protocol == TCP || port.0 == 0 {
        socket = env.socket(p, Wanted::Connected, here);
    }
    if socket == Socket::None && port.0 != 0 {
        socket = env.socket(p, Wanted::Listening(port), here);
    }
    match socket {
        Socket::Found => Ok(()),
        Socket::Refused => Err(DropReason::PROXY_SET_FAILED),
        Socket::None => Err(DropReason::PROXY_LOOKUP_FAILED),
    }
}

/// A packet that `from_host` sent to the proxy, where it comes in again.
#[inline(always)]
pub fn arrive<A: Family, E: Env + Tables<A>>(env: &mut E, p: &Packet<A>) -> Result<(), DropReason> {
    if p.protocol == A::ICMP {
        return Ok(());
    }
    let port = proxy::proxy_port(env.mark());
    give(env, p, port, true)
}

/// A marked packet that leaves the node: if it is the proxy's, its connection is noted, so that the answers find back.
#[inline(never)]
pub fn leave<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> Result<bool, DropReason> {
    let Some(client) = env.endpoint(&p.source) else { return Ok(false) };
    if client.flags & endpoint::FLAG_HOST != 0 {
        return Ok(false);
    }
    forward::start(env, road, Origin::HOST, Sender::elsewhere(client.identity));
    road.kind = KIND_UPSTREAM;
    if let Some(known) = track::find(env, p, KIND_UPSTREAM, road.now) {
        track::touch(&known, p, env.length(), road.now);
        return Ok(true);
    }
    let Some(socket) = env.proxy_socket(&env.socket_cookie()) else { return Ok(false) };
    speaks(road, &socket);
    forward::note(env, p, road)?;
    Ok(true)
}

/// The proxy's answer to a client behind another node that does not lie on the way through the tunnel by its address: the
/// node and the identity to answer as.
#[inline(never)]
pub fn detour<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) {
    road.target.tunnel = V4(0);
    if env.endpoint(&p.source).is_none_or(|own| own.flags & endpoint::FLAG_HOST != 0) {
        return;
    }
    let Some(known) = track::find(env, p, KIND_CONNECTION, env.seconds()) else { return };
    let entry = known.entry;
    if known.reply && entry.proxy.get() & PROXY_REDIRECTED != 0 && entry.flags.get() & conntrack::FLAG_FROM_TUNNEL != 0
    {
        road.target.tunnel = V4(entry.tunnel_endpoint.get());
        road.from.identity = entry.destination_identity.get();
    }
}
