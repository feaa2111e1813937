//! Which traffic does a change of policies let pass or keep out, and is there none at all?

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use policy::{Auth, Redirect};

use crate::decision::{Decision, DecisionId};
use crate::requests::{Beyond, Requests};
use crate::space::Set;
use crate::view::{Class, Profile, Scene, TooMany};

/// How traffic changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Change {
    /// It passes and did not.
    Gained,
    /// It does not pass and did.
    Lost,
    /// It passes as it did, but other requests do.
    Requests {
        /// What passes and did not.
        gained: Beyond,
        /// What does not pass and did.
        lost: Beyond,
    },
    /// It is kept out as it was, but not until the same proof.
    Proof,
    /// Rules cannot be put together any more, or can again.
    Broken,
}

/// Ports of a protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ports {
    /// `None`: every protocol that no rule names.
    pub protocol: Option<u8>,
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// What one side says of traffic: egress and ingress, as far as they are asked.
pub type Ends = [Option<DecisionId>; 2];

/// Traffic that changes alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Traffic {
    /// Which ports.
    pub ports: Vec<Ports>,
    /// How it changes.
    pub change: Change,
    /// What the proxies asked and ask, where it passes.
    pub redirects: [Vec<Arc<Redirect>>; 2],
}

/// Traffic between any of these sources and any of these destinations.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Who sends.
    pub sources: Set,
    /// Who receives.
    pub destinations: Set,
    /// What of it changes, and how.
    pub traffic: Vec<Traffic>,
}

/// All that changes. The regions are disjoint.
#[derive(Default)]
pub struct Differences {
    /// What changes.
    pub regions: Vec<Difference>,
    /// Set if not all cases were looked at: then nothing follows from there being no regions.
    pub incomplete: Option<String>,
}

/// Of one pair of subjects or peers.
type Changes = Vec<Traffic>;

/// How something changes, and what the proxies ask before and after.
type Outcome = (Change, [Vec<Arc<Redirect>>; 2]);

struct Comparison<'s, 'a> {
    scene: &'s mut Scene<'a>,
    requests: Requests,
    found: Vec<(Set, Set, Changes)>,
    known: HashMap<[Option<Arc<Profile>>; 2], Changes>,
    compared: HashMap<(Ends, Ends), Option<Outcome>>,
    /// So many pairs may still be looked at.
    left: usize,
}

/// Every difference between the sides of the scene. `pairs` bounds the work.
pub fn differences(scene: &mut Scene<'_>, pairs: usize) -> Differences {
    let unclear = scene.rules.unclear;
    let (requests, found, known, compared) = (Requests::default(), Vec::new(), HashMap::new(), HashMap::new());
    let mut comparison = Comparison { scene, requests, found, known, compared, left: pairs };
    let done = comparison.all();
    let mut incomplete = match done {
        Ok(()) => None,
        Err(TooMany) => Some(format!(
            "there are more cases than the bound allows ({} parts of a set, {pairs} pairs)",
            comparison.scene.most()
        )),
    };
    incomplete = incomplete.or_else(|| unclear.map(str::to_owned));
    let mut regions = merged(comparison.found);
    for region in &mut regions {
        region.sources.simplify();
        region.destinations.simplify();
    }
    Differences { regions, incomplete }
}

impl Comparison<'_, '_> {
    fn all(&mut self) -> Result<(), TooMany> {
        let touched = self.touched()?;
        for (subjects, class) in &touched {
            let view = self.scene.view(class, subjects)?;
            for (peers, profile) in &view.egress {
                if differs(profile) {
                    self.outgoing(subjects, peers, profile)?;
                }
            }
        }
        for (subjects, class) in &touched {
            let view = self.scene.view(class, subjects)?;
            for (peers, profile) in &view.ingress {
                if differs(profile) {
                    self.incoming(subjects, peers, profile)?;
                }
            }
        }
        Ok(())
    }

    /// The subjects that some rule is for that is on one side only.
    fn touched(&mut self) -> Result<Vec<(Set, Class)>, TooMany> {
        let (mut rest, _) = self.scene.subjects(&self.scene.space.all());
        if self.scene.sides[0].settings != self.scene.sides[1].settings {
            return self.scene.classes(rest);
        }
        let changed = self.scene.rules.entries.iter().filter(|entry| entry.is_changed());
        let mut questions: Vec<usize> = changed.map(|entry| entry.subject).collect();
        questions.sort_unstable();
        questions.dedup();
        let mut touched = Vec::new();
        for question in questions {
            let (yes, no) = self.scene.space.split(&rest, question);
            rest = no;
            if !yes.is_empty() {
                touched.extend(self.scene.classes(yes)?);
            }
        }
        Ok(touched)
    }

    fn outgoing(&mut self, sources: &Set, peers: &Set, egress: &Arc<Profile>) -> Result<(), TooMany> {
        let (subjects, others) = self.scene.subjects(peers);
        self.pair(sources, &others, Some(egress), None)?;
        for (destinations, class) in self.scene.classes(subjects)? {
            let view = self.scene.view(&class, &destinations)?;
            for (from, ingress) in &view.ingress {
                let sources = sources.and(from);
                if !sources.is_empty() {
                    self.pair(&sources, &destinations, Some(egress), Some(ingress))?;
                }
            }
        }
        Ok(())
    }

    fn incoming(&mut self, destinations: &Set, peers: &Set, ingress: &Arc<Profile>) -> Result<(), TooMany> {
        let (subjects, others) = self.scene.subjects(peers);
        self.pair(&others, destinations, None, Some(ingress))?;
        for (sources, class) in self.scene.classes(subjects)? {
            let view = self.scene.view(&class, &sources)?;
            // What changes at its source, too, was found there.
            for (to, egress) in view.egress.iter().filter(|(_, egress)| !differs(egress)) {
                let destinations = destinations.and(to);
                if !destinations.is_empty() {
                    self.pair(&sources, &destinations, Some(egress), Some(ingress))?;
                }
            }
        }
        Ok(())
    }

    fn pair(
        &mut self,
        sources: &Set,
        destinations: &Set,
        egress: Option<&Arc<Profile>>,
        ingress: Option<&Arc<Profile>>,
    ) -> Result<(), TooMany> {
        if sources.is_empty() || destinations.is_empty() {
            return Ok(());
        }
        self.left = self.left.checked_sub(1).ok_or(TooMany)?;
        let key = [egress.cloned(), ingress.cloned()];
        let changes = match self.known.get(&key) {
            Some(known) => known.clone(),
            None => {
                let changes = self.changes(egress.map(AsRef::as_ref), ingress.map(AsRef::as_ref));
                self.known.insert(key, changes.clone());
                changes
            }
        };
        if changes.is_empty() {
            return Ok(());
        }
        // What goes from the same sources and changes alike is told together.
        let like = |(from, _, known): &&mut (Set, Set, Changes)| from == sources && *known == changes;
        match self.found.iter_mut().rev().take(64).find(like) {
            Some((_, to, _)) => to.join(destinations),
            None => self.found.push((sources.clone(), destinations.clone(), changes)),
        }
        Ok(())
    }

    fn changes(&mut self, egress: Option<&Profile>, ingress: Option<&Profile>) -> Changes {
        let mut by_change: BTreeMap<Outcome, Vec<Ports>> = BTreeMap::new();
        for (ports, old, new) in spans(egress, ingress) {
            if let Some(change) = self.compare(old, new) {
                let known = by_change.entry(change).or_default();
                match known.last_mut() {
                    Some(last) if last.protocol == ports.protocol && last.last.checked_add(1) == Some(ports.first) => {
                        last.last = ports.last;
                    }
                    _ => known.push(ports),
                }
            }
        }
        let traffic = |((change, redirects), ports)| Traffic { ports, change, redirects };
        by_change.into_iter().map(traffic).collect()
    }

    fn compare(&mut self, old: Ends, new: Ends) -> Option<Outcome> {
        if old == new {
            return None;
        }
        if let Some(known) = self.compared.get(&(old, new)) {
            return known.clone();
        }
        let verdict = |ends: Ends| Verdict::of(ends.map(|end| end.map(|end| self.scene.decisions.get(end))));
        let (before, after) = (verdict(old), verdict(new));
        let redirects = [before.redirects(), after.redirects()];
        let change = match (&before, &after) {
            (Verdict::Passes(one), Verdict::Passes(two)) => {
                let (one, two) = ([one[0].as_deref(), one[1].as_deref()], [two[0].as_deref(), two[1].as_deref()]);
                let (gained, lost) = (self.requests.beyond(two, one), self.requests.beyond(one, two));
                let none = (&gained, &lost) == (&Beyond::Nothing, &Beyond::Nothing);
                (!none).then_some(Change::Requests { gained, lost })
            }
            (one, two) if one == two => None,
            (Verdict::Broken(_), _) | (_, Verdict::Broken(_)) => Some(Change::Broken),
            (_, Verdict::Passes(_)) => Some(Change::Gained),
            (Verdict::Passes(_), _) => Some(Change::Lost),
            _ => Some(Change::Proof),
        };
        let change = change.map(|change| (change, redirects));
        self.compared.insert((old, new), change.clone());
        change
    }
}

/// What becomes of traffic that both ends are asked about.
#[derive(PartialEq, Eq)]
pub(crate) enum Verdict {
    Passes([Option<Vec<Arc<Redirect>>>; 2]),
    Denied,
    Proof(Auth),
    Broken(Vec<Arc<str>>),
}

impl Verdict {
    pub(crate) fn of(ends: [Option<&Decision>; 2]) -> Verdict {
        let broken: Vec<Arc<str>> = ends
            .iter()
            .filter_map(|end| if let Some(Decision::Broken(error)) = end { Some(error.clone()) } else { None })
            .collect();
        if !broken.is_empty() {
            return Verdict::Broken(broken);
        }
        if ends.iter().flatten().any(|end| **end == Decision::Deny) {
            return Verdict::Denied;
        }
        let proof =
            ends.iter().flatten().filter_map(|end| if let Decision::Proof(auth) = end { Some(*auth) } else { None });
        if let Some(auth) = proof.max() {
            return Verdict::Proof(auth);
        }
        Verdict::Passes(ends.map(|end| match end {
            Some(Decision::Allow(redirects)) => Some(redirects.clone()),
            _ => None,
        }))
    }

    pub(crate) fn redirects(&self) -> Vec<Arc<Redirect>> {
        match self {
            Verdict::Passes(ends) => ends.iter().flatten().flatten().cloned().collect(),
            Verdict::Denied | Verdict::Proof(_) | Verdict::Broken(_) => Vec::new(),
        }
    }
}

fn differs(profile: &Profile) -> bool {
    profile.values().flatten().any(|(_, [old, new])| old != new)
}

/// The ranges of ports in which both ends say one thing, with what they say on either side.
pub fn spans(egress: Option<&Profile>, ingress: Option<&Profile>) -> Vec<(Ports, Ends, Ends)> {
    let both = || egress.into_iter().chain(ingress);
    let mut protocols: Vec<Option<u8>> = both().flat_map(|profile| profile.keys().copied()).collect();
    protocols.sort_unstable();
    protocols.dedup();
    let mut spans = Vec::new();
    for protocol in protocols {
        let of =
            |profile: &'_ Profile| profile.get(&protocol).or_else(|| profile.get(&None)).cloned().unwrap_or_default();
        let (one, two) = (egress.map(of), ingress.map(of));
        let mut starts: Vec<u16> = one.iter().chain(&two).flatten().map(|(start, _)| *start).collect();
        starts.sort_unstable();
        starts.dedup();
        let at = |spans: &Option<Vec<(u16, [DecisionId; 2])>>, port: u16| {
            let spans = spans.as_ref()?;
            spans[..spans.partition_point(|(start, _)| *start <= port)].last().map(|(_, decided)| *decided)
        };
        for (place, first) in starts.iter().enumerate() {
            let last = starts.get(place + 1).map_or(u16::MAX, |next| next - 1);
            let (one, two) = (at(&one, *first), at(&two, *first));
            let side = |side: usize| [one.map(|both| both[side]), two.map(|both| both[side])];
            spans.push((Ports { protocol, first: *first, last }, side(0), side(1)));
        }
    }
    spans
}

/// Sources that have the same destinations and changes are told together.
fn merged(found: Vec<(Set, Set, Changes)>) -> Vec<Difference> {
    let mut by_source: Vec<(Set, Set, Changes)> = Vec::new();
    let mut place: HashMap<(Set, Changes), usize> = HashMap::new();
    for (from, to, changes) in found {
        match place.get(&(from.clone(), changes.clone())) {
            Some(at) => by_source[*at].1.join(&to),
            None => {
                place.insert((from.clone(), changes.clone()), by_source.len());
                by_source.push((from, to, changes));
            }
        }
    }
    let mut regions: Vec<Difference> = Vec::new();
    let mut place: HashMap<(Set, Changes), usize> = HashMap::new();
    for (sources, destinations, traffic) in by_source {
        match place.get(&(destinations.clone(), traffic.clone())) {
            Some(at) => regions[*at].sources.join(&sources),
            None => {
                place.insert((destinations.clone(), traffic.clone()), regions.len());
                regions.push(Difference { sources, destinations, traffic });
            }
        }
    }
    regions
}
