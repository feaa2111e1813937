//! Which tables do the endpoints of one identity get, and what does one peer more or less change in them?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use abi::policy::{CLASS_OTHERS, Class, VerdictEntry, VerdictKey};
use foldhash::fast::RandomState as FastHash;
use identity::NumericIdentity;

use super::identities::Identity;
use super::rule_sets::{RuleSets, Wanted};
use super::selectors::SelectorId;
use super::subject_rules::{DirectionRules, SubjectRules};
use super::{NamedPorts, What};
use crate::origin::{Direction, RuleSet};
use crate::resolve::{Deciders, Entry, PeerKey, Placed, Prefix, RangeKey, Row, entries};
use crate::rule::{Effect, PortRange};
use crate::tables::{EndpointPolicy, Entries};

/// What makes peers differ in the eyes of the subject.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Signature {
    /// The subject's selectors that select them.
    selectors: Vec<u32>,
    /// The numbers of their ports that egress rules of the subject name.
    named: Vec<((u8, String), u16)>,
}

/// The tables of subjects that have the same rules, with what it takes to put one more peer into them.
#[derive(Clone)]
pub(super) struct SubjectTables {
    rules: SubjectRules,
    by_selector: HashMap<SelectorId, u32, FastHash>,
    directions: [Places; 2],
    signatures: HashMap<Signature, Class, FastHash>,
    next_class: Class,
    classes: BTreeMap<NumericIdentity, Class>,
    verdicts: BTreeMap<VerdictKey, VerdictEntry>,
    rule_sets: BTreeMap<u32, RuleSet>,
    known_deciders: HashMap<(usize, Deciders), u32, FastHash>,
    error: Option<Arc<str>>,
    /// What was last handed out, as long as somebody has it.
    snapshot: Weak<EndpointPolicy>,
}

/// Candidates of a direction by prefix and peer selector, as numbers into the rules' candidates.
#[derive(Clone, Default)]
struct Places {
    all: Vec<(Prefix, u32)>,
    by_selector: HashMap<u32, Vec<(Prefix, u32)>>,
    /// Those whose ports the peer names.
    peer_named: Vec<u32>,
    asks_subject: bool,
    names: BTreeSet<(u8, String)>,
}

impl SubjectTables {
    /// The tables with the entries of class 0 alone.
    pub fn new(rules: SubjectRules, own_ports: &NamedPorts, error: Option<Arc<str>>, rule_sets: &mut RuleSets) -> Self {
        let directions = [0, 1].map(|at| place(&rules.directions[at], own_ports));
        let by_selector = (0..).zip(&rules.selectors).map(|(number, selector)| (*selector, number)).collect();
        let mut tables = SubjectTables {
            rules,
            by_selector,
            directions,
            signatures: HashMap::default(),
            next_class: CLASS_OTHERS + 1,
            classes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            rule_sets: BTreeMap::new(),
            known_deciders: HashMap::default(),
            error,
            snapshot: Weak::new(),
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
        if let Some(policy) = self.snapshot.upgrade().filter(|policy| policy.revision == revision) {
            return policy;
        }
        let policy = Arc::new(EndpointPolicy {
            revision,
            ingress_enforced: self.rules.directions[0].enforced,
            egress_enforced: self.rules.directions[1].enforced,
            classes: self.classes.clone(),
            rule_sets: self.rule_sets.values().cloned().collect(),
            error: self.error.clone(),
            entries: Entries::new(self.verdicts.iter().map(|(key, entry)| (*key, *entry)).collect()),
        });
        self.snapshot = Arc::downgrade(&policy);
        policy
    }

    /// Why the tables are not those of the policies as they are now; `None` if they are.
    pub fn error(&self) -> Option<&Arc<str>> {
        self.error.as_ref()
    }

    /// The policies as they are now cannot be put together: the tables stay.
    pub fn fail(&mut self, error: Arc<str>) {
        self.error = Some(error);
        self.snapshot = Weak::new();
    }

    /// A peer is gone. True if it had a class.
    pub fn remove(&mut self, peer: NumericIdentity) -> bool {
        let had = self.classes.remove(&peer).is_some();
        if had {
            self.snapshot = Weak::new();
        }
        had
    }

    /// Puts all peers into their classes at once: pairs of a peer and the number of a selector that selects it, sorted.
    /// For tables that have no peers yet and ask none for names.
    pub fn classify_all(&mut self, pairs: &[(NumericIdentity, u32)], rule_sets: &mut RuleSets) {
        let mut classes: Vec<(NumericIdentity, Class)> = Vec::new();
        let mut signature = Signature::default();
        for same in pairs.chunk_by(|(one, _), (next, _)| one == next) {
            let Some((peer, _)) = same.first() else { continue };
            signature.selectors.clear();
            signature.selectors.extend(same.iter().map(|(_, number)| *number));
            let class = match self.signatures.get(&signature) {
                Some(class) => *class,
                None => {
                    let class = self.next_class;
                    self.next_class += 1;
                    self.add_class(class, signature.clone(), rule_sets);
                    class
                }
            };
            classes.push((*peer, class));
        }
        self.classes = classes.into_iter().collect();
        self.snapshot = Weak::new();
    }

    /// Puts a peer into its class; says what changes.
    pub fn classify(&mut self, peer: NumericIdentity, known: &Identity, rule_sets: &mut RuleSets) -> Option<What> {
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
        self.snapshot = Weak::new();
    }

    fn signature(&self, known: &Identity) -> Signature {
        let mut selectors: Vec<u32> =
            known.selectors.iter().filter_map(|selector| self.by_selector.get(&selector)).copied().collect();
        selectors.sort_unstable();
        let names = self.directions.iter().flat_map(|placed| &placed.names);
        let named = names.filter_map(|name| Some((name.clone(), known.port_of(name)?)));
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
                let rule_set = self.number(at, &entry.deciders, rule_sets, &mut new_sets);
                rows.push(entry.row(class, self.rules.directions[at].direction, rule_set));
            }
        }
        self.verdicts.extend(rows.iter().copied());
        self.signatures.insert(signature, class);
        (rows, new_sets)
    }

    fn class_entries(&self, at: usize, signature: &Signature) -> Vec<Entry> {
        let (rules, places) = (&self.rules.directions[at], &self.directions[at]);
        let chosen = signature.selectors.iter().filter_map(|number| places.by_selector.get(number)).flatten();
        let chosen = places.all.iter().chain(chosen).copied();
        let mut placed: Vec<Placed<'_>> = chosen
            .map(|(prefix, number)| {
                let candidate = &rules.candidates[number as usize];
                Placed { prefix, row: candidate.row, number, candidate }
            })
            .collect();
        placed.extend(self.named_by_peer(at, signature));
        let passes = rules.candidates.iter().any(|candidate| candidate.effect == Effect::Pass);
        entries(&placed, Entry::base(rules.enforced), passes)
    }

    /// A name means other ports for each peer, so that a rule for everybody is one for this peer.
    fn named_by_peer<'a>(&'a self, at: usize, signature: &Signature) -> Vec<Placed<'a>> {
        let mut found = Vec::new();
        for one in &self.directions[at].peer_named {
            let candidate = &self.rules.directions[at].candidates[*one as usize];
            let selected = match candidate.peer {
                PeerKey::All => true,
                PeerKey::Selector(number) => signature.selectors.binary_search(&number).is_ok(),
            };
            let RangeKey::Ports(protocol, PortRange::Named(name), _) = &candidate.range else { continue };
            let numbers = signature.named.iter().filter(|(key, _)| key.0 == *protocol && key.1 == *name);
            for (_, number) in numbers.filter(|_| selected) {
                let prefix = Prefix { protocol: Some(*protocol), bits: 16, port: *number };
                found.push(Placed { prefix, row: Row::Own, number: *one, candidate });
            }
        }
        found
    }

    fn number(&mut self, at: usize, deciders: &Deciders, rule_sets: &mut RuleSets, new_sets: &mut Vec<RuleSet>) -> u32 {
        let key = (at, deciders.clone());
        if let Some(&id) = self.known_deciders.get(&key) {
            return id;
        }
        let candidates = &self.rules.directions[at].candidates;
        let redirects = deciders.redirects.iter().filter_map(|one| candidates[*one as usize].redirect.clone());
        let closing = self.rules.directions[at].closed_by.iter().filter(|_| deciders.closing);
        let deciding = deciders.rules.iter().chain(closing);
        let set = rule_sets.intern(Wanted {
            implicit: deciders.implicit,
            rules: deciding.map(|number| self.rules.origins[*number as usize].clone()).collect(),
            auth: deciders.auth,
            auth_explicit: deciders.auth_explicit,
            redirects: redirects.collect(),
        });
        self.known_deciders.insert(key, set.id);
        if self.rule_sets.insert(set.id, set.clone()).is_none() {
            new_sets.push(set.clone());
        }
        set.id
    }
}

fn place(rules: &DirectionRules, own_ports: &NamedPorts) -> Places {
    let mut places = Places::default();
    for (number, candidate) in (0..).zip(&rules.candidates) {
        let mut prefixes = candidate.prefixes();
        if let RangeKey::Ports(protocol, PortRange::Named(name), _) = &candidate.range {
            let key = (*protocol, name.clone());
            if rules.direction == Direction::Egress {
                places.peer_named.push(number);
                places.names.insert(key);
                continue;
            }
            places.asks_subject = true;
            let numbers = own_ports.get(&key).into_iter().flatten();
            prefixes.extend(numbers.map(|port| Prefix { protocol: Some(*protocol), bits: 16, port: *port }));
        }
        let list = match candidate.peer {
            PeerKey::All => &mut places.all,
            PeerKey::Selector(selector) => places.by_selector.entry(selector).or_default(),
        };
        list.extend(prefixes.into_iter().map(|prefix| (prefix, number)));
    }
    places
}
