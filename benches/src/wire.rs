//! What do pods notice of the datapath? Workloads between two pods, by plain routing, by redirection alone, and by ours.

use anyhow::Result;

use crate::reference::{Attachment, Reference};
use crate::report::{Demand, Figure, Row};
use crate::rounds::{Plan, Series, Variant, run};
use crate::stats::{median, paired_difference, paired_ratio};
use crate::topology::Topology;
use crate::workload::Workloads;

/// A way from pod to pod.
pub struct Road {
    name: &'static str,
    workloads: Workloads,
    _topology: Topology,
}

/// The ways that packets can go, side by side.
pub struct Wire {
    roads: Vec<Road>,
    /// How the redirecting program is attached, if it is there.
    pub attachment: Option<Attachment>,
}

const VETH: &str = "veth";
const REDIRECT: &str = "redirect";

impl Wire {
    /// Makes the roads without ours.
    pub fn build(reference: Option<&Reference>) -> Result<Wire> {
        let mut wire = Wire { roads: vec![], attachment: None };
        wire.add(VETH, Topology::create()?)?;
        if let Some(reference) = reference {
            let topology = Topology::create()?;
            wire.attachment = Some(reference.attach_redirect(&topology)?);
            wire.add(REDIRECT, topology)?;
        }
        Ok(wire)
    }

    fn add(&mut self, name: &'static str, topology: Topology) -> Result<()> {
        let workloads = Workloads::start(&topology)?;
        self.roads.push(Road { name, workloads, _topology: topology });
        Ok(())
    }

    pub fn smoke(&mut self, plan: &Plan) -> Result<Vec<Row>> {
        let mut rows = vec![];
        for (bench, unit) in [("rr", "µs"), ("crr", "µs"), ("udp", "ns"), ("stream", "Gbit/s")] {
            let names: Vec<_> = self.roads.iter().map(|r| r.name).collect();
            let mut variants: Vec<Variant<'_>> = self.roads.iter_mut().map(|road| -> Variant<'_> {
                let w = &mut road.workloads;
                (road.name, match bench {
                    "stream" => Box::new(move |l| w.stream(l)),
                    "rr" => Box::new(move |l| w.request_response(l)),
                    "crr" => Box::new(move |l| w.connect_close(l)),
                    _ => Box::new(move |l| w.datagrams(l)),
                })
            }).collect();
            let series = run(plan, &mut variants)?;
            for (name, s) in names.iter().zip(&series) {
                eprintln!("{bench} {name} {:?} p99 {:.1}", s.values.iter().map(|v| (v*100.0).round()/100.0).collect::<Vec<_>>(), median(&s.tails));
                rows.push(Row::new(bench, *name, median(&s.values), unit).against(names[0], median(&series[0].values), Figure::Ratio(paired_ratio(&s.values, &series[0].values))));
            }
        }
        Ok(rows)
    }
}
