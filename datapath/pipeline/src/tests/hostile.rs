//! Any bytes at every hook: no panic, and what is dropped at a pod's hook has a reason and is counted.

use super::bed::*;
use crate::native::{Action, Hook};
use abi::event::KIND_DROP;
use proptest::prelude::*;
use std::vec::Vec;

fn hook() -> impl Strategy<Value = (Hook, u32)> {
    prop_oneof![
        Just((Hook::Container, CLIENT_IF)),
        (any::<u32>()).prop_map(|id| (Hook::Overlay(id & 0xff_ffff, Who::OtherNode.v4().into()), OVERLAY_IF)),
        Just((Hook::Host, HOST_IF)),
        Just((Hook::Netdev, UPLINK_IF)),
        Just((Hook::ToNetdev, UPLINK_IF)),
    ]
}

/// A right packet, shortened and with bytes changed.
fn spoiled() -> impl Strategy<Value = Vec<u8>> {
    let who = || prop::sample::select(&[Who::Client, Who::Server, Who::Remote, Who::World, Who::Vip, Who::Node][..]);
    let kind = 0..5u8;
    let changes = prop::collection::vec((14usize..120, any::<u8>()), 0..4);
    (prop::sample::select(&FAMILIES[..]), who(), who(), kind, 14usize..160, changes).prop_map(
        |(version, from, to, kind, length, changes)| {
            let frame = frame(version, from, to);
            let mut bytes = match kind {
                0 => frame.tcp(4000, 80, SYN, &[0; 60]).build(),
                1 => frame.udp(4000, 53, &[0; 60]).build(),
                2 => frame.echo_request(9).build(),
                3 => frame.extension(60, &[1, 4]).tcp(4000, 80, ACK, &[0; 60]).build(),
                _ => frame.icmp(if version == 4 { 3 } else { 1 }, 1, 0, &[0x45; 60]).build(),
            };
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(length);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn spoiled_packets_are_judged_without_panic((hook, ifindex) in hook(), packets in prop::collection::vec(spoiled(), 1..6)) {
        let bed = Bed::open();
        for packet in packets {
            let before = dropped_so_far(&bed);
            let seen = bed.at(hook, ifindex, &packet);
            let drops = seen.kind(KIND_DROP).count() as u64;
            prop_assert_eq!(dropped_so_far(&bed) - before, drops, "counted as told");
            prop_assert!(drops <= 1);
            if drops == 1 {
                prop_assert_eq!(seen.action(), Action::Dropped);
            }
        }
    }

    #[test]
    fn random_bytes_are_judged_without_panic((hook, ifindex) in hook(), packet in prop::collection::vec(any::<u8>(), 0..120)) {
        Bed::open().at(hook, ifindex, &packet);
    }
}

fn dropped_so_far(bed: &Bed) -> u64 {
    (0..3u8)
        .flat_map(|direction| (1..=255u8).map(move |reason| (reason, direction)))
        .map(|(r, d)| bed.node.counted(r, d))
        .sum()
}
