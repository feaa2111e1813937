//! Where does the packet go, and may it? The road of every IP packet, from whichever side it came.

use crate::admit::{self, Side};
use crate::deliver;
use crate::env::{Env, Tables};
use crate::family::Family;
use crate::packet::{Packet, Shape, UDP};
use crate::peers;
use crate::proxy;
use crate::report::{self, About};
use crate::road::{Hand, Origin, Party, Road, Sender, Target, Way};
use crate::service;
use crate::track::{self, Known};
use crate::work::Work;
use abi::conntrack;
use abi::shared::Shared;
use abi::{DropReason, Port, V4, event, policy};

/// Let the kernel go on with the packet.
pub const PASS: i32 = 0;
/// Drop it.
pub const DROP: i32 = 2;
/// No action of a program: the packet is to be judged by [`later`].
pub const LATER: i32 = -4;
/// No action of a program: the packet is to be given to the proxy by [`proxy::hand_over`].
pub const HAND: i32 = -5;
/// Where nodes listen for tunnelled packets. Pods may not send there: a node would take them for another node's.
pub const TUNNEL_PORT: Port = Port::new(8472);

/// Forwards the packet of `work` if nothing is to be judged: its connection is known, and what was decided of it stands.
/// What this returns is the program's result; other packets are left for [`later`], which the kernel's verifier looks at
/// by itself, and not once for every place from which a packet can come.
#[inline(always)]
pub fn forward<A: Family, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>, origin: Origin, from: Sender) -> i32 {
    let Work { packet, road, .. } = work;
    start(env, road, origin, from);
    if origin == Origin::HOST && proxy::is_on(env) && proxy::is_marked(env) {
        return LATER;
    }
    match pass(env, packet, road) {
        Ok(action) => action,
        Err(reason) => dropped(env, packet, road, reason),
    }
}

/// Judges and forwards the packet of `work`, for which [`forward`] left everything ready.
#[inline(always)]
pub fn later<A: Family, E: Env + Tables<A>>(env: &mut E, work: &mut Work<A>) -> i32 {
    let Work { packet, quoted, road } = work;
    match travel(env, packet, quoted, road) {
        Ok(action) => action,
        Err(reason) => dropped(env, packet, road, reason),
    }
}

#[inline(always)]
pub(crate) fn dropped<A: Family, E: Env>(env: &E, p: &Packet<A>, road: &mut Road, reason: DropReason) -> i32 {
    road.forget_others();
    report::dropped(env, p, reason, &mut road.about, &road.verdicts);
    DROP
}

/// A packet's road at its beginning.
#[inline(always)]
pub(crate) fn start<E: Env>(env: &E, road: &mut Road, origin: Origin, from: Sender) {
    road.from = from;
    road.origin = origin;
    road.reply = 0;
    road.restore = 0;
    road.tell = 1;
    road.judged = 0;
    road.proxy = 0;
    road.kind = conntrack::KIND_CONNECTION;
    road.hand = Hand::NONE;
    road.refused = 0;
    road.now = env.seconds();
    road.about = About {
        source: from.identity,
        endpoint: from.endpoint.id,
        ifindex: env.ifindex(),
        direction: if origin == Origin::CONTAINER { policy::DIR_EGRESS } else { policy::DIR_INGRESS },
        ..About::default()
    };
}

/// A packet of a connection of which everything is known.
#[inline(always)]
fn pass<A: Family, E: Env + Tables<A>>(env: &mut E, p: &mut Packet<A>, road: &mut Road) -> Result<i32, DropReason> {
    let Some(known) = track::find(env, p, conntrack::KIND_CONNECTION, road.now) else { return Ok(LATER) };
    if known.entry.proxy.get() != 0 {
        return Ok(LATER);
    }
    meet(env, p, road, &known);
    if !settled(env, road, &known, Road::parties) {
        return Ok(LATER);
    }
    recall(road, &known);
    road.restore = if known.reply { known.entry.rev_nat.get() } else { 0 };
    road.tell = track::touch(&known, p, env.length(), road.now) as u8;
    arrive(env, p, road)
}

/// A packet of which something is to be found out.
#[inline(always)]
fn travel<A: Family, E: Env + Tables<A>>(
    env: &mut E,
    p: &mut Packet<A>,
    quoted: &mut Packet<A>,
    road: &mut Road,
) -> Result<i32, DropReason> {
    let mut translated = false;
    loop {
        if let Some(entry) = proxy::connection(env, p, road) {
            follow(env, p, road, &track::known(entry, p))?;
            break;
        }
        if road.refused != 0 {
            return Err(DropReason(road.refused));
        }
        if p.shape == Shape::ERROR && related(env, p, quoted, road) {
            complain(env, p, road)?;
            break;
        }
        if !translated {
            road.about.rev_nat = if road.proxy == 0 { service::translate(env, p)? } else { 0 };
        }
        if translated || road.about.rev_nat == 0 {
            begin(env, p, road)?;
            break;
        }
        // now the packet is addressed to a backend, to which there may be a connection
        translated = true;
    }
    if road.hand != Hand::NONE {
        return Ok(HAND);
    }
    arrive(env, p, road)
}

#[inline(always)]
fn arrive<A: Family, E: Env + Tables<A>>(env: &mut E, p: &mut Packet<A>, road: &mut Road) -> Result<i32, DropReason> {
    if road.restore != 0 {
        let index = road.restore;
        service::restore(env, p, index)?;
    }
    deliver::deliver(env, p, road)
}

/// Notes that the packet is of a known connection, and looks for its destination on this node.
#[inline(always)]
fn meet<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road, known: &Known<'_>) {
    road.reply = known.reply as u8;
    road.about.detail = track::state(Some(known));
    road.about.flags = if known.reply { event::FLAG_REPLY } else { 0 };
    peers::local(env, p, road);
}

/// Takes over what was decided of the connection.
#[inline(always)]
fn recall(road: &mut Road, known: &Known<'_>) {
    road.about.source = road.from.identity;
    road.about.destination = road.target.identity;
    road.about.rule_set = told_rule_set(road, known.entry.egress_rule_set.get(), known.entry.ingress_rule_set.get());
}

/// A packet of a known connection of which something may have changed, or with which the proxy has to do.
#[inline(always)]
fn follow<A: Family, E: Env + Tables<A>>(
    env: &E,
    p: &Packet<A>,
    road: &mut Road,
    known: &Known<'_>,
) -> Result<(), DropReason> {
    let entry = known.entry;
    let before = entry.proxy.get();
    road.proxy = before;
    road.proxy_port = entry.proxy_port.get();
    meet(env, p, road, known);
    if settled(env, road, known, |road| asked(env, road)) {
        recall(road, known);
    } else {
        // both sides are asked again, as far as the proxy has not asked them
        road.proxy = before & !(conntrack::PROXY_EGRESS | conntrack::PROXY_INGRESS);
        reconsider(env, p, road)?;
    }
    proxy::stands_between(env, road, before)?;
    road.restore = if known.reply && road.hand == Hand::NONE { entry.rev_nat.get() } else { 0 };
    road.tell = track::touch(known, p, env.length(), road.now) as u8;
    Ok(())
}

/// Do identities and policies still stand under which the connection was admitted? If so they are taken from it, without
/// asking the IP cache.
#[inline(always)]
fn settled<E: Env>(env: &E, road: &mut Road, known: &Known<'_>, who: impl Fn(&Road) -> (Party, Party)) -> bool {
    let entry = known.entry;
    let Some(generation) = env.config().map(|c| c.ipcache_generation) else { return false };
    if entry.ipcache_generation.get() != generation {
        return false;
    }
    let (initiator, responder) = (entry.source_identity.get(), entry.destination_identity.get());
    let (source, destination) = if known.reply { (responder, initiator) } else { (initiator, responder) };
    let node = entry.tunnel_endpoint.get();
    let from = &mut road.from;
    let same_sender = match road.origin {
        Origin::OVERLAY => node == from.node.0 && peers::speaks_for(from.claimed, source),
        Origin::NETDEV => node == 0,
        _ => from.identity == source || from.identity == 0,
    };
    if same_sender {
        from.identity = source;
    }
    let target = &mut road.target;
    let here = target.way == Way::LOCAL || target.way == Way::HOST;
    let same_target = !here || target.identity == destination;
    if !here {
        target.identity = destination;
        target.tunnel = V4(node);
        target.way = if node == 0 { Way::STACK } else { Way::TUNNEL };
    }
    same_sender
        && same_target
        && policies_stand(env, who(road), entry.egress_revision.get(), entry.ingress_revision.get())
}

#[inline(always)]
fn policies_stand<E: Env>(env: &E, (initiator, responder): (Party, Party), egress: u32, ingress: u32) -> bool {
    if initiator.endpoint != 0 && initiator.endpoint == responder.endpoint {
        return true;
    }
    let holds = |endpoint: u32, admitted: u32| {
        endpoint == 0 || admitted != 0 && env.policy(endpoint).is_some_and(|p| p.revision_and_modes == admitted)
    };
    initiator.ready && responder.ready && holds(initiator.endpoint, egress) && holds(responder.endpoint, ingress)
}

/// The rule set that a trace event names: that of the endpoint where the packet arrives, else that of the sender.
#[inline(always)]
fn told_rule_set(road: &Road, egress: u32, ingress: u32) -> u32 {
    let arrives = road.target.way == Way::LOCAL;
    if arrives != (road.reply != 0) { ingress } else { egress }
}

/// A known connection whose policy or peer changed: still admitted? If not, its entry stays as it is, and each later
/// packet is judged again. Were it forgotten, the next packet of the other side would begin a connection of its own, in
/// which those of this side would be replies.
#[inline(always)]
fn reconsider<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> Result<(), DropReason> {
    let kept = V4(came_from(env, p, road));
    peers::local(env, p, road);
    peers::settle(env, p, road, kept)?;
    judge(env, p, road, 1)?;
    proxy::decide(p, road);
    renew(env, p, road);
    Ok(())
}

/// The node from which a connection came whose reply this is, 0: none. Also notes the service that was asked.
#[inline(never)]
fn came_from<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> u32 {
    let (key, _) = track::key(p, road.kind);
    let Some(entry) = env.connection(&key) else { return 0 };
    road.about.rev_nat = entry.rev_nat.get();
    let came = entry.flags.get() & conntrack::FLAG_FROM_TUNNEL != 0 && road.reply != 0;
    if came { entry.tunnel_endpoint.get() } else { 0 }
}

/// Notes under which policies the connection goes on.
#[inline(never)]
fn renew<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) {
    let (key, _) = track::key(p, road.kind);
    road.about.rule_set = told_rule_set(road, road.egress.rule_set, road.ingress.rule_set);
    let (Some(entry), Some(config)) = (env.connection(&key), env.config()) else { return };
    let (initiator, responder) = road.identities();
    entry.egress_revision.set(road.egress.revision);
    entry.egress_rule_set.set(road.egress.rule_set);
    entry.ingress_revision.set(road.ingress.revision);
    entry.ingress_rule_set.set(road.ingress.rule_set);
    entry.source_identity.set(initiator);
    entry.destination_identity.set(responder);
    entry.tunnel_endpoint.set(remote_node(road));
    entry.ipcache_generation.set(config.ipcache_generation);
    if road.proxy | entry.proxy.get() != 0 {
        if road.proxy_port.0 != 0 {
            entry.proxy_port.set(road.proxy_port);
            entry.backend.set(road.redirecting());
        }
        entry.proxy.set(road.proxy);
    }
}

/// The node behind which the connection's other end is, 0: none.
#[inline(always)]
fn remote_node(road: &Road) -> u32 {
    if road.origin == Origin::OVERLAY { road.from.node.0 } else { road.target.tunnel.0 }
}

/// An ICMP error about a known connection passes as its packets do.
#[inline(always)]
pub(crate) fn complain<A: Family, E: Env + Tables<A>>(
    env: &E,
    p: &Packet<A>,
    road: &mut Road,
) -> Result<(), DropReason> {
    road.about.detail = event::CT_RELATED;
    road.about.flags = event::FLAG_REPLY;
    peers::local(env, p, road);
    peers::settle(env, p, road, V4(0))
}

/// Is the packet that an ICMP error quotes one of a known connection, sent by whom the error is for? A pod may complain
/// about packets to itself only; routers between nodes complain about others'.
#[inline(never)]
fn related<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, inner: &mut Packet<A>, road: &mut Road) -> bool {
    if crate::quoted::parse(env, p, inner).is_none() {
        return false;
    }
    let addressed = inner.source == p.destination;
    let own = road.origin != Origin::CONTAINER || inner.destination == p.source;
    if !addressed || !own {
        return false;
    }
    match track::find(env, inner, conntrack::KIND_CONNECTION, road.now) {
        Some(known) => road.hand = proxy::complained(env, road, known.entry.proxy.get()),
        None if proxy::is_on(env) && track::find(env, inner, conntrack::KIND_UPSTREAM, road.now).is_some() => {
            road.hand = Hand::ERROR;
        }
        None => return false,
    }
    true
}

/// The first packet of a connection.
#[inline(always)]
pub(crate) fn begin<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> Result<(), DropReason> {
    road.about.detail = event::CT_NEW;
    peers::local(env, p, road);
    peers::settle(env, p, road, V4(0))?;
    let to_node = road.target.way == Way::HOST || peers::is_node(road.target.identity);
    let tunnel = p.protocol == UDP && p.destination_port == TUNNEL_PORT;
    if tunnel && to_node && road.origin == Origin::CONTAINER {
        return Err(DropReason::ENCAP_PROHIBITED);
    }
    judge(env, p, road, 0)?;
    proxy::decide(p, road);
    road.about.rule_set = told_rule_set(road, road.egress.rule_set, road.ingress.rule_set);
    create(env, p, road)?;
    road.hand = if road.proxy & conntrack::PROXY_REDIRECTED != 0 { Hand::CLIENT } else { Hand::NONE };
    Ok(())
}

/// [`Road::asked`], as numbers of which the kernel's verifier knows nothing: it need not go on for each of their combinations.
#[inline(always)]
fn asked<E: Env>(env: &E, road: &Road) -> (Party, Party) {
    let (initiator, responder) = road.asked();
    let ready = initiator.ready as u32 | (responder.ready as u32) << 1;
    let [one, other, ready] = env.opaque([initiator.endpoint, responder.endpoint, ready]);
    let initiator = Party { endpoint: one, ready: ready & 1 != 0, ..initiator };
    (initiator, Party { endpoint: other, ready: ready & 2 != 0, ..responder })
}

/// Asks the policy of the initiator, if it is an endpoint of this node, and that of the responder, if it is one. A pod
/// always reaches itself.
#[inline(never)]
fn judge<A: Family, E: Env + Tables<A>>(
    env: &E,
    p: &Packet<A>,
    road: &mut Road,
    admitted: u8,
) -> Result<(), DropReason> {
    let (initiator, responder) = asked(env, road);
    let (initiator_identity, responder_identity) = road.identities();
    let common = Side {
        direction: policy::DIR_EGRESS,
        ifindex: road.about.ifindex,
        admitted,
        reply: road.reply,
        endpoint: initiator.endpoint,
        peer: responder_identity,
        port: p.asked_port(road.reply != 0),
        protocol: p.protocol,
        ..Side::default()
    };
    road.judged = 1;
    road.verdicts[0].told = 0;
    road.verdicts[1].told = 0;
    road.egress = common;
    road.ingress =
        Side { direction: policy::DIR_INGRESS, endpoint: responder.endpoint, peer: initiator_identity, ..common };
    if road.to_itself() {
        return Ok(());
    }
    if !initiator.ready || !responder.ready {
        return Err(DropReason::EP_NOT_READY);
    }
    if initiator.endpoint != 0 {
        admit::admit(env, &mut road.egress, &mut road.verdicts[0], &mut road.about)?;
        if road.egress.proxy_port.0 != 0 {
            // whether the server wants it is asked when the proxy comes to it
            return Ok(());
        }
    }
    if responder.endpoint != 0 {
        if road.reply == 0 {
            road.ingress.ifindex = responder.ifindex;
        }
        admit::admit(env, &mut road.ingress, &mut road.verdicts[1], &mut road.about)?;
    }
    Ok(())
}

/// Notes a connection of the proxy's that leaves the node: both sides were asked, or have no policy here.
#[inline(always)]
pub(crate) fn note<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> Result<(), DropReason> {
    road.target = Target::default();
    peers::settle(env, p, road, V4(0))?;
    road.egress = Side::default();
    road.ingress = Side::default();
    road.about.rev_nat = 0;
    create(env, p, road)
}

/// Notes a new connection. What can have no answer is judged packet by packet.
#[inline(never)]
fn create<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &Road) -> Result<(), DropReason> {
    if p.shape == Shape::ERROR || p.shape == Shape::ECHO_REPLY || p.later_fragment != 0 {
        return Ok(());
    }
    let (key, from_a) = track::key(p, road.kind);
    let lifetime = if p.protocol == crate::packet::TCP { conntrack::LIFETIME_SYN } else { conntrack::LIFETIME_ANY };
    let (now, length) = (road.now, env.length());
    let Some(generation) = env.config().map(|c| c.ipcache_generation) else { return Err(DropReason::NO_CONFIG) };
    let tunnelled = if road.origin == Origin::OVERLAY { conntrack::FLAG_FROM_TUNNEL } else { 0 };
    let initiator = if from_a { conntrack::FLAG_INITIATOR_A } else { 0 };
    let noted = env.connect(&key, |entry| {
        entry.packets[0] = Shared::new(1);
        entry.bytes[0] = Shared::new(length as u64);
        entry.expires = Shared::new(now + lifetime);
        entry.flags = Shared::new(tunnelled | initiator);
        entry.egress_revision = Shared::new(road.egress.revision);
        entry.ingress_revision = Shared::new(road.ingress.revision);
        entry.ipcache_generation = Shared::new(generation);
        entry.source_identity = Shared::new(road.from.identity);
        entry.destination_identity = Shared::new(road.target.identity);
        entry.tunnel_endpoint = Shared::new(remote_node(road));
        entry.egress_rule_set = Shared::new(road.egress.rule_set);
        entry.ingress_rule_set = Shared::new(road.ingress.rule_set);
        entry.rev_nat = Shared::new(road.about.rev_nat);
        entry.proxy = Shared::new(road.proxy);
        if road.proxy & conntrack::PROXY_REDIRECTED != 0 {
            entry.proxy_port = Shared::new(road.proxy_port);
            entry.backend = Shared::new(road.redirecting());
        }
        entry.tcp_flags[0] = Shared::new(p.tcp_flags);
        entry.reported[0] = Shared::new(now);
        entry.created = now;
    });
    if noted { Ok(()) } else { Err(DropReason::CT_CREATE_FAILED) }
}
