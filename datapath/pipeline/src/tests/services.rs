//! Pods and service addresses.

use super::bed::*;
use crate::native::Action;
use abi::policy::{DIR_EGRESS, DIR_INGRESS};
use abi::service::{Backend, FLAG_CLUSTER_IP, ReverseNat, Service, ServiceKey};
use abi::{DropReason, Port, V4, V6};
use wire::{Layer4, TCP, View};

fn fill<A: Copy + core::hash::Hash + Eq>(family: &mut crate::native::Family<A>, vip: A, backends: &[A]) {
    let key = |port, protocol, backend_slot| ServiceKey { addr: vip, port, backend_slot, protocol, pad: [0; 3] };
    let wildcard = Service { flags: FLAG_CLUSTER_IP, ..Service::default() };
    family.services.insert(key(Port(0), 0, 0), wildcard);
    let count = backends.len() as u16;
    let front = Service { count, rev_nat: 9, flags: FLAG_CLUSTER_IP, ..Service::default() };
    family.services.insert(key(Port::new(80), TCP, 0), front);
    for (i, addr) in backends.iter().enumerate() {
        let backend_id = i as u32 + 1;
        family.services.insert(key(Port::new(80), TCP, i as u16 + 1), Service { backend_id, ..Service::default() });
        family.backends.insert(backend_id, Backend { addr: *addr, port: Port::new(8080), protocol: TCP, pad: 0 });
    }
    family.reverse_nat.insert(9, ReverseNat { addr: vip, port: Port::new(80), pad: 0 });
}

/// A service at port 80 whose backends listen at 8080.
pub fn with_service(version: u8, backends: &[Who]) -> Bed {
    let mut bed = Bed::open();
    if version == 4 {
        let backends: std::vec::Vec<V4> = backends.iter().map(|b| b.v4().into()).collect();
        fill(&mut bed.node.v4, Who::Vip.v4().into(), &backends);
    } else {
        let backends: std::vec::Vec<V6> = backends.iter().map(|b| b.v6().into()).collect();
        fill(&mut bed.node.v6, Who::Vip.v6().into(), &backends);
    }
    bed
}

fn tuple(packet: &[u8]) -> (core::net::IpAddr, u16, core::net::IpAddr, u16) {
    let view = View::new(packet).unwrap();
    assert!(view.checksums_hold());
    let ip = view.ip().unwrap();
    let Some(Layer4::Tcp { source, destination, .. }) = view.layer4() else { panic!("TCP") };
    (ip.source, source, ip.destination, destination)
}

#[test]
fn a_service_address_becomes_a_backends_and_the_reply_the_services() {
    for v in FAMILIES {
        let bed = with_service(v, &[Who::Server]);
        let seen = bed.sent_by_client(&frame(v, Who::Client, Who::Vip).tcp(4000, 80, SYN, b"").build());
        assert!(seen.arrives_at(SERVER_IF));
        assert_eq!(tuple(&seen.0.packet), (Who::Client.ip(v), 4000, Who::Server.ip(v), 8080));
        let seen = bed.sent_by_server(&frame(v, Who::Server, Who::Client).tcp(8080, 4000, SYN_ACK, b"").build());
        assert!(seen.arrives_at(CLIENT_IF));
        assert_eq!(tuple(&seen.0.packet), (Who::Vip.ip(v), 80, Who::Client.ip(v), 4000));
    }
}

#[test]
fn policy_is_asked_for_the_backend_not_for_the_service() {
    let mut bed = with_service(4, &[Who::Server]);
    bed.policy(CLIENT_EP, 1, Verdicts::silent().allow_from(SERVER, DIR_EGRESS, TCP, 8080));
    let syn = frame(4, Who::Client, Who::Vip).tcp(4000, 80, SYN, b"").build();
    assert!(bed.sent_by_client(&syn).arrives_at(SERVER_IF));
    bed.policy(CLIENT_EP, 1, Verdicts::silent().allow_from(SERVER, DIR_EGRESS, TCP, 80));
    let other = frame(4, Who::Client, Who::Vip).tcp(4001, 80, SYN, b"").build();
    assert_eq!(bed.sent_by_client(&other).dropped(), Some(DropReason::POLICY));
}

/// A gateway's address is a service whose backend is a pod, a node, or somebody outside.
#[test]
fn a29_whoever_stands_behind_an_address_egress_policy_is_asked_for_it() {
    for v in FAMILIES {
        for behind in [Who::Server, Who::Node, Who::Remote, Who::OtherNode, Who::World] {
            let mut bed = with_service(v, &[behind]);
            let mut dropped = |verdicts, port| {
                bed.policy(CLIENT_EP, 1, verdicts);
                bed.sent_by_client(&frame(v, Who::Client, Who::Vip).tcp(port, 80, SYN, b"").build()).dropped()
            };
            assert_eq!(dropped(Verdicts::silent(), 4000), Some(DropReason::POLICY), "{behind:?}");
            let address = Verdicts::silent().allow(DIR_EGRESS, TCP, 80);
            assert_eq!(
                dropped(address, 4001),
                Some(DropReason::POLICY),
                "{behind:?}: the address is not what is asked"
            );
            let denied = Verdicts::open().deny(DIR_EGRESS, TCP, 8080);
            assert_eq!(dropped(denied, 4002), Some(DropReason::POLICY_DENY), "{behind:?}");
            assert_eq!(dropped(Verdicts::silent().allow(DIR_EGRESS, TCP, 8080), 4003), None, "{behind:?}");
        }
    }
}

/// A backend on the client's own node, by its service, with and without rules for what is said.
#[test]
fn a28_ingress_policy_is_asked_for_a_backend_of_the_same_node() {
    for v in FAMILIES {
        let mut bed = with_service(v, &[Who::Server]);
        let sent =
            |bed: &Bed, port| bed.sent_by_client(&frame(v, Who::Client, Who::Vip).tcp(port, 80, SYN, b"").build());
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all());
        assert_eq!(sent(&bed, 4000).dropped(), Some(DropReason::POLICY));
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().redirect(DIR_INGRESS, TCP, 8080));
        let seen = sent(&bed, 4001);
        assert!(!seen.arrives_at(SERVER_IF), "{:?}", seen.action());
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(CLIENT, DIR_INGRESS, TCP, 8080));
        assert!(sent(&bed, 4002).arrives_at(SERVER_IF));
    }
}

#[test]
fn a_connection_keeps_its_backend() {
    let mut bed = with_service(4, &[Who::Server, Who::Remote]);
    let packet = frame(4, Who::Client, Who::Vip).tcp(4000, 80, ACK, b"x").build();
    let first = bed.sent_by_client(&packet).action();
    for _ in 0..50 {
        bed.now += 1;
        assert_eq!(bed.sent_by_client(&packet).action(), first);
    }
}

#[test]
fn connections_spread_over_backends() {
    let bed = with_service(4, &[Who::Server, Who::Remote]);
    let to = |port| {
        let mut bed = Bed { node: with_service(4, &[Who::Server, Who::Remote]).node, now: bed.now };
        bed.now += u32::from(port);
        bed.sent_by_client(&frame(4, Who::Client, Who::Vip).tcp(port, 80, SYN, b"").build()).action()
    };
    let local = (1..=200).filter(|port| to(*port) == Action::Peer(SERVER_IF)).count();
    assert!((50..150).contains(&local), "{local} of 200 to the first of two");
}

#[test]
fn a_backend_that_is_gone_is_replaced() {
    let mut bed = with_service(4, &[Who::Server]);
    let packet = frame(4, Who::Client, Who::Vip).tcp(4000, 80, ACK, b"x").build();
    assert!(bed.sent_by_client(&packet).arrives_at(SERVER_IF));
    bed.node.v4.backends.clear();
    bed.node.v4.services.clear();
    fill(&mut bed.node.v4, Who::Vip.v4().into(), &[Who::Remote.v4().into()]);
    assert!(matches!(bed.sent_by_client(&packet).action(), Action::Tunnel { .. }));
}

#[test]
fn a_service_without_backends_refuses() {
    for v in FAMILIES {
        let bed = with_service(v, &[]);
        let seen = bed.sent_by_client(&frame(v, Who::Client, Who::Vip).tcp(4000, 80, SYN, b"").build());
        assert_eq!(seen.dropped(), Some(DropReason::NO_SERVICE));
    }
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    for v in FAMILIES {
        let mut bed = with_service(v, &[Who::Client]);
        bed.policy(CLIENT_EP, 1, Verdicts::silent());
        let seen = bed.sent_by_client(&frame(v, Who::Client, Who::Vip).tcp(4000, 80, SYN, b"").build());
        assert!(seen.arrives_at(CLIENT_IF));
        assert_eq!(tuple(&seen.0.packet), (Who::Loopback.ip(v), 4000, Who::Client.ip(v), 8080));
        let seen = bed.sent_by_client(&frame(v, Who::Client, Who::Loopback).tcp(8080, 4000, SYN_ACK, b"").build());
        assert!(seen.arrives_at(CLIENT_IF));
        assert_eq!(tuple(&seen.0.packet), (Who::Vip.ip(v), 80, Who::Client.ip(v), 4000));
    }
}
