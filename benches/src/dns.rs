//! What does a question of DNS cost that passes the proxy, against a forwarder that reads nothing, and against others?
//!
//! Clients and server run in this process, what is between them in one of its own, whose processor time is read.

mod load;
pub mod middle;

use anyhow::Result;

use crate::clients::{self, Measured};
use crate::report::{Demand, Figure, Row};
use crate::rounds::Plan;
use crate::stats::{median, paired_ratio};
use load::Client;

const BENCH: &str = "dns";
/// Clients that ask at a time.
const CLIENTS: usize = 16;
const RAW: &str = "raw forwarder";

/// Everything, in one run.
pub fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let server = load::server()?;
    let connect = |address| load::connect(address, CLIENTS);
    let mut all = vec![Measured::new("direct", None, server, connect)?];
    for (name, middle) in [
        (RAW, middle::raw(server)),
        ("ours, 100 patterns, records", middle::ours(server, true)),
        ("ours, 100 patterns, no records", middle::ours(server, false)),
        ("dnsmasq", middle::dnsmasq(server)),
    ] {
        match middle {
            Ok(middle) => all.push(Measured::new(name, Some(middle), server, connect)?),
            Err(why) => eprintln!("benches: {name} is not measured: {why:#}"),
        }
    }
    clients::rounds(&mut all, plan)?;
    rows(&all)
}

fn rows(all: &[Measured<Client>]) -> Result<Vec<Row>> {
    let raw = all.iter().find(|one| one.name == RAW).map(Measured::cpu);
    let mut rows = Vec::new();
    for one in all {
        let name = one.name;
        if let Some(middle) = &one.middle {
            let cpu = one.cpu();
            let row = Row::of(BENCH, format!("DNS question, processor time, {name}"), &cpu, "µs");
            let row = match raw.as_ref().filter(|_| name != RAW) {
                Some(raw) => row.against(RAW, median(raw), Figure::Ratio(paired_ratio(&cpu, raw))),
                None => row,
            };
            let memory = middle.resident()? as f64 / f64::from(1 << 20);
            let memory = Row::new(BENCH, format!("memory of the process, {name}"), memory, "MiB");
            if name.starts_with("ours") {
                rows.push(row.goal(14, Demand::AtMost(1.3)));
                rows.push(memory.goal(14, Demand::AtMost(20.0)));
            } else {
                rows.extend([row, memory]);
            }
        }
        let rate = one.series(|slice| slice.answers as f64 / slice.time.as_secs_f64());
        rows.push(Row::of(BENCH, format!("DNS questions, {CLIENTS} clients, {name}"), &rate, "/s"));
        rows.push(Row::of(BENCH, format!("of that, half within, {name}"), &one.series(|slice| slice.p50), "µs"));
        rows.push(Row::of(BENCH, format!("of that, 99 % within, {name}"), &one.series(|slice| slice.p99), "µs"));
    }
    Ok(rows)
}
