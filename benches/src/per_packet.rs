//! What does one packet cost in the program itself, and does it grow with policies and addresses?

use anyhow::{Result, bail};
use bpf::{Hook, Sizes, TestInput};
use rand::seq::SliceRandom;

use crate::node::Node;
use crate::packet::{ACK, Family, SYN, SYN_ACK, denied, to_client, to_remote, to_server};
use crate::reference::{Empty, Reference};
use crate::report::{Demand, Figure, Row, whole};
use crate::stats::{median, paired_ratio};
use crate::supervisor::pin;
use crate::topology::Topology;

const NAME: &str = "packet";
/// The packet was sent to another device.
const REDIRECTED: u32 = 7;
/// The packet was dropped.
const SHOT: u32 = 2;
const REPEAT: u32 = 200_000;
/// Each makes two events, and the ring buffer must not run full.
const REPEAT_DENIED: u32 = 20_000;
const FIRST_PACKETS: u16 = 400;
const PORT: u16 = 40_000;

/// Entries of the policies, by slot (from 1).
const POLICIES: [usize; 4] = [10, 1_000, 50_000, 131_000];
/// Addresses in the IP caches, by node.
const ADDRESSES: [u32; 2] = [10, 100_000];
/// Which node and slot are measured; the first is what the others are compared with.
const CASES: [(usize, u32); 5] = [(0, 1), (1, 1), (1, 2), (1, 3), (1, 4)];

/// What is measured in each case.
const KINDS: [&str; 5] = [
    "established packet",
    "established packet to another node",
    "first packet",
    "first packet to another node",
    "denied packet",
];
/// The first two are of established connections, the next two of new ones.
const ESTABLISHED: usize = 2;
const FIRST: usize = 4;

struct Case {
    node: usize,
    slot: u32,
    family: Family,
    /// Nanoseconds by kind and round.
    times: [Vec<f64>; KINDS.len()],
}

impl Case {
    fn new(node: usize, slot: u32, family: Family) -> Case {
        Case { node, slot, family, times: Default::default() }
    }

    fn name(&self, what: &str) -> String {
        let version = if self.family == Family::V4 { 4 } else { 6 };
        let (entries, addresses) = (POLICIES[self.slot as usize - 1], ADDRESSES[self.node]);
        format!("{what}, IPv{version}, {} policy entries, {} addresses", whole(entries as u64), whole(addresses.into()))
    }
}

/// Runs the programs on packets that no device sees.
pub fn measure(reference: Option<&Reference>, rounds: usize) -> Result<Vec<Row>> {
    let topology = Topology::create()?;
    let mut nodes = vec![];
    for (i, addresses) in ADDRESSES.into_iter().enumerate() {
        let mut node = Node::open(&format!("packet-{i}"), Sizes::default(), true, &POLICIES)?;
        node.add_pods(&topology, 1)?;
        node.add_remote()?;
        node.fill_ipcache(addresses)?;
        let reader = node.datapath.events()?;
        nodes.push((node, reader));
    }
    let families = [Family::V4, Family::V6].into_iter();
    let mut cases: Vec<Case> = families.flat_map(|f| CASES.map(|(node, slot)| Case::new(node, slot, f))).collect();
    let empty = reference.map(Reference::empty).transpose()?;
    let mut nothing = vec![];
    topology.node.run(|| -> Result<()> {
        pin()?;
        for _ in 0..rounds {
            nothing.push(empty.as_ref().map_or(Ok(0.0), |e: &Empty| e.nanoseconds(REPEAT))?);
            cases.shuffle(&mut rand::rng());
            for case in &mut cases {
                let (node, reader) = &mut nodes[case.node];
                node.rule(case.slot)?;
                node.datapath.maps().flush_conntrack()?;
                let times = one(node, &topology, case.family)?;
                case.times.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
                // A full ring buffer would make the next packets cheaper.
                reader.drain(usize::MAX, |_| ());
            }
        }
        Ok(())
    })??;
    cases.sort_by_key(|c| (c.family == Family::V6, c.node, c.slot));
    Ok(rows(&cases, &nothing))
}

/// Nanoseconds of each kind of packet, the empty run included.
fn one(node: &Node, topology: &Topology, family: Family) -> Result<[f64; KINDS.len()]> {
    let (client, server) = (topology.client.ifindex, topology.server.ifindex);
    let pass = |packet: &[u8], ifindex, repeat| run(node, &TestInput { packet, ifindex, repeat }, REDIRECTED);
    let single = |packet: &dyn Fn(u16) -> Vec<u8>| -> Result<f64> {
        let each = (0..FIRST_PACKETS).map(|i| pass(&packet(i), client, 1));
        Ok(median(&each.collect::<Result<Vec<_>>>()?))
    };
    let established_and_first = |segment: &dyn Fn(u16, u8) -> Vec<u8>| -> Result<[f64; 2]> {
        let ack = segment(PORT, ACK);
        pass(&ack, client, 1)?;
        let established = pass(&ack, client, REPEAT)?;
        // A packet can be the first only once. What a run of one costs above a run of many is the same for both kinds.
        let known = single(&|_| ack.clone())?;
        let first = single(&|i| segment(PORT + 1 + i, SYN))?;
        Ok([established, first - known + established])
    };
    pass(&to_server(topology, family, PORT, SYN), client, 1)?;
    pass(&to_client(topology, family, PORT, SYN_ACK), server, 1)?;
    let [established, first] = established_and_first(&|port, flags| to_server(topology, family, port, flags))?;
    pass(&to_remote(topology, family, PORT, SYN), client, 1)?;
    let [remote, first_remote] = established_and_first(&|port, flags| to_remote(topology, family, port, flags))?;
    let refused = denied(topology, family, PORT);
    let refused = TestInput { packet: &refused, ifindex: client, repeat: REPEAT_DENIED };
    Ok([established, remote, first, first_remote, run(node, &refused, SHOT)?])
}

fn run(node: &Node, input: &TestInput<'_>, expected: u32) -> Result<f64> {
    let output = node.datapath.test_run(Hook::FromContainer, input)?;
    if output.action != expected {
        bail!("the program returned {} where the policy wants {expected}", output.action);
    }
    Ok(f64::from(output.nanoseconds))
}

fn rows(cases: &[Case], nothing: &[f64]) -> Vec<Row> {
    let empty = median(nothing);
    let net = |values: &[f64]| values.iter().map(|v| v - empty).collect::<Vec<_>>();
    let mut rows = vec![Row::of(NAME, "the empty program (subtracted below)", nothing, "ns")];
    for family in cases.chunks(CASES.len()) {
        for (kind, what) in KINDS.into_iter().enumerate() {
            let base = net(&family[0].times[kind]);
            rows.push(promised(kind, Row::of(NAME, family[0].name(what), &base, "ns")));
            for case in &family[1..] {
                let values = net(&case.times[kind]);
                let ratio = Figure::Ratio(paired_ratio(&values, &base));
                let row = Row::of(NAME, case.name(what), &values, "ns").against("10 and 10", median(&base), ratio);
                rows.push(if kind < ESTABLISHED { row.goal(2, Demand::AtMost(1.10)) } else { row });
            }
        }
    }
    rows
}

fn promised(kind: usize, row: Row) -> Row {
    match kind {
        _ if kind < ESTABLISHED => row.goal(1, Demand::AtMost(170.0)),
        _ if kind < FIRST => row.goal(1, Demand::AtMost(445.0)),
        _ => row,
    }
}
