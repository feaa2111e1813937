//! What do the loaded programs do with broken packets, full tables and policies that are not there? Needs root.
#![allow(clippy::unwrap_used)]

use abi::endpoint::{EndpointPolicy, FLAG_HOST, MODE_EGRESS, MODE_INGRESS};
use abi::event::{DIR_UNKNOWN, Event, KIND_DROP};
use abi::policy::{DIR_EGRESS, DIR_INGRESS, PREFIX_ANY_PROTOCOL, PREFIX_FULL, VERDICT_ALLOW, VerdictEntry, VerdictKey};
use abi::{DropReason, Port, config};
use bpf::Hook;
use parity::kernel::{Kernel, Real};
use parity::packets::{random_bytes, shortest};
use parity::state::{CLIENT_IF, State, Who};
use pipeline::native::Policy;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use wire::{Frame, TCP, UDP};

const DROPPED: u32 = 2;

/// A node whose pods may send everything; the server takes UDP 53 only.
fn node() -> State {
    let mut state = State::random(&mut StdRng::seed_from_u64(1));
    state.config.flags = config::FLAG_IPV4
        | config::FLAG_IPV6
        | config::FLAG_MASQUERADE
        | config::FLAG_POLICY_VERDICT_EVENTS
        | config::FLAG_DROP_EVENTS
        | config::FLAG_TRACE_EVENTS;
    for (_, endpoint) in &mut state.endpoints {
        endpoint.flags &= FLAG_HOST;
        // the kernel's test runs need an interface that exists
        endpoint.ifindex = if endpoint.id == 0 { 0 } else { CLIENT_IF };
    }
    let key = |direction, prefix_len, protocol, port| VerdictKey {
        prefix_len,
        class: 0,
        direction,
        protocol,
        port: Port::new(port),
    };
    let allow = VerdictEntry { verdict: VERDICT_ALLOW, ..VerdictEntry::default() };
    let base = |direction, entry| (key(direction, PREFIX_ANY_PROTOCOL, 0, 0), entry);
    let egress = base(DIR_EGRESS, allow);
    let closed = base(DIR_INGRESS, VerdictEntry::default());
    let dns = (key(DIR_INGRESS, PREFIX_FULL, UDP, 53), allow);
    for ((_, policy, tables), verdicts) in
        state.policies.iter_mut().zip([vec![egress, closed], vec![egress, closed, dns]])
    {
        policy.revision_and_modes = 1 | MODE_INGRESS | MODE_EGRESS;
        *tables = Policy::new(Default::default(), verdicts);
    }
    state
}

fn between(version: u8, from: Who, to: Who) -> Frame {
    Frame::between(from.ip(version), to.ip(version))
}

fn udp(from: Who, to: Who, own_port: u16, port: u16) -> Vec<u8> {
    between(4, from, to).udp(own_port, port, b"?").build()
}

fn reason(real: &Real) -> Option<DropReason> {
    real.events.iter().find(|event| event.kind == KIND_DROP).map(|event| DropReason(event.code))
}

/// Packets of every kind, whole and cut off at every byte, and as many that say nothing.
fn broken() -> Vec<Vec<u8>> {
    let mut whole = Vec::new();
    for v in [4, 6] {
        let to = |to| between(v, Who::Client, to);
        whole.push(to(Who::Server).tcp(4000, 80, 2, b"data").build());
        whole.push(to(Who::Server).udp(4000, 53, b"data").build());
        whole.push(to(Who::Remote).echo_request(7).build());
        whole.push(to(Who::Vip).tcp(4000, 80, 2, b"data").build());
        whole.push(to(Who::World).raw(wire::SCTP, &[0x33; 24]).build());
        whole.push(to(Who::Server).icmp(if v == 4 { 3 } else { 1 }, 1, 0, &[0x45; 60]).build());
        whole.extend(to(Who::Server).udp(4000, 53, &[7; 64]).fragments(1, 32));
    }
    whole.push(between(4, Who::Client, Who::Server).options(&[1, 1, 1]).tcp(1, 2, 2, b"").build());
    let chain = between(6, Who::Client, Who::Server).extension(60, &[1, 4]).extension(0, &[1, 4]);
    whole.push(chain.extension(43, &[1; 20]).tcp(1, 2, 2, b"").build());
    let mut all = Vec::new();
    for packet in &whole {
        all.extend((shortest(packet)..=packet.len()).map(|length| packet[..length].to_vec()));
    }
    let mut rng = StdRng::seed_from_u64(99);
    all.extend((0..2000).map(|_| {
        let mut bytes = random_bytes(&mut rng);
        bytes.resize(bytes.len().max(shortest(&bytes)), 0);
        bytes
    }));
    all
}

#[test]
fn broken_packets_at_every_program_are_dropped_with_a_reason_and_counted_once() {
    let (kernel, state) = (Kernel::open().unwrap(), node());
    for hook in Hook::ALL {
        kernel.apply(&state.tables()).unwrap();
        let (mut told, mut passed, mut sent) = (BTreeMap::new(), 0, 0);
        for packet in broken() {
            let real = kernel.send(hook, &packet).unwrap();
            let drops: Vec<&Event> = real.events.iter().filter(|event| event.kind == KIND_DROP).collect();
            assert_eq!(drops.len(), usize::from(real.action == DROPPED), "{hook:?} {packet:02x?} {real:#?}");
            for drop in drops {
                let direction = if drop.direction == DIR_UNKNOWN { 0 } else { drop.direction + 1 };
                *told.entry((drop.code, direction)).or_insert(0) += 1;
            }
            sent += 1;
            passed += u64::from(real.action != DROPPED);
        }
        let counted = kernel.counted().unwrap();
        let drops: BTreeMap<_, u64> = counted.iter().copied().filter(|((reason, _), _)| *reason != 0).collect();
        assert_eq!(drops, told, "{hook:?}");
        assert!(
            told.len() > 1 || [Hook::ToNetdev, Hook::FromNetdev, Hook::ToHost].contains(&hook),
            "{hook:?}: {told:?}"
        );
        let forwarded: u64 = counted.iter().filter(|((reason, _), _)| *reason == 0).map(|(_, count)| *count).sum();
        if hook == Hook::FromContainer {
            // answers to ARP and neighbour solicitations are the program's own, everything else of a pod is counted
            assert!(forwarded + 20 >= passed && forwarded <= passed, "{forwarded} of {passed}");
        }
        assert_eq!(passed + told.values().sum::<u64>(), sent, "{hook:?}");
    }
}

#[test]
fn a_full_table_of_connections_never_widens() {
    let (kernel, state) = (Kernel::sized(512).unwrap(), node());
    kernel.apply(&state.tables()).unwrap();
    for number in 0..5_000u16 {
        let own_port = 10_000 + number;
        let allowed = kernel.send(Hook::FromContainer, &udp(Who::Client, Who::Server, own_port, 53)).unwrap();
        assert_ne!(allowed.action, DROPPED, "{:?}", reason(&allowed));
        let denied = kernel.send(Hook::FromContainer, &udp(Who::Client, Who::Server, own_port, 54)).unwrap();
        assert_eq!((denied.action, reason(&denied)), (DROPPED, Some(DropReason::POLICY)));
    }
    let entries = kernel.maps().ct4.entries().unwrap();
    assert!(entries.len() <= 512);
    // which ones had to go depends on the processors that the test ran on
    let kept: BTreeSet<u16> = entries.iter().flat_map(|(key, _)| [key.port_a.number(), key.port_b.number()]).collect();
    let gone = (10_000..15_000).find(|port| !kept.contains(port)).unwrap();
    let newest = (10_000..15_000).rev().find(|port| kept.contains(port)).unwrap();
    // the answer to a connection that had to make room is judged as what it is now: a new one, which nothing allows
    let late = kernel.send(Hook::FromContainer, &udp(Who::Server, Who::Client, 53, gone)).unwrap();
    assert_eq!((late.action, reason(&late)), (DROPPED, Some(DropReason::POLICY)));
    let fresh = kernel.send(Hook::FromContainer, &udp(Who::Server, Who::Client, 53, newest)).unwrap();
    assert_ne!(fresh.action, DROPPED);
    let counted: BTreeMap<_, _> = kernel.counted().unwrap().into_iter().collect();
    assert_eq!(counted[&(DropReason::POLICY.0, DIR_INGRESS + 1)], 5_001);
    assert_eq!(counted[&(0, DIR_INGRESS + 1)], 5_001);
}

#[test]
fn ports_for_masquerading_that_ran_out_drop_with_a_reason() {
    let (kernel, mut state) = (Kernel::open().unwrap(), node());
    (state.config.nat_min_port, state.config.nat_max_port) = (50_000, 50_003);
    (state.config.native_cidr4_len, state.config.native_cidr6_len) = (0, 0);
    kernel.apply(&state.tables()).unwrap();
    let mut refused = 0;
    for port in 1..100 {
        let real = kernel.send(Hook::ToNetdev, &udp(Who::Client, Who::World, port, 443)).unwrap();
        match reason(&real) {
            Some(why) => {
                assert_eq!((why, real.action), (DropReason::NAT_NO_MAPPING, DROPPED));
                refused += 1;
            }
            None => assert_ne!(real.action, DROPPED),
        }
    }
    assert!(refused >= 95, "four ports are there: {refused}");
    let counted: BTreeMap<_, _> = kernel.counted().unwrap().into_iter().collect();
    assert_eq!(counted[&(DropReason::NAT_NO_MAPPING.0, DIR_EGRESS + 1)], refused);
}

#[test]
fn a_policy_that_is_not_there_lets_nothing_pass() {
    let (kernel, state) = (Kernel::open().unwrap(), node());
    let tables = state.tables();
    kernel.apply(&tables).unwrap();
    let packet = |port| udp(Who::Client, Who::Server, port, 53);
    let server = tables.policies[1].0;
    assert_ne!(kernel.send(Hook::FromContainer, &packet(1)).unwrap().action, DROPPED);
    // a slot that was never written, one beyond the last, and the one that denies all
    for (port, slot) in [(2, 100), (3, 5_000), (4, 0)] {
        let policy = EndpointPolicy { slot, revision_and_modes: 2 | MODE_INGRESS };
        kernel.maps().ep_policy.insert(&server, &policy).unwrap();
        for own_port in [1, port] {
            let real = kernel.send(Hook::FromContainer, &packet(own_port)).unwrap();
            assert_eq!((real.action, reason(&real)), (DROPPED, Some(DropReason::POLICY)), "slot {slot}");
        }
    }
    let counted: BTreeMap<_, _> = kernel.counted().unwrap().into_iter().collect();
    assert_eq!(counted[&(DropReason::POLICY.0, DIR_INGRESS + 1)], 6);
}

#[test]
fn a_policy_too_large_for_its_table_changes_nothing() {
    let (kernel, state) = (Kernel::open().unwrap(), node());
    let tables = state.tables();
    kernel.apply(&tables).unwrap();
    let allow = VerdictEntry { verdict: VERDICT_ALLOW, ..VerdictEntry::default() };
    let key = |number: u32| VerdictKey {
        prefix_len: PREFIX_FULL,
        class: number >> 16,
        direction: DIR_INGRESS,
        protocol: TCP,
        port: Port(number as u16),
    };
    let many: Vec<_> = (0..200_000).map(|number| (key(number), allow)).collect();
    let slot = tables.policies[1].1.slot;
    assert!(kernel.maps().policy.create(slot, &[], &many).is_err());
    let tcp = between(4, Who::Client, Who::Server).tcp(4000, 80, 2, b"").build();
    assert_eq!(kernel.send(Hook::FromContainer, &tcp).unwrap().action, DROPPED);
    assert_ne!(kernel.send(Hook::FromContainer, &udp(Who::Client, Who::Server, 9, 53)).unwrap().action, DROPPED);
}
