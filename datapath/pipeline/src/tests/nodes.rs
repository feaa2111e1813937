//! Pods and other nodes, pods and their own node.

use super::bed::*;
use crate::native::{Action, Hook};
use abi::event::*;
use abi::identity;
use abi::policy::DIR_INGRESS;
use abi::{DropReason, V4};
use wire::TCP;

fn other_node() -> V4 {
    Who::OtherNode.v4().into()
}

#[test]
fn a_packet_to_another_nodes_pod_travels_with_its_identity() {
    for v in FAMILIES {
        let bed = Bed::open();
        let seen = bed.sent_by_client(&frame(v, Who::Client, Who::Remote).tcp(4000, 80, SYN, b"").build());
        assert_eq!(seen.action(), Action::Tunnel { identity: CLIENT, remote: other_node() });
        let event = seen.0.events[0];
        assert_eq!((event.code, event.ifindex, event.endpoint), (TRACE_TO_OVERLAY, OVERLAY_IF, CLIENT_EP));
        assert_eq!((event.source_identity, event.destination_identity), (CLIENT, REMOTE));
    }
}

#[test]
fn the_destinations_node_asks_its_policy_for_the_identity_that_travelled() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(REMOTE, DIR_INGRESS, TCP, 80));
        let packet = frame(v, Who::Remote, Who::Server).tcp(4000, 80, SYN, b"").build();
        let seen = bed.at(Hook::Overlay(REMOTE, other_node()), OVERLAY_IF, &packet);
        assert!(seen.arrives_at(SERVER_IF));
        assert_eq!(seen.traces(), [(TRACE_TO_LXC, CT_NEW)]);
        let other = frame(v, Who::Remote, Who::Server).tcp(4001, 80, SYN, b"").build();
        let seen = bed.at(Hook::Overlay(REMOTE + 1, other_node()), OVERLAY_IF, &other);
        assert_eq!(seen.dropped(), Some(DropReason::POLICY));
    }
}

#[test]
fn replies_go_back_through_the_tunnel() {
    for v in FAMILIES {
        let bed = Bed::open();
        let packet = frame(v, Who::Remote, Who::Server).tcp(4000, 80, SYN, b"").build();
        bed.at(Hook::Overlay(REMOTE, other_node()), OVERLAY_IF, &packet);
        let seen = bed.sent_by_server(&frame(v, Who::Server, Who::Remote).tcp(80, 4000, SYN_ACK, b"").build());
        assert_eq!(seen.action(), Action::Tunnel { identity: SERVER, remote: other_node() });
        assert_eq!(seen.traces(), [(TRACE_TO_OVERLAY, CT_REPLY)]);
    }
}

#[test]
fn replies_to_another_node_itself_go_back_as_they_came() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        let packet = frame(v, Who::OtherNode, Who::Server).tcp(4000, 80, SYN, b"").build();
        let seen = bed.at(Hook::Overlay(identity::REMOTE_NODE, other_node()), OVERLAY_IF, &packet);
        assert!(seen.arrives_at(SERVER_IF));
        let reply = frame(v, Who::Server, Who::OtherNode).tcp(80, 4000, SYN_ACK, b"").build();
        let back = Action::Tunnel { identity: SERVER, remote: other_node() };
        assert_eq!(bed.sent_by_server(&reply).action(), back);
        bed.node.config.as_mut().unwrap().ipcache_generation += 1;
        assert_eq!(bed.sent_by_server(&reply).action(), back, "also when the IP cache has to be asked again");
        let own = frame(v, Who::Server, Who::OtherNode).tcp(4000, 6443, SYN, b"").build();
        assert_eq!(bed.sent_by_server(&own).action(), Action::Stack, "what the pod begins itself does not");
    }
}

#[test]
fn a_node_that_serves_the_api_is_known_as_such() {
    let mut bed = Bed::open();
    for (key, remote) in &mut bed.node.v4.ipcache {
        if key.addr == other_node() {
            remote.identity = identity::KUBE_APISERVER;
        }
    }
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(identity::KUBE_APISERVER, DIR_INGRESS, TCP, 80));
    let packet = frame(4, Who::OtherNode, Who::Server).tcp(4000, 80, SYN, b"").build();
    for _ in 0..2 {
        let seen = bed.at(Hook::Overlay(identity::REMOTE_NODE, other_node()), OVERLAY_IF, &packet);
        assert!(seen.arrives_at(SERVER_IF));
    }
}

#[test]
fn the_node_reaches_its_pods_as_host_and_others_as_remote_node() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(identity::HOST, DIR_INGRESS, TCP, 80));
        let local = frame(v, Who::Router, Who::Server).tcp(4000, 80, SYN, b"").build();
        let seen = bed.at(Hook::Host, HOST_IF, &local);
        assert_eq!(seen.action(), Action::Device(SERVER_IF));
        assert_eq!(seen.kind(KIND_TRACE).next().unwrap().source_identity, identity::HOST);
        let far = frame(v, Who::Router, Who::Remote).tcp(4000, 80, SYN, b"").build();
        let expected = Action::Tunnel { identity: identity::REMOTE_NODE, remote: other_node() };
        assert_eq!(bed.at(Hook::Host, HOST_IF, &far).action(), expected);
        let reply = frame(v, Who::Server, Who::Router).tcp(80, 4000, SYN_ACK, b"").build();
        let seen = bed.sent_by_server(&reply);
        assert_eq!((seen.action(), seen.traces()), (Action::Stack, [(TRACE_TO_STACK, CT_REPLY)].to_vec()));
    }
}

#[test]
fn what_comes_from_a_tunnel_ends_on_this_node() {
    let bed = Bed::open();
    for (to, expected) in [(Who::Node, Action::Stack), (Who::World, Action::Dropped), (Who::Remote, Action::Dropped)] {
        let packet = frame(4, Who::Remote, to).tcp(4000, 80, SYN, b"").build();
        let seen = bed.at(Hook::Overlay(REMOTE, other_node()), OVERLAY_IF, &packet);
        assert_eq!(seen.action(), expected, "{to:?}");
    }
}

#[test]
fn a_pod_that_moves_is_followed() {
    let mut bed = Bed::open();
    bed.known(Who::World, identity::REMOTE_NODE, None);
    let packet = frame(4, Who::Client, Who::Remote).tcp(4000, 80, ACK, b"").build();
    bed.sent_by_client(&packet);
    for (key, remote) in &mut bed.node.v4.ipcache {
        if key.addr == V4::from(Who::Remote.v4()) {
            remote.tunnel_endpoint = Who::World.v4().into();
        }
    }
    bed.node.config.as_mut().unwrap().ipcache_generation += 1;
    let moved = Action::Tunnel { identity: CLIENT, remote: Who::World.v4().into() };
    assert_eq!(bed.sent_by_client(&packet).action(), moved);
}

#[test]
fn an_address_that_changes_its_identity_is_judged_again() {
    let mut bed = Bed::open();
    bed.policy(CLIENT_EP, 1, Verdicts::silent().allow_from(REMOTE, abi::policy::DIR_EGRESS, TCP, 80));
    let packet = frame(4, Who::Client, Who::Remote).tcp(4000, 80, ACK, b"").build();
    assert!(matches!(bed.sent_by_client(&packet).action(), Action::Tunnel { .. }));
    for (key, remote) in &mut bed.node.v4.ipcache {
        if key.addr == V4::from(Who::Remote.v4()) {
            remote.identity += 1;
        }
    }
    bed.node.config.as_mut().unwrap().ipcache_generation += 1;
    assert_eq!(bed.sent_by_client(&packet).dropped(), Some(DropReason::POLICY));
}
