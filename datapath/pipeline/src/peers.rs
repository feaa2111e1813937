//! Who sent a packet, and where and who is its destination?

use crate::env::{Env, Tables};
use crate::family::Family;
use crate::packet::Packet;
use crate::road::{Origin, Road, Target, Way};
use abi::endpoint;
use abi::identity::{self, Identity};
use abi::ipcache::{self, RemoteEndpoint};
use abi::{DropReason, V4};

/// Looks for the destination on this node.
#[inline(always)]
pub fn local<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) {
    let (from, target) = (&road.from, &mut road.target);
    *target = Target::default();
    if road.origin == Origin::CONTAINER && p.destination == A::loopback() {
        target.way = Way::LOCAL;
        target.identity = from.identity;
        target.endpoint = from.endpoint;
    } else if let Some(here) = env.endpoint(&p.destination) {
        target.way = if here.flags & endpoint::FLAG_HOST != 0 { Way::HOST } else { Way::LOCAL };
        target.identity = here.identity;
        target.endpoint = here;
    }
}

/// Settles who sent the packet and who the destination is, and behind which node, if it is not on this one. `kept`: the
/// node from which the connection came, if it came from one.
#[inline(never)]
pub fn settle<A: Family, E: Env + Tables<A>>(
    env: &E,
    p: &Packet<A>,
    road: &mut Road,
    kept: V4,
) -> Result<(), DropReason> {
    whence(env, p, road)?;
    whither(env, p, road, kept);
    road.about.destination = road.target.identity;
    Ok(())
}

/// Settles who the destination is.
#[inline(always)]
fn whither<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road, kept: V4) {
    let target = &mut road.target;
    if target.way == Way::LOCAL || target.way == Way::HOST {
        return;
    }
    target.identity = identity::WORLD;
    target.way = Way::STACK;
    target.tunnel = kept;
    if let Some(remote) = env.remote(&p.destination) {
        target.identity = remote.identity;
        let tunnelled = remote.tunnel_endpoint.0 != 0 && remote.flags & ipcache::FLAG_SKIP_TUNNEL == 0;
        if tunnelled {
            target.tunnel = remote.tunnel_endpoint;
        }
    }
    if target.tunnel.0 != 0 {
        target.way = Way::TUNNEL;
    }
}

/// Settles who sent the packet.
#[inline(always)]
fn whence<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>, road: &mut Road) -> Result<(), DropReason> {
    let from = &mut road.from;
    match road.origin {
        Origin::OVERLAY => from.identity = tunnelled(env, p, from.claimed, from.node)?,
        Origin::NETDEV => from.identity = outside(env, p)?,
        Origin::HOST if from.identity == identity::UNKNOWN => from.identity = forwarded(env, p)?,
        _ => {}
    }
    road.about.source = from.identity;
    Ok(())
}

/// The identity of an address that is not the node's own, and never the node's.
#[inline(always)]
fn stranger(remote: Option<RemoteEndpoint>) -> Identity {
    match remote {
        Some(r) if r.identity != identity::HOST => r.identity,
        _ => identity::WORLD,
    }
}

/// The sender of a packet that came by a device from outside. Pods of other nodes come through the tunnel, those of this
/// node not at all: their addresses are forged here, as is the node's own.
#[inline(always)]
fn outside<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>) -> Result<Identity, DropReason> {
    let remote = env.remote(&p.source);
    if behind_a_node(remote) || env.endpoint(&p.source).is_some() {
        return Err(DropReason::INVALID_SIP);
    }
    Ok(stranger(remote))
}

/// The sender of a packet that the node's stack sends to a pod and that has not the node's own address. What the stack
/// forwards from a device without a program has not come through the tunnel.
#[inline(always)]
fn forwarded<A: Family, E: Env + Tables<A>>(env: &E, p: &Packet<A>) -> Result<Identity, DropReason> {
    let remote = env.remote(&p.source);
    if env.came_by() != 0 && behind_a_node(remote) {
        return Err(DropReason::INVALID_SIP);
    }
    Ok(stranger(remote))
}

#[inline(always)]
fn behind_a_node(remote: Option<RemoteEndpoint>) -> bool {
    remote.is_some_and(|r| r.tunnel_endpoint.0 != 0 && r.flags & ipcache::FLAG_SKIP_TUNNEL == 0)
}

/// Is this the identity of a node of the cluster?
#[inline(always)]
pub fn is_node(id: Identity) -> bool {
    id == identity::REMOTE_NODE || id == identity::KUBE_APISERVER || id >= identity::LOCAL_REMOTE_NODE
}

/// May a packet that claims one identity belong to a connection of the other? Nodes travel as [`identity::REMOTE_NODE`].
#[inline(always)]
pub fn speaks_for(claimed: Identity, id: Identity) -> bool {
    claimed == id || claimed == identity::REMOTE_NODE && is_node(id)
}

/// The sender of a packet from the tunnel. Only nodes of the cluster may send there, only in the name of what lies behind
/// them, and not as this node, as nobody, or by numbers that mean something on one node only.
#[inline(always)]
fn tunnelled<A: Family, E: Env + Tables<A>>(
    env: &E,
    p: &Packet<A>,
    claimed: Identity,
    node: V4,
) -> Result<Identity, DropReason> {
    let sender: Option<RemoteEndpoint> = Tables::<V4>::remote(env, &node);
    if !sender.is_some_and(|s| is_node(s.identity)) {
        return Err(DropReason::INVALID_IDENTITY);
    }
    if claimed == identity::HOST || claimed == identity::UNKNOWN || identity::is_node_local(claimed) {
        return Err(DropReason::INVALID_IDENTITY);
    }
    if env.endpoint(&p.source).is_some() {
        return Err(DropReason::INVALID_SIP);
    }
    let known = env.remote(&p.source).unwrap_or_default();
    if known.tunnel_endpoint.0 != 0 && known.tunnel_endpoint != node {
        return Err(DropReason::INVALID_SIP);
    }
    if claimed == identity::REMOTE_NODE && is_node(known.identity) {
        return Ok(known.identity);
    }
    Ok(claimed)
}
