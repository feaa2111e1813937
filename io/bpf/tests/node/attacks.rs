//! What must not be possible, tried with real packets, by the numbers of the list of known holes.

use crate::bed::*;
use abi::DropReason;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use wire::{Frame, ICMP, TCP, UDP, View};

const SHORT: Duration = Duration::from_millis(150);

fn marked(mark: &'static [u8]) -> impl Fn(&[u8]) -> bool {
    move |frame| frame.ends_with(mark)
}

#[test]
fn a24_packets_from_outside_are_judged_as_from_outside() {
    let (node, client, _server) = two_pods();
    node.policy(&client, &Verdicts::closed().allow_from(abi::identity::HOST));
    let outside = crate::spaces::Space::new();
    node.space.ip("link add eth0 type veth peer name out0");
    node.space.give("out0", &outside);
    node.space.ip("link set eth0 up");
    outside.ip("link set out0 up");
    node.attach(bpf::Hook::FromNetdev, "eth0");
    let raw = outside.run(|| crate::raw::Raw::open(nix::net::if_::if_nametoindex("out0").unwrap())).unwrap();
    let sink = client.raw();
    node.events();
    let (v4, v6) = addresses(1, 1);
    let strangers: [(std::net::IpAddr, _); 4] = [
        ("1.2.3.4".parse().unwrap(), DropReason::POLICY),
        ("2001:db8::1".parse().unwrap(), DropReason::POLICY),
        (v4.into(), DropReason::INVALID_SIP),
        (v6.into(), DropReason::INVALID_SIP),
    ];
    for (from, reason) in strangers {
        let to = client.ip(if from.is_ipv4() { 4 } else { 6 });
        raw.send(&Frame::between(from, to).udp(1, 2, b"outside").build());
        assert!(sink.receive_within(SHORT, marked(b"outside")).is_none(), "{from}");
        assert_eq!(node.drops(), [reason], "{from}");
    }
}

#[test]
fn a36_an_unknown_port_of_a_cluster_ip_leaves_for_nowhere() {
    let (node, client, server) = two_pods();
    crate::sockets::service(&node, "10.96.0.9", &[&server]);
    let raw = client.raw();
    let to = |port| {
        let vip: std::net::Ipv4Addr = "10.96.0.9".parse().unwrap();
        Frame::between(client.v4, vip)
            .macs(client.endpoint.mac, client.endpoint.node_mac)
            .tcp(4000, port, 2, b"")
            .build()
    };
    raw.send(&to(81));
    std::thread::sleep(SHORT);
    assert_eq!(node.drops(), [DropReason::NO_SERVICE]);
    let sink = server.raw();
    raw.send(&to(80));
    let seen = sink.receive(|f| {
        View::new(f).unwrap().layer4().is_some_and(|l| matches!(l, wire::Layer4::Tcp { destination: 8080, .. }))
    });
    assert!(View::new(&seen.unwrap()).unwrap().checksums_hold());
}

#[test]
fn a64_an_echo_request_is_never_a_reply() {
    let (node, client, server) = two_pods();
    node.policy(&client, &Verdicts::closed());
    node.policy(&server, &Verdicts::closed().allow(ICMP, 8));
    let (ours, theirs) = (client.raw(), server.raw());
    ours.send(&client.frame(4, &server).echo_request(7).build());
    assert!(theirs.receive(|f| f[34..].starts_with(&[8])).is_some());
    node.events();
    theirs.send(&server.frame(4, &client).echo_request(7).build());
    std::thread::sleep(SHORT);
    assert_eq!(node.drops(), [DropReason::POLICY]);
}

#[test]
fn a65_forged_sources_and_tunnels_of_pods_are_dropped() {
    let (node, client, server) = two_pods();
    let (raw, sink) = (client.raw(), server.raw());
    for v in [4, 6] {
        let forged = Frame::between(server.ip(v), server.ip(v)).macs(client.endpoint.mac, client.endpoint.node_mac);
        raw.send(&forged.udp(1, 2, b"forged").build());
        assert!(sink.receive_within(SHORT, marked(b"forged")).is_none());
        assert_eq!(node.drops(), [DropReason::INVALID_SIP]);
        let (v4, v6) = addresses(1, 1);
        let own: std::net::IpAddr = if v == 4 { v4.into() } else { v6.into() };
        let socket = client.udp(v, 4000);
        socket.send_to(b"\x08\0\0\0\0\0\x01\0", SocketAddr::new(own, 8472)).unwrap();
        assert_eq!(node.drops(), [DropReason::ENCAP_PROHIBITED]);
    }
}

#[test]
fn a66_fragments_never_widen_a_policy() {
    let (node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed().allow(UDP, 53).allow(TCP, 80));
    let (raw, sink) = (client.raw(), server.raw());
    for v in [4, 6] {
        node.events();
        let tiny = client.frame(v, &server).tcp(1, 80, 2, &[0; 40]).fragments(1, 8);
        let stray = client.frame(v, &server).udp(1, 53, &[b'z'; 64]).fragments(2, 32);
        for (part, reason) in [
            (&tiny[0], DropReason::CT_INVALID_HDR),
            (&tiny[1], DropReason::INVALID_PACKET),
            (&stray[1], DropReason::FRAG_NOT_FOUND),
        ] {
            raw.send(part);
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(node.drops(), [reason], "IPv{v}");
        }
        let denied = client.frame(v, &server).udp(1, 54, &[b'z'; 64]).fragments(3, 32);
        denied.iter().for_each(|part| raw.send(part));
        assert!(sink.receive_within(SHORT, marked(b"zzz")).is_none());
    }
}

#[test]
fn a67_router_advertisements_do_not_reach_other_pods() {
    let (node, client, server) = two_pods();
    let (raw, sink) = (client.raw(), server.raw());
    let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
    for to in ["ff02::1".parse().unwrap(), server.v6] {
        let forged = Frame::between(link_local, to).hop_limit(255).macs(client.endpoint.mac, client.endpoint.node_mac);
        raw.send(&forged.icmp(134, 0, 0x4000_0708, &[0; 8]).build());
        assert!(sink.receive_within(SHORT, |f| f.len() > 54 && f[54] == 134).is_none());
    }
    let forbidden = node.events().iter().filter(|e| e.code == DropReason::FORBIDDEN_ICMP6.0).count();
    assert!(forbidden >= 2);
}

#[test]
fn a68_a_well_known_source_port_is_no_reply() {
    let (node, client, server) = two_pods();
    node.policy(&client, &Verdicts::closed());
    node.policy(&server, &Verdicts::closed().allow(TCP, 80));
    let _listener = server.listen(4, 80);
    let _stream = client.connect(server.at(4, 80)).unwrap();
    node.events();
    let raw = server.raw();
    for (port, flags) in [(22, 2), (22, 16), (4001, 18)] {
        raw.send(&server.frame(4, &client).tcp(80, port, flags, b"").build());
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(node.drops(), [DropReason::POLICY], "{port} {flags}");
    }
}

#[test]
fn no_bytes_of_a_pod_pass_without_being_counted() {
    let (node, client, server) = two_pods();
    let (raw, maps) = (client.raw(), node.datapath.maps());
    let counted = || maps.metrics.entries().unwrap().iter().map(|(_, m)| m.packets.get()).sum::<u64>();
    let whole = client.frame(4, &server).tcp(1, 80, 2, &[1; 30]).build();
    let before = counted();
    let mut sent = 0;
    for length in 15..whole.len() {
        raw.send(&whole[..length]);
        sent += 1;
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(counted() - before >= sent, "{} of {sent}", counted() - before);
}
