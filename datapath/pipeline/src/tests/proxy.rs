//! Do redirected connections end at the proxy, and do the proxy's go on under the names and policies of their clients?

use super::bed::*;
use crate::env::Wanted;
use crate::native::{Action, Hook, SocketName};
use crate::packet::Packet;
use abi::conntrack::{CtEntry, KIND_CONNECTION};
use abi::event::*;
use abi::policy::{DIR_EGRESS, DIR_INGRESS, VERDICT_REDIRECT};
use abi::proxy::{self, MARK_FROM_EGRESS, MARK_FROM_INGRESS, MARK_TO_PROXY, ProxySocket};
use abi::{DropReason, Port, V4, V6, config, identity};
use wire::{Frame, TCP, UDP};

const COOKIE: [u32; 2] = [7, 7];
const TO_LISTENER: Action = Action::Proxy(Wanted::Listening(PROXY_PORT));
const TO_SOCKET: Action = Action::Proxy(Wanted::Connected);

/// A node whose proxy listens for TCP and UDP.
fn bed() -> Bed {
    let mut bed = Bed::open();
    bed.node.config.as_mut().unwrap().flags |= config::FLAG_PROXY;
    bed.node.listeners.extend([(TCP, PROXY_PORT), (UDP, PROXY_PORT)]);
    bed
}

/// The same, where what the client asks on port 80, and of name servers, goes to the proxy.
fn egress() -> Bed {
    let mut bed = bed();
    bed.policy(CLIENT_EP, 1, client_asks());
    bed
}

fn client_asks() -> Verdicts {
    Verdicts::silent().redirect(DIR_EGRESS, TCP, 80).redirect(DIR_EGRESS, UDP, 53).allow(DIR_EGRESS, TCP, 443)
}

/// The same, where what comes to the server's port 80 goes to the proxy.
fn ingress() -> Bed {
    let mut bed = bed();
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().redirect(DIR_INGRESS, TCP, 80));
    bed
}

/// The proxy has a socket of the connection between these two: it receives what `from` sends.
fn connect(bed: &mut Bed, v: u8, protocol: u8, from: (Who, u16), to: (Who, u16)) {
    let ports = (Port::new(from.1), Port::new(to.1));
    if v == 4 {
        let (source, destination) = ((V4::from(from.0.v4()), ports.0), (V4::from(to.0.v4()), ports.1));
        bed.node.v4.sockets.insert(SocketName { protocol, source, destination });
    } else {
        let (source, destination) = ((V6::from(from.0.v6()), ports.0), (V6::from(to.0.v6()), ports.1));
        bed.node.v6.sockets.insert(SocketName { protocol, source, destination });
    }
}

/// The proxy tells that its socket speaks for the client.
fn speaks_for(bed: &mut Bed, client: u32, magic: u32) -> Hook {
    bed.node.proxy_sockets.insert(COOKIE, ProxySocket { client, magic });
    Hook::Marked(proxy::from_proxy(magic, client), COOKIE)
}

fn tcp(v: u8, from: (Who, u16), to: (Who, u16), flags: u8) -> std::vec::Vec<u8> {
    frame(v, from.0, to.0).tcp(from.1, to.1, flags, b"").build()
}

fn udp(v: u8, from: (Who, u16), to: (Who, u16)) -> std::vec::Vec<u8> {
    frame(v, from.0, to.0).udp(from.1, to.1, b"q").build()
}

fn entry(bed: &Bed, v: u8, from: (Who, u16), to: (Who, u16), protocol: u8) -> CtEntry {
    fn packet<A>(source: A, destination: A, ports: (u16, u16), protocol: u8) -> Packet<A>
    where
        Packet<A>: Default,
    {
        let (source_port, destination_port) = (Port::new(ports.0), Port::new(ports.1));
        let shape = crate::packet::Shape::PORTS;
        Packet { source, destination, source_port, destination_port, protocol, shape, ..Packet::default() }
    }
    let ports = (from.1, to.1);
    if v == 4 {
        let p = packet(V4::from(from.0.v4()), V4::from(to.0.v4()), ports, protocol);
        bed.node.v4.connections.get(&crate::track::key(&p, KIND_CONNECTION).0).unwrap().clone()
    } else {
        let p = packet(V6::from(from.0.v6()), V6::from(to.0.v6()), ports, protocol);
        bed.node.v6.connections.get(&crate::track::key(&p, KIND_CONNECTION).0).unwrap().clone()
    }
}

const ASKER: (Who, u16) = (Who::Client, 4000);
/// The client's address and the port that the proxy has in its name.
const SPEAKER: (Who, u16) = (Who::Client, 30_000);
const SITE: (Who, u16) = (Who::Server, 80);

#[test]
fn what_egress_policy_redirects_ends_at_the_proxy_wherever_it_goes() {
    for v in FAMILIES {
        for target in [Who::Server, Who::Remote, Who::World, Who::Node, Who::OtherNode] {
            let mut bed = egress();
            let site = (target, 80);
            let seen = bed.sent_by_client(&tcp(v, ASKER, site, SYN));
            assert_eq!(seen.action(), TO_LISTENER, "{target:?}");
            assert_eq!(seen.traces(), [(TRACE_TO_PROXY, CT_NEW)]);
            let told: Vec<_> = seen.kind(KIND_POLICY_VERDICT).map(|e| (e.code, e.proxy_port, e.direction)).collect();
            assert_eq!(told, [(VERDICT_REDIRECT, PROXY_PORT, DIR_EGRESS)]);
            let known = entry(&bed, v, ASKER, site, TCP);
            assert_eq!((known.backend.get(), known.egress_rule_set.get()), (CLIENT_EP, ALLOWING));
            // the proxy answers as the server
            connect(&mut bed, v, TCP, ASKER, site);
            let answer = bed.at(Hook::Host, HOST_IF, &tcp(v, site, ASKER, SYN_ACK));
            assert_eq!(answer.action(), Action::Device(CLIENT_IF));
            assert_eq!(bed.sent_by_client(&tcp(v, ASKER, site, ACK)).action(), TO_SOCKET);
            // what the policy does not redirect goes its way
            let other = bed.sent_by_client(&tcp(v, ASKER, (target, 443), SYN));
            assert!(!matches!(other.action(), Action::Proxy(_) | Action::Dropped));
        }
    }
}

type Vec<T> = std::vec::Vec<T>;

#[test]
fn without_a_proxy_nothing_passes_and_that_is_told() {
    for v in FAMILIES {
        let mut bed = egress();
        bed.node.listeners.clear();
        for target in [Who::Server, Who::Remote, Who::World, Who::Node] {
            let seen = bed.sent_by_client(&tcp(v, ASKER, (target, 80), SYN));
            assert_eq!(seen.dropped(), Some(DropReason::PROXY_LOOKUP_FAILED));
            assert_eq!(seen.kind(KIND_DROP).next().unwrap().endpoint, CLIENT_EP);
            assert_eq!(
                bed.sent_by_client(&udp(v, ASKER, (target, 53))).dropped(),
                Some(DropReason::PROXY_LOOKUP_FAILED)
            );
        }
        bed.policy(CLIENT_EP, 1, Verdicts::open());
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().redirect(DIR_INGRESS, TCP, 80));
        let seen = bed.sent_by_client(&tcp(v, (Who::Client, 4001), SITE, SYN));
        assert_eq!(seen.dropped(), Some(DropReason::PROXY_LOOKUP_FAILED));
        let told = seen.kind(KIND_DROP).next().unwrap();
        assert_eq!((told.endpoint, told.direction), (SERVER_EP, DIR_INGRESS));
        // nor from the node itself
        let own = bed.at(Hook::Host, HOST_IF, &tcp(v, (Who::Node, 4000), SITE, SYN));
        let mark = proxy::to_proxy(PROXY_PORT);
        assert_eq!(own.action(), Action::Dropped);
        let seen = bed.at(Hook::ToHost(mark), HOST_IF, &tcp(v, (Who::Node, 4000), SITE, SYN));
        assert_eq!(seen.dropped(), Some(DropReason::PROXY_LOOKUP_FAILED));
    }
}

#[test]
fn a_socket_that_cannot_be_given_the_packet_drops_it() {
    let mut bed = egress();
    bed.node.assigns = false;
    let seen = bed.sent_by_client(&tcp(4, ASKER, SITE, SYN));
    assert_eq!(seen.dropped(), Some(DropReason::PROXY_SET_FAILED));
}

#[test]
fn the_server_never_speaks_to_the_client_past_the_proxy() {
    for v in FAMILIES {
        let bed = egress();
        bed.sent_by_client(&tcp(v, ASKER, SITE, SYN));
        assert_eq!(bed.sent_by_server(&tcp(v, SITE, ASKER, SYN_ACK)).dropped(), Some(DropReason::UNKNOWN_CT));
        let name_server = (Who::Server, 53);
        bed.sent_by_client(&udp(v, ASKER, name_server));
        assert_eq!(bed.sent_by_server(&udp(v, name_server, ASKER)).dropped(), Some(DropReason::UNKNOWN_CT));
        // nor from where the server is not
        let from_tunnel = Hook::Overlay(REMOTE, Who::OtherNode.v4().into());
        let far = (Who::Remote, 80);
        bed.sent_by_client(&tcp(v, ASKER, far, SYN));
        let seen = bed.at(from_tunnel, OVERLAY_IF, &tcp(v, far, ASKER, SYN_ACK));
        assert_eq!(seen.dropped(), Some(DropReason::UNKNOWN_CT));
        // what the node merely forwards is not the proxy's
        let web = (Who::World, 80);
        bed.sent_by_client(&tcp(v, ASKER, web, SYN));
        let forwarded = bed.at(Hook::Forwarded(UPLINK_IF), HOST_IF, &tcp(v, web, ASKER, SYN_ACK));
        assert_eq!(forwarded.dropped(), Some(DropReason::UNKNOWN_CT));
    }
}

#[test]
fn the_proxy_speaks_in_its_client_s_name_and_meets_the_server_s_policy() {
    for v in FAMILIES {
        let mut bed = egress();
        let hook = speaks_for(&mut bed, CLIENT, MARK_FROM_EGRESS);
        // the client's egress policy is not asked again; nobody else's is asked of an open server
        let seen = bed.at(hook, HOST_IF, &tcp(v, SPEAKER, SITE, SYN));
        assert_eq!(seen.action(), Action::Device(SERVER_IF), "{:?}", seen.0.events);
        assert_eq!(seen.kind(KIND_POLICY_VERDICT).count(), 0);
        assert_eq!(seen.kind(KIND_TRACE).next().unwrap().source_identity, CLIENT);
        connect(&mut bed, v, TCP, SITE, SPEAKER);
        let answer = bed.sent_by_server(&tcp(v, SITE, SPEAKER, SYN_ACK));
        assert_eq!((answer.action(), answer.traces()), (TO_SOCKET, [(TRACE_TO_PROXY, CT_REPLY)].to_vec()));
        assert_eq!(bed.at(hook, HOST_IF, &tcp(v, SPEAKER, SITE, ACK)).action(), Action::Device(SERVER_IF));
        // the pod itself has no part in it
        assert_eq!(bed.sent_by_client(&tcp(v, SPEAKER, SITE, ACK)).action(), TO_LISTENER);
        // a server that lets in others only
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(REMOTE, DIR_INGRESS, TCP, 80));
        let late = bed.at(hook, HOST_IF, &tcp(v, SPEAKER, SITE, ACK));
        assert_eq!(late.dropped(), Some(DropReason::POLICY), "a running connection is judged again");
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().allow_from(CLIENT, DIR_INGRESS, TCP, 80));
        assert_eq!(bed.at(hook, HOST_IF, &tcp(v, SPEAKER, SITE, ACK)).action(), Action::Device(SERVER_IF));
    }
}

#[test]
fn a_mark_without_the_proxy_s_word_opens_nothing() {
    for v in FAMILIES {
        let mut bed = egress();
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all());
        for magic in [MARK_FROM_EGRESS, MARK_FROM_INGRESS, MARK_TO_PROXY] {
            let forged = Hook::Marked(proxy::from_proxy(magic, CLIENT), [9, 9]);
            let seen = bed.at(forged, HOST_IF, &tcp(v, SPEAKER, SITE, SYN));
            assert_eq!(seen.dropped(), Some(DropReason::POLICY), "{magic:x}");
            let out = Hook::MarkedToNetdev(proxy::from_proxy(magic, CLIENT), [9, 9]);
            bed.at(out, UPLINK_IF, &tcp(v, SPEAKER, (Who::World, 80), SYN));
            let answer = tcp(v, (Who::World, 80), (Who::Node, SPEAKER.1), SYN_ACK);
            assert!(!matches!(bed.at(Hook::Netdev, UPLINK_IF, &answer).action(), Action::Proxy(_)));
        }
        // the proxy's word counts for its own socket alone, and for nothing that came in from somewhere
        let hook = speaks_for(&mut bed, CLIENT, MARK_FROM_INGRESS);
        assert_eq!(bed.at(hook, HOST_IF, &tcp(v, SPEAKER, SITE, SYN)).action(), Action::Device(SERVER_IF));
    }
}

#[test]
fn what_ingress_policy_redirects_ends_at_the_proxy_wherever_it_comes_from() {
    for v in FAMILIES {
        let mut bed = ingress();
        let from_tunnel = Hook::Overlay(REMOTE, Who::OtherNode.v4().into());
        for (from, hook, ifindex) in [
            (Who::Client, Hook::Container, CLIENT_IF),
            (Who::Remote, from_tunnel, OVERLAY_IF),
            (Who::World, Hook::Netdev, UPLINK_IF),
        ] {
            let asker = (from, 4000);
            let seen = bed.at(hook, ifindex, &tcp(v, asker, SITE, SYN));
            assert_eq!((seen.action(), seen.traces()), (TO_LISTENER, [(TRACE_TO_PROXY, CT_NEW)].to_vec()), "{from:?}");
            let known = entry(&bed, v, asker, SITE, TCP);
            assert_eq!((known.backend.get(), known.ingress_rule_set.get()), (SERVER_EP, ALLOWING));
            // the server does not answer it itself
            assert_eq!(bed.sent_by_server(&tcp(v, SITE, asker, SYN_ACK)).dropped(), Some(DropReason::UNKNOWN_CT));
            // the proxy goes on in its name, and the policy is not asked again
            let identity = known.source_identity.get();
            let speaks = speaks_for(&mut bed, identity, MARK_FROM_INGRESS);
            let speaker = (from, 30_000);
            let on = bed.at(speaks, HOST_IF, &tcp(v, speaker, SITE, SYN));
            assert_eq!(on.action(), Action::Device(SERVER_IF), "{:?}", on.0.events);
            assert_eq!(on.kind(KIND_TRACE).next().unwrap().source_identity, identity);
            connect(&mut bed, v, TCP, SITE, speaker);
            assert_eq!(bed.sent_by_server(&tcp(v, SITE, speaker, SYN_ACK)).action(), TO_SOCKET);
        }
        // what the policy does not let in comes not even to the proxy
        let denied = bed.sent_by_client(&tcp(v, ASKER, (Who::Server, 81), SYN));
        assert_eq!(denied.dropped(), Some(DropReason::POLICY));
    }
}

#[test]
fn the_proxy_s_answer_goes_back_through_the_tunnel() {
    for v in FAMILIES {
        let bed = ingress();
        let asker = (Who::Remote, 4000);
        bed.at(Hook::Overlay(REMOTE, Who::OtherNode.v4().into()), OVERLAY_IF, &tcp(v, asker, SITE, SYN));
        let back = Action::Tunnel { identity: SERVER, remote: Who::OtherNode.v4().into() };
        assert_eq!(bed.at(Hook::Host, HOST_IF, &tcp(v, SITE, asker, SYN_ACK)).action(), back);
        // a node itself is reached without tunnel by its address, but it asked through it
        let asker = (Who::OtherNode, 4000);
        let hook = Hook::Overlay(identity::REMOTE_NODE, Who::OtherNode.v4().into());
        assert_eq!(bed.at(hook, OVERLAY_IF, &tcp(v, asker, SITE, SYN)).action(), TO_LISTENER);
        assert_eq!(bed.at(Hook::ToNetdev, UPLINK_IF, &tcp(v, SITE, asker, SYN_ACK)).action(), back);
    }
}

#[test]
fn to_another_node_the_proxy_travels_as_its_client() {
    for v in FAMILIES {
        let mut bed = egress();
        let hook = speaks_for(&mut bed, CLIENT, MARK_FROM_EGRESS);
        let far = (Who::Remote, 80);
        let there = Action::Tunnel { identity: CLIENT, remote: Who::OtherNode.v4().into() };
        assert_eq!(bed.at(hook, HOST_IF, &tcp(v, SPEAKER, far, SYN)).action(), there);
        connect(&mut bed, v, TCP, far, SPEAKER);
        let back = Hook::Overlay(REMOTE, Who::OtherNode.v4().into());
        assert_eq!(bed.at(back, OVERLAY_IF, &tcp(v, far, SPEAKER, SYN_ACK)).action(), TO_SOCKET);
        // and from nobody else
        let other = Hook::Overlay(REMOTE, Who::World.v4().into());
        assert!(bed.at(other, OVERLAY_IF, &tcp(v, far, SPEAKER, ACK)).dropped().is_some());
    }
}

#[test]
fn to_the_world_the_proxy_is_masqueraded_as_its_client_and_gets_the_answer() {
    for v in FAMILIES {
        let mut bed = egress();
        bed.node.proxy_sockets.insert(COOKIE, ProxySocket { client: CLIENT, magic: MARK_FROM_EGRESS });
        let hook = Hook::MarkedToNetdev(proxy::from_proxy(MARK_FROM_EGRESS, CLIENT), COOKIE);
        let web = (Who::World, 80);
        let out = bed.at(hook, UPLINK_IF, &tcp(v, SPEAKER, web, SYN));
        assert_eq!(out.action(), Action::Stack);
        let view = wire::View::new(&out.0.packet).unwrap();
        assert_eq!(view.ip().unwrap().source, Who::Node.ip(v));
        let Some(wire::Layer4::Tcp { source, .. }) = view.layer4() else { panic!("not TCP") };
        connect(&mut bed, v, TCP, web, SPEAKER);
        let answer = Frame::between(Who::World.ip(v), Who::Node.ip(v)).tcp(80, source, SYN_ACK, b"").build();
        assert_eq!(bed.at(Hook::Netdev, UPLINK_IF, &answer).action(), TO_SOCKET);
        assert_eq!(bed.at(hook, UPLINK_IF, &tcp(v, SPEAKER, web, ACK)).action(), Action::Stack);
    }
}

#[test]
fn between_two_pods_of_a_node_both_policies_redirect_one_after_the_other() {
    for v in FAMILIES {
        let mut bed = egress();
        bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().redirect(DIR_INGRESS, TCP, 80));
        assert_eq!(bed.sent_by_client(&tcp(v, ASKER, SITE, SYN)).action(), TO_LISTENER);
        assert_eq!(entry(&bed, v, ASKER, SITE, TCP).backend.get(), CLIENT_EP);
        // from the client's half to the server's: out of the stack and in again
        let hook = speaks_for(&mut bed, CLIENT, MARK_FROM_EGRESS);
        let seen = bed.at(hook, HOST_IF, &tcp(v, SPEAKER, SITE, SYN));
        let mark = proxy::to_proxy(PROXY_PORT);
        assert_eq!(seen.action(), Action::Marked(mark), "{:?}", seen.0.events);
        assert_eq!(bed.at(Hook::ToHost(mark), HOST_IF, &tcp(v, SPEAKER, SITE, SYN)).action(), TO_LISTENER);
        connect(&mut bed, v, TCP, SPEAKER, SITE);
        // back from the server's half to the client's
        connect(&mut bed, v, TCP, SITE, SPEAKER);
        let back = bed.at(Hook::Host, HOST_IF, &tcp(v, SITE, SPEAKER, SYN_ACK));
        assert_eq!(back.action(), Action::Marked(MARK_TO_PROXY));
        let arrives = bed.at(Hook::ToHost(MARK_TO_PROXY), HOST_IF, &tcp(v, SITE, SPEAKER, SYN_ACK));
        assert_eq!(arrives.action(), TO_SOCKET);
        // neither pod speaks there in the proxy's place
        assert_eq!(bed.sent_by_client(&tcp(v, SPEAKER, SITE, ACK)).dropped(), Some(DropReason::UNKNOWN_CT));
        assert_eq!(bed.sent_by_client(&tcp(v, SPEAKER, SITE, SYN)).dropped(), Some(DropReason::UNKNOWN_CT));
        assert_eq!(bed.sent_by_server(&tcp(v, SITE, SPEAKER, ACK)).dropped(), Some(DropReason::UNKNOWN_CT));
    }
}

#[test]
fn a_pod_that_used_the_proxy_s_port_before_does_not_come_to_its_socket() {
    let mut bed = egress();
    bed.policy(SERVER_EP, 2, Verdicts::closed_to_all().redirect(DIR_INGRESS, TCP, 80));
    bed.sent_by_client(&tcp(4, SPEAKER, SITE, SYN));
    let hook = speaks_for(&mut bed, CLIENT, MARK_FROM_EGRESS);
    bed.at(hook, HOST_IF, &tcp(4, SPEAKER, SITE, SYN));
    connect(&mut bed, 4, TCP, SPEAKER, SITE);
    assert_eq!(bed.sent_by_client(&tcp(4, SPEAKER, SITE, ACK)).dropped(), Some(DropReason::UNKNOWN_CT));
}

#[test]
fn the_node_s_own_connection_is_redirected_too_and_so_is_its_answer_to_the_proxy() {
    for v in FAMILIES {
        let mut bed = ingress();
        bed.policy(CLIENT_EP, 1, client_asks());
        let own = (Who::Router, 4000);
        let mark = proxy::to_proxy(PROXY_PORT);
        assert_eq!(bed.at(Hook::Host, HOST_IF, &tcp(v, own, SITE, SYN)).action(), Action::Marked(mark));
        assert_eq!(bed.at(Hook::ToHost(mark), HOST_IF, &tcp(v, own, SITE, SYN)).action(), TO_LISTENER);
        // a client's way to the node: the proxy's half of it passes no program, the answer does
        let service = (Who::Node, 80);
        assert_eq!(bed.sent_by_client(&tcp(v, ASKER, service, SYN)).action(), TO_LISTENER);
        connect(&mut bed, v, TCP, service, SPEAKER);
        let answer = bed.at(Hook::Host, HOST_IF, &tcp(v, service, SPEAKER, SYN_ACK));
        assert_eq!(answer.action(), Action::Marked(MARK_TO_PROXY));
        assert_eq!(answer.traces(), [(TRACE_TO_PROXY, CT_RELATED)]);
    }
}

#[test]
fn names_are_asked_through_the_proxy_datagram_by_datagram() {
    for v in FAMILIES {
        let mut bed = egress();
        let name_server = (Who::Remote, 53);
        for _ in 0..2 {
            assert_eq!(bed.sent_by_client(&udp(v, ASKER, name_server)).action(), TO_LISTENER);
        }
        assert_eq!(bed.at(Hook::Host, HOST_IF, &udp(v, name_server, ASKER)).action(), Action::Device(CLIENT_IF));
        let hook = speaks_for(&mut bed, CLIENT, MARK_FROM_EGRESS);
        let there = Action::Tunnel { identity: CLIENT, remote: Who::OtherNode.v4().into() };
        assert_eq!(bed.at(hook, HOST_IF, &udp(v, SPEAKER, name_server)).action(), there);
        connect(&mut bed, v, UDP, name_server, SPEAKER);
        let back = Hook::Overlay(REMOTE, Who::OtherNode.v4().into());
        assert_eq!(bed.at(back, OVERLAY_IF, &udp(v, name_server, SPEAKER)).action(), TO_SOCKET);
        // without a redirect the next datagram goes its way
        bed.policy(CLIENT_EP, 1, Verdicts::open());
        assert_eq!(bed.sent_by_client(&udp(v, ASKER, name_server)).action(), there);
    }
}

#[test]
fn a_running_connection_that_is_redirected_from_now_on_is_reset_by_the_proxy() {
    for v in FAMILIES {
        let mut bed = bed();
        bed.sent_by_client(&tcp(v, ASKER, SITE, SYN));
        bed.sent_by_server(&tcp(v, SITE, ASKER, SYN_ACK));
        bed.policy(CLIENT_EP, 1, client_asks());
        // nothing comes to the client any more
        assert_eq!(bed.sent_by_server(&tcp(v, SITE, ASKER, ACK)).dropped(), Some(DropReason::UNKNOWN_CT));
        // the listener gets a packet of no connection and resets it
        assert_eq!(bed.sent_by_client(&tcp(v, ASKER, SITE, ACK)).action(), TO_LISTENER);
        let reset = bed.at(Hook::Host, HOST_IF, &tcp(v, SITE, ASKER, crate::packet::RST));
        assert_eq!(reset.action(), Action::Device(CLIENT_IF));
    }
}

#[test]
fn a_redirected_connection_stays_with_the_proxy_that_hears_of_other_rules_and_is_cut_by_a_denial() {
    for v in FAMILIES {
        let mut bed = egress();
        bed.sent_by_client(&tcp(v, ASKER, SITE, SYN));
        connect(&mut bed, v, TCP, ASKER, SITE);
        assert_eq!(bed.sent_by_client(&tcp(v, ASKER, SITE, ACK)).action(), TO_SOCKET);
        let redirects = |bed: &Bed| entry(bed, v, ASKER, SITE, TCP).proxy.get() & abi::conntrack::PROXY_EGRESS != 0;
        assert!(redirects(&bed));
        bed.policy(CLIENT_EP, 1, Verdicts::open());
        assert_eq!(bed.sent_by_client(&tcp(v, ASKER, SITE, ACK)).action(), TO_SOCKET, "never to the server");
        assert!(!redirects(&bed), "the proxy sees that nothing sends it there");
        assert_eq!(entry(&bed, v, ASKER, SITE, TCP).egress_rule_set.get(), 0);
        bed.policy(CLIENT_EP, 1, client_asks());
        assert_eq!(bed.sent_by_client(&tcp(v, ASKER, SITE, ACK)).action(), TO_SOCKET);
        assert!(redirects(&bed));
        bed.policy(CLIENT_EP, 1, Verdicts::silent());
        assert_eq!(bed.sent_by_client(&tcp(v, ASKER, SITE, ACK)).dropped(), Some(DropReason::POLICY));
        assert_eq!(bed.at(Hook::Host, HOST_IF, &tcp(v, SITE, ASKER, ACK)).dropped(), Some(DropReason::POLICY));
    }
}

#[test]
fn errors_about_redirected_packets_go_to_the_proxy_and_not_past_it() {
    for v in FAMILIES {
        let mut bed = egress();
        bed.sent_by_client(&tcp(v, ASKER, SITE, SYN));
        let unreachable = |from: Who, to: Who, quoted: &[u8]| {
            let (kind, code) = if v == 4 { (3, 3) } else { (1, 4) };
            frame(v, from, to).icmp(kind, code, 0, &quoted[14..]).build()
        };
        let quoted = tcp(v, SITE, ASKER, SYN_ACK);
        let complaint = bed.sent_by_client(&unreachable(Who::Client, Who::Server, &quoted));
        assert_eq!(complaint.action(), Action::Marked(MARK_TO_PROXY));
        let hook = speaks_for(&mut bed, CLIENT, MARK_FROM_EGRESS);
        let sent = tcp(v, SPEAKER, SITE, SYN);
        bed.at(hook, HOST_IF, &sent);
        let complaint = bed.sent_by_server(&unreachable(Who::Server, Who::Client, &sent));
        assert_eq!(complaint.action(), Action::Marked(MARK_TO_PROXY));
    }
}

#[test]
fn only_what_has_ports_can_be_redirected() {
    let mut bed = bed();
    bed.policy(CLIENT_EP, 1, Verdicts::silent().redirect(DIR_EGRESS, 1, 8));
    let seen = bed.sent_by_client(&frame(4, Who::Client, Who::Server).echo_request(7).build());
    assert_eq!(seen.dropped(), Some(DropReason::PROXY_UNKNOWN_PROTO));
}
