//! What does it cost to tell the datapath of a change: an identity, an endpoint, a policy?

use std::time::Instant;

use abi::endpoint::{EndpointPolicy, MODE_EGRESS, MODE_INGRESS};
use abi::identity::Identity;
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use anyhow::Result;
use bpf::{Hook, Sizes};

use crate::node::{Node, address4, address6, small};
use crate::policies::{FIRST_PEER, tables};
use crate::report::{Demand, Figure, Row, whole};
use crate::stats::{median, paired_ratio};
use crate::supervisor::pin;
use crate::topology::{Pod, Topology, add_pod};

/// The class that new identities belong to.
const CLASS: u32 = 1;
const SLOT: u32 = 1;
/// Pods that come and go in one slice.
const CHURN: u32 = 200;

/// One identity with its pod's two addresses comes, and goes: µs of map calls, with few and with many others there.
pub fn identity(rounds: usize) -> Result<Vec<Row>> {
    const KNOWN: [u32; 2] = [1_000, 1_000_000];
    let mut times = [vec![], vec![]];
    let mut nodes = vec![];
    for known in KNOWN {
        let sizes = Sizes { ipcache: known + 2 * CHURN, ..small() };
        let node = Node::open(&format!("identity-{known}"), sizes, false, &[])?;
        node.fill_ipcache(known)?;
        let classes: Vec<(Identity, u32)> = (0..known).map(|i| (FIRST_PEER + i, CLASS)).collect();
        node.datapath.maps().policy.create(SLOT, &classes, &tables(10, &[]).verdicts)?;
        nodes.push((node, known));
    }
    pin_after(|| {
        for _ in 0..rounds {
            for ((node, known), times) in nodes.iter().zip(&mut times) {
                let start = Instant::now();
                (0..CHURN).try_for_each(|i| come_and_go(node, known + i))?;
                times.push(start.elapsed().as_nanos() as f64 / 1000.0 / f64::from(CHURN));
            }
        }
        Ok(())
    })?;
    let [few, many] = times;
    let grown = Figure::Ratio(paired_ratio(&many, &few));
    Ok(vec![
        Row::of("identity", "one pod comes and goes, 1,000 identities known", &few, "µs")
            .goal(10, Demand::AtMost(20.0)),
        Row::of("identity", "the same, 1,000,000 identities known", &many, "µs")
            .against("1,000", median(&few), grown)
            .goal(10, Demand::AtMost(1.2)),
    ])
}

fn come_and_go(node: &Node, i: u32) -> Result<()> {
    let (maps, identity) = (node.datapath.maps(), FIRST_PEER + i);
    maps.policy.class_set(SLOT, identity, CLASS)?;
    let remote = RemoteEndpoint { identity, ..RemoteEndpoint::default() };
    node.set_address(address4(i).into(), address6(i).into(), remote)?;
    maps.ipcache4.remove(&IpcacheKey { prefix_len: 32, addr: address4(i) })?;
    maps.ipcache6.remove(&IpcacheKey { prefix_len: 128, addr: address6(i) })?;
    node.datapath.bump_ipcache_generation()?;
    maps.policy.class_remove(SLOT, identity)?;
    Ok(())
}

/// A pod's device gets its programs, and the maps their entries, its policy included.
pub fn bring_up() -> Result<Vec<Row>> {
    const PODS: u8 = 21;
    let topology = Topology::create()?;
    let pods = (3..3 + PODS).map(|n| add_pod(&topology.node, n)).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let node = Node::open("bring-up", Sizes::default(), true, &[])?;
    let loaded = millis(start);
    let mut times: [Vec<f64>; 4] = Default::default();
    topology.node.run(|| -> Result<()> {
        pin()?;
        for (endpoint, pod) in (1..).zip(&pods) {
            let parts = up(&node, pod, endpoint)?;
            let sum = parts.iter().sum();
            times.iter_mut().zip([sum].into_iter().chain(parts)).for_each(|(all, time)| all.push(time));
        }
        Ok(())
    })??;
    let verified = Hook::ALL.iter().filter_map(|h| node.datapath.verified_instructions(*h)).sum::<u32>();
    let [sum, policy, maps, attached] = &times;
    let row = |what, times: &[f64]| Row::of("bringup", what, times, "ms");
    Ok(vec![
        row("endpoint: a policy of 100 entries, other maps, program attached", sum).goal(16, Demand::AtMost(10.0)),
        row("of that, the policy", policy),
        row("of that, the other maps", maps),
        row("of that, the program", attached),
        Row::new("bringup", "node: all programs verified and loaded, all maps made (once)", loaded, "ms"),
        Row::new("bringup", "instructions that the verifier walked through for that", verified.into(), ""),
    ])
}

/// Milliseconds for policy, other maps and program.
fn up(node: &Node, pod: &Pod, endpoint: u32) -> Result<[f64; 3]> {
    let (maps, policy) = (node.datapath.maps(), tables(100, &[]));
    let start = Instant::now();
    maps.policy.create(endpoint, &policy.classes, &policy.verdicts)?;
    let policy = millis(start);
    let start = Instant::now();
    let rules = EndpointPolicy { slot: endpoint, revision_and_modes: 1 | MODE_INGRESS | MODE_EGRESS };
    maps.ep_policy.insert(&endpoint, &rules)?;
    node.add_endpoint(pod, endpoint)?;
    let other = millis(start);
    let start = Instant::now();
    node.datapath.attach_container(pod.ifindex)?;
    Ok([policy, other, millis(start)])
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_nanos() as f64 / 1e6
}

/// A policy is built aside and put into its slot.
pub fn slots(rounds: usize) -> Result<Vec<Row>> {
    let node = Node::open("slots", small(), false, &[])?;
    let mut rows = vec![];
    for entries in [10, 1_000, 50_000] {
        let policy = tables(entries, &[]);
        let mut times = vec![];
        pin_after(|| {
            for _ in 0..rounds {
                let start = Instant::now();
                node.datapath.maps().policy.create(SLOT, &policy.classes, &policy.verdicts)?;
                times.push(start.elapsed().as_nanos() as f64 / 1000.0);
            }
            Ok(())
        })?;
        rows.push(Row::of(
            "slots",
            format!("policy of {} entries built and switched", whole(entries as u64)),
            &times,
            "µs",
        ));
    }
    Ok(rows)
}

/// On a thread that is bound to the processor of the measurements.
pub fn pin_after<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || pin().and_then(|()| work());
    std::thread::scope(|scope| scope.spawn(pinned).join()).map_err(|_| anyhow::anyhow!("the measurement panicked"))?
}
