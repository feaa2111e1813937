//! How fast is the datapath, against what is possible and what was promised? One run measures and judges.

mod reference;
mod report;
mod rounds;
mod stats;
mod supervisor;
mod topology;
mod wire;
mod workload;

use std::process::ExitCode;
use std::time::Duration;

fn main() -> anyhow::Result<ExitCode> {
    match supervisor::split()? {
        supervisor::Role::Supervisor(code) => return Ok(code),
        supervisor::Role::Worker(_) => {}
    }
    let reference = reference::Reference::find()?;
    let mut wire = wire::Wire::build(Some(&reference))?;
    println!("{:?} empty {}", wire.attachment, reference.empty()?.nanoseconds(1_000_000)?);
    let rows = wire.smoke(&rounds::Plan { rounds: 7, slice: Duration::from_millis(350) })?;
    println!("{}", report::table(&rows));
    Ok(ExitCode::SUCCESS)
}
