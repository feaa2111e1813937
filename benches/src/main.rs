//! How fast are datapath and policy engine, against what is possible and what was promised? One run measures and judges.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clients;
mod dns;
mod http;
mod map_costs;
mod node;
mod observer;
mod packet;
mod per_packet;
mod policies;
mod policy_scale;
mod reference;
mod report;
mod rounds;
mod services;
mod stats;
mod supervisor;
mod topology;
mod wire;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use serde_json::json;

use reference::Reference;
use report::Row;
use rounds::Plan;
use wire::Wire;

/// Measures the datapath in network namespaces of its own and compares it with plain routing and with a program that only
/// redirects, and both with the goals.
#[derive(Parser)]
struct Arguments {
    /// What to measure; all if none is named.
    names: Vec<Bench>,
    /// Format of the result.
    #[arg(short, long, default_value = "table")]
    output: Output,
    /// Write the table into docs/performance.md as well.
    #[arg(long)]
    markdown: bool,
    /// Rounds; the medians are over these.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Milliseconds of each variant in each round.
    #[arg(long, default_value_t = 350)]
    slice: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Bench {
    /// Single-core TCP stream.
    Stream,
    /// Request and response on an open connection.
    Rr,
    /// Connect, request, close; with and without flow events.
    Crr,
    /// Small datagrams.
    Udp,
    /// Connect, request, close through service addresses.
    Services,
    /// One packet in the program itself.
    Packet,
    /// One identity coming and going.
    Identity,
    /// One endpoint.
    Bringup,
    /// Policies of several sizes.
    Slots,
    /// Requests through the proxy, and through others.
    Http,
    /// Questions of DNS through the proxy, and through others.
    Dns,
    /// Policies put together, in memory.
    Policies,
    /// Identities and policies that change, in memory.
    Churn,
    /// Memory for identities and policies, and those of a large cluster.
    Footprint,
}

const WIRE: [Bench; 5] = [Bench::Stream, Bench::Rr, Bench::Crr, Bench::Udp, Bench::Services];
const BEGIN: &str = "<!-- measured -->";
const END: &str = "<!-- end of measured -->";

fn main() -> ExitCode {
    if let Some(code) = http::middle::main() {
        return code;
    }
    let arguments = Arguments::parse();
    let done = supervisor::split().and_then(|role| match role {
        supervisor::Role::Supervisor(code) => Ok(code),
        supervisor::Role::Worker(cgroup) => work(&arguments, &cgroup),
    });
    done.unwrap_or_else(|e| {
        eprintln!("benches: {e:#}");
        ExitCode::FAILURE
    })
}

fn work(arguments: &Arguments, cgroup: &Path) -> Result<ExitCode> {
    let mut session = Session::new(arguments, cgroup);
    let started = Instant::now();
    session.measure_all();
    let conditions = session.conditions(started.elapsed());
    match arguments.output {
        Output::Table => println!("{conditions}\n{}", report::table(&session.rows)),
        Output::Json => println!("{:#}", json!({ "conditions": conditions, "rows": judged(&session.rows)? })),
    }
    if arguments.markdown {
        write_document(&format!("{conditions}\n\n{}", report::markdown(&session.rows)))?;
    }
    Ok(if session.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn judged(rows: &[Row]) -> Result<Vec<serde_json::Value>> {
    let judge = |row: &Row| {
        let mut value = serde_json::to_value(row)?;
        value["verdict"] = serde_json::to_value(row.verdict())?;
        Ok(value)
    };
    rows.iter().map(judge).collect()
}

/// One run.
struct Session<'a> {
    arguments: &'a Arguments,
    cgroup: &'a Path,
    plan: Plan,
    reference: Option<Reference>,
    attachment: Option<reference::Attachment>,
    rows: Vec<Row>,
    failures: usize,
}

impl<'a> Session<'a> {
    fn new(arguments: &'a Arguments, cgroup: &'a Path) -> Self {
        let plan = Plan { rounds: arguments.rounds.max(1), slice: Duration::from_millis(arguments.slice) };
        let reference = Reference::find();
        if let Err(e) = &reference {
            eprintln!("benches: {e:#}: nothing is compared with a program that only redirects");
        }
        let reference = reference.ok();
        Session { arguments, cgroup, plan, reference, attachment: None, rows: vec![], failures: 0 }
    }

    fn wanted(&self, bench: Bench) -> bool {
        self.arguments.names.is_empty() || self.arguments.names.contains(&bench)
    }

    /// What cannot be measured is told and counted; the rest is measured all the same.
    fn measure_all(&mut self) {
        if WIRE.iter().any(|bench| self.wanted(*bench)) {
            match Wire::build(self.reference.as_ref()) {
                Ok(mut wire) => self.measure_wire(&mut wire),
                Err(e) => self.failed("the wire benchmarks", &e),
            }
        }
        let rounds = self.plan.rounds;
        self.run(Bench::Packet, |s| per_packet::measure(s.reference.as_ref(), rounds));
        self.run(Bench::Identity, |_| map_costs::identity(rounds));
        self.run(Bench::Bringup, |_| map_costs::bring_up());
        self.run(Bench::Slots, |_| map_costs::slots(rounds));
        let plan = self.plan;
        self.run(Bench::Http, |_| http::measure(&plan));
        self.run(Bench::Dns, |_| dns::measure(&plan));
        self.run(Bench::Policies, |_| map_costs::pin_after(|| policy_scale::load(rounds)));
        self.run(Bench::Churn, |_| map_costs::pin_after(|| policy_scale::changes(rounds)));
        self.run(Bench::Footprint, |_| map_costs::pin_after(policy_scale::sizes));
    }

    fn measure_wire(&mut self, wire: &mut Wire) {
        self.attachment = wire.attachment;
        let plan = self.plan;
        self.run(Bench::Stream, |_| wire.stream(&plan));
        self.run(Bench::Rr, |_| wire.request_response(&plan));
        self.run(Bench::Crr, |_| wire.connect_close(&plan));
        self.run(Bench::Udp, |_| wire.datagrams(&plan));
        self.run(Bench::Services, |s| services::measure(wire, s.cgroup, &plan));
    }

    fn run(&mut self, bench: Bench, measure: impl FnOnce(&Self) -> Result<Vec<Row>>) {
        if !self.wanted(bench) {
            return;
        }
        let started = Instant::now();
        match measure(self) {
            Ok(rows) => self.rows.extend(rows),
            Err(e) => self.failed(&format!("{bench:?}"), &e),
        }
        eprintln!("benches: {bench:?} done in {:.1} s", started.elapsed().as_secs_f64());
    }

    fn failed(&mut self, what: &str, error: &anyhow::Error) {
        self.failures += 1;
        eprintln!("benches: {what} cannot be measured: {error:#}");
    }

    fn conditions(&self, took: Duration) -> String {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let without = if self.reference.is_some() { "not used" } else { "not there" };
        let attached = self.attachment.map_or(without.into(), |a| format!("attached by {a:?}"));
        let Plan { rounds, slice } = self.plan;
        format!(
            "Linux {}, {processors} processors; {rounds} rounds of {} ms, medians; the redirecting program {attached}; {} s.",
            kernel.trim().split('-').next().unwrap_or_default(),
            slice.as_millis(),
            took.as_secs(),
        )
    }
}

fn write_document(text: &str) -> Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let document = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let Some(document) = report::replace_between(&document, BEGIN, END, &format!("\n{text}\n")) else {
        bail!("{}: no place for the table, between {BEGIN} and {END}", path.display());
    };
    std::fs::write(&path, document).with_context(|| format!("write {}", path.display()))
}
