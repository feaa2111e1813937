//! Do the programs load into this kernel, how long does that take, and how much did the verifier walk through?

use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pins = std::env::args().nth(1).map(PathBuf::from).ok_or("usage: load FOLDER-IN-A-BPF-FILE-SYSTEM")?;
    let started = Instant::now();
    let datapath = bpf::Datapath::open(&bpf::Options::new(pins))?;
    println!("loaded in {:?}", started.elapsed());
    for hook in bpf::Hook::ALL {
        println!("{}: {:?} instructions verified", hook.program(), datapath.verified_instructions(hook));
    }
    Ok(())
}
