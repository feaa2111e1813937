//! What does an HTTP request cost that passes the proxy, and an idle connection, against others and a copy of bytes?
//!
//! Clients and server run in this process, what is between them in one of its own, whose processor time is read.

mod load;
pub mod middle;
mod others;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::clients::{self, Measured};
use crate::report::{Demand, Figure, Row};
use crate::rounds::Plan;
use crate::stats::{median, paired_ratio};
use load::Client;

const BENCH: &str = "http";
/// Connections that request at a time.
const CLIENTS: usize = 8;
/// Connections that are open and idle when memory is read; fewer where so many files may not be open.
const IDLE: usize = 10_000;
/// Files beside those of connections.
const SPARE: u64 = 1_000;

/// Everything, in one run.
pub fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let origin = runtime.block_on(load::origin())?;
    let idle = IDLE.min(usize::try_from((raise_file_limit()? - SPARE) / 2)?);
    let connect = |address| load::connect(address, CLIENTS);
    let mut all = vec![Measured::new("direct", None, origin, connect)?];
    for (name, middle) in [
        ("copy of bytes", middle::copy(origin)),
        ("ours, 100 rules, records", middle::ours(origin, true)),
        ("ours, 100 rules, no records", middle::ours(origin, false)),
        ("nginx", others::nginx(origin)),
        ("haproxy", others::haproxy(origin)),
    ] {
        match middle {
            Ok(middle) => all.push(Measured::new(name, Some(middle), origin, connect)?),
            Err(why) => eprintln!("benches: {name} is not measured: {why:#}"),
        }
    }
    clients::rounds(&mut all, plan)?;
    let mut rows = rates(&all);
    rows.extend(memory(&all, idle)?);
    Ok(rows)
}

/// As many files as may be open; how many.
fn raise_file_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

fn rates(all: &[Measured<Client>]) -> Vec<Row> {
    let copy = all.iter().find(|one| one.name == "copy of bytes").map(Measured::cpu);
    let mut rows = Vec::new();
    for one in all {
        let name = one.name;
        if one.middle.is_some() {
            let cpu = one.cpu();
            let row = Row::of(BENCH, format!("HTTP request, processor time, {name}"), &cpu, "µs");
            let row = match copy.as_ref().filter(|_| name != "copy of bytes") {
                Some(copy) => row.against("copy of bytes", median(copy), Figure::Ratio(paired_ratio(&cpu, copy))),
                None => row,
            };
            rows.push(if name.starts_with("ours") { row.goal(13, Demand::AtMost(1.5)) } else { row });
        }
        let rate = one.series(|slice| slice.answers as f64 / slice.time.as_secs_f64());
        rows.push(Row::of(BENCH, format!("HTTP requests, {CLIENTS} connections, {name}"), &rate, "/s"));
        rows.push(Row::of(BENCH, format!("of that, half within, {name}"), &one.series(|slice| slice.p50), "µs"));
        rows.push(Row::of(BENCH, format!("of that, 99 % within, {name}"), &one.series(|slice| slice.p99), "µs"));
    }
    rows
}

/// Memory of the process between, for each connection that is open after a request.
fn memory(all: &[Measured<Client>], idle: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for one in all {
        let Some(middle) = &one.middle else { continue };
        let before = middle.resident()?;
        let held = load::connect(middle.address, idle)?;
        held.each_once()?;
        let each = middle.resident()?.saturating_sub(before) as f64 / idle as f64 / 1024.0;
        let what = format!("memory of an idle HTTP connection, of {idle}, {}", one.name);
        let row = Row::new(BENCH, what, each, "KiB");
        rows.push(if one.name.starts_with("ours") { row.goal(13, Demand::AtMost(20.0)) } else { row });
    }
    Ok(rows)
}
