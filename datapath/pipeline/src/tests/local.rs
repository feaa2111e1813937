//! Two pods of one node.

use super::bed::*;
use abi::event::*;
use abi::policy::{DIR_EGRESS, DIR_INGRESS, VERDICT_ALLOW, VERDICT_DEFAULT_DENY};
use abi::{DropReason, endpoint};
use wire::{TCP, UDP};

fn syn(version: u8) -> std::vec::Vec<u8> {
    frame(version, Who::Client, Who::Server).tcp(4000, 80, SYN, b"").build()
}

fn syn_ack(version: u8) -> std::vec::Vec<u8> {
    frame(version, Who::Server, Who::Client).tcp(80, 4000, SYN_ACK, b"").build()
}

fn data(version: u8) -> std::vec::Vec<u8> {
    frame(version, Who::Client, Who::Server).tcp(4000, 80, ACK, b"data").build()
}

#[test]
fn without_policy_pods_talk_and_only_the_arrival_is_told() {
    for v in FAMILIES {
        let bed = Bed::open();
        let seen = bed.sent_by_client(&syn(v));
        assert!(seen.arrives_at(SERVER_IF));
        assert_eq!(seen.0.events.len(), 1);
        let event = seen.0.events[0];
        assert_eq!((event.kind, event.code, event.detail), (KIND_TRACE, TRACE_TO_LXC, CT_NEW));
        assert_eq!((event.source_identity, event.destination_identity), (CLIENT, SERVER));
        assert_eq!((event.endpoint, event.ifindex), (SERVER_EP, SERVER_IF));
        assert_eq!((event.ip_version, event.protocol, event.tcp_flags), (v, TCP, SYN));
    }
}

#[test]
fn the_frame_is_addressed_to_the_pod_and_its_checksums_hold() {
    for v in FAMILIES {
        let seen = Bed::open().sent_by_client(&syn(v));
        let view = wire::View::new(&seen.0.packet).unwrap();
        let server = Bed::open().node.devices[&SERVER_IF];
        assert_eq!(view.macs(), Some((server.mac, server.node_mac)));
        assert!(view.checksums_hold());
    }
}

#[test]
fn each_new_tcp_flag_is_told_once_per_direction() {
    let bed = Bed::open();
    assert_eq!(bed.sent_by_client(&syn(4)).traces(), [(TRACE_TO_LXC, CT_NEW)]);
    assert_eq!(bed.sent_by_server(&syn_ack(4)).traces(), [(TRACE_TO_LXC, CT_REPLY)]);
    assert_eq!(bed.sent_by_client(&data(4)).traces(), [(TRACE_TO_LXC, CT_ESTABLISHED)]);
    assert_eq!(bed.sent_by_client(&data(4)).traces(), []);
    let fin = frame(4, Who::Client, Who::Server).tcp(4000, 80, FIN | ACK, b"").build();
    assert_eq!(bed.sent_by_client(&fin).traces(), [(TRACE_TO_LXC, CT_ESTABLISHED)]);
}

#[test]
fn a_running_connection_is_told_again_after_the_interval() {
    let mut bed = Bed::open();
    bed.sent_by_client(&syn(4));
    bed.sent_by_client(&data(4));
    bed.now += abi::conntrack::REPORT_INTERVAL;
    assert_eq!(bed.sent_by_client(&data(4)).traces(), []);
    bed.now += 1;
    assert_eq!(bed.sent_by_client(&data(4)).traces(), [(TRACE_TO_LXC, CT_ESTABLISHED)]);
}

#[test]
fn without_aggregation_every_packet_is_told() {
    let mut bed = Bed::open();
    bed.node.config.as_mut().unwrap().monitor_aggregation = 0;
    bed.sent_by_client(&syn(4));
    for _ in 0..3 {
        assert_eq!(bed.sent_by_client(&data(4)).traces().len(), 1);
    }
}

#[test]
fn a_denied_connection_yields_a_verdict_then_a_drop() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all());
        let seen = bed.sent_by_client(&syn(v));
        assert_eq!(seen.dropped(), Some(DropReason::POLICY));
        let [verdict, drop] = seen.0.events.as_slice() else { panic!("two events: {:?}", seen.0.events) };
        assert_eq!((verdict.kind, verdict.code), (KIND_POLICY_VERDICT, VERDICT_DEFAULT_DENY));
        assert_eq!((drop.kind, drop.code), (KIND_DROP, DropReason::POLICY.0));
        for event in [verdict, drop] {
            assert_eq!((event.direction, event.endpoint), (DIR_INGRESS, SERVER_EP));
            assert_eq!((event.source_identity, event.destination_identity), (CLIENT, SERVER));
            assert_eq!(event.time, verdict.time);
        }
        assert_eq!(bed.node.counted(DropReason::POLICY.0, DIR_INGRESS + 1), 1);
    }
}

#[test]
fn an_allowed_connection_yields_a_verdict_where_the_direction_is_enforced() {
    let mut bed = Bed::open();
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow(DIR_INGRESS, TCP, 80));
    let seen = bed.sent_by_client(&syn(4));
    assert!(seen.arrives_at(SERVER_IF));
    let verdicts: std::vec::Vec<_> =
        seen.kind(KIND_POLICY_VERDICT).map(|e| (e.code, e.rule_set, e.direction)).collect();
    assert_eq!(verdicts, [(VERDICT_ALLOW, ALLOWING, DIR_INGRESS)]);
    assert_eq!(bed.sent_by_client(&data(4)).kind(KIND_POLICY_VERDICT).count(), 0, "once per connection");
}

#[test]
fn replies_need_no_rule() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(CLIENT_EP, 1, Verdicts::closed_to_all());
        bed.policy(SERVER_EP, 2, Verdicts::silent());
        assert!(bed.sent_by_client(&syn(v)).arrives_at(SERVER_IF));
        assert!(bed.sent_by_server(&syn_ack(v)).arrives_at(CLIENT_IF));
        let unasked = frame(v, Who::Server, Who::Client).tcp(81, 4000, SYN, b"").build();
        assert_eq!(bed.sent_by_server(&unasked).dropped(), Some(DropReason::POLICY));
    }
}

#[test]
fn egress_is_asked_before_ingress_and_says_so() {
    let mut bed = Bed::open();
    bed.policy(CLIENT_EP, 1, Verdicts::silent());
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all());
    let seen = bed.sent_by_client(&frame(4, Who::Client, Who::Server).udp(5000, 53, b"?").build());
    assert_eq!(seen.dropped(), Some(DropReason::POLICY));
    assert!(seen.0.events.iter().all(|e| (e.direction, e.endpoint) == (DIR_EGRESS, CLIENT_EP)));
}

#[test]
fn a_deny_rule_is_named_as_such() {
    let mut bed = Bed::open();
    bed.policy(SERVER_EP, 2, Verdicts::open().deny(DIR_INGRESS, TCP, 80));
    assert_eq!(bed.sent_by_client(&syn(4)).dropped(), Some(DropReason::POLICY_DENY));
}

#[test]
fn only_the_identity_that_a_rule_names_passes() {
    let mut bed = Bed::open();
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(CLIENT, DIR_INGRESS, TCP, 80));
    assert!(bed.sent_by_client(&syn(4)).arrives_at(SERVER_IF));
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(REMOTE, DIR_INGRESS, TCP, 80));
    let other = frame(4, Who::Client, Who::Server).tcp(4001, 80, SYN, b"").build();
    assert_eq!(bed.sent_by_client(&other).dropped(), Some(DropReason::POLICY));
}

#[test]
fn a_live_connection_is_judged_again_when_a_policy_changes() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.sent_by_client(&syn(v));
        bed.sent_by_server(&syn_ack(v));
        assert!(bed.sent_by_client(&data(v)).arrives_at(SERVER_IF));
        bed.policy(SERVER_EP, 2, Verdicts::open());
        assert!(bed.sent_by_client(&data(v)).arrives_at(SERVER_IF), "a new revision that still allows");
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all());
        assert_eq!(bed.sent_by_client(&data(v)).dropped(), Some(DropReason::POLICY));
        let late = frame(v, Who::Server, Who::Client).tcp(80, 4000, ACK, b"late").build();
        assert_eq!(bed.sent_by_server(&late).dropped(), Some(DropReason::POLICY), "and no new one begins from behind");
        assert_eq!(bed.sent_by_client(&data(v)).dropped(), Some(DropReason::POLICY));
        bed.policy(SERVER_EP, 2, Verdicts::open());
        assert!(bed.sent_by_client(&data(v)).arrives_at(SERVER_IF));
    }
}

#[test]
fn replies_of_a_connection_that_is_no_longer_allowed_stop_too() {
    let mut bed = Bed::open();
    bed.sent_by_client(&syn(4));
    bed.policy(CLIENT_EP, 1, Verdicts::silent());
    let seen = bed.sent_by_server(&syn_ack(4));
    assert_eq!(seen.dropped(), Some(DropReason::POLICY));
    assert!(seen.kind(KIND_DROP).all(|e| (e.direction, e.endpoint) == (DIR_EGRESS, CLIENT_EP)));
}

#[test]
fn audit_mode_reports_and_lets_pass() {
    let mut bed = Bed::open();
    bed.node.config.as_mut().unwrap().flags |= abi::config::FLAG_POLICY_AUDIT;
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all());
    let seen = bed.sent_by_client(&syn(4));
    assert!(seen.arrives_at(SERVER_IF));
    let verdict = seen.kind(KIND_POLICY_VERDICT).next().unwrap();
    assert_eq!((verdict.code, verdict.flags), (VERDICT_DEFAULT_DENY, FLAG_AUDITED));
}

#[test]
fn an_endpoint_without_policy_gets_nothing() {
    let mut bed = Bed::open();
    bed.node.endpoint_policies.remove(&SERVER_EP);
    assert_eq!(bed.sent_by_client(&syn(4)).dropped(), Some(DropReason::POLICY));
    let server = bed.node.v4.endpoints.get_mut(&Who::Server.v4().into()).unwrap();
    server.flags |= endpoint::FLAG_NOT_READY;
    assert_eq!(bed.sent_by_client(&syn(4)).dropped(), Some(DropReason::EP_NOT_READY));
}

#[test]
fn a_pod_always_reaches_itself() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(CLIENT_EP, 1, Verdicts::silent());
        let own = frame(v, Who::Client, Who::Client).tcp(4000, 80, SYN, b"").build();
        assert!(bed.sent_by_client(&own).arrives_at(CLIENT_IF));
    }
}

#[test]
fn fragments_follow_their_first_one() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow(DIR_INGRESS, UDP, 53));
        let parts = frame(v, Who::Client, Who::Server).udp(5000, 53, &[7; 200]).fragments(9, 96);
        for part in &parts {
            assert!(bed.sent_by_client(part).arrives_at(SERVER_IF));
        }
        let denied = frame(v, Who::Client, Who::Server).udp(5000, 54, &[7; 200]).fragments(10, 96);
        for part in &denied {
            assert_eq!(bed.sent_by_client(part).dropped(), Some(DropReason::POLICY));
        }
        let strays = frame(v, Who::Client, Who::Server).udp(5000, 53, &[7; 200]).fragments(11, 96);
        assert_eq!(bed.sent_by_client(&strays[1]).dropped(), Some(DropReason::FRAG_NOT_FOUND));
    }
}

#[test]
fn both_directions_count_in_one_entry() {
    let bed = Bed::open();
    bed.sent_by_client(&syn(4));
    bed.sent_by_server(&syn_ack(4));
    bed.sent_by_client(&data(4));
    let keys = bed.node.v4.connections.keys();
    let [key] = keys.as_slice() else { panic!("one entry: {keys:?}") };
    let entry = bed.node.v4.connections.get(key).unwrap();
    assert_eq!([entry.packets[0].get(), entry.packets[1].get()], [2, 1]);
    assert_eq!(entry.bytes[1].get(), syn_ack(4).len() as u64);
}

#[test]
fn a_closed_connection_begins_anew_with_a_syn() {
    let mut bed = Bed::open();
    bed.sent_by_client(&syn(4));
    bed.sent_by_server(&syn_ack(4));
    bed.sent_by_client(&frame(4, Who::Client, Who::Server).tcp(4000, 80, FIN | ACK, b"").build());
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all());
    assert_eq!(bed.sent_by_client(&syn(4)).dropped(), Some(DropReason::POLICY));
    bed.policy(SERVER_EP, 2, Verdicts::open());
    assert_eq!(bed.sent_by_client(&syn(4)).traces(), [(TRACE_TO_LXC, CT_NEW)]);
}

#[test]
fn a_connection_ends_with_its_lifetime() {
    let mut bed = Bed::open();
    let asked = frame(4, Who::Client, Who::Server).udp(5000, 53, b"?").build();
    let answer = frame(4, Who::Server, Who::Client).udp(53, 5000, b"!").build();
    bed.policy(SERVER_EP, 2, Verdicts::silent());
    bed.sent_by_client(&asked);
    bed.now += abi::conntrack::LIFETIME_ANY;
    assert!(bed.sent_by_server(&answer).arrives_at(CLIENT_IF));
    bed.now += abi::conntrack::LIFETIME_ANY + 1;
    assert_eq!(bed.sent_by_server(&answer).dropped(), Some(DropReason::POLICY));
}

#[test]
fn a_full_table_refuses_new_connections_and_keeps_the_old() {
    let mut bed = Bed::open();
    let config = bed.node.config;
    let full = crate::native::Node::with_places(1);
    let open = core::mem::replace(&mut bed.node, full);
    bed.node.config = config;
    (bed.node.devices, bed.node.policies, bed.node.endpoint_policies) =
        (open.devices, open.policies, open.endpoint_policies);
    bed.node.v4.endpoints = open.v4.endpoints;
    assert!(bed.sent_by_client(&syn(4)).arrives_at(SERVER_IF));
    let second = frame(4, Who::Client, Who::Server).tcp(4001, 80, SYN, b"").build();
    assert_eq!(bed.sent_by_client(&second).dropped(), Some(DropReason::CT_CREATE_FAILED));
    assert!(bed.sent_by_client(&data(4)).arrives_at(SERVER_IF));
}
