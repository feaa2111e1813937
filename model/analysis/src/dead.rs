//! Which rules could go without any packet being judged otherwise, and why?

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::{Direction, Effect, Implicit, PortRange, Ports, RuleOrigin};

use crate::diff::{Differences, differences};
use crate::side::{Place, RuleId};
use crate::space::{Names, Set};
use crate::view::{Class, Scene};

/// Why a rule says nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// It is written twice.
    Duplicate,
    /// It is for nobody who could be there.
    NoSubject,
    /// It speaks of no peer that could be there, or of no port, and closes what is closed anyway.
    NoTraffic,
    /// Others say the same of all that it speaks of.
    Covered,
    /// What it allows is denied by others, all of it.
    Shadowed,
    /// What it speaks of, the other end keeps out.
    OtherEnd,
}

/// A rule that could go.
#[derive(Clone, Debug)]
pub struct Dead {
    /// Where it stands.
    pub place: Place,
    /// Why it says nothing.
    pub reason: Reason,
    /// The rules that say it all without it.
    pub covered_by: Vec<Arc<RuleOrigin>>,
}

/// What a search for dead rules came to.
#[derive(Debug, Default)]
pub struct DeadRules {
    /// Rules that could go, all of them together.
    pub dead: Vec<Dead>,
    /// Rules of which it could not be told, with the reason.
    pub unclear: Vec<(Place, String)>,
}

/// Rules that could go, all of them together. Both sides of the scene are the same policies; later rules go first.
pub fn dead(scene: &mut Scene<'_>, pairs: usize) -> DeadRules {
    let mut found = DeadRules::default();
    for rule in 0..scene.rules.entries.len() {
        let entry = &mut scene.rules.entries[rule];
        let copies = entry.places[0].split_off(1);
        entry.places[1].truncate(1);
        let first = entry.places[0][0];
        let origin = scene.sides[0].policies[first.0].rules[first.1].origin.clone();
        let duplicate = |place| Dead { place, reason: Reason::Duplicate, covered_by: vec![origin.clone()] };
        found.dead.extend(copies.into_iter().map(duplicate));
    }
    let mut gone = Vec::new();
    for rule in (0..scene.rules.entries.len()).rev() {
        let place = scene.rules.entries[rule].places[1].clone();
        scene.set_places(rule, 1, Vec::new());
        let Differences { regions, incomplete } = differences(scene, pairs);
        match (regions.is_empty(), incomplete) {
            (true, None) => {
                gone.push((rule, place[0]));
                scene.set_places(rule, 0, Vec::new());
            }
            (true, Some(why)) => {
                found.unclear.push((place[0], why));
                scene.set_places(rule, 1, place);
            }
            (false, _) => scene.set_places(rule, 1, place),
        }
    }
    // Why, is asked of the rules that stay.
    for (rule, place) in gone {
        scene.set_places(rule, 0, vec![place]);
        let (reason, covered_by) = why(scene, rule);
        found.dead.push(Dead { place, reason, covered_by });
        scene.set_places(rule, 0, Vec::new());
    }
    found.dead.sort_by_key(|one| one.place);
    found.unclear.sort();
    found
}

/// Why the rule, which the second side does not have, is dead.
fn why(scene: &mut Scene<'_>, rule: RuleId) -> (Reason, Vec<Arc<RuleOrigin>>) {
    let entry = &scene.rules.entries[rule];
    let (direction, effect) = (entry.rule.direction, entry.rule.effect);
    let (subjects, _) = scene.subjects(&scene.space.all());
    let (subjects, _) = scene.space.split(&subjects, entry.subject);
    if subjects.is_empty() {
        return (Reason::NoSubject, Vec::new());
    }
    let starts = first_ports(&entry.rule.ports);
    let everybody = entry.rule.peers.contains(&policy::Peer::All);
    let questions = entry.peers.clone();
    let speaks = |scene: &Scene<'_>, set: &Set| {
        everybody || questions.iter().any(|question| !scene.space.split(set, *question).0.is_empty())
    };
    if starts.is_empty() || !speaks(scene, &scene.space.all()) {
        return (Reason::NoTraffic, closing(scene, rule, direction));
    }
    let Ok(classes) = scene.classes(subjects) else { return (Reason::Covered, Vec::new()) };
    let (mut covering, mut all_denied, mut one_end) = (BTreeSet::new(), true, true);
    for (set, class) in classes.iter().take(MOST) {
        let Ok(view) = scene.view(class, set) else { continue };
        let cells = if direction == Direction::Ingress { &view.ingress } else { &view.egress };
        one_end &= cells.iter().all(|(_, profile)| profile.values().flatten().all(|(_, [old, new])| old == new));
        let spoken: Vec<&Set> = cells.iter().map(|(set, _)| set).filter(|set| speaks(scene, set)).take(MOST).collect();
        for peers in spoken {
            let part = questions.iter().map(|question| scene.space.split(peers, *question).0);
            let part = part.into_iter().find(|part| !part.is_empty()).unwrap_or_else(|| peers.clone());
            for (protocol, port) in starts.iter().take(MOST) {
                let set = decided(scene, class, set, &part, (direction, *protocol, *port));
                all_denied &= set.1;
                covering.extend(set.0);
            }
        }
    }
    let reason = match (one_end, effect, all_denied) {
        (false, ..) => Reason::OtherEnd,
        (true, Effect::Allow, true) => Reason::Shadowed,
        (true, ..) => Reason::Covered,
    };
    (reason, covering.into_iter().collect())
}

/// So many examples of each kind tell enough.
const MOST: usize = 12;

/// Who decides without the rule, and whether that is to keep out.
fn decided(
    scene: &Scene<'_>,
    class: &Class,
    subjects: &Set,
    peers: &Set,
    what: (Direction, Option<u8>, u16),
) -> (Vec<Arc<RuleOrigin>>, bool) {
    let nothing = crate::view::Starts::new();
    let subject = scene.stand(subjects, &class.names, &nothing);
    let peer = scene.stand(peers, &Names::default(), &nothing);
    let (set, denies) = scene.deciders(1, &class.rules, &subject, &peer, what);
    let rules = match set.implicit {
        Some(Implicit::NotEnforced | Implicit::AllowAny(_)) => Vec::new(),
        _ => set.rules.to_vec(),
    };
    (rules, denies)
}

/// The other rules for some of the same subjects that close them.
fn closing(scene: &Scene<'_>, rule: RuleId, direction: Direction) -> Vec<Arc<RuleOrigin>> {
    let subject = &scene.rules.entries[rule].rule.subject;
    let others = scene.rules.entries.iter().filter(|entry| {
        !entry.places[1].is_empty()
            && entry.rule.default_deny
            && entry.rule.direction == direction
            && entry.rule.subject == *subject
    });
    others.map(|entry| entry.rule.origin.clone()).collect()
}

fn first_ports(ports: &Ports) -> Vec<(Option<u8>, u16)> {
    let Ports::Some(ports) = ports else { return vec![(None, 0), (Some(6), 0)] };
    let first = |range: &PortRange| match range {
        PortRange::Numbers(first, _) => *first,
        PortRange::All | PortRange::Named(_) => 0,
    };
    ports.iter().map(|port| (Some(port.protocol), first(&port.range))).collect()
}
