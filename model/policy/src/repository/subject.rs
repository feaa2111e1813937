//! Which tables do the endpoints of one identity get, and what does one peer more or less change in them?

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

use abi::policy::{CLASS_OTHERS, Class, VerdictEntry, VerdictKey};
use foldhash::fast::RandomState as FastHash;
use identity::NumericIdentity;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::identities::Identity;
use super::places::Places;
use super::rule_sets::{RuleSets, Wanted};
use super::selectors::SelectorId;
use super::subject_rules::SubjectRules;
use super::{NamedPorts, What};
use crate::classes::Classes;
use crate::origin::RuleSet;
use crate::resolve::{Chosen, Deciders, Entry, PeerKey, Placed, Prefix, RangeKey, Row, entries};
use crate::rule::PortRange;
use crate::tables::{EndpointPolicy, Entries};

/// What makes peers differ in the eyes of the subject.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Signature {
    /// The subject's selectors that select them.
    selectors: SmallVec<[u32; 4]>,
    /// The numbers of their ports that egress rules of the subject name.
    named: Vec<((u8, String), u16)>,
}

/// The tables of subjects that have the same rules, with what it takes to put one more peer into them.
#[derive(Clone)]
pub(super) struct SubjectTables {
    rules: SubjectRules,
    directions: [Places; 2],
    signatures: Signatures,
    next_class: Class,
    classes: Classes,
    /// By class; those of one class and direction in their own order.
    rows: Vec<(VerdictKey, VerdictEntry)>,
    /// Which of them are those of class 0, for each direction.
    others: [Range<usize>; 2],
    /// Sorted by number, each once.
    rule_sets: Vec<RuleSet>,
    numbers: Numbers,
    error: Option<Arc<str>>,
    /// What was last handed out, as long as somebody has it.
    snapshot: Weak<EndpointPolicy>,
}

/// Classes by what makes peers differ.
#[derive(Clone, Default)]
struct Signatures {
    /// Of peers that one selector alone selects, by its number; 0 where there is none yet.
    of_one: Vec<Class>,
    others: HashMap<Signature, Class, FastHash>,
}

/// Numbers of rule sets by who decides.
#[derive(Clone, Default)]
struct Numbers {
    /// Where one rule alone decides, by its number, and nothing else is to be told; 0 where that was not asked yet.
    of_rule: Vec<u32>,
    /// Where no rule decides, for each direction.
    of_base: [Option<u32>; 2],
    others: HashMap<(usize, Deciders), u32, FastHash>,
}

impl SubjectTables {
    /// The tables with the entries of class 0 alone.
    pub fn new(rules: SubjectRules, own_ports: &NamedPorts, error: Option<Arc<str>>, rule_sets: &mut RuleSets) -> Self {
        let directions = [0, 1].map(|at| Places::new(&rules.directions[at], rules.selectors.all().len(), own_ports));
        let mut tables = SubjectTables {
            rules,
            directions,
            signatures: Signatures::default(),
            next_class: CLASS_OTHERS + 1,
            classes: Classes::default(),
            rows: Vec::with_capacity(4),
            others: [0..0, 0..0],
            rule_sets: Vec::with_capacity(4),
            numbers: Numbers::default(),
            error,
            snapshot: Weak::new(),
        };
        for at in [0, 1] {
            tables.others[at] = tables.add_rows(at, CLASS_OTHERS, &Signature::default(), rule_sets);
        }
        tables.settle_rule_sets();
        tables
    }

    /// The selectors of the subject's rules.
    pub fn selectors(&self) -> &[SelectorId] {
        self.rules.selectors.all()
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
        self.rule_sets.iter().map(|set| set.id)
    }

    /// The tables as they are now. `revision` is the repository's: they hold for it.
    pub fn snapshot(&mut self, revision: u64) -> Arc<EndpointPolicy> {
        if let Some(policy) = self.snapshot.upgrade().filter(|policy| policy.revision == revision) {
            return policy;
        }
        let mut rows = self.rows.clone();
        // Stable, so that within one length it stays the order of class, direction, protocol and port.
        rows.sort_by_key(|(key, _)| key.prefix_len);
        let policy = Arc::new(EndpointPolicy {
            revision,
            ingress_enforced: self.rules.directions[0].enforced,
            egress_enforced: self.rules.directions[1].enforced,
            classes: self.classes.clone(),
            rule_sets: self.rule_sets.clone(),
            error: self.error.clone(),
            entries: Entries::new(rows),
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
        let had = self.classes.remove(peer).is_some();
        if had {
            self.snapshot = Weak::new();
        }
        had
    }

    /// Puts all peers into their classes at once: those whom each selector selects, by its number. For tables that have
    /// no peers yet and ask none for names.
    pub fn classify_all(&mut self, members: &[&RoaringBitmap], rule_sets: &mut RuleSets) {
        let count: u64 = members.iter().map(|members| members.len()).sum();
        let mut pairs: Vec<(NumericIdentity, u32)> = Vec::with_capacity(count as usize);
        for (number, members) in (0..).zip(members) {
            members.iter().for_each(|peer| pairs.push((peer, number)));
        }
        sort_by_peer(&mut pairs);
        let mut classes: Vec<(NumericIdentity, Class)> = Vec::with_capacity(pairs.len());
        for same in pairs.chunk_by(|(one, _), (next, _)| one == next) {
            let Some(&(peer, number)) = same.first() else { continue };
            let known = Some(number).filter(|_| same.len() == 1).and_then(|number| self.signatures.of_one(number));
            let class = known.unwrap_or_else(|| {
                let mut signature = Signature::default();
                same.iter().for_each(|(_, number)| signature.selectors.push(*number));
                self.class(signature, rule_sets)
            });
            classes.push((peer, class));
        }
        self.classes = Classes::of(classes);
        self.settle_rule_sets();
        self.snapshot = Weak::new();
    }

    /// Puts a peer, which these selectors select, into its class; says what changes.
    pub fn classify(
        &mut self,
        peer: NumericIdentity,
        known: &Identity,
        selectors: &[SelectorId],
        rule_sets: &mut RuleSets,
    ) -> Option<What> {
        let signature = self.signature(known, selectors);
        if signature == Signature::default() {
            return self.remove(peer).then_some(What::ClassRemoved { identity: peer });
        }
        let (rows, sets) = (self.rows.len(), self.rule_sets.len());
        let class = self.class(signature, rule_sets);
        let new: Vec<RuleSet> = self.rule_sets[sets..].to_vec();
        let new = self.settle_new(sets, new);
        if self.classes.get(peer) == Some(class) {
            return None;
        }
        self.classes.insert(peer, class);
        self.snapshot = Weak::new();
        Some(What::ClassSet { identity: peer, class, verdicts: self.rows[rows..].to_vec(), rule_sets: new })
    }

    fn signature(&self, known: &Identity, selectors: &[SelectorId]) -> Signature {
        let numbers = selectors.iter().filter_map(|selector| self.rules.selectors.get(*selector));
        let mut selectors: SmallVec<[u32; 4]> = numbers.collect();
        selectors.sort_unstable();
        let names = self.directions.iter().flat_map(|placed| &placed.names);
        let named = names.filter_map(|name| Some((name.clone(), known.port_of(name)?)));
        Signature { selectors, named: named.collect() }
    }

    /// The class of peers that differ so; it is made, with its rows, if it is new.
    fn class(&mut self, signature: Signature, rule_sets: &mut RuleSets) -> Class {
        let known = self.signatures.slot(&signature, self.rules.selectors.all().len());
        if *known != CLASS_OTHERS {
            return *known;
        }
        let class = self.next_class;
        *known = class;
        self.next_class += 1;
        for at in [0, 1] {
            if self.directions[at].concerns(&signature.selectors) || !signature.named.is_empty() {
                self.add_rows(at, class, &signature, rule_sets);
            } else {
                // Nothing is said of these peers in this direction: they are like all others.
                let like = |(key, entry): (VerdictKey, VerdictEntry)| (VerdictKey { class, ..key }, entry);
                let from = self.rows.len();
                self.rows.extend_from_within(self.others[at].clone());
                self.rows[from..].iter_mut().for_each(|row| *row = like(*row));
            }
        }
        class
    }

    /// Adds the rows of a class in a direction.
    fn add_rows(&mut self, at: usize, class: Class, whom: &Signature, rule_sets: &mut RuleSets) -> Range<usize> {
        let from = self.rows.len();
        let direction = self.rules.directions[at].direction;
        for entry in &self.class_entries(at, whom) {
            let rule_set = self.number(at, &entry.deciders, rule_sets);
            self.rows.push(entry.row(class, direction, rule_set));
        }
        if self.rows.len() > from + 1 {
            self.rows[from..].sort_unstable_by_key(|(key, _)| *key);
        }
        from..self.rows.len()
    }

    fn class_entries(&self, at: usize, signature: &Signature) -> SmallVec<[Entry; 2]> {
        let (rules, places) = (&self.rules.directions[at], &self.directions[at]);
        let mut placed: Chosen<'_> = SmallVec::new();
        let mut place = |chosen: &[(Prefix, u32)]| {
            for (prefix, number) in chosen {
                let candidate = &rules.candidates[*number as usize];
                placed.push(Placed { prefix: *prefix, row: candidate.row, number: *number, candidate });
            }
        };
        place(places.of_everybody());
        signature.selectors.iter().for_each(|number| place(places.of_selector(*number)));
        self.add_named_by_peer(at, signature, &mut placed);
        entries(&mut placed, &Entry::base(rules.enforced), places.passes)
    }

    /// A name means other ports for each peer, so that a rule for everybody is one for this peer.
    fn add_named_by_peer<'a>(&'a self, at: usize, signature: &Signature, placed: &mut Chosen<'a>) {
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
                placed.push(Placed { prefix, row: Row::Own, number: *one, candidate });
            }
        }
    }

    /// The number of the set of those who decide. A set that is new is added at the end of those of the tables.
    fn number(&mut self, at: usize, deciders: &Deciders, rule_sets: &mut RuleSets) -> u32 {
        if let Some(id) = self.numbers.get(at, deciders) {
            return id;
        }
        let direction = &self.rules.directions[at];
        let followed = |one: &u32| direction.candidates[*one as usize].redirect.clone();
        let closing = deciders.closing.then(|| self.rules.closing(direction)).into_iter().flatten();
        let deciding = deciders.rules.iter().copied().chain(closing);
        let set = rule_sets.intern(Wanted {
            implicit: deciders.implicit,
            rules: deciding.map(|number| self.rules.rules[number as usize].origin.clone()).collect(),
            auth: deciders.auth,
            auth_explicit: deciders.auth_explicit,
            redirects: deciders.redirects.iter().filter_map(followed).collect(),
        });
        self.numbers.set(at, deciders, set.id, self.rules.rules.len());
        let id = set.id;
        self.rule_sets.push(set);
        id
    }

    /// Puts sets that were added into order.
    fn settle_rule_sets(&mut self) {
        self.rule_sets.sort_by_key(|set| set.id);
        self.rule_sets.dedup_by_key(|set| set.id);
    }

    /// The same for a few; yields those that were not there.
    fn settle_new(&mut self, before: usize, mut new: Vec<RuleSet>) -> Vec<RuleSet> {
        if new.is_empty() {
            return new;
        }
        let known = &self.rule_sets[..before];
        new.sort_by_key(|set| set.id);
        new.dedup_by_key(|set| set.id);
        new.retain(|set| known.binary_search_by_key(&set.id, |one| one.id).is_err());
        self.settle_rule_sets();
        new
    }
}

/// So many pairs are compared with each other, as there are more digits than that.
const FEW: usize = 64;

/// Sorts pairs by the first number, of which the second ones of equal ones stay as they are: digit by digit, which takes
/// a quarter of what comparing does.
fn sort_by_peer(pairs: &mut Vec<(NumericIdentity, u32)>) {
    if pairs.len() <= FEW {
        pairs.sort_by_key(|(peer, _)| *peer);
        return;
    }
    let differ = pairs.iter().fold(0, |differ, (peer, _)| differ | peer ^ pairs[0].0);
    if differ == 0 {
        return;
    }
    let mut sorted = vec![(0, 0); pairs.len()];
    for shift in [0, 8, 16, 24].into_iter().filter(|shift| differ >> shift & 0xff != 0) {
        let digit = |peer: NumericIdentity| (peer >> shift & 0xff) as usize;
        let mut next = [0; 257];
        pairs.iter().for_each(|(peer, _)| next[digit(*peer) + 1] += 1);
        (1..257).for_each(|digit| next[digit] += next[digit - 1]);
        for pair in pairs.iter() {
            let place = &mut next[digit(pair.0)];
            sorted[*place] = *pair;
            *place += 1;
        }
        std::mem::swap(pairs, &mut sorted);
    }
}

impl Signatures {
    /// The class of peers that one selector alone selects, if there is one.
    fn of_one(&self, number: u32) -> Option<Class> {
        self.of_one.get(number as usize).copied().filter(|class| *class != CLASS_OTHERS)
    }

    /// Where the class stands; [`CLASS_OTHERS`] if there is none yet.
    fn slot(&mut self, signature: &Signature, selectors: usize) -> &mut Class {
        if let ([one], true) = (signature.selectors.as_slice(), signature.named.is_empty()) {
            if self.of_one.is_empty() {
                self.of_one.resize(selectors, CLASS_OTHERS);
            }
            return &mut self.of_one[*one as usize];
        }
        self.others.entry(signature.clone()).or_insert(CLASS_OTHERS)
    }
}

impl Numbers {
    fn get(&self, at: usize, deciders: &Deciders) -> Option<u32> {
        if deciders.is_base() {
            return self.of_base[at];
        }
        match deciders.one_rule() {
            Some(rule) => self.of_rule.get(rule as usize).copied().filter(|id| *id != 0),
            None => self.others.get(&(at, deciders.clone())).copied(),
        }
    }

    fn set(&mut self, at: usize, deciders: &Deciders, id: u32, rules: usize) {
        if deciders.is_base() {
            self.of_base[at] = Some(id);
            return;
        }
        match deciders.one_rule() {
            Some(rule) => {
                if self.of_rule.is_empty() {
                    self.of_rule.resize(rules, 0);
                }
                self.of_rule[rule as usize] = id;
            }
            None => drop(self.others.insert((at, deciders.clone()), id)),
        }
    }
}
