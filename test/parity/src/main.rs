//! Runs a number of cases through all that judges packets: `parity --cases N --seed S`.

use std::time::Instant;

use clap::{Parser, ValueEnum};

/// Do the policy language, its tables, the native datapath and the kernel's programs agree on every packet? Needs root.
#[derive(Parser)]
struct Arguments {
    /// Packets to try, of each of the two kinds.
    #[arg(long, default_value_t = 100_000)]
    cases: u64,
    /// What everything random is made of.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only one kind of cases.
    #[arg(long)]
    only: Option<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Generated policies, identities and packets: oracle, tables, native datapath and kernel.
    Policies,
    /// Any tables and any packets, hostile ones too: native datapath and kernel.
    Packets,
}

fn main() -> anyhow::Result<()> {
    let Arguments { cases, seed, only } = Arguments::parse();
    if only != Some(Kind::Packets) {
        policies(cases, seed)?;
    }
    if only != Some(Kind::Policies) {
        packets(cases, seed)?;
    }
    Ok(())
}

fn policies(cases: u64, seed: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    let found = parity::verdicts::run(cases, seed)?;
    println!(
        "{} packets, {} of known connections, {} dropped: oracle, tables, native datapath and kernel agree ({:.1} s, seed {seed})",
        found.cases,
        found.known,
        found.dropped,
        started.elapsed().as_secs_f32()
    );
    for (verdict, count) in found.verdicts {
        println!("  {count:>7}  {verdict}");
    }
    Ok(())
}

fn packets(cases: u64, seed: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    let found = parity::run(cases, seed)?;
    println!(
        "{} packets at any tables, {} dropped, {} events: native datapath and kernel agree ({:.1} s, seed {seed})",
        found.packets,
        found.dropped,
        found.events,
        started.elapsed().as_secs_f32()
    );
    Ok(())
}
