//! Who reaches whom, on which ports, and where does a proxy have a say?

use crate::diff::{Ports, Verdict, spans};
use crate::space::Set;
use crate::view::{Cells, Profile, Scene, TooMany};
use std::sync::Arc;

/// What passes from one node to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// The place of the source.
    pub source: usize,
    /// The place of the destination.
    pub destination: usize,
    /// What passes.
    pub ports: Vec<Passing>,
}

/// Ports that are open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Passing {
    /// Which.
    pub ports: Ports,
    /// A proxy reads the traffic.
    pub redirected: bool,
}

/// What of one node matters: who it is, and what its policy says.
struct Seat {
    set: Set,
    cells: Option<[Cells; 2]>,
}

/// The edges between nodes, each of which stands for somebody whose policy says one thing.
pub fn reach(scene: &mut Scene<'_>, nodes: &[Set]) -> Result<Vec<Edge>, TooMany> {
    let mut seats = Vec::new();
    for set in nodes {
        let (subjects, _) = scene.subjects(set);
        let cells = match scene.classes(subjects)?.first() {
            Some((of, class)) => {
                let view = scene.view(class, of)?;
                Some([view.egress.clone(), view.ingress.clone()])
            }
            None => None,
        };
        seats.push(Seat { set: set.clone(), cells });
    }
    let mut edges = Vec::new();
    for (source, from) in seats.iter().enumerate() {
        for (destination, to) in seats.iter().enumerate().filter(|(at, _)| *at != source) {
            if from.cells.is_none() && to.cells.is_none() {
                continue;
            }
            let egress = from.profile(0, &to.set);
            let ingress = to.profile(1, &from.set);
            let ports = passing(scene, egress.as_deref(), ingress.as_deref());
            if !ports.is_empty() {
                edges.push(Edge { source, destination, ports });
            }
        }
    }
    Ok(edges)
}

impl Seat {
    fn profile(&self, direction: usize, other: &Set) -> Option<Arc<Profile>> {
        let cells = &self.cells.as_ref()?[direction];
        cells.iter().find(|(set, _)| !set.and(other).is_empty()).map(|(_, profile)| profile.clone())
    }
}

fn passing(scene: &Scene<'_>, egress: Option<&Profile>, ingress: Option<&Profile>) -> Vec<Passing> {
    let mut open: Vec<Passing> = Vec::new();
    for (ports, ends, _) in spans(egress, ingress) {
        let verdict = Verdict::of(ends.map(|end| end.map(|end| scene.decisions.get(end))));
        let Verdict::Passes(_) = verdict else { continue };
        let redirected = !verdict.redirects().is_empty();
        match open.last_mut() {
            Some(last)
                if last.redirected == redirected
                    && last.ports.protocol == ports.protocol
                    && last.ports.last.checked_add(1) == Some(ports.first) =>
            {
                last.ports.last = ports.last;
            }
            _ => open.push(Passing { ports, redirected }),
        }
    }
    open
}
