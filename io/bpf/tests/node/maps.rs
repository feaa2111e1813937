//! Full tables, large tables, tables of policies.

use crate::bed::*;
use abi::policy::{CLASS_OTHERS, PREFIX_FULL, VerdictEntry, VerdictKey};
use abi::{Port, V4};
use bpf::{Datapath, Options};
use std::time::Duration;

#[test]
fn a_full_table_of_connections_takes_new_ones_and_stays_within_policy() {
    let (node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed().allow(wire::UDP, 53));
    let raw = client.raw();
    for port in 1000..9000u16 {
        raw.send(&client.frame(4, &server).udp(port, 53, b"x").build());
    }
    let sink = server.raw();
    let last = client.frame(4, &server).udp(9001, 53, b"last").build();
    raw.send(&last);
    assert!(sink.receive(|frame| frame.ends_with(b"last")).is_some());
    raw.send(&client.frame(4, &server).udp(9001, 54, b"forbidden").build());
    assert!(sink.receive_within(Duration::from_millis(200), |frame| frame.ends_with(b"forbidden")).is_none());
    let ct = &node.datapath.maps().ct4;
    let connections = ct.entries().unwrap().len();
    assert!((1000..=4096).contains(&connections), "{connections}");
    let far = Duration::from_secs(1 << 31);
    assert_eq!(node.datapath.maps().sweep_conntrack(far, &mut |_, _| {}).unwrap().map(|one| one.alive), [0, 0]);
    assert!(ct.entries().unwrap().is_empty());
}

#[test]
fn a_policy_that_is_too_large_is_refused_and_the_old_one_rules_on() {
    let (node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed().allow(wire::UDP, 53));
    let small = Options { sizes: bpf::Sizes { policy_entries: 100, ..sizes() }, ..node.options(attachment()) };
    let datapath = Datapath::open(&small).unwrap();
    let key = |port| VerdictKey { prefix_len: PREFIX_FULL, class: 0, direction: 0, protocol: 6, port: Port::new(port) };
    let many: Vec<_> = (0..101).map(|port| (key(port), VerdictEntry::default())).collect();
    let slot = server.endpoint.id * 2;
    let error = datapath.maps().policy.create(slot, &[], &many).unwrap_err().to_string();
    assert!(error.contains("cilium_policy_verdicts") && error.contains("100"), "{error}");
    let sink = server.raw();
    client.raw().send(&client.frame(4, &server).udp(1, 53, b"as before").build());
    assert!(sink.receive(|frame| frame.ends_with(b"as before")).is_some());
}

#[test]
fn a_class_grows_beyond_the_table_it_began_with() {
    let (node, _client, _server) = two_pods();
    let policy = &node.datapath.maps().policy;
    policy.create(50, &[(1, 1)], &Verdicts::open().verdicts).unwrap();
    for identity in 2..1000 {
        policy.class_set(50, identity, identity % 7).unwrap();
    }
    let mut classes = policy.dump(50).unwrap().unwrap().classes;
    classes.sort_unstable();
    assert_eq!(classes.len(), 999);
    assert!(classes.iter().skip(1).all(|(identity, class)| *class == identity % 7));
    assert!(policy.class_remove(50, 999).unwrap());
    assert!(!policy.class_remove(50, 999).unwrap());
    policy.free(50).unwrap();
    assert!(policy.dump(50).unwrap().is_none());
    assert!(policy.class_set(50, 1, 1).unwrap_err().to_string().contains("slot 50"));
}

#[test]
fn slot_0_denies_all() {
    let (node, _client, _server) = two_pods();
    let dump = node.datapath.maps().policy.dump(0).unwrap().unwrap();
    assert_eq!(dump.verdicts.len(), 2);
    assert!(dump.verdicts.iter().all(|(k, v)| k.class == CLASS_OTHERS && v.entry.verdict == 0));
}

#[test]
fn large_tables_are_written_and_read_whole() {
    let (node, _client, _server) = two_pods();
    let maps = node.datapath.maps();
    let backend = |i: u32| abi::service::Backend { addr: V4(i), port: Port::new(80), protocol: 6, pad: 0 };
    let all: Vec<_> = (0..1000).map(|i| (i, backend(i))).collect();
    maps.backends4.insert_all(&all).unwrap();
    let mut read = maps.backends4.entries().unwrap();
    read.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(read, all);
    let too_many: Vec<_> = (0..2000).map(|i| (i, backend(i))).collect();
    let error = maps.backends4.insert_all(&too_many).unwrap_err().to_string();
    assert!(error.contains("cilium_lb4_backends"), "{error}");
    maps.backends4.clear().unwrap();
    assert!(maps.backends4.entries().unwrap().is_empty());
}

#[test]
fn prefixes_are_listed() {
    let (node, client, _server) = two_pods();
    let entries = node.datapath.maps().ipcache4.entries().unwrap();
    assert!(entries.iter().any(|(k, v)| k.addr == client.v4.into() && k.prefix_len == 32 && v.identity == CLIENT));
    assert!(entries.iter().any(|(k, _)| k.prefix_len == 0));
}
