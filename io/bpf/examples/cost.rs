//! How many nanoseconds does a packet cost, beyond an empty program? For each kind of packet, on a node of its own.

use std::path::PathBuf;

use abi::config::{FLAG_IPV4, FLAG_IPV6, NodeConfig};
use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::identity;
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use abi::policy::{PREFIX_ANY_PROTOCOL, VERDICT_ALLOW, VerdictEntry, VerdictKey};
use abi::{Port, V4, V6};
use bpf::{Datapath, Hook, Options, TestInput};
use wire::Frame;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The loopback stands for the pod's device; in the kernel's test runs there is no other.
const DEVICE: u32 = 1;

fn main() -> Result<()> {
    let pins = std::env::args().nth(1).map(PathBuf::from).ok_or("usage: cost FOLDER-IN-A-BPF-FILE-SYSTEM")?;
    let datapath = Datapath::open(&Options::new(pins))?;
    prepare(&datapath)?;
    for version in [4, 6] {
        for (name, to) in [("pod of this node", 12), ("the world", 99)] {
            let frame = packet(version, to);
            measure(&datapath, &format!("IPv{version} established, to {name}"), &frame)?;
        }
    }
    policies(&datapath)
}

/// What a policy costs that is put into a slot, and one whose slot is given back.
fn policies(datapath: &Datapath) -> Result<()> {
    let slot = datapath.maps().policy.dump(1)?.unwrap_or_default();
    let verdicts: Vec<_> = slot.verdicts.iter().map(|(key, counted)| (*key, counted.entry)).collect();
    let classes: Vec<(u32, u32)> = (1000..1100).map(|identity| (identity, identity)).collect();
    let policy = &datapath.maps().policy;
    for slot in 2..6 {
        let started = std::time::Instant::now();
        policy.create(slot, &classes, &verdicts)?;
        let created = started.elapsed();
        policy.free(slot)?;
        println!(
            "policy of {} classes: put into a slot {created:?}, given back {:?}",
            classes.len(),
            started.elapsed() - created
        );
    }
    Ok(())
}

fn measure(datapath: &Datapath, name: &str, packet: &[u8]) -> Result<()> {
    let mut best = u32::MAX;
    for _ in 0..7 {
        let input = TestInput { packet, ifindex: DEVICE, repeat: 200_000 };
        best = best.min(datapath.test_run(Hook::FromContainer, &input)?.nanoseconds);
    }
    println!("{name}: {best} ns, an empty program included");
    Ok(())
}

fn address(version: u8, number: u8) -> std::net::IpAddr {
    if version == 4 { [10, 0, 0, number].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)].into() }
}

fn packet(version: u8, to: u8) -> Vec<u8> {
    Frame::between(address(version, 11), address(version, to)).tcp(4000, 80, 16, b"some data").build()
}

fn prepare(datapath: &Datapath) -> Result<()> {
    let maps = datapath.maps();
    datapath.set_config(&NodeConfig {
        flags: FLAG_IPV4 | FLAG_IPV6,
        monitor_aggregation: 3,
        ..NodeConfig::default()
    })?;
    for (number, identity) in [(11u8, 1001), (12, 1002)] {
        let id = u32::from(number);
        let endpoint = Endpoint { ifindex: DEVICE, id, identity, ..Endpoint::default() };
        let (std::net::IpAddr::V4(v4), std::net::IpAddr::V6(v6)) = (address(4, number), address(6, number)) else {
            return Err("addresses of both families".into());
        };
        maps.lxc4.insert(&v4.into(), &endpoint)?;
        maps.lxc6.insert(&v6.into(), &endpoint)?;
        maps.ep_policy.insert(&id, &EndpointPolicy { slot: 1, revision_and_modes: 1 })?;
    }
    let allow = VerdictEntry { verdict: VERDICT_ALLOW, ..VerdictEntry::default() };
    let base = |direction| {
        let key = VerdictKey { prefix_len: PREFIX_ANY_PROTOCOL, class: 0, direction, protocol: 0, port: Port(0) };
        (key, allow)
    };
    maps.policy.create(1, &[], &[base(0), base(1)])?;
    let world = RemoteEndpoint { identity: identity::WORLD, ..RemoteEndpoint::default() };
    maps.ipcache4.insert(&IpcacheKey { prefix_len: 0, addr: V4(0) }, &world)?;
    maps.ipcache6.insert(&IpcacheKey { prefix_len: 0, addr: V6([0; 4]) }, &world)?;
    Ok(())
}
