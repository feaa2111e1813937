//! Which tables do the endpoints of one identity get, and what does one peer more or less change in them?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use abi::identity::HOST;
use abi::policy::{CLASS_OTHERS, Class, VerdictEntry, VerdictKey};
use identity::NumericIdentity;

use super::rule_sets::RuleSets;
use super::selectors::SelectorId;
use super::{Compiled, Known, NamedPorts, What};
use crate::origin::{Direction, Implicit, RuleOrigin, RuleSet};
use crate::peer::{Peer, PeerIdentity};
use crate::resolve::{By, Candidate, Deciders, Entry, PeerKey, Prefix, RangeKey, entries, settle};
use crate::rule::{Effect, PortRange, Ports};
use crate::settings::{AllowLocalhost, Mode, Settings};
use crate::tables::EndpointPolicy;

/// What the rules of one subject say, whoever the peers are.
pub(super) struct SubjectRules {
    origins: Vec<Arc<RuleOrigin>>,
    selectors: Vec<SelectorId>,
    directions: [DirectionRules; 2],
}

struct DirectionRules {
    direction: Direction,
    enforced: bool,
    closed_by: Vec<u32>,
    candidates: Vec<Candidate>,
}

impl SubjectRules {
    /// What these rules, which select the subject, say together with the settings.
    pub fn new(settings: &Settings, subject: &PeerIdentity, rules: Vec<Arc<Compiled>>, host: SelectorId) -> Self {
        let origins = rules.iter().map(|one| one.rule.origin.clone()).collect();
        let mut numbers = Numbers::default();
        let directions =
            Direction::BOTH.map(|direction| direction_rules(settings, subject, direction, &rules, &mut numbers, host));
        SubjectRules { origins, selectors: numbers.selectors, directions }
    }
}

/// Selectors by their number within the subject.
#[derive(Default)]
struct Numbers {
    selectors: Vec<SelectorId>,
    by_selector: HashMap<SelectorId, u32>,
}

impl Numbers {
    fn of(&mut self, selector: SelectorId) -> u32 {
        *self.by_selector.entry(selector).or_insert_with(|| {
            self.selectors.push(selector);
            (self.selectors.len() - 1) as u32
        })
    }
}

fn direction_rules(
    settings: &Settings,
    subject: &PeerIdentity,
    direction: Direction,
    rules: &[Arc<Compiled>],
    numbers: &mut Numbers,
    host: SelectorId,
) -> DirectionRules {
    let exempt = settings.mode == Mode::Never || subject.identity == HOST && !settings.host_firewall;
    let of_direction = |one: &&Arc<Compiled>| one.rule.direction == direction;
    let own: Vec<(u32, &Arc<Compiled>)> =
        (0..).zip(rules.iter()).filter(|(_, one)| of_direction(one) && !exempt).collect();
    let closed_by: Vec<u32> = own.iter().filter(|(_, one)| one.rule.default_deny).map(|(number, _)| *number).collect();
    let always = !exempt && (settings.mode == Mode::Always || subject.labels.has_reserved("init"));
    let closed = always || !closed_by.is_empty();
    let mut candidates = Vec::new();
    for (number, compiled) in &own {
        add_candidates(*number, compiled, numbers, &mut candidates);
    }
    let implicit = |what, peer, sum| Candidate {
        by: By::Implicit(what),
        peer,
        range: RangeKey::Any,
        sum,
        deny: false,
        redirect: false,
        l7: None,
    };
    let localhost = subject.identity != HOST
        && match settings.allow_localhost {
            AllowLocalhost::Always => !own.is_empty(),
            AllowLocalhost::EvenWithoutRules => true,
            AllowLocalhost::Policy => false,
        };
    match (own.is_empty(), closed, direction) {
        (true, false, _) => {}
        (false, false, _) => candidates.push(implicit(Implicit::AllowAny(direction), PeerKey::All, true)),
        (_, true, Direction::Ingress) if localhost => {
            let peer = PeerKey::Selector(numbers.of(host));
            candidates.push(implicit(Implicit::AllowLocalhost, peer, false));
        }
        (_, true, _) => {}
    }
    DirectionRules { direction, enforced: always || !own.is_empty(), closed_by, candidates: settle(candidates) }
}

fn add_candidates(number: u32, compiled: &Compiled, numbers: &mut Numbers, candidates: &mut Vec<Candidate>) {
    let rule = &compiled.rule;
    let ranges: Vec<(RangeKey, Option<Arc<crate::rule::L7>>)> = match &rule.ports {
        Ports::All => vec![(RangeKey::Any, None)],
        Ports::Some(ports) => {
            ports.iter().map(|port| (RangeKey::Ports(port.protocol, port.range.clone()), port.l7.clone())).collect()
        }
    };
    let mut selectors = compiled.selectors.iter();
    for peer in &rule.peers {
        let key = match peer {
            Peer::All => PeerKey::All,
            Peer::Labels(_) | Peer::Entity { .. } | Peer::Cidr(_) | Peer::Learned(_) => {
                let Some(selector) = selectors.next() else { continue };
                PeerKey::Selector(numbers.of(*selector))
            }
        };
        for (range, l7) in &ranges {
            candidates.push(Candidate {
                by: By::Rule(number),
                peer: key,
                range: range.clone(),
                sum: peer.is_sum(),
                deny: rule.effect == Effect::Deny,
                redirect: rule.effect == Effect::Allow && l7.is_some(),
                l7: l7.clone(),
            });
        }
    }
}

/// What makes peers differ in the eyes of the subject.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Signature {
    /// The subject's selectors that select them.
    selectors: Vec<u32>,
    /// The numbers of their ports that egress rules of the subject name.
    named: Vec<((u8, String), BTreeSet<u16>)>,
}

/// The tables of one subject, with what it takes to put one more peer into them.
pub(super) struct SubjectTables {
    rules: SubjectRules,
    by_selector: HashMap<SelectorId, u32>,
    directions: [Placed; 2],
    signatures: HashMap<Signature, Class>,
    next_class: Class,
    classes: BTreeMap<NumericIdentity, Class>,
    verdicts: BTreeMap<VerdictKey, VerdictEntry>,
    rule_sets: BTreeMap<u32, RuleSet>,
    known_deciders: HashMap<Deciders, u32>,
    snapshot: Option<Arc<EndpointPolicy>>,
}

/// Candidates of a direction by prefix and peer selector, as numbers into the rules' candidates.
#[derive(Default)]
struct Placed {
    all: Vec<(Prefix, usize)>,
    by_selector: HashMap<u32, Vec<(Prefix, usize)>>,
    /// Those whose ports the peer names.
    peer_named: Vec<usize>,
    asks_subject: bool,
    names: BTreeSet<(u8, String)>,
}

impl SubjectTables {
    /// The tables with the entries of class 0 alone.
    pub fn new(rules: SubjectRules, own_ports: &NamedPorts, rule_sets: &mut RuleSets) -> Self {
        let directions = [0, 1].map(|at| place(&rules.directions[at], own_ports));
        let by_selector = (0..).zip(&rules.selectors).map(|(number, selector)| (*selector, number)).collect();
        let mut tables = SubjectTables {
            rules,
            by_selector,
            directions,
            signatures: HashMap::new(),
            next_class: CLASS_OTHERS + 1,
            classes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            rule_sets: BTreeMap::new(),
            known_deciders: HashMap::new(),
            snapshot: None,
        };
        tables.add_class(CLASS_OTHERS, Signature::default(), rule_sets);
        tables
    }

    /// The selectors of the subject's rules.
    pub fn selectors(&self) -> &[SelectorId] {
        &self.rules.selectors
    }

    /// True if some rule names ports that peers give numbers.
    pub fn asks_peers_for_names(&self) -> bool {
        self.directions.iter().any(|placed| !placed.peer_named.is_empty())
    }

    /// True if some rule names ports that the subject gives numbers.
    pub fn asks_subject_for_names(&self) -> bool {
        self.directions.iter().any(|placed| placed.asks_subject)
    }

    /// Numbers of the rule sets that entries name.
    pub fn rule_set_ids(&self) -> impl Iterator<Item = u32> {
        self.rule_sets.keys().copied()
    }

    /// The tables as they are now. `revision` is the repository's: they hold for it.
    pub fn snapshot(&mut self, revision: u64) -> Arc<EndpointPolicy> {
        if let Some(policy) = self.snapshot.as_ref().filter(|policy| policy.revision == revision) {
            return policy.clone();
        }
        let policy = Arc::new(EndpointPolicy {
            revision,
            ingress_enforced: self.rules.directions[0].enforced,
            egress_enforced: self.rules.directions[1].enforced,
            classes: self.classes.clone(),
            verdicts: self.verdicts.iter().map(|(key, entry)| (*key, *entry)).collect(),
            rule_sets: self.rule_sets.values().cloned().collect(),
        });
        self.snapshot = Some(policy.clone());
        policy
    }

    /// A peer is gone. True if it had a class.
    pub fn remove(&mut self, peer: NumericIdentity) -> bool {
        let had = self.classes.remove(&peer).is_some();
        if had {
            self.snapshot = None;
        }
        had
    }

    /// Puts a peer into its class; says what changes.
    pub fn classify(&mut self, peer: NumericIdentity, known: &Known, rule_sets: &mut RuleSets) -> Option<What> {
        let signature = self.signature(known);
        let before = self.classes.get(&peer).copied();
        if signature == Signature::default() {
            return self.remove(peer).then_some(What::ClassRemoved { identity: peer });
        }
        if let Some(&class) = self.signatures.get(&signature) {
            if before == Some(class) {
                return None;
            }
            self.set_class(peer, class);
            return Some(What::ClassSet { identity: peer, class, verdicts: Vec::new(), rule_sets: Vec::new() });
        }
        let class = self.next_class;
        self.next_class += 1;
        let (verdicts, rule_sets) = self.add_class(class, signature, rule_sets);
        self.set_class(peer, class);
        Some(What::ClassSet { identity: peer, class, verdicts, rule_sets })
    }

    fn set_class(&mut self, peer: NumericIdentity, class: Class) {
        self.classes.insert(peer, class);
        self.snapshot = None;
    }

    fn signature(&self, known: &Known) -> Signature {
        let mut selectors: Vec<u32> =
            known.selectors.iter().filter_map(|selector| self.by_selector.get(selector)).copied().collect();
        selectors.sort_unstable();
        let names = self.directions.iter().flat_map(|placed| &placed.names);
        let named = names.filter_map(|name| Some((name.clone(), known.named_ports.get(name)?.clone())));
        Signature { selectors, named: named.collect() }
    }

    /// Adds the entries of a class; yields them and the rule sets that are new to the tables.
    fn add_class(
        &mut self,
        class: Class,
        signature: Signature,
        rule_sets: &mut RuleSets,
    ) -> (Vec<(VerdictKey, VerdictEntry)>, Vec<RuleSet>) {
        let (mut rows, mut new_sets) = (Vec::new(), Vec::new());
        for at in [0, 1] {
            for entry in self.class_entries(at, &signature) {
                let rule_set = self.number(&entry.deciders, rule_sets, &mut new_sets);
                rows.push(entry.row(class, self.rules.directions[at].direction, rule_set));
            }
        }
        self.verdicts.extend(rows.iter().copied());
        self.signatures.insert(signature, class);
        (rows, new_sets)
    }

    fn class_entries(&self, at: usize, signature: &Signature) -> Vec<Entry> {
        let (rules, placed) = (&self.rules.directions[at], &self.directions[at]);
        let chosen = signature.selectors.iter().filter_map(|number| placed.by_selector.get(number)).flatten();
        let chosen = placed.all.iter().chain(chosen).map(|(prefix, one)| (*prefix, &rules.candidates[*one]));
        let mut chosen: Vec<(Prefix, &Candidate)> = chosen.collect();
        // A name means other ports for each peer, so that a rule for everybody is one for this peer.
        let named: Vec<(Prefix, Candidate)> = self.named_by_peer(at, signature);
        chosen.extend(named.iter().map(|(prefix, candidate)| (*prefix, candidate)));
        entries(&chosen, Entry::base(rules.enforced, rules.closed_by.clone()))
    }

    fn named_by_peer(&self, at: usize, signature: &Signature) -> Vec<(Prefix, Candidate)> {
        let mut found = Vec::new();
        for one in &self.directions[at].peer_named {
            let candidate = &self.rules.directions[at].candidates[*one];
            let selected = match candidate.peer {
                PeerKey::All => true,
                PeerKey::Selector(number) => signature.selectors.binary_search(&number).is_ok(),
            };
            let RangeKey::Ports(protocol, PortRange::Named(name)) = &candidate.range else { continue };
            let numbers = signature.named.iter().filter(|(key, _)| key.0 == *protocol && key.1 == *name);
            for number in numbers.flat_map(|(_, numbers)| numbers).filter(|_| selected) {
                let prefix = Prefix { protocol: Some(*protocol), bits: 16, port: *number };
                found.push((prefix, Candidate { sum: false, ..candidate.clone() }));
            }
        }
        found
    }

    fn number(&mut self, deciders: &Deciders, rule_sets: &mut RuleSets, new_sets: &mut Vec<RuleSet>) -> u32 {
        if let Some(&id) = self.known_deciders.get(deciders) {
            return id;
        }
        let rules = deciders.rules.iter().map(|number| self.rules.origins[*number as usize].clone()).collect();
        let set = rule_sets.intern(deciders.implicit, rules);
        self.known_deciders.insert(deciders.clone(), set.id);
        if self.rule_sets.insert(set.id, set.clone()).is_none() {
            new_sets.push(set.clone());
        }
        set.id
    }
}

fn place(rules: &DirectionRules, own_ports: &NamedPorts) -> Placed {
    let mut placed = Placed::default();
    for (number, candidate) in rules.candidates.iter().enumerate() {
        let mut prefixes = candidate.prefixes();
        if let RangeKey::Ports(protocol, PortRange::Named(name)) = &candidate.range {
            let key = (*protocol, name.clone());
            if rules.direction == Direction::Egress {
                placed.peer_named.push(number);
                placed.names.insert(key);
                continue;
            }
            placed.asks_subject = true;
            let numbers = own_ports.get(&key).into_iter().flatten();
            prefixes.extend(numbers.map(|port| Prefix { protocol: Some(*protocol), bits: 16, port: *port }));
        }
        let list = match candidate.peer {
            PeerKey::All => &mut placed.all,
            PeerKey::Selector(selector) => placed.by_selector.entry(selector).or_default(),
        };
        list.extend(prefixes.into_iter().map(|prefix| (prefix, number)));
    }
    placed
}
