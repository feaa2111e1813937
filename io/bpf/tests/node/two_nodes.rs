//! Pods of two nodes, through the tunnel.

use crate::bed::*;
use crate::spaces::{PrivateBpffs, Space};
use abi::event::{KIND_TRACE, TRACE_TO_LXC, TRACE_TO_OVERLAY, TRACE_TO_STACK};
use abi::{DropReason, identity};
use bpf::Hook;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

fn node_address(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(172, 18, 0, number + 1), Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, u16::from(number) + 1))
}

/// Two nodes on one wire, the second of which is also the first's way into the world.
struct Pair {
    one: Node,
    two: Node,
    _bpffs: PrivateBpffs,
}

fn pair() -> Pair {
    let bpffs = PrivateBpffs::new();
    let (one, two) = (Node::on(1, bpffs.path()), Node::on(2, bpffs.path()));
    one.space.ip("link add eth0 type veth peer name wire");
    one.space.give("wire", &two.space);
    two.space.ip("link set wire name eth0");
    for (node, other) in [(&one, &two), (&two, &one)] {
        let (v4, v6) = node_address(node.number);
        node.space.ip("link set eth0 up");
        node.space.ip(&format!("addr add {v4}/24 dev eth0"));
        node.space.ip(&format!("addr add {v6}/64 dev eth0 nodad"));
        node.space.ip("link add cilium_vxlan type vxlan external dstport 8472");
        node.space.ip("link set cilium_vxlan up");
        node.own(v4, v6);
        node.reconfigure(|c| {
            (c.node4, c.node6) = (v4.into(), v6.into());
            c.tunnel_ifindex = node.space.ifindex("cilium_vxlan");
            c.uplink_ifindex = node.space.ifindex("eth0");
        });
        let (other4, other6) = node_address(other.number);
        node.known(other4, other6, identity::REMOTE_NODE, None);
        let (router4, router6) = addresses(other.number, 1);
        node.known(router4, router6, identity::REMOTE_NODE, Some(other4));
        node.attach(Hook::FromOverlay, "cilium_vxlan");
        node.attach(Hook::FromNetdev, "eth0");
        node.attach(Hook::ToNetdev, "eth0");
    }
    let (two4, two6) = node_address(2);
    one.space.ip(&format!("route add default via {two4}"));
    one.space.ip(&format!("-6 route add default via {two6}"));
    one.space.settle();
    two.space.settle();
    Pair { one, two, _bpffs: bpffs }
}

impl Pair {
    /// A client on the first node and a server on the second, known to both.
    fn pods(&self) -> (Pod, Pod) {
        let (client, server) = (self.one.pod(11, CLIENT), self.two.pod(12, SERVER));
        self.one.known(server.v4, server.v6, SERVER, Some(node_address(2).0));
        self.two.known(client.v4, client.v6, CLIENT, Some(node_address(1).0));
        self.one.events();
        self.two.events();
        (client, server)
    }
}

#[test]
fn pods_of_two_nodes_talk_and_each_node_tells_its_part() {
    let pair = pair();
    let (client, server) = pair.pods();
    pair.two.policy(&server, &Verdicts::closed().allow_from(CLIENT));
    for v in [4, 6] {
        let listener = server.listen(v, 8080);
        let stream = client.connect(server.at(v, 8080));
        let mut stream =
            stream.unwrap_or_else(|e| panic!("IPv{v} {e}: {:?} {:?}", pair.one.events(), pair.two.events()));
        exchange(&mut stream, &mut listener.accept().unwrap().0).unwrap();
        let first =
            |node: &Node| node.events().into_iter().find(|e| e.kind == KIND_TRACE && e.protocol == wire::TCP).unwrap();
        let (sent, arrived) = (first(&pair.one), first(&pair.two));
        assert_eq!((sent.code, sent.ifindex), (TRACE_TO_OVERLAY, pair.one.space.ifindex("cilium_vxlan")));
        assert_eq!((arrived.code, arrived.ifindex), (TRACE_TO_LXC, server.endpoint.ifindex));
        for event in [sent, arrived] {
            assert_eq!((event.source_identity, event.destination_identity), (CLIENT, SERVER));
        }
    }
    pair.two.policy(&server, &Verdicts::closed());
    let _listener = server.listen(4, 8081);
    assert!(client.connect(server.at(4, 8081)).is_err());
    assert!(pair.two.drops().contains(&DropReason::POLICY));
}

#[test]
fn a_node_reaches_the_pods_of_another_and_is_answered() {
    let pair = pair();
    let (client, _server) = pair.pods();
    pair.one.policy(&client, &Verdicts::closed().allow_from(identity::REMOTE_NODE));
    for v in [4, 6] {
        let listener = client.listen(v, 8080);
        let address = client.at(v, 8080);
        let within = Duration::from_millis(700);
        let stream = pair.two.space.run(|| TcpStream::connect_timeout(&address, within));
        let mut stream =
            stream.unwrap_or_else(|e| panic!("IPv{v} {e}: {:?} {:?}", pair.one.events(), pair.two.events()));
        stream.set_read_timeout(Some(within)).unwrap();
        exchange(&mut stream, &mut listener.accept().unwrap().0).unwrap();
    }
}

#[test]
fn pods_leave_for_the_world_under_their_nodes_name() {
    let pair = pair();
    let (client, _server) = pair.pods();
    let worlds: [SocketAddr; 2] = ["1.1.1.1:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()];
    for world in worlds {
        pair.two.space.ip(&format!("addr add {} dev lo", world.ip()));
        pair.two.space.settle();
        let listener = pair.two.space.run(|| TcpListener::bind(world)).unwrap();
        let stream = client.connect(world);
        let mut stream =
            stream.unwrap_or_else(|e| panic!("{world} {e}: {:?} {:?}", pair.one.events(), pair.two.events()));
        let (mut accepted, peer) = listener.accept().unwrap();
        let (v4, v6) = node_address(1);
        assert!(peer.ip() == v4 || peer.ip() == v6, "{peer}");
        exchange(&mut stream, &mut accepted).unwrap();
        let version = if world.is_ipv4() { 4 } else { 6 };
        let ours = |e: &&abi::event::Event| (e.kind, e.protocol, e.ip_version) == (KIND_TRACE, wire::TCP, version);
        let traces: Vec<u8> = pair.one.events().iter().filter(ours).map(|e| e.code).collect();
        assert_eq!(traces[..2], [TRACE_TO_STACK, TRACE_TO_LXC]);
    }
    assert!(!pair.one.datapath.maps().nat4.entries().unwrap().is_empty());
    let swept = pair.one.datapath.maps().sweep_nat(Duration::from_secs(1 << 31), Duration::ZERO).unwrap();
    assert!(swept.iter().map(|family| family.removed).sum::<usize>() >= 4);
}

#[test]
fn a65_an_outsider_cannot_speak_through_the_tunnel() {
    let pair = pair();
    let (_client, server) = pair.pods();
    let outsider = Space::new();
    pair.two.space.ip("link add out0 type veth peer name in0");
    pair.two.space.give("in0", &outsider);
    pair.two.space.ip("link set out0 up");
    pair.two.space.ip("addr add 192.0.2.1/24 dev out0");
    outsider.ip("link set in0 up");
    outsider.ip("addr add 192.0.2.2/24 dev in0");
    let inner = wire::Frame::between(Ipv4Addr::new(10, 0, 1, 11), server.v4).udp(1, 53, b"forged").build();
    // a VXLAN header whose network identifier is the identity that the outsider would like to have
    let vni = [&[8u8, 0, 0, 0][..], &(CLIENT << 8).to_be_bytes()].concat();
    let socket = outsider.run(|| std::net::UdpSocket::bind("192.0.2.2:0")).unwrap();
    pair.two.events();
    socket.send_to(&[vni, inner].concat(), "192.0.2.1:8472").unwrap();
    assert_eq!(pair.two.next_drops(), [DropReason::INVALID_IDENTITY]);
}
