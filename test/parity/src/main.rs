//! Runs a number of packets through both datapaths: `parity --cases N --seed S`.

use std::time::Instant;

use clap::Parser;

/// Do the native datapath and the kernel's programs agree on every packet? Needs root.
#[derive(Parser)]
struct Arguments {
    /// Packets to try.
    #[arg(long, default_value_t = 100_000)]
    cases: u64,
    /// What everything random is made of.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let Arguments { cases, seed } = Arguments::parse();
    let started = Instant::now();
    let found = parity::run(cases, seed)?;
    println!(
        "{} packets, {} dropped, {} events: native datapath and kernel agree ({:.1} s, seed {seed})",
        found.packets,
        found.dropped,
        found.events,
        started.elapsed().as_secs_f32()
    );
    Ok(())
}
