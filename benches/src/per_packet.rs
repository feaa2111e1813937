//! What does one packet cost in the program itself, and does it grow with policies and addresses?

use anyhow::{Result, bail};
use bpf::{Hook, Sizes, TestInput};
use rand::seq::SliceRandom;

use crate::node::Node;
use crate::packet::{ACK, Family, SYN, SYN_ACK, denied, to_client, to_server};
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

struct Case {
    node: usize,
    slot: u32,
    family: Family,
    established: Vec<f64>,
    first: Vec<f64>,
    denied: Vec<f64>,
}

impl Case {
    fn new(node: usize, slot: u32, family: Family) -> Case {
        Case { node, slot, family, established: vec![], first: vec![], denied: vec![] }
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
        node.fill_ipcache(addresses)?;
        let reader = node.datapath.events()?;
        nodes.push((node, reader));
    }
    let mut cases: Vec<Case> = [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| CASES.map(|(node, slot)| Case::new(node, slot, family)))
        .collect();
    let empty = reference.map(Reference::empty).transpose()?;
    let mut nothing = vec![];
    topology.node.run(|| -> Result<()> {
        pin()?;
        for _ in 0..rounds {
            nothing.push(empty.as_ref().map_or(Ok(0.0), |e: &Empty| e.nanoseconds(REPEAT))?);
            cases.shuffle(&mut rand::rng());
            for case in &mut cases {
                let (node, reader) = &mut nodes[case.node];
                one(node, &topology, case)?;
                // A full ring buffer would make the next packets cheaper.
                reader.drain(usize::MAX, |_| ());
            }
        }
        Ok(())
    })??;
    cases.sort_by_key(|c| (c.family == Family::V6, c.node, c.slot));
    Ok(rows(&cases, &nothing))
}

/// Measures one case once; the empty run is included.
fn one(node: &mut Node, topology: &Topology, case: &mut Case) -> Result<()> {
    node.rule(case.slot)?;
    node.datapath.maps().flush_conntrack()?;
    let (client, server, family) = (topology.client.ifindex, topology.server.ifindex, case.family);
    let pass = |packet: &[u8], ifindex, repeat| run(node, &TestInput { packet, ifindex, repeat }, REDIRECTED);
    pass(&to_server(topology, family, PORT, SYN), client, 1)?;
    pass(&to_client(topology, family, PORT, SYN_ACK), server, 1)?;
    let ack = to_server(topology, family, PORT, ACK);
    pass(&ack, client, 1)?;
    let established = pass(&ack, client, REPEAT)?;
    let single = |packet: &dyn Fn(u16) -> Vec<u8>| -> Result<f64> {
        let each = (0..FIRST_PACKETS).map(|i| pass(&packet(i), client, 1));
        Ok(median(&each.collect::<Result<Vec<_>>>()?))
    };
    // A packet can be the first only once. What a run of one costs above a run of many is the same for both kinds.
    let known = single(&|_| ack.clone())?;
    let first = single(&|i| to_server(topology, family, PORT + 1 + i, SYN))?;
    let refused = denied(topology, family, PORT);
    let refused = TestInput { packet: &refused, ifindex: client, repeat: REPEAT_DENIED };
    case.denied.push(run(node, &refused, SHOT)?);
    case.established.push(established);
    case.first.push(first - known + established);
    Ok(())
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
        let base = &family[0];
        for (i, case) in family.iter().enumerate() {
            let row = |what: &str, values: &[f64], base: &[f64]| {
                let (values, base) = (net(values), net(base));
                let row = Row::of(NAME, case.name(what), &values, "ns");
                let ratio = Figure::Ratio(paired_ratio(&values, &base));
                if i == 0 { row } else { row.against("10 and 10", median(&base), ratio) }
            };
            let established = row("established packet", &case.established, &base.established);
            let first = row("first packet", &case.first, &base.first);
            rows.extend(match i {
                0 => [established.goal(1, Demand::AtMost(170.0)), first.goal(1, Demand::AtMost(445.0))],
                _ => [established.goal(2, Demand::AtMost(1.10)), first],
            });
            rows.push(row("denied packet", &case.denied, &base.denied));
        }
    }
    rows
}
