//! What do pods notice of the datapath? Workloads between two pods: by plain routing, by redirection alone, and by ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bpf::Sizes;

use crate::node::Node;
use crate::observer;
use crate::reference::{Attachment, Reference};
use crate::report::{Demand, Figure, Row, whole};
use crate::rounds::{Plan, Series, Variant, run};
use crate::stats::{median, paired_difference, paired_ratio};
use crate::topology::Topology;
use crate::workload::{Slice, Workloads};

/// A way from pod to pod, with its namespaces.
pub struct Road {
    name: &'static str,
    /// What the pods do.
    pub workloads: Workloads,
    topology: Topology,
    _node: Option<Node>,
}

/// The ways that packets can go, side by side.
pub struct Wire {
    roads: Vec<Road>,
    /// Node and count of stored events of the road whose events are read.
    observed: (Arc<AtomicU64>, Node),
    /// How the redirecting program is attached, if it is there.
    pub attachment: Option<Attachment>,
}

const VETH: &str = "veth";
const REDIRECT: &str = "redirect";
/// Ours, with every event read and stored.
const AXONEME: &str = "axoneme";
/// Ours without events.
const QUIET: &str = "axoneme, no events";
/// Verdict entries of the pods' policy.
const POLICY: [usize; 1] = [1_000];
const ADDRESSES: u32 = 1_000;

type Work = fn(&mut Workloads, Duration) -> Result<Slice>;

impl Wire {
    /// Makes every road; without a reference, the one that only redirects is missing.
    pub fn build(reference: Option<&Reference>) -> Result<Wire> {
        let mut roads = vec![Road::new(VETH, Topology::create()?, None)?];
        let mut attachment = None;
        if let Some(reference) = reference {
            let topology = Topology::create()?;
            attachment = Some(reference.attach_redirect(&topology)?);
            roads.push(Road::new(REDIRECT, topology, None)?);
        }
        let (topology, quiet) = ours("quiet", false)?;
        roads.push(Road::new(QUIET, topology, Some(quiet))?);
        let (topology, observed) = ours("observed", true)?;
        let stored = observer::start(observed.datapath.events()?, &topology)?;
        roads.push(Road::new(AXONEME, topology, None)?);
        Ok(Wire { roads, observed: (stored, observed), attachment })
    }

    /// One byte there and back on an open connection.
    pub fn request_response(&mut self, plan: &Plan) -> Result<Vec<Row>> {
        let measured = self.compare(plan, &[VETH, REDIRECT, AXONEME], Workloads::request_response)?;
        let mut rows = measured.rows("rr", "request/response p50", "µs", true, |s| &s.values);
        rows.extend(measured.rows("rr", "request/response p99", "µs", true, |s| &s.tails));
        Ok(demand(rows, "request/response p50, axoneme", 4, Demand::AtMost(0.7)))
    }

    /// Connect, one byte there and back, close; with and without events.
    pub fn connect_close(&mut self, plan: &Plan) -> Result<Vec<Row>> {
        let measured = self.compare(plan, &[VETH, REDIRECT, QUIET, AXONEME], Workloads::connect_close)?;
        let mut rows = measured.rows("crr", "connect/close p50", "µs", false, |s| &s.values);
        rows = demand(rows, "connect/close p50, axoneme, no events", 5, Demand::AtMost(1.06));
        let (with, without) = (measured.values(AXONEME)?, measured.values(QUIET)?);
        let ratio = Figure::Ratio(paired_ratio(with, without));
        let row = Row::of("crr", "connect/close p50, every flow event read and stored", with, "µs");
        rows.push(row.against(QUIET, median(without), ratio).goal(6, Demand::AtMost(1.10)));
        rows.push(self.lost()?);
        Ok(rows)
    }

    /// A stream of bytes.
    pub fn stream(&mut self, plan: &Plan) -> Result<Vec<Row>> {
        let measured = self.compare(plan, &[VETH, REDIRECT, AXONEME], Workloads::stream)?;
        let rows = measured.rows("stream", "TCP stream", "Gbit/s", false, |s| &s.values);
        Ok(demand(rows, "TCP stream, axoneme", 8, Demand::AtLeast(0.95)))
    }

    /// Small datagrams.
    pub fn datagrams(&mut self, plan: &Plan) -> Result<Vec<Row>> {
        let measured = self.compare(plan, &[VETH, REDIRECT, AXONEME], Workloads::datagrams)?;
        let rows = measured.rows("udp", "UDP, 32 bytes, each", "ns", false, |s| &s.values);
        Ok(demand(rows, "UDP, 32 bytes, each, axoneme", 3, Demand::AtMost(1.06)))
    }

    /// The road of ours without events.
    pub fn quiet(&self) -> Result<(&Workloads, &Topology)> {
        let road = self.roads.iter().find(|r| r.name == QUIET).context("the road is always there")?;
        Ok((&road.workloads, &road.topology))
    }

    fn compare(&mut self, plan: &Plan, names: &[&str], work: Work) -> Result<Measured> {
        let taken = self.roads.iter_mut().filter(|road| names.contains(&road.name));
        let mut variants: Vec<Variant<'_>> = taken
            .map(|road| -> Variant<'_> { (road.name, Box::new(|length| work(&mut road.workloads, length))) })
            .collect();
        let series = run(plan, &mut variants)?;
        Ok(Measured(variants.iter().map(|(name, _)| *name).zip(series).collect()))
    }

    /// Events that nobody stored, although they were sent.
    fn lost(&self) -> Result<Row> {
        let (stored, node) = &self.observed;
        std::thread::sleep(Duration::from_millis(50));
        let (sent, lost) = node.datapath.maps().event_counters()?;
        let missing = lost + sent.abs_diff(stored.load(Ordering::Relaxed));
        let what = format!("flow events lost, of {}", whole(sent + lost));
        Ok(Row::new("crr", what, missing as f64, "").goal(6, Demand::AtMost(0.0)))
    }
}

impl Road {
    fn new(name: &'static str, topology: Topology, node: Option<Node>) -> Result<Road> {
        let workloads = Workloads::start(&topology).with_context(|| format!("road {name}"))?;
        Ok(Road { name, workloads, topology, _node: node })
    }
}

fn ours(name: &str, events: bool) -> Result<(Topology, Node)> {
    let topology = Topology::create()?;
    let mut node = Node::open(name, Sizes::default(), events, &POLICY)?;
    node.add_pods(&topology, 1)?;
    node.fill_ipcache(ADDRESSES)?;
    node.attach(&topology)?;
    Ok((topology, node))
}

/// What each road showed.
struct Measured(Vec<(&'static str, Series)>);

impl Measured {
    fn values(&self, name: &str) -> Result<&[f64]> {
        let found = self.0.iter().find(|(n, _)| *n == name);
        Ok(&found.with_context(|| format!("{name} was not measured"))?.1.values)
    }

    /// One row for each road; all are compared with redirection, or with plain routing where that is missing.
    fn rows(
        &self,
        bench: &'static str,
        what: &str,
        unit: &'static str,
        excess: bool,
        pick: impl Fn(&Series) -> &Vec<f64>,
    ) -> Vec<Row> {
        let reference = self.0.iter().find(|(name, _)| *name == REDIRECT).or(self.0.first());
        let row = |(name, series): &(&'static str, Series)| {
            let ours = pick(series);
            let row = Row::of(bench, format!("{what}, {name}"), ours, unit);
            match reference {
                Some((other, theirs)) if other != name => {
                    let theirs = pick(theirs);
                    let figure = if excess {
                        Figure::Excess(paired_difference(ours, theirs))
                    } else {
                        Figure::Ratio(paired_ratio(ours, theirs))
                    };
                    row.against(other, median(theirs), figure)
                }
                _ => row,
            }
        };
        self.0.iter().map(row).collect()
    }
}

/// Adds the promise to the row of this name, if it was measured against redirection.
fn demand(rows: Vec<Row>, what: &str, goal: u8, demand: Demand) -> Vec<Row> {
    let add = |row: Row| {
        let fits = row.what == what && row.against.as_ref().is_some_and(|(name, _)| name == REDIRECT);
        if fits { row.goal(goal, demand) } else { row }
    };
    rows.into_iter().map(add).collect()
}
