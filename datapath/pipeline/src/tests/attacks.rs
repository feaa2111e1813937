//! What must not be possible, by the numbers of the list of known holes.

use super::bed::*;
use crate::native::{Action, Hook};
use abi::event::KIND_TRACE;
use abi::identity;
use abi::policy::{DIR_EGRESS, DIR_INGRESS};
use abi::{DropReason, V4};
use wire::{Frame, ICMP, ICMPV6, TCP, UDP, View};

fn echo_type(version: u8, request: bool) -> (u8, u16) {
    match (version, request) {
        (4, true) => (ICMP, 8),
        (4, false) => (ICMP, 0),
        (_, true) => (ICMPV6, 128),
        (_, false) => (ICMPV6, 129),
    }
}

#[test]
fn a24_a_packet_from_outside_never_has_the_hosts_identity() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(identity::HOST, DIR_INGRESS, TCP, 80));
        let from = |who| frame(v, who, Who::Server).tcp(4000, 80, SYN, b"").build();
        let world = bed.at(Hook::Netdev, UPLINK_IF, &from(Who::World));
        assert_eq!(world.dropped(), Some(DropReason::POLICY));
        for forged in [Who::Node, Who::Router, Who::Client, Who::Remote] {
            let seen = bed.at(Hook::Netdev, UPLINK_IF, &from(forged));
            assert_eq!(seen.dropped(), Some(DropReason::INVALID_SIP), "{forged:?}");
        }
        bed.known(Who::World, identity::HOST, None);
        let seen = bed.at(Hook::Netdev, UPLINK_IF, &from(Who::World));
        assert_eq!(seen.dropped(), Some(DropReason::POLICY));
    }
}

#[test]
fn a36_an_unknown_port_of_a_cluster_ip_goes_nowhere() {
    for v in FAMILIES {
        let bed = super::services::with_service(v, &[Who::Server]);
        let unknown = frame(v, Who::Client, Who::Vip).tcp(4000, 81, SYN, b"").build();
        assert_eq!(bed.sent_by_client(&unknown).dropped(), Some(DropReason::NO_SERVICE));
        let ping = frame(v, Who::Client, Who::Vip).echo_request(1).build();
        assert_eq!(bed.sent_by_client(&ping).dropped(), Some(DropReason::NO_SERVICE));
    }
}

#[test]
fn a64_an_echo_request_is_never_a_reply() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        let (protocol, request) = echo_type(v, true);
        let (_, reply) = echo_type(v, false);
        bed.policy(CLIENT_EP, 1, Verdicts::closed_to_all());
        let open = Verdicts::closed_to_all().allow(DIR_INGRESS, protocol, request);
        bed.policy(SERVER_EP, 2, open.allow(DIR_INGRESS, protocol, reply));
        let ping = |from, to| frame(v, from, to).echo_request(7).build();
        let pong = |from, to| frame(v, from, to).echo_reply(7).build();
        assert!(bed.sent_by_client(&ping(Who::Client, Who::Server)).arrives_at(SERVER_IF));
        assert!(bed.sent_by_server(&pong(Who::Server, Who::Client)).arrives_at(CLIENT_IF));
        let back = bed.sent_by_server(&ping(Who::Server, Who::Client));
        assert_eq!(back.dropped(), Some(DropReason::POLICY));
        // nor does an unasked echo reply open the way for requests
        let bed = {
            bed.node.v4.connections.keys().iter().for_each(|k| bed.node.v4.connections.remove(k));
            bed.node.v6.connections.keys().iter().for_each(|k| bed.node.v6.connections.remove(k));
            bed
        };
        assert!(bed.sent_by_client(&pong(Who::Client, Who::Server)).arrives_at(SERVER_IF));
        let back = bed.sent_by_server(&ping(Who::Server, Who::Client));
        assert_eq!(back.dropped(), Some(DropReason::POLICY));
    }
}

#[test]
fn a65_a_pod_speaks_with_its_own_address_only() {
    for v in FAMILIES {
        let bed = Bed::open();
        for forged in [Who::Server, Who::Remote, Who::Node, Who::Router, Who::World] {
            let packet = frame(v, forged, Who::Server).tcp(4000, 80, SYN, b"").build();
            let seen = bed.sent_by_client(&packet);
            assert_eq!(seen.dropped(), Some(DropReason::INVALID_SIP), "{forged:?}");
            let event = seen.0.events[0];
            assert_eq!((event.source_identity, event.endpoint), (CLIENT, CLIENT_EP));
        }
    }
}

#[test]
fn a65_a_pod_does_not_reach_the_tunnels_port_of_a_node() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.known(Who::OtherNode, identity::REMOTE_NODE, None);
        for node in [Who::Node, Who::OtherNode] {
            let packet = frame(v, Who::Client, node).udp(4000, 8472, b"\x08\0\0\0").build();
            assert_eq!(bed.sent_by_client(&packet).dropped(), Some(DropReason::ENCAP_PROHIBITED), "{node:?}");
        }
    }
}

#[test]
fn a65_the_tunnel_believes_nodes_only_and_not_everything() {
    for v in FAMILIES {
        let bed = Bed::open();
        let packet = |from| frame(v, from, Who::Server).tcp(4000, 80, SYN, b"").build();
        let via =
            |identity, node: Who, from| bed.at(Hook::Overlay(identity, V4::from(node.v4())), OVERLAY_IF, &packet(from));
        assert!(via(REMOTE, Who::OtherNode, Who::Remote).arrives_at(SERVER_IF));
        assert_eq!(via(REMOTE, Who::World, Who::Remote).dropped(), Some(DropReason::INVALID_IDENTITY));
        assert_eq!(via(REMOTE, Who::Client, Who::Remote).dropped(), Some(DropReason::INVALID_IDENTITY));
        for forged in [identity::HOST, identity::UNKNOWN, identity::LOCAL_CIDR, identity::LOCAL_REMOTE_NODE] {
            let from = if v == 4 { Who::Remote } else { Who::World };
            let seen = via(forged, Who::OtherNode, from);
            // the established connection of the first packet does not help
            assert_eq!(seen.dropped(), Some(DropReason::INVALID_IDENTITY), "{forged}");
        }
        assert_eq!(via(REMOTE, Who::OtherNode, Who::Client).dropped(), Some(DropReason::INVALID_SIP));
    }
}

#[test]
fn a65_a_pod_lies_behind_its_own_node_only() {
    let mut bed = Bed::open();
    bed.known(Who::World, identity::REMOTE_NODE, None);
    let packet = frame(4, Who::Remote, Who::Server).tcp(4000, 80, SYN, b"").build();
    let seen = bed.at(Hook::Overlay(REMOTE, Who::World.v4().into()), OVERLAY_IF, &packet);
    assert_eq!(seen.dropped(), Some(DropReason::INVALID_SIP));
}

#[test]
fn a66_a_fragment_over_the_tcp_flags_is_dropped() {
    for v in FAMILIES {
        let bed = Bed::open();
        let parts = frame(v, Who::Client, Who::Server).tcp(4000, 80, SYN, &[0; 40]).fragments(3, 8);
        let seen = bed.sent_by_client(&parts[1]);
        assert_eq!(seen.dropped(), Some(DropReason::INVALID_PACKET));
    }
}

#[test]
fn a66_a_first_fragment_without_the_whole_header_is_dropped() {
    for v in FAMILIES {
        let bed = Bed::open();
        let parts = frame(v, Who::Client, Who::Server).tcp(4000, 80, SYN, b"").fragments(3, 8);
        assert_eq!(bed.sent_by_client(&parts[0]).dropped(), Some(DropReason::CT_INVALID_HDR));
    }
}

#[test]
fn a66_chains_of_extension_headers_end() {
    let bed = Bed::open();
    let mut frame = frame(6, Who::Client, Who::Server);
    for _ in 0..20 {
        frame = frame.extension(60, &[1, 4, 0, 0, 0, 0]);
    }
    assert_eq!(bed.sent_by_client(&frame.tcp(1, 2, SYN, b"").build()).dropped(), Some(DropReason::INVALID_EXTHDR));
}

#[test]
fn a66_layer_4_behind_extension_headers_is_found() {
    let mut bed = Bed::open();
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow(DIR_INGRESS, TCP, 80));
    let to = |port| {
        let frame = frame(6, Who::Client, Who::Server).extension(0, &[1, 4]).extension(60, &[1, 12]);
        frame.tcp(4000, port, SYN, b"").build()
    };
    assert!(bed.sent_by_client(&to(80)).arrives_at(SERVER_IF));
    assert_eq!(bed.sent_by_client(&to(81)).dropped(), Some(DropReason::POLICY));
}

#[test]
fn a66_extension_headers_inside_fragments_are_refused() {
    let bed = Bed::open();
    // a fragment header whose next header is destination options
    let body = [&[60u8, 0, 0, 1, 0, 0, 0, 9][..], &[6, 0, 1, 4, 0, 0, 0, 0], &[0; 20]].concat();
    let packet = frame(6, Who::Client, Who::Server).raw(wire::FRAGMENT, &body).build();
    assert_eq!(bed.sent_by_client(&packet).dropped(), Some(DropReason::INVALID_EXTHDR));
}

/// An ICMP error of `from` about a packet.
fn error(v: u8, from: Who, to: Who, about: &[u8]) -> std::vec::Vec<u8> {
    let (kind, code) = if v == 4 { (3, 3) } else { (1, 4) };
    frame(v, from, to).icmp(kind, code, 0, &about[14..]).build()
}

#[test]
fn a66_an_error_passes_only_about_a_known_connection_of_its_sender() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(CLIENT_EP, 1, Verdicts::closed_to_all());
        let asked = frame(v, Who::Client, Who::Server).udp(5000, 53, b"?").build();
        let unasked = frame(v, Who::Client, Who::Server).udp(5001, 53, b"?").build();
        let elsewhere = frame(v, Who::Client, Who::Remote).udp(5000, 53, b"?").build();
        bed.sent_by_client(&asked);
        bed.sent_by_client(&elsewhere);
        assert!(bed.sent_by_server(&error(v, Who::Server, Who::Client, &asked)).arrives_at(CLIENT_IF));
        for about in [&unasked, &elsewhere] {
            let seen = bed.sent_by_server(&error(v, Who::Server, Who::Client, about));
            assert_eq!(seen.dropped(), Some(DropReason::POLICY));
        }
    }
}

#[test]
fn a66_an_error_that_quotes_a_later_fragment_proves_nothing() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(CLIENT_EP, 1, Verdicts::closed_to_all());
        let parts = frame(v, Who::Client, Who::Server).udp(5000, 53, &[0; 64]).fragments(5, 32);
        parts.iter().for_each(|part| assert!(bed.sent_by_client(part).arrives_at(SERVER_IF)));
        let seen = bed.sent_by_server(&error(v, Who::Server, Who::Client, &parts[1]));
        assert_eq!(seen.dropped(), Some(DropReason::POLICY));
    }
}

#[test]
fn a67_router_advertisements_of_a_pod_are_dropped() {
    let bed = Bed::open();
    let link_local = core::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 11);
    let all_nodes = core::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    for from in [link_local, Who::Client.v6()] {
        for kind in [133, 134, 137] {
            let packet = Frame::between(from, all_nodes).hop_limit(255).icmp(kind, 0, 0, &[0; 8]).build();
            assert_eq!(bed.sent_by_client(&packet).dropped(), Some(DropReason::FORBIDDEN_ICMP6), "{from} {kind}");
        }
    }
    let hidden = Frame::between(Who::Client.v6(), Who::Server.v6()).extension(60, &[1, 4]).icmp(134, 0, 0, &[0; 8]);
    assert_eq!(bed.sent_by_client(&hidden.build()).dropped(), Some(DropReason::FORBIDDEN_ICMP6));
}

#[test]
fn a68_a_well_known_source_port_is_no_reply() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(CLIENT_EP, 1, Verdicts::closed_to_all());
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow(DIR_INGRESS, TCP, 80).allow(DIR_INGRESS, UDP, 53));
        bed.sent_by_client(&frame(v, Who::Client, Who::Server).tcp(4000, 80, SYN, b"").build());
        bed.sent_by_client(&frame(v, Who::Client, Who::Server).udp(4000, 53, b"?").build());
        let forged = [
            frame(v, Who::Server, Who::Client).tcp(80, 4001, ACK, b"").build(),
            frame(v, Who::Server, Who::Client).tcp(80, 22, SYN, b"").build(),
            frame(v, Who::Server, Who::Client).udp(53, 4001, b"").build(),
            frame(v, Who::Server, Who::Client).tcp(80, 4000, SYN, b"").build(),
        ];
        for packet in &forged {
            assert_eq!(
                bed.sent_by_server(packet).dropped(),
                Some(DropReason::POLICY),
                "{:?}",
                View::new(packet).unwrap().layer4()
            );
        }
    }
}

#[test]
fn a_refused_syn_of_the_responder_does_not_end_the_connection() {
    let mut bed = Bed::open();
    bed.policy(CLIENT_EP, 1, Verdicts::closed_to_all());
    bed.sent_by_client(&frame(4, Who::Client, Who::Server).tcp(4000, 80, SYN, b"").build());
    bed.sent_by_server(&frame(4, Who::Server, Who::Client).tcp(80, 4000, SYN, b"").build());
    let answer = frame(4, Who::Server, Who::Client).tcp(80, 4000, SYN_ACK, b"").build();
    assert!(bed.sent_by_server(&answer).arrives_at(CLIENT_IF));
}

#[test]
fn ipv6_that_is_off_is_unknown_and_says_who_sent_it() {
    let mut bed = Bed::open();
    bed.node.config.as_mut().unwrap().flags &= !abi::config::FLAG_IPV6;
    let link_local = core::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 11);
    let all_routers = core::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let packet = Frame::between(link_local, all_routers).hop_limit(255).icmp(133, 0, 0, b"").build();
    let seen = bed.sent_by_client(&packet);
    assert_eq!(seen.dropped(), Some(DropReason::UNKNOWN_L3));
    let event = seen.0.events[0];
    assert_eq!(abi::address::narrow(6, event.source), core::net::IpAddr::V6(link_local));
    assert_eq!((event.source_identity, event.endpoint, event.direction), (CLIENT, CLIENT_EP, DIR_EGRESS));
    assert_eq!((event.ip_version, event.protocol, event.source_port.0.to_ne_bytes()), (6, ICMPV6, [133, 0]));
}

#[test]
fn neighbour_discovery_is_answered_by_the_node() {
    let bed = Bed::open();
    let me = bed.node.devices[&CLIENT_IF];
    let asked = Who::Router.v6();
    let body = [asked.octets().as_slice(), &[1, 1], &me.mac.0].concat();
    let solicitation = Frame::between(Who::Client.v6(), core::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1));
    let packet = solicitation.hop_limit(255).macs(me.mac, me.node_mac).icmp(135, 0, 0, &body).build();
    let seen = bed.sent_by_client(&packet);
    assert_eq!(seen.action(), Action::Device(CLIENT_IF));
    let answer = View::new(&seen.0.packet).unwrap();
    assert!(answer.checksums_hold());
    assert_eq!(answer.macs(), Some((me.mac, me.node_mac)));
    let ip = answer.ip().unwrap();
    assert_eq!((ip.source, ip.destination), (asked.into(), Who::Client.v6().into()));
    assert_eq!(seen.0.packet[54], 136);
    assert_eq!(seen.0.packet[80..86], me.node_mac.0);
}

#[test]
fn arp_is_answered_for_any_address_but_the_pods_own() {
    let bed = Bed::open();
    let me = bed.node.devices[&CLIENT_IF];
    let request = |asked: core::net::Ipv4Addr| {
        let head = [&[0xff; 6][..], &me.mac.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        [&head[..], &me.mac.0, &Who::Client.v4().octets(), &[0; 6], &asked.octets()].concat()
    };
    let seen = bed.sent_by_client(&request(Who::Router.v4()));
    assert_eq!(seen.action(), Action::Device(CLIENT_IF));
    let answer = [
        &me.mac.0[..],
        &me.node_mac.0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
        &me.node_mac.0,
        &Who::Router.v4().octets(),
        &me.mac.0,
        &Who::Client.v4().octets(),
    ];
    assert_eq!(seen.0.packet, answer.concat());
    assert_eq!(bed.sent_by_client(&request(Who::Client.v4())).action(), Action::Dropped);
}

#[test]
fn frames_that_are_not_ip_are_dropped_with_a_reason() {
    let bed = Bed::open();
    let frame = [&[0xff; 6][..], &[2; 6], &[0x88, 0xcc], &[0; 40]].concat();
    assert_eq!(bed.sent_by_client(&frame).dropped(), Some(DropReason::UNKNOWN_L3));
    assert_eq!(bed.sent_by_client(&frame).kind(KIND_TRACE).count(), 0);
}

const VLAN_IF: u32 = 77;

#[test]
fn a24_a25_what_the_node_forwards_has_not_the_nodes_identity() {
    for v in FAMILIES {
        let mut bed = Bed::open();
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(identity::HOST, DIR_INGRESS, TCP, 80));
        let forged = frame(v, Who::Router, Who::Server).tcp(4000, 80, SYN, b"").build();
        let seen = bed.at(Hook::Forwarded(VLAN_IF), HOST_IF, &forged);
        assert_eq!(seen.dropped(), Some(DropReason::POLICY));
        assert!(seen.0.events.iter().all(|e| e.source_identity == identity::WORLD), "{:?}", seen.0.events);
        // the same as the node's own passes, and opens no way for the forged one
        assert_eq!(bed.at(Hook::Host, HOST_IF, &forged).action(), Action::Device(SERVER_IF));
        let data = frame(v, Who::Router, Who::Server).tcp(4000, 80, ACK, b"x").build();
        assert_eq!(bed.at(Hook::Forwarded(VLAN_IF), HOST_IF, &data).dropped(), Some(DropReason::POLICY));
        assert_eq!(bed.at(Hook::Host, HOST_IF, &data).action(), Action::Device(SERVER_IF));
    }
}

#[test]
fn a25_pods_do_not_come_by_devices_without_a_program() {
    for v in FAMILIES {
        let bed = Bed::open();
        for who in [Who::Client, Who::Remote] {
            let forged = frame(v, who, Who::Server).tcp(4000, 80, SYN, b"").build();
            let seen = bed.at(Hook::Forwarded(VLAN_IF), HOST_IF, &forged);
            assert_eq!(seen.dropped(), Some(DropReason::INVALID_SIP), "{who:?}");
        }
        let world = frame(v, Who::World, Who::Server).tcp(4000, 80, SYN, b"").build();
        assert_eq!(bed.at(Hook::Forwarded(VLAN_IF), HOST_IF, &world).action(), Action::Device(SERVER_IF));
    }
}

#[test]
fn a65_nothing_of_this_node_comes_from_outside_into_a_running_connection() {
    for v in FAMILIES {
        let bed = Bed::open();
        let syn = frame(v, Who::Client, Who::Server).tcp(4000, 80, SYN, b"").build();
        assert!(bed.sent_by_client(&syn).arrives_at(SERVER_IF));
        let from_node = frame(v, Who::Router, Who::Server).tcp(4000, 80, SYN, b"").build();
        assert_eq!(bed.at(Hook::Host, HOST_IF, &from_node).action(), Action::Device(SERVER_IF));
        for who in [Who::Client, Who::Router] {
            let forged = frame(v, who, Who::Server).tcp(4000, 80, ACK, b"x").build();
            assert_eq!(bed.at(Hook::Netdev, UPLINK_IF, &forged).dropped(), Some(DropReason::INVALID_SIP), "{who:?}");
        }
    }
}
