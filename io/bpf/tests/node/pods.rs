//! Two pods of one node, with ordinary sockets.

use crate::bed::*;
use abi::DropReason;
use abi::event::{CT_NEW, CT_REPLY, KIND_POLICY_VERDICT, KIND_TRACE, TRACE_TO_LXC};
use wire::{ICMP, ICMPV6, TCP, UDP, View};

#[test]
fn tcp_passes_and_a_policy_stops_it_while_it_runs() {
    let (node, client, server) = two_pods();
    for v in [4, 6] {
        node.policy(&server, &Verdicts::open());
        let listener = server.listen(v, 8080);
        let mut there = client.connect(server.at(v, 8080)).unwrap();
        let (mut here, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), client.ip(v));
        exchange(&mut there, &mut here).unwrap();
        let events = node.events();
        let traces: Vec<_> = events.iter().filter(|e| e.kind == KIND_TRACE && e.protocol == TCP).collect();
        assert_eq!((traces[0].code, traces[0].detail, traces[0].tcp_flags), (TRACE_TO_LXC, CT_NEW, 2));
        assert_eq!((traces[1].code, traces[1].detail, traces[1].tcp_flags), (TRACE_TO_LXC, CT_REPLY, 18));
        assert_eq!((traces[0].source_identity, traces[0].destination_identity), (CLIENT, SERVER));
        node.policy(&server, &Verdicts::closed().allow(TCP, 8080));
        exchange(&mut there, &mut here).unwrap();
        node.policy(&server, &Verdicts::closed());
        node.events();
        assert!(exchange(&mut there, &mut here).is_err());
        assert!(node.drops().contains(&DropReason::POLICY));
    }
}

#[test]
fn a_denied_connection_is_a_verdict_and_a_drop() {
    let (node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed());
    for v in [4, 6] {
        let _listener = server.listen(v, 8080);
        assert!(client.connect(server.at(v, 8080)).is_err());
        let events: Vec<_> = node.events().into_iter().filter(|e| e.protocol == TCP).collect();
        assert!(events.len() >= 2 && events.len() % 2 == 0, "{events:?}");
        for pair in events.chunks(2) {
            assert_eq!(pair[0].kind, KIND_POLICY_VERDICT);
            assert_eq!((pair[1].kind, pair[1].code), (abi::event::KIND_DROP, DropReason::POLICY.0));
            assert_eq!(pair[1].endpoint, server.endpoint.id);
        }
    }
}

#[test]
fn udp_passes_also_in_fragments() {
    let (node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed().allow(UDP, 5353));
    for v in [4, 6] {
        let (there, here) = (server.udp(v, 5353), client.udp(v, 4000));
        for size in [10, 4000] {
            let sent = vec![7; size];
            here.send_to(&sent, server.at(v, 5353)).unwrap();
            let mut buffer = vec![0; 8000];
            let (length, from) =
                there.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{v} {size} {e} {:?}", node.drops()));
            assert_eq!((&buffer[..length], from), (sent.as_slice(), client.at(v, 4000)));
            there.send_to(&sent, from).unwrap();
            assert_eq!(here.recv(&mut buffer).unwrap(), size);
        }
        let closed = server.udp(v, 5354);
        here.send_to(&[7; 4000], server.at(v, 5354)).unwrap();
        assert!(closed.recv(&mut [0; 8000]).is_err());
        assert!(node.drops().iter().all(|r| *r == DropReason::POLICY));
    }
}

#[test]
fn echoes_are_answered() {
    let (node, client, server) = two_pods();
    for (v, protocol, request, reply) in [(4, ICMP, 8, 0), (6, ICMPV6, 128, 129)] {
        node.policy(&server, &Verdicts::closed().allow(protocol, request));
        let raw = client.raw();
        raw.send(&client.frame(v, &server).echo_request(99).build());
        let is_answer = |frame: &[u8]| {
            let view = View::new(frame).unwrap();
            matches!(view.layer4(), Some(wire::Layer4::Icmp { kind, id: 99, .. }) if kind == reply)
        };
        assert!(raw.receive(is_answer).is_some(), "IPv{v}: {:?}", node.drops());
    }
}

#[test]
fn a_closed_port_is_told_to_the_sender_through_policy() {
    let (node, client, server) = two_pods();
    node.policy(&client, &Verdicts::closed());
    for v in [4, 6] {
        let socket = client.udp(v, 4000);
        socket.connect(server.at(v, 9)).unwrap();
        socket.send(b"?").unwrap();
        let refused = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "IPv{v}: {:?}", node.drops());
    }
}

#[test]
fn the_node_reaches_its_pods_and_they_the_node() {
    let (node, client, _server) = two_pods();
    node.policy(&client, &Verdicts::closed().allow_from(abi::identity::HOST));
    for v in [4, 6] {
        let listener = client.listen(v, 8080);
        let address = client.at(v, 8080);
        let within = std::time::Duration::from_millis(700);
        let stream = node.space.run(|| std::net::TcpStream::connect_timeout(&address, within));
        let mut stream = stream.unwrap_or_else(|e| panic!("IPv{v}: {e}, {:?}", node.events()));
        stream.set_read_timeout(Some(within)).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        exchange(&mut stream, &mut accepted).unwrap();
        let (v4, v6) = addresses(1, 1);
        let own: std::net::IpAddr = if v == 4 { v4.into() } else { v6.into() };
        let listener = node.space.run(|| std::net::TcpListener::bind((own, 9090))).unwrap();
        let mut stream = client.connect((own, 9090).into()).unwrap();
        exchange(&mut stream, &mut listener.accept().unwrap().0).unwrap();
    }
}

#[test]
fn counters_agree_with_events() {
    let (node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed());
    let maps = node.datapath.maps();
    let policy_drops = || {
        let entries = maps.metrics.entries().unwrap();
        entries.iter().filter(|(k, _)| k.reason == DropReason::POLICY.0).map(|(_, m)| m.packets.get()).sum::<u64>()
    };
    let (sent_before, _) = maps.event_counters().unwrap();
    let read_before = node.events().len() as u64;
    let (before, raw) = (policy_drops(), client.raw());
    for port in 0..500 {
        raw.send(&client.frame(4, &server).udp(1000 + port, 53, b"x").build());
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    let (sent, lost) = maps.event_counters().unwrap();
    assert!(policy_drops() - before >= 500);
    assert_eq!(lost, 0);
    assert!(sent - sent_before + read_before >= node.events().len() as u64);
}

#[test]
fn events_that_find_no_room_are_counted() {
    let (node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed());
    node.events();
    let maps = node.datapath.maps();
    let (before, _) = maps.event_counters().unwrap();
    let raw = client.raw();
    for port in 0..3000u16 {
        raw.send(&client.frame(4, &server).udp(1000 + port, 53, b"x").build());
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    let (sent, lost) = maps.event_counters().unwrap();
    assert!(lost > 0, "the ring buffer of 256 KiB takes fewer than 6000");
    assert!(sent - before + lost >= 6000, "a verdict and a drop each: {sent} {lost}");
    assert!(node.events().len() as u64 >= sent - before);
}
