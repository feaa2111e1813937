//! What does one packet cost in the program itself, and does it grow with policies and addresses?

use anyhow::{Result, bail};
use bpf::{Hook, Sizes, TestInput};
use rand::seq::SliceRandom;

use crate::node::Node;
use crate::packet::{ACK, Family, SYN, SYN_ACK, to_client, to_server};
use crate::reference::{Empty, Reference};
use crate::report::{Demand, Figure, Row};
use crate::stats::{median, paired_ratio};
use crate::supervisor::pin;
use crate::topology::Topology;

const NAME: &str = "packet";
/// Packet was sent to another device.
const REDIRECTED: u32 = 7;
const REPEAT: u32 = 200_000;
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
}

impl Case {
    fn new(node: usize, slot: u32, family: Family) -> Case {
        Case { node, slot, family, established: vec![], first: vec![] }
    }

    fn name(&self, what: &str) -> String {
        let entries = POLICIES[self.slot as usize - 1];
        format!("{what}, IP{:?}, {entries} policy entries, {} addresses", self.family, ADDRESSES[self.node])
            .replace("IPV", "IPv")
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
        nodes.push(node);
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
                let (established, first) = one(&mut nodes[case.node], &topology, case)?;
                case.established.push(established);
                case.first.push(first);
            }
        }
        Ok(())
    })??;
    cases.sort_by_key(|c| (c.family == Family::V6, c.node, c.slot));
    Ok(rows(&cases, &nothing))
}

/// Nanoseconds of an established and of a first packet, the empty run included.
fn one(node: &mut Node, topology: &Topology, case: &Case) -> Result<(f64, f64)> {
    node.rule(case.slot)?;
    node.datapath.maps().flush_conntrack()?;
    let (client, server, family) = (topology.client.ifindex, topology.server.ifindex, case.family);
    pass(node, &to_server(topology, family, PORT, SYN), client, 1)?;
    pass(node, &to_client(topology, family, PORT, SYN_ACK), server, 1)?;
    let ack = to_server(topology, family, PORT, ACK);
    pass(node, &ack, client, 1)?;
    let established = pass(node, &ack, client, REPEAT)?;
    let single = |packet: &dyn Fn(u16) -> Vec<u8>| -> Result<f64> {
        let each = (0..FIRST_PACKETS).map(|i| pass(node, &packet(i), client, 1));
        Ok(median(&each.collect::<Result<Vec<_>>>()?))
    };
    // A packet can be the first only once. What a run of one costs above a run of many is the same for both kinds.
    let known = single(&|_| ack.clone())?;
    let first = single(&|i| to_server(topology, family, PORT + 1 + i, SYN))?;
    Ok((established, first - known + established))
}

fn pass(node: &Node, packet: &[u8], ifindex: u32, repeat: u32) -> Result<f64> {
    let output = node.datapath.test_run(Hook::FromContainer, &TestInput { packet, ifindex, repeat })?;
    if output.action != REDIRECTED {
        bail!("a packet that policy allows was not delivered: action {} instead of {REDIRECTED}", output.action);
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
            let (established, first) = (net(&case.established), net(&case.first));
            let (established_base, first_base) = (net(&base.established), net(&base.first));
            let established_row = Row::of(NAME, case.name("established packet"), &established, "ns");
            let first_row = Row::of(NAME, case.name("first packet"), &first, "ns");
            if i == 0 {
                rows.push(established_row.goal(1, Demand::AtMost(170.0)));
                rows.push(first_row.goal(1, Demand::AtMost(445.0)));
                continue;
            }
            let ratio = Figure::Ratio(paired_ratio(&established, &established_base));
            let row = established_row.against("10 and 10", median(&established_base), ratio);
            rows.push(row.goal(2, Demand::AtMost(1.10)));
            let ratio = Figure::Ratio(paired_ratio(&first, &first_base));
            rows.push(first_row.against("10 and 10", median(&first_base), ratio));
        }
    }
    rows
}
