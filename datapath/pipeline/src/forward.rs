//! Where does the packet go, and may it? The road of every IP packet, from whichever side it came.

use crate::admit::{self, Side};
use crate::env::{Env, Tables};
use crate::family::Family;
use crate::packet::{Packet, Shape};
use crate::report::{self, About};
use crate::service;
use crate::track;
use crate::work::Work;
use abi::conntrack::{self, CtEntry};
use abi::endpoint::{self, Endpoint};
use abi::identity::{self, Identity};
use abi::policy;
use abi::shared::Shared;
use abi::{DropReason, V4, event};

/// Let the kernel go on with the packet.
pub const PASS: i32 = 0;
/// Drop it.
pub const DROP: i32 = 2;

/// Where a packet came from. Numbers and not an enumeration: it lies in a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Origin(pub u8);

impl Origin {
    /// An endpoint of this node.
    pub const CONTAINER: Origin = Origin(0);
    /// The tunnel.
    pub const OVERLAY: Origin = Origin(1);
    /// The node's own stack, on its way to a pod.
    pub const HOST: Origin = Origin(2);
    /// A device that leads out of the node.
    pub const NETDEV: Origin = Origin(3);
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Sender {
    /// Identity of the source.
    pub identity: Identity,
    /// The endpoint that sent it; with zeros if it came from elsewhere.
    pub endpoint: Endpoint,
}

impl Sender {
    /// An endpoint of this node.
    #[inline(always)]
    pub fn container(endpoint: Endpoint) -> Self {
        Sender { identity: endpoint.identity, endpoint }
    }

    /// Somebody else.
    #[inline(always)]
    pub fn elsewhere(identity: Identity) -> Self {
        Sender { identity, endpoint: Endpoint::default() }
    }
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
struct Way(u8);

impl Way {
    const STACK: Way = Way(0);
    const LOCAL: Way = Way(1);
    const HOST: Way = Way(2);
    const TUNNEL: Way = Way(3);
}

/// What is known of the destination. Every field has a value whatever the way: the kernel's verifier refuses code that
/// copies what was never written.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Target {
    identity: Identity,
    tunnel: V4,
    endpoint: Endpoint,
    way: Way,
    pad: [u8; 3],
}

abi::plain!(Way: u8);
abi::plain!(Target: Identity, V4, Endpoint, Way, [u8; 3]);

/// A packet's road: whence, whither, and what is to be told of it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Road {
    from: Sender,
    target: Target,
    about: About,
    egress: Side,
    ingress: Side,
    origin: Origin,
    pad: [u8; 3],
}

abi::plain!(Origin: u8);
abi::plain!(Sender: Identity, Endpoint);
abi::plain!(Road: Sender, Target, About, Side, Side, Origin, [u8; 3]);

/// Judges and forwards the packet of `work`; what it returns is the program's result.
#[inline(always)]
pub fn forward<A: Family, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>, origin: Origin, from: Sender) -> i32 {
    let Work { packet, road } = work;
    road.from = from;
    road.origin = origin;
    road.about = About {
        source: from.identity,
        endpoint: from.endpoint.id,
        ifindex: env.ifindex(),
        direction: if origin == Origin::CONTAINER { policy::DIR_EGRESS } else { policy::DIR_INGRESS },
        ..About::default()
    };
    match travel(env, packet, road) {
        Ok(action) => action,
        Err(DropReason(0)) => DROP,
        Err(reason) => {
            report::dropped(env, packet, reason, &road.about);
            DROP
        }
    }
}

#[inline(always)]
fn travel<A: Family, E: Env + Tables<A>>(env: &mut E, p: &mut Packet<A>, road: &mut Road) -> Result<i32, DropReason> {
    let now = env.seconds();
    if p.shape == Shape::PORTS && track::find(env, p, now).is_none() {
        road.about.rev_nat = service::translate(env, p)?;
    }
    target(env, p, road);
    road.about.destination = road.target.identity;
    let (mut tell, mut reply, mut restore) = (true, false, 0);
    if p.shape == Shape::ERROR && related(env, p, now) {
        reply = true;
        road.about.detail = event::CT_RELATED;
    } else if let Some(known) = track::find(env, p, now) {
        tell = track::touch(&known, p, env.length(), now);
        road.about.detail = track::state(Some(&known));
        reply = known.reply;
        let entry = known.entry;
        if reply {
            restore = entry.rev_nat.get();
            road.about.rule_set = entry.ingress_rule_set.get();
        } else if unchanged(env, road, entry) {
            let local = road.target.way == Way::LOCAL;
            road.about.rule_set = if local { entry.ingress_rule_set.get() } else { entry.egress_rule_set.get() };
        } else {
            reconsider(env, p, road)?;
        }
    } else {
        road.about.detail = event::CT_NEW;
        begin(env, p, road)?;
    }
    road.about.flags = if reply { event::FLAG_REPLY } else { 0 };
    if restore != 0 {
        service::restore(env, p, restore)?;
    }
    deliver(env, p, road, tell)
}

/// Do the policies still stand under which the connection was admitted?
#[inline(always)]
fn unchanged<E: Env>(env: &E, road: &Road, entry: &CtEntry) -> bool {
    let (from, target) = (&road.from, &road.target);
    let (own, local) = (road.origin == Origin::CONTAINER, target.way == Way::LOCAL);
    if own && local && from.endpoint.id == target.endpoint.id {
        return true;
    }
    let holds = |endpoint: u32, admitted: u32| {
        admitted != 0 && env.policy(endpoint).is_some_and(|p| p.revision_and_modes == admitted)
    };
    let same_peers =
        entry.source_identity.get() == from.identity && entry.destination_identity.get() == target.identity;
    same_peers
        && (!own || holds(from.endpoint.id, entry.egress_revision.get()))
        && (!local || holds(target.endpoint.id, entry.ingress_revision.get()))
        && (!local || target.endpoint.flags & endpoint::FLAG_NOT_READY == 0)
}

/// A known connection whose policy or peer changed: still admitted? If not, it is forgotten.
#[inline(never)]
fn reconsider<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> Result<(), DropReason> {
    sides(road, 1);
    let asked = both_sides(env, p, road);
    let (key, _) = track::key(p, conntrack::KIND_CONNECTION);
    if let Err(reason) = asked {
        env.disconnect(&key);
        return Err(reason);
    }
    let local = road.target.way == Way::LOCAL;
    let (egress, ingress) = (&road.egress, &road.ingress);
    road.about.rule_set = if local { ingress.rule_set } else { egress.rule_set };
    let Some(entry) = env.connection(&key) else { return Ok(()) };
    entry.egress_revision.set(egress.revision);
    entry.egress_rule_set.set(egress.rule_set);
    entry.ingress_revision.set(ingress.revision);
    entry.ingress_rule_set.set(ingress.rule_set);
    entry.source_identity.set(road.from.identity);
    entry.destination_identity.set(road.target.identity);
    Ok(())
}

/// The first packet of a connection.
#[inline(never)]
fn begin<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> Result<(), DropReason> {
    sides(road, 0);
    both_sides(env, p, road)?;
    road.about.rule_set = if road.ingress.asked != 0 { road.ingress.rule_set } else { road.egress.rule_set };
    create(env, p, &road.egress, &road.ingress)
}

/// Both sides, as far as they have the same to say.
#[inline(always)]
fn sides(road: &mut Road, admitted: u32) {
    let common = Side {
        direction: policy::DIR_EGRESS,
        source: road.from.identity,
        destination: road.target.identity,
        ifindex: road.about.ifindex,
        admitted,
        rev_nat: road.about.rev_nat,
        ..Side::default()
    };
    road.egress = common;
    road.ingress = common;
}

/// Where a destination is, and who it is.
#[inline(never)]
fn target<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) {
    let (from, target) = (&road.from, &mut road.target);
    *target = Target { identity: identity::WORLD, ..Target::default() };
    if road.origin == Origin::CONTAINER && p.destination == A::loopback() {
        target.way = Way::LOCAL;
        target.identity = from.identity;
        target.endpoint = from.endpoint;
    } else if let Some(local) = env.endpoint(&p.destination) {
        target.way = if local.flags & endpoint::FLAG_HOST != 0 { Way::HOST } else { Way::LOCAL };
        target.identity = local.identity;
        target.endpoint = local;
    } else if let Some(remote) = env.remote(&p.destination) {
        target.identity = remote.identity;
        if remote.tunnel_endpoint.0 != 0 && remote.flags & abi::ipcache::FLAG_SKIP_TUNNEL == 0 {
            target.way = Way::TUNNEL;
            target.tunnel = remote.tunnel_endpoint;
        }
    }
}

/// Is the packet that an ICMP error quotes one of a known connection?
#[inline(never)]
fn related<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, now: u32) -> bool {
    let Some(inner) = crate::quoted::parse(env, p, p.quoted) else { return false };
    track::find(env, &inner, now).is_some()
}

/// Asks the policy of the source, if it is an endpoint of this node, and that of the destination, if it is one. A pod
/// always reaches itself.
#[inline(always)]
fn both_sides<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> Result<(), DropReason> {
    let Road { from, target, egress, ingress, origin, .. } = road;
    let (own, local) = (*origin == Origin::CONTAINER, target.way == Way::LOCAL);
    if own && local && from.endpoint.id == target.endpoint.id {
        return Ok(());
    }
    if own {
        egress.endpoint = from.endpoint.id;
        egress.peer = target.identity;
        admit::admit(env, p, egress)?;
    }
    if local {
        if target.endpoint.flags & endpoint::FLAG_NOT_READY != 0 {
            return Err(DropReason::EP_NOT_READY);
        }
        ingress.endpoint = target.endpoint.id;
        ingress.peer = ingress.source;
        ingress.direction = policy::DIR_INGRESS;
        ingress.ifindex = target.endpoint.ifindex;
        admit::admit(env, p, ingress)?;
    }
    Ok(())
}

/// Notes a new connection.
#[inline(never)]
fn create<A: Family, E: Env + Tables<A>>(
    env: &E,
    p: &Packet<A>,
    egress: &Side,
    ingress: &Side,
) -> Result<(), DropReason> {
    if p.shape == Shape::ERROR || p.later_fragment != 0 {
        return Ok(());
    }
    let (key, from_a) = track::key(p, conntrack::KIND_CONNECTION);
    let lifetime = if p.protocol == crate::packet::TCP { conntrack::LIFETIME_SYN } else { conntrack::LIFETIME_ANY };
    let (now, length) = (env.seconds(), env.length());
    let noted = env.connect(&key, |entry| {
        entry.packets[0] = Shared::new(1);
        entry.bytes[0] = Shared::new(length as u64);
        entry.expires = Shared::new(now + lifetime);
        entry.flags = Shared::new(if from_a { conntrack::FLAG_INITIATOR_A } else { 0 });
        entry.egress_revision = Shared::new(egress.revision);
        entry.ingress_revision = Shared::new(ingress.revision);
        entry.source_identity = Shared::new(egress.source);
        entry.destination_identity = Shared::new(egress.destination);
        entry.egress_rule_set = Shared::new(egress.rule_set);
        entry.ingress_rule_set = Shared::new(ingress.rule_set);
        entry.rev_nat = Shared::new(egress.rev_nat);
        entry.tcp_flags[0] = Shared::new(p.tcp_flags);
        entry.reported[0] = Shared::new(now);
        entry.created = now;
    });
    if noted { Ok(()) } else { Err(DropReason::CT_CREATE_FAILED) }
}

/// Sends the packet on its way.
#[inline(always)]
fn deliver<A: Family, E: Env + Tables<A>>(
    env: &mut E,
    p: &Packet<A>,
    road: &mut Road,
    tell: bool,
) -> Result<i32, DropReason> {
    let (origin, target, about) = (road.origin, &road.target, &mut road.about);
    let Some(tunnel) = env.config().map(|c| c.tunnel_ifindex) else { return Err(DropReason::NO_CONFIG) };
    let mut point = NOWHERE;
    let mut direction = about.direction;
    match (target.way, origin) {
        (Way::LOCAL, _) => {
            about.endpoint = target.endpoint.id;
            about.ifindex = target.endpoint.ifindex;
            direction = policy::DIR_INGRESS;
            point = event::TRACE_TO_LXC;
        }
        (Way::TUNNEL, Origin::OVERLAY) | (Way::STACK, Origin::HOST) => return Err(DropReason::UNROUTABLE),
        (Way::TUNNEL, Origin::CONTAINER | Origin::HOST) => {
            about.ifindex = tunnel;
            direction = policy::DIR_EGRESS;
            point = event::TRACE_TO_OVERLAY;
        }
        (Way::STACK | Way::HOST, Origin::CONTAINER) => point = event::TRACE_TO_STACK,
        _ => {}
    }
    report::count(env, 0, direction);
    if point != NOWHERE && tell {
        about.kind = event::KIND_TRACE;
        about.code = point;
        about.direction = event::DIR_UNKNOWN;
        report::packet(env, p, about);
    }
    match (target.way, origin) {
        (Way::LOCAL, _) => {
            if !env.store(0, target.endpoint.mac.0) || !env.store(6, target.endpoint.node_mac.0) {
                return Err(DropReason::WRITE_ERROR);
            }
            let ifindex = target.endpoint.ifindex;
            // handing over to the peer works for packets that came in, not for those on their way out
            Ok(if origin == Origin::HOST { env.to_device(ifindex) } else { env.to_peer(ifindex) })
        }
        (Way::TUNNEL, Origin::CONTAINER | Origin::HOST) => {
            let unspeakable = about.source == identity::HOST || identity::is_node_local(about.source);
            let source = if unspeakable { identity::REMOTE_NODE } else { about.source };
            env.to_tunnel(source, target.tunnel, tunnel).ok_or(DropReason::NO_TUNNEL_ENDPOINT)
        }
        _ => {
            env.for_host();
            Ok(PASS)
        }
    }
}

/// No observation point.
const NOWHERE: u8 = 255;
