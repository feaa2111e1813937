//! Do the policy language, its tables, the native datapath and the kernel's programs agree on every packet?
//!
//! [`verdicts`] asks with policies, identities and packets as users have them. [`run`] asks both datapaths with anything:
//! both get the same node (policies, endpoints, IP cache, services) and the same packets at the same hooks, one after
//! the other, and must agree on where each packet goes, on its bytes, on every event, and in the end on every
//! connection and counter.
#![forbid(unsafe_code)]

pub mod case;
pub mod compare;
pub mod kernel;
pub mod packets;
pub mod scene;
pub mod seat;
pub mod smallest;
pub mod state;
pub mod tables;
pub mod verdicts;

use anyhow::{Result, bail};
use kernel::Kernel;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Packets that one node sees before there is another.
const PER_NODE: u64 = 64;

/// What a run found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Packets tried.
    pub packets: u64,
    /// How many were dropped.
    pub dropped: u64,
    /// Events that both sides told.
    pub events: u64,
}

/// Tries `cases` packets made from `seed`; an error describes the first on which the two differ.
pub fn run(cases: u64, seed: u64) -> Result<Summary> {
    let kernel = Kernel::open()?;
    let mut summary = Summary::default();
    let mut nodes = 0;
    while summary.packets < cases {
        let node_seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(nodes);
        let packets = (cases - summary.packets).min(PER_NODE);
        one_node(&kernel, &mut summary, node_seed, packets)?;
        nodes += 1;
    }
    Ok(summary)
}

fn one_node(kernel: &Kernel, summary: &mut Summary, seed: u64, packets: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut state = state::State::random(&mut rng);
    let tables = state.tables();
    kernel.apply(&tables)?;
    let mut node = tables.native();
    let mut sent = Vec::new();
    for number in 0..packets {
        if rng.random_ratio(1, 12) {
            let changed = state.change(&mut rng);
            let tables = state.tables();
            kernel.renew(&tables)?;
            kernel.install(&tables, |id| Some(id) == changed)?;
            tables.renew(&mut node, |id| Some(id) == changed);
        }
        let (hook, packet) = packets::random(&mut rng, &sent);
        let now = kernel::seconds()?;
        let native = compare::native(&node, hook, &packet, now);
        let real = kernel.send(hook, &packet)?;
        if let Err(difference) = compare::outcomes(&native, &real) {
            bail!("node {seed}, packet {number} at {hook:?}: {difference}\n{packet:02x?}\n{native:#?}\n{real:#?}");
        }
        summary.packets += 1;
        summary.dropped += u64::from(native.action == pipeline::native::Action::Dropped);
        summary.events += native.events.len() as u64;
        sent.push(packet);
    }
    if let Err(difference) = compare::tables(&node, kernel) {
        bail!("node {seed} after {packets} packets: {difference}");
    }
    Ok(())
}
