//! Redirected connections through a proxy that copies bytes, with ordinary sockets at both ends.

use crate::bed::*;
use crate::copier::{self, Copier};
use abi::DropReason;
use abi::event::{KIND_POLICY_VERDICT, TRACE_TO_PROXY};
use abi::policy::{DIR_EGRESS, DIR_INGRESS, VERDICT_REDIRECT};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use wire::{TCP, UDP};

/// Two pods of a node that looks for its proxy's connections.
fn with_proxy() -> (Node, Pod, Pod, Copier) {
    let (node, client, server) = two_pods();
    node.reconfigure(|c| c.flags |= abi::config::FLAG_PROXY);
    let copier = Copier::start(&node);
    (node, client, server, copier)
}

fn asks(port: u16) -> Verdicts {
    Verdicts::open().redirect(DIR_EGRESS, TCP, port).redirect(DIR_EGRESS, UDP, 53)
}

fn asked(port: u16) -> Verdicts {
    Verdicts::closed().redirect(DIR_INGRESS, TCP, port)
}

/// The next connection, which must come soon.
fn accept(node: &Node, listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    for _ in 0..100 {
        if let Ok((stream, peer)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            return (stream, peer);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nobody came: {:#?}", node.events());
}

/// The client speaks to the server through the proxy, and the server sees the client.
fn talk(node: &Node, client: &Pod, server: SocketAddr, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let there = client.connect(server);
    let mut there = there.unwrap_or_else(|e| panic!("{server} {e}: {:#?}", node.events()));
    let (mut here, peer) = accept(node, listener);
    assert_eq!(peer.ip(), client.ip(if server.is_ipv4() { 4 } else { 6 }), "the server sees the client");
    exchange(&mut there, &mut here).unwrap_or_else(|e| panic!("{server} {e}: {:#?}", node.events()));
    assert_ne!(there.local_addr().unwrap().port(), peer.port(), "through the proxy");
    (there, here)
}

#[test]
fn egress_and_ingress_between_pods_of_a_node() {
    let (node, client, server, copier) = with_proxy();
    for v in [4, 6] {
        let (at, listener) = (server.at(v, 8080), server.listen(v, 8080));
        node.policy(&client, &asks(8080));
        node.policy(&server, &Verdicts::closed().allow_from(CLIENT));
        talk(&node, &client, at, &listener);
        let (from, meant, of) = copier.last();
        let of = of.unwrap();
        assert_eq!((from.ip(), meant), (client.ip(v), at));
        assert_eq!((of.endpoint, of.direction, of.rule_set), (client.endpoint.id, DIR_EGRESS, 9));
        assert_eq!((of.source_identity, of.destination_identity), (CLIENT, SERVER));
        let events = node.events();
        assert!(events.iter().any(|e| e.kind == KIND_POLICY_VERDICT || e.code == TRACE_TO_PROXY));
        // the server's own policy is asked of the proxy's connection too
        node.policy(&server, &Verdicts::closed());
        let mut there = client.connect(at).expect("the proxy accepts");
        assert_eq!(there.read(&mut [0; 4]).unwrap_or(0), 0, "and gets no further");
        assert!(node.drops().contains(&DropReason::POLICY));

        node.policy(&client, &Verdicts::open());
        node.policy(&server, &asked(8080));
        talk(&node, &client, at, &listener);
        let of = copier.last().2.unwrap();
        assert_eq!((of.endpoint, of.direction, of.source_identity), (server.endpoint.id, DIR_INGRESS, CLIENT));
        let redirected = |e: &abi::event::Event| e.kind == KIND_POLICY_VERDICT && e.code == VERDICT_REDIRECT;
        let told: Vec<_> = node.events().into_iter().filter(redirected).map(|e| e.proxy_port).collect();
        assert_eq!(told, [copier::PORT]);

        // both, one after the other
        node.policy(&client, &asks(8080));
        let before = copier.seen.lock().unwrap().len();
        talk(&node, &client, at, &listener);
        let seen = copier.seen.lock().unwrap()[before..].to_vec();
        let of: Vec<_> = seen.iter().map(|(.., of)| of.unwrap()).collect();
        assert_eq!((of[0].direction, of[1].direction), (DIR_EGRESS, DIR_INGRESS));
        assert_eq!((of[1].endpoint, of[1].source_identity), (server.endpoint.id, CLIENT));
        node.policy(&client, &Verdicts::open());
        node.policy(&server, &Verdicts::open());
    }
    assert_eq!(node.drops(), []);
}

#[test]
fn without_a_proxy_connections_are_refused_and_told() {
    let (node, client, server) = two_pods();
    for v in [4, 6] {
        let listener = server.listen(v, 8080);
        listener.set_nonblocking(true).unwrap();
        for (of, verdicts) in [(&client, asks(8080)), (&server, asked(8080))] {
            node.policy(of, &verdicts);
            assert!(client.connect(server.at(v, 8080)).is_err());
            assert!(node.drops().iter().all(|r| *r == DropReason::PROXY_LOOKUP_FAILED));
            node.policy(of, &Verdicts::open());
        }
        // nor from the node itself
        node.policy(&server, &asked(8080));
        let at = server.at(v, 8080);
        node.space.run(|| TcpStream::connect_timeout(&at, Duration::from_millis(300))).unwrap_err();
        assert!(node.drops().contains(&DropReason::PROXY_LOOKUP_FAILED));
        assert!(listener.accept().is_err(), "nothing came past the proxy");
        node.policy(&server, &Verdicts::open());
    }
}

#[test]
fn the_node_asks_its_pods_and_is_asked_by_them_through_the_proxy() {
    let (node, client, server, copier) = with_proxy();
    let (node4, node6) = addresses(1, 1);
    for (v, own) in [(4, IpAddr::V4(node4)), (6, IpAddr::V6(node6))] {
        node.policy(&server, &asked(8080));
        let (at, listener) = (server.at(v, 8080), server.listen(v, 8080));
        let there = node.space.run(|| TcpStream::connect_timeout(&at, Duration::from_millis(700)));
        let mut there = there.unwrap_or_else(|e| panic!("{v} {e} {:#?}", node.events()));
        there.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        let (mut here, peer) = accept(&node, &listener);
        assert_eq!(peer.ip(), own, "the server sees the node");
        exchange(&mut there, &mut here).unwrap_or_else(|e| panic!("{v} {e} {:#?}", node.events()));
        assert_eq!(copier.last().2.unwrap().source_identity, abi::identity::HOST);
        node.policy(&server, &Verdicts::open());

        node.policy(&client, &asks(9090));
        let at = SocketAddr::new(own, 9090);
        let listener = node.space.run(|| TcpListener::bind(at)).unwrap();
        talk(&node, &client, at, &listener);
        assert_eq!(copier.last().2.unwrap().destination_identity, abi::identity::HOST);
        node.policy(&client, &Verdicts::open());
    }
    assert_eq!(node.drops(), []);
}

#[test]
fn a_policy_that_begins_to_redirect_resets_what_runs_and_one_that_denies_cuts_it() {
    let (node, client, server, _copier) = with_proxy();
    for v in [4, 6] {
        let listener = server.listen(v, 8080);
        let mut there = client.connect(server.at(v, 8080)).unwrap();
        let (mut here, _) = listener.accept().unwrap();
        exchange(&mut there, &mut here).unwrap();
        node.policy(&client, &asks(8080));
        let reset = exchange(&mut there, &mut here).unwrap_err();
        let reset =
            if reset.kind() == std::io::ErrorKind::WouldBlock { there.read(&mut [0]).unwrap_err() } else { reset };
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
        // through the proxy from now on
        let (mut there, mut here) = talk(&node, &client, server.at(v, 8080), &listener);
        node.policy(&client, &Verdicts::open());
        exchange(&mut there, &mut here).expect("the proxy alone can end it in order");
        node.policy(&server, &Verdicts::closed());
        assert!(exchange(&mut there, &mut here).is_err());
        node.policy(&server, &Verdicts::open());
    }
}

#[test]
fn datagrams_come_to_the_proxy_with_the_address_that_was_meant() {
    let (node, client, server, _copier) = with_proxy();
    node.policy(&client, &asks(8080));
    let maps = bpf::ProxyMaps::open(node.datapath.pin_dir()).unwrap();
    for (v, loopback) in [(4, IpAddr::V4(Ipv4Addr::LOCALHOST)), (6, IpAddr::V6(Ipv6Addr::LOCALHOST))] {
        let proxy = copier::datagrams(&node, loopback);
        let (name_server, here, meant) = (server.udp(v, 53), client.udp(v, 4000), server.at(v, 53));
        here.send_to(b"who?", meant).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = proxy.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{v} {e} {:#?}", node.events()));
        assert_eq!((&buffer[..length], from), (&b"who?"[..], client.at(v, 4000)));
        let of = maps.redirected(UDP, from, meant).unwrap().unwrap();
        assert_eq!((of.endpoint, of.direction), (client.endpoint.id, DIR_EGRESS));
        // on to the server, in the client's name
        let upstream = copier::pretending(&node, client.at(v, 0));
        maps.speak_for(std::os::fd::AsFd::as_fd(&upstream), &of).unwrap();
        upstream.connect(meant).unwrap();
        upstream.send(b"who?").unwrap();
        let (length, asker) =
            name_server.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{v} {e} {:#?}", node.events()));
        assert_eq!((&buffer[..length], asker.ip()), (&b"who?"[..], client.ip(v)));
        name_server.send_to(b"me", asker).unwrap();
        assert_eq!(upstream.recv(&mut buffer).unwrap_or_else(|e| panic!("{v} {e} {:#?}", node.events())), 2);
        // and back, in the server's
        copier::pretending(&node, meant).send_to(b"him", from).unwrap();
        assert_eq!(here.recv_from(&mut buffer).unwrap(), (3, meant));
        // what the server sends to the client itself does not arrive
        node.events();
        name_server.send_to(b"lies", client.at(v, 4000)).unwrap();
        assert!(here.recv(&mut buffer).is_err());
        assert!(node.drops().contains(&DropReason::UNKNOWN_CT));
    }
}

/// A28, A29: marks that others set, and addresses that others have.
#[test]
fn a28_marks_of_pods_and_of_strangers_on_the_node_open_nothing() {
    let (node, client, server, _copier) = with_proxy();
    node.policy(&server, &Verdicts::closed());
    let marked = |space: &crate::spaces::Space, mark: u32, from: SocketAddr, to: SocketAddr| {
        space.run(|| {
            let socket = copier::transparent_stream(from).unwrap();
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &mark).unwrap();
            copier::connect(&socket, to)
        })
    };
    for v in [4, 6] {
        let listener = server.listen(v, 8080);
        listener.set_nonblocking(true).unwrap();
        for magic in [0x200, 0xa00, 0xb00] {
            for mark in [magic | CLIENT << 16, magic | 10_001u32.to_be()] {
                let from = client.at(v, 0);
                assert!(marked(&client.space, mark, from, server.at(v, 8080)).is_err());
                // the node's own processes may take any address; a mark adds nothing to that
                assert!(marked(&node.space, mark, from, server.at(v, 8080)).is_err());
            }
        }
        assert!(listener.accept().is_err());
        assert!(node.drops().iter().all(|r| *r == DropReason::POLICY));
    }
}

/// In a thread that is this user and group, and has no capability.
fn as_user<T: Send>(number: u32, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The library's calls would change all threads.
            for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
                // SAFETY: the call has three numbers and no memory
                assert_eq!(unsafe { libc::syscall(call, number, number, number) }, 0);
            }
            run()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_proxy_that_is_not_root_opens_tables_that_were_made_anew_if_its_group_is_let_in() {
    const GROUP: u32 = 1_337;
    let (node, ..) = two_pods();
    let pins = node.datapath.pin_dir().to_path_buf();
    let open = |user| as_user(user, || bpf::ProxyMaps::open(&pins).map_err(|error| error.to_string()));
    assert!(open(GROUP).unwrap_err().contains("ermission"));
    bpf::let_group_in(&pins, GROUP).unwrap();
    let other = bpf::Sizes { conntrack: 4_000, ..sizes() };
    let again = bpf::Datapath::open(&bpf::Options { sizes: other, ..node.options(attachment()) }).unwrap();
    assert!(open(GROUP).is_err(), "the table is another one");
    bpf::let_group_in(again.pin_dir(), GROUP).unwrap();
    let maps = open(GROUP).unwrap();
    let (client, server) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    assert_eq!(as_user(GROUP, || maps.redirected(wire::TCP, client, server)).unwrap(), None);
    assert!(open(GROUP + 1).is_err(), "nobody else");
}
