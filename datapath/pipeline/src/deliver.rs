//! How does an admitted packet get to where it goes?

use crate::env::{Env, Tables};
use crate::family::Family;
use crate::forward::PASS;
use crate::packet::Packet;
use crate::report;
use crate::road::{Origin, Road, Way};
use abi::identity;
use abi::policy;
use abi::{DropReason, event};

/// No observation point.
const NOWHERE: u8 = 255;

/// Counts and reports the packet and sends it on its way.
#[inline(always)]
pub fn deliver<A: Family, E: Env + Tables<A>>(env: &mut E, p: &Packet<A>, road: &mut Road) -> Result<i32, DropReason> {
    let Some(tunnel) = env.config().map(|c| c.tunnel_ifindex) else { return Err(DropReason::NO_CONFIG) };
    let (point, direction) = observe(road, tunnel)?;
    tell(env, p, road, point, direction)?;
    send(env, road, tunnel)
}

/// Counts and reports the packet.
#[inline(always)]
pub(crate) fn tell<A: Family, E: Env>(
    env: &E,
    p: &Packet<A>,
    road: &mut Road,
    point: u8,
    direction: u8,
) -> Result<(), DropReason> {
    let Some(aggregation) = env.config().map(|c| c.monitor_aggregation) else { return Err(DropReason::NO_CONFIG) };
    report::count(env, 0, direction);
    let traced = point != NOWHERE && (road.tell != 0 || aggregation < MEDIUM);
    if traced || road.judged != 0 {
        road.forget_others();
        road.about.kind = if traced { event::KIND_TRACE } else { 0 };
        road.about.code = point;
        road.about.direction = event::DIR_UNKNOWN;
        report::packet(env, p, &road.about, &road.verdicts);
    }
    Ok(())
}

/// From this level of monitor aggregation on, running connections are reported now and then only.
const MEDIUM: u16 = 3;

/// The observation point that the packet passes, and its direction for the counters. Sets what events name.
#[inline(always)]
fn observe(road: &mut Road, tunnel: u32) -> Result<(u8, u8), DropReason> {
    let (target, about) = (&road.target, &mut road.about);
    match (target.way, road.origin) {
        (Way::LOCAL, _) => {
            about.endpoint = target.endpoint.id;
            about.ifindex = target.endpoint.ifindex;
            Ok((event::TRACE_TO_LXC, policy::DIR_INGRESS))
        }
        (Way::TUNNEL, Origin::CONTAINER | Origin::HOST) => {
            about.ifindex = tunnel;
            Ok((event::TRACE_TO_OVERLAY, policy::DIR_EGRESS))
        }
        (Way::STACK | Way::HOST, Origin::CONTAINER) => {
            about.ifindex = 0;
            Ok((event::TRACE_TO_STACK, policy::DIR_EGRESS))
        }
        (Way::HOST, _) => Ok((NOWHERE, policy::DIR_INGRESS)),
        // from one side of the node to the other: the datapath is no router
        _ => Err(DropReason::UNROUTABLE),
    }
}

#[inline(always)]
fn send<E: Env>(env: &mut E, road: &Road, tunnel: u32) -> Result<i32, DropReason> {
    let target = &road.target;
    match target.way {
        Way::LOCAL => {
            if !env.address_frame(target.endpoint.mac, target.endpoint.node_mac) {
                return Err(DropReason::WRITE_ERROR);
            }
            let ifindex = target.endpoint.ifindex;
            // handing over to the peer works for packets that came in, not for those on their way out
            Ok(if road.origin == Origin::HOST { env.to_device(ifindex) } else { env.to_peer(ifindex) })
        }
        Way::TUNNEL => {
            let source = road.from.identity;
            let unspeakable = source == identity::HOST || identity::is_node_local(source);
            let source = if unspeakable { identity::REMOTE_NODE } else { source };
            env.to_tunnel(source, target.tunnel, tunnel).ok_or(DropReason::NO_TUNNEL_ENDPOINT)
        }
        _ => {
            env.for_host();
            Ok(PASS)
        }
    }
}
