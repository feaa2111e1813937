//! Pods and the world: masquerading, there and back.

use super::bed::*;
use crate::native::{Action, Hook};
use abi::event::*;
use abi::policy::DIR_INGRESS;
use abi::{DropReason, identity};
use wire::{Frame, Layer4, TCP, View};

/// Through the pod's hook and out of the node's device; what leaves.
fn leave(bed: &Bed, packet: &[u8]) -> std::vec::Vec<u8> {
    let seen = bed.sent_by_client(packet);
    assert_eq!(seen.action(), Action::Stack);
    let out = bed.at(Hook::ToNetdev, UPLINK_IF, &seen.0.packet);
    assert_eq!(out.action(), Action::Stack, "{:?}", out.0.events);
    out.0.packet
}

fn ports(packet: &[u8]) -> (u16, u16) {
    match View::new(packet).unwrap().layer4() {
        Some(Layer4::Tcp { source, destination, .. } | Layer4::Udp { source, destination }) => (source, destination),
        Some(Layer4::Icmp { id, .. }) => (id, 0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_leaves_under_its_nodes_name_and_gets_the_answer() {
    for v in FAMILIES {
        let bed = Bed::open();
        let request = frame(v, Who::Client, Who::World).tcp(4000, 443, SYN, b"").build();
        assert_eq!(bed.sent_by_client(&request).traces(), [(TRACE_TO_STACK, CT_NEW)]);
        let out = leave(&bed, &request);
        let view = View::new(&out).unwrap();
        assert!(view.checksums_hold());
        assert_eq!(view.ip().unwrap().source, Who::Node.ip(v));
        let (port, _) = ports(&out);
        assert!((50000..=50003).contains(&port));
        let answer = Frame::between(Who::World.ip(v), Who::Node.ip(v)).tcp(443, port, SYN_ACK, b"").build();
        let seen = bed.at(Hook::Netdev, UPLINK_IF, &answer);
        assert!(seen.arrives_at(CLIENT_IF));
        assert_eq!(seen.traces(), [(TRACE_TO_LXC, CT_REPLY)]);
        let view = View::new(&seen.0.packet).unwrap();
        assert!(view.checksums_hold());
        assert_eq!(view.ip().unwrap().destination, Who::Client.ip(v));
        assert_eq!(ports(&seen.0.packet), (443, 4000));
    }
}

#[test]
fn echoes_are_masqueraded_by_their_identifier() {
    for v in FAMILIES {
        let bed = Bed::open();
        let out = leave(&bed, &frame(v, Who::Client, Who::World).echo_request(7).build());
        assert!(View::new(&out).unwrap().checksums_hold());
        let (id, _) = ports(&out);
        assert_ne!(id, 7);
        let answer = Frame::between(Who::World.ip(v), Who::Node.ip(v)).echo_reply(id).build();
        let seen = bed.at(Hook::Netdev, UPLINK_IF, &answer);
        assert!(seen.arrives_at(CLIENT_IF));
        assert_eq!(ports(&seen.0.packet).0, 7);
        assert!(View::new(&seen.0.packet).unwrap().checksums_hold());
    }
}

#[test]
fn errors_about_masqueraded_packets_reach_the_pod_as_it_sent_them() {
    for v in FAMILIES {
        let bed = Bed::open();
        let sent = frame(v, Who::Client, Who::World).udp(4000, 53, b"a question").build();
        let out = leave(&bed, &sent);
        let (kind, code) = if v == 4 { (3, 4) } else { (2, 0) };
        let router = Who::OtherNode.ip(v);
        let error = Frame::between(router, Who::Node.ip(v)).icmp(kind, code, 1280, &out[14..]).build();
        let seen = bed.at(Hook::Netdev, UPLINK_IF, &error);
        assert!(seen.arrives_at(CLIENT_IF), "{:?}", seen.0.events);
        assert_eq!(seen.traces(), [(TRACE_TO_LXC, CT_RELATED)]);
        let view = View::new(&seen.0.packet).unwrap();
        assert!(view.checksums_hold());
        let quoted = view.ip().unwrap().layer4 + 8;
        // its addresses and ports are those of the packet that the pod sent
        let header = if v == 4 { 12..24 } else { 8..44 };
        assert_eq!(seen.0.packet[quoted..][header.clone()], sent[14..][header]);
    }
}

#[test]
fn ports_that_are_taken_are_not_given_twice_and_run_out_with_a_reason() {
    let bed = Bed::open();
    let mut given = std::collections::BTreeSet::new();
    for port in 4000..4004 {
        let sent = bed.sent_by_client(&frame(4, Who::Client, Who::World).tcp(port, 443, SYN, b"").build());
        let out = bed.at(Hook::ToNetdev, UPLINK_IF, &sent.0.packet);
        if out.action() == Action::Stack {
            assert!(given.insert(ports(&out.0.packet).0), "given twice");
        } else {
            assert_eq!(out.dropped(), Some(DropReason::NAT_NO_MAPPING));
        }
    }
    assert!(given.len() > 1);
    let elsewhere = frame(4, Who::Client, Who::OtherNode).tcp(4000, 443, SYN, b"").build();
    leave(&bed, &elsewhere);
}

#[test]
fn the_nodes_own_packets_and_cluster_networks_keep_their_addresses() {
    let mut bed = Bed::open();
    let own = frame(4, Who::Node, Who::World).tcp(4000, 443, SYN, b"").build();
    assert_eq!(bed.at(Hook::ToNetdev, UPLINK_IF, &own).0.packet, own);
    let config = bed.node.config.as_mut().unwrap();
    (config.native_cidr4, config.native_cidr4_len) = (Who::World.v4().into(), 24);
    let native = frame(4, Who::Client, Who::World).tcp(4000, 443, SYN, b"").build();
    assert_eq!(bed.at(Hook::ToNetdev, UPLINK_IF, &native).0.packet, native);
}

#[test]
fn who_asks_a_pod_by_its_address_is_answered_from_it() {
    for v in FAMILIES {
        let bed = Bed::open();
        let request = frame(v, Who::World, Who::Client).tcp(4000, 80, SYN, b"").build();
        assert!(bed.at(Hook::Netdev, UPLINK_IF, &request).arrives_at(CLIENT_IF));
        let answer = frame(v, Who::Client, Who::World).tcp(80, 4000, SYN_ACK, b"").build();
        let out = leave(&bed, &answer);
        assert_eq!(View::new(&out).unwrap().ip().unwrap().source, Who::Client.ip(v));
    }
}

#[test]
fn the_world_is_judged_by_ingress_policy() {
    let mut bed = Bed::open();
    bed.policy(CLIENT_EP, 1, Verdicts::closed_to_all().allow_from(identity::WORLD, DIR_INGRESS, TCP, 80));
    let to = |port| frame(4, Who::World, Who::Client).tcp(4000, port, SYN, b"").build();
    assert!(bed.at(Hook::Netdev, UPLINK_IF, &to(80)).arrives_at(CLIENT_IF));
    assert_eq!(bed.at(Hook::Netdev, UPLINK_IF, &to(81)).dropped(), Some(DropReason::POLICY));
}

#[test]
fn what_cannot_be_masqueraded_is_dropped_with_a_reason() {
    let bed = Bed::open();
    let sctp = frame(4, Who::Client, Who::World).raw(wire::SCTP, &[0; 16]).build();
    let out = bed.at(Hook::ToNetdev, UPLINK_IF, &sctp);
    assert_eq!(out.dropped(), Some(DropReason::NAT_UNSUPP_PROTO));
}

#[test]
fn what_is_for_the_node_itself_is_left_to_it() {
    let bed = Bed::open();
    for packet in [
        frame(4, Who::World, Who::Node).tcp(4000, 22, SYN, b"").build(),
        frame(6, Who::World, Who::Node).udp(4000, 8472, b"").build(),
    ] {
        let seen = bed.at(Hook::Netdev, UPLINK_IF, &packet);
        assert_eq!((seen.action(), seen.0.events.len()), (Action::Stack, 0));
    }
}
