//! What follows for the tables of which endpoints if a policy, an identity or an address changes?

mod prefixes;
mod rule_sets;
mod selectors;
mod subject;
mod subject_rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use abi::identity::HOST;
use abi::policy::{Class, VerdictEntry, VerdictKey};
use identity::NumericIdentity;
use ipnet::IpNet;
use labels::Labels;

use crate::origin::{PolicyRef, RuleSet};
use crate::peer::{Context, Entity, Known, Learned, Peer, PeerIdentity};
use crate::rule::{PolicyObject, Rule, Subject};
use crate::settings::{Mode, Settings};
use crate::tables::EndpointPolicy;

use prefixes::Prefixes;
use rule_sets::RuleSets;
use selectors::{SelectorId, Selectors};
use subject::SubjectTables;
use subject_rules::SubjectRules;

/// Ports of an identity's pods that have names: protocol and name, with all numbers that the pods give it.
pub type NamedPorts = BTreeMap<(u8, String), BTreeSet<u16>>;

/// What a call changed, for whoever keeps the tables.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Change {
    /// Revision of the policies that holds once the tables are changed.
    pub revision: u64,
    /// Changes of tables, to be done in this order.
    pub tables: Vec<TableChange>,
    /// Prefixes that need identities from now on, before the tables are of use.
    pub prefixes_added: Vec<IpNet>,
    /// Prefixes that need none any more, once the tables are changed.
    pub prefixes_removed: Vec<IpNet>,
}

/// A change of the tables of one subject.
#[derive(Clone, PartialEq, Debug)]
pub struct TableChange {
    /// The identity of the endpoints that the tables are for.
    pub subject: NumericIdentity,
    /// What changes.
    pub what: What,
}

/// What changes.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// A peer gets a class. Entries go in before it does.
    ClassSet {
        /// The peer.
        identity: NumericIdentity,
        /// Its class.
        class: Class,
        /// Entries of the class, if it is new.
        verdicts: Vec<(VerdictKey, VerdictEntry)>,
        /// Rule sets that these entries name and that the tables did not have.
        rule_sets: Vec<RuleSet>,
    },
    /// A peer is like all others again.
    ClassRemoved {
        /// The peer.
        identity: NumericIdentity,
    },
    /// New tables in place of the old ones.
    Rebuilt(Arc<EndpointPolicy>),
}

/// A policy's rule with its peer selectors.
struct Compiled {
    rule: Rule,
    /// For each peer that is not everybody.
    selectors: Vec<SelectorId>,
}

struct Policy {
    object: Arc<PolicyObject>,
    rules: Vec<Arc<Compiled>>,
}

struct Identity {
    peer: PeerIdentity,
    named_ports: NamedPorts,
    /// The selectors that select it.
    selectors: BTreeSet<SelectorId>,
}

/// All policies and identities, and the tables of the subjects that were asked for.
///
/// The cost of an identity that comes or goes depends on the number of selectors and of subjects that it concerns,
/// not on the number of identities. A changed policy costs the tables of the subjects that it selects.
pub struct Repository {
    settings: Settings,
    revision: u64,
    policies: BTreeMap<PolicyRef, Policy>,
    by_namespace: HashMap<String, BTreeSet<PolicyRef>>,
    identities: HashMap<NumericIdentity, Identity>,
    identities_by_namespace: HashMap<String, BTreeSet<NumericIdentity>>,
    selectors: Selectors,
    prefixes: Prefixes,
    rule_sets: RuleSets,
    subjects: BTreeMap<NumericIdentity, SubjectTables>,
    users: HashMap<SelectorId, BTreeSet<NumericIdentity>>,
    host: SelectorId,
}

impl Repository {
    /// A repository without policies and identities.
    pub fn new(settings: Settings) -> Self {
        let mut selectors = Selectors::default();
        let localhost = Peer::Entity { entity: Entity::Host, sum: false };
        let host = selectors.acquire(&localhost, &Context::of(&settings));
        Repository {
            settings,
            revision: 1,
            policies: BTreeMap::new(),
            by_namespace: HashMap::new(),
            identities: HashMap::new(),
            identities_by_namespace: HashMap::new(),
            selectors,
            prefixes: Prefixes::default(),
            rule_sets: RuleSets::default(),
            subjects: BTreeMap::new(),
            users: HashMap::new(),
            host,
        }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts changes of policies; 1 before the first one.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The policies in order of their names.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<PolicyObject>> {
        self.policies.values().map(|policy| &policy.object)
    }

    /// A policy.
    pub fn policy(&self, reference: &PolicyRef) -> Option<&Arc<PolicyObject>> {
        self.policies.get(reference).map(|policy| &policy.object)
    }

    /// The identities with their labels, in no order.
    pub fn identities(&self) -> impl Iterator<Item = (NumericIdentity, &Labels)> {
        self.identities.iter().map(|(identity, known)| (*identity, &known.peer.labels))
    }

    /// The labels of an identity.
    pub fn identity_labels(&self, identity: NumericIdentity) -> Option<&Labels> {
        self.identities.get(&identity).map(|known| &known.peer.labels)
    }

    /// Why the tables of a subject are not those of the policies as they are now, if they are not.
    pub fn subject_error(&self, subject: NumericIdentity) -> Option<&str> {
        self.subjects.get(&subject)?.error().map(AsRef::as_ref)
    }

    /// A rule set of some subject's tables.
    pub fn rule_set(&self, id: u32) -> Option<&RuleSet> {
        self.rule_sets.get(id)
    }

    /// The prefixes that need identities of their own, so that each address outside of the cluster gets, by its
    /// longest prefix, an identity for which all selectors by address are exact. Whole families need none.
    pub fn prefixes(&self) -> BTreeSet<IpNet> {
        self.prefixes.all()
    }

    /// What policies wait to be told the addresses of: names, groups, services.
    pub fn learned(&self) -> impl Iterator<Item = &Learned> {
        self.selectors.learned()
    }

    /// The identities that a peer of some policy's rule selects now.
    pub fn selected(&self, peer: &Peer) -> impl Iterator<Item = NumericIdentity> + '_ {
        self.selectors.selected(peer)
    }

    /// Adds a policy, or puts it in place of the one of its name.
    pub fn upsert_policy(&mut self, object: PolicyObject) -> Change {
        let old = self.policies.get(&object.reference);
        if old.is_some_and(|old| old.object.rules == object.rules && old.object.uid == object.uid) {
            let reference = object.reference.clone();
            if let Some(policy) = self.policies.get_mut(&reference) {
                policy.object = Arc::new(object);
            }
            return self.unchanged();
        }
        let rules: Vec<Arc<Compiled>> = object.rules.iter().map(|rule| Arc::new(self.compile(rule))).collect();
        let reference = object.reference.clone();
        self.by_namespace.entry(reference.namespace.clone()).or_default().insert(reference.clone());
        let policy = Policy { object: Arc::new(object), rules: rules.clone() };
        let old = self.policies.insert(reference, policy);
        let old = old.map(|policy| policy.rules).unwrap_or_default();
        self.policy_changed(old, rules)
    }

    /// Takes a policy away.
    pub fn remove_policy(&mut self, reference: &PolicyRef) -> Change {
        let Some(policy) = self.policies.remove(reference) else { return self.unchanged() };
        if let Some(names) = self.by_namespace.get_mut(&reference.namespace) {
            names.remove(reference);
        }
        self.policy_changed(policy.rules, Vec::new())
    }

    /// Tells of an identity and its labels; also if they changed.
    pub fn upsert_identity(&mut self, identity: NumericIdentity, labels: &Labels) -> Change {
        let known = self.identities.get(&identity);
        if known.is_some_and(|known| known.peer.labels == *labels) {
            return self.unchanged();
        }
        let peer = PeerIdentity::new(identity, labels.clone());
        let selected = self.selectors.selecting(&peer, &Context::of(&self.settings));
        let fresh = Identity { peer, named_ports: NamedPorts::new(), selectors: selected.clone() };
        self.identities_by_namespace.entry(fresh.peer.namespace().to_owned()).or_default().insert(identity);
        let old = self.identities.insert(identity, fresh);
        let before = match old {
            Some(old) => {
                self.left_namespace(identity, old.peer.namespace());
                if let Some(known) = self.identities.get_mut(&identity) {
                    known.named_ports = old.named_ports;
                }
                old.selectors
            }
            None => BTreeSet::new(),
        };
        self.selectors.moved(identity, &before, &selected);
        let differs: Vec<SelectorId> = before.symmetric_difference(&selected).copied().collect();
        let mut change = self.unchanged();
        self.reclassify(identity, &differs, &mut change);
        self.rebuild([identity], &mut change);
        change
    }

    /// An identity is gone. Its tables, if it is a subject, go with it.
    pub fn remove_identity(&mut self, identity: NumericIdentity) -> Change {
        self.release_subject(identity);
        let Some(known) = self.identities.remove(&identity) else { return self.unchanged() };
        self.left_namespace(identity, known.peer.namespace());
        self.selectors.moved(identity, &known.selectors, &BTreeSet::new());
        let mut change = self.unchanged();
        for (subject, tables) in &mut self.subjects {
            if tables.remove(identity) {
                change.tables.push(TableChange { subject: *subject, what: What::ClassRemoved { identity } });
            }
        }
        change
    }

    /// Tells which ports of an identity's pods have names.
    pub fn set_named_ports(&mut self, identity: NumericIdentity, ports: NamedPorts) -> Change {
        let mut change = self.unchanged();
        let Some(known) = self.identities.get_mut(&identity) else { return change };
        if known.named_ports == ports {
            return change;
        }
        known.named_ports = ports;
        let known = &self.identities[&identity];
        for (subject, tables) in &mut self.subjects {
            if tables.asks_peers_for_names() {
                let what = tables.classify(identity, known, &mut self.rule_sets);
                change.tables.extend(what.map(|what| TableChange { subject: *subject, what }));
            }
        }
        if self.subjects.get(&identity).is_some_and(SubjectTables::asks_subject_for_names) {
            self.rebuild([identity], &mut change);
        }
        change
    }

    /// Tells which addresses a name, a group or a service has now, or the labels of its pods.
    pub fn set_learned(&mut self, learned: &Learned, known: impl Into<Known>) -> Change {
        let peer = Peer::Learned(learned.clone());
        let before: Vec<IpNet> = self.selectors.prefixes(&peer);
        self.selectors.set_learned(learned, known.into());
        let after: Vec<IpNet> = self.selectors.prefixes(&peer);
        let mut change = self.unchanged();
        let Some(selector) = self.selectors.id(&peer) else { return change };
        let uses = self.selectors.uses(selector);
        for _ in 0..uses {
            self.prefixes.add(&after);
        }
        for _ in 0..uses {
            self.prefixes.remove(&before);
        }
        self.take_prefixes(&mut change);
        for identity in self.select_again(selector) {
            self.reclassify(identity, &[selector], &mut change);
        }
        change
    }

    /// Another mode of enforcement.
    pub fn set_mode(&mut self, mode: Mode) -> Change {
        let mut change = self.unchanged();
        if self.settings.mode != mode {
            self.settings.mode = mode;
            self.revision += 1;
            change.revision = self.revision;
            let subjects: Vec<NumericIdentity> = self.subjects.keys().copied().collect();
            self.rebuild(subjects, &mut change);
        }
        change
    }

    /// The tables for endpoints of an identity, which from now on are kept up to date; `None` if it is not known.
    pub fn subject_policy(&mut self, subject: NumericIdentity) -> Option<Arc<EndpointPolicy>> {
        if !self.subjects.contains_key(&subject) {
            let tables = match self.build(subject)? {
                Ok(tables) => tables,
                Err(error) => {
                    let known = self.identities.get(&subject)?;
                    SubjectTables::new(SubjectRules::closed(), &known.named_ports, Some(error), &mut self.rule_sets)
                }
            };
            self.register(subject, tables);
        }
        let revision = self.revision;
        self.subjects.get_mut(&subject).map(|tables| tables.snapshot(revision))
    }

    /// The tables for one endpoint of an identity, whose ports have these names. They are those of the identity unless
    /// rules name ports of the endpoint and its names are not those of all the identity's endpoints together.
    pub fn endpoint_policy(&mut self, subject: NumericIdentity, ports: &NamedPorts) -> Option<Arc<EndpointPolicy>> {
        let shared = self.subject_policy(subject)?;
        let asks = self.subjects.get(&subject).is_some_and(SubjectTables::asks_subject_for_names);
        if !asks || self.identities.get(&subject).is_none_or(|known| known.named_ports == *ports) {
            return Some(shared);
        }
        let mut tables = self.build_with(subject, Some(ports))?.ok()?;
        Some(tables.snapshot(self.revision))
    }

    /// The identity has no endpoints here any more.
    pub fn release_subject(&mut self, subject: NumericIdentity) {
        if let Some(tables) = self.subjects.remove(&subject) {
            self.unregister(subject, &tables);
        }
    }

    fn unchanged(&self) -> Change {
        Change { revision: self.revision, ..Change::default() }
    }

    fn compile(&mut self, rule: &Rule) -> Compiled {
        let mut selectors = Vec::new();
        for peer in rule.peers.iter().filter(|peer| **peer != Peer::All) {
            let is_new = self.selectors.id(peer).is_none();
            let selector = self.selectors.acquire(peer, &Context::of(&self.settings));
            self.prefixes.add(&self.selectors.prefixes(peer));
            if is_new {
                self.select_again(selector);
            }
            selectors.push(selector);
        }
        Compiled { rule: rule.clone(), selectors }
    }

    fn policy_changed(&mut self, old: Vec<Arc<Compiled>>, new: Vec<Arc<Compiled>>) -> Change {
        self.revision += 1;
        let mut change = self.unchanged();
        let concerned = |subject: &NumericIdentity| {
            let known = self.identities.get(subject)?;
            let concerns = |one: &Arc<Compiled>| one.rule.subject.selects(&known.peer);
            old.iter().chain(&new).any(concerns).then_some(*subject)
        };
        let subjects: Vec<NumericIdentity> = self.subjects.keys().filter_map(concerned).collect();
        self.rebuild(subjects, &mut change);
        for compiled in &old {
            for selector in &compiled.selectors {
                self.release(*selector);
            }
        }
        self.take_prefixes(&mut change);
        change
    }

    /// One use of a selector less; nobody refers to one that is not used.
    fn release(&mut self, selector: SelectorId) {
        let Some(peer) = self.selectors.peer(selector).cloned() else { return };
        self.prefixes.remove(&self.selectors.prefixes(&peer));
        for member in self.selectors.release(selector, &Context::of(&self.settings)) {
            if let Some(known) = self.identities.get_mut(&member) {
                known.selectors.remove(&selector);
            }
        }
    }

    /// Finds the identities that a selector selects now; yields those for which that is new.
    fn select_again(&mut self, selector: SelectorId) -> Vec<NumericIdentity> {
        let context = Context::of(&self.settings);
        let namespaces = self.selectors.peer(selector).and_then(|peer| peer.namespaces(&context));
        let asked: Vec<NumericIdentity> = match namespaces {
            None => self.identities.keys().copied().collect(),
            Some(names) => {
                let known = names.iter().filter_map(|name| self.identities_by_namespace.get(*name));
                known.flatten().copied().collect()
            }
        };
        let mut moved = Vec::new();
        for identity in asked {
            let Some(known) = self.identities.get_mut(&identity) else { continue };
            let selects = self.selectors.selects(selector, &known.peer, &context);
            let differs = if selects { known.selectors.insert(selector) } else { known.selectors.remove(&selector) };
            if differs {
                self.selectors.set_member(selector, identity, selects);
                moved.push(identity);
            }
        }
        moved
    }

    /// An identity is not in a namespace any more, unless it came back into it.
    fn left_namespace(&mut self, identity: NumericIdentity, namespace: &str) {
        if self.identities.get(&identity).is_some_and(|known| known.peer.namespace() == namespace) {
            return;
        }
        let Some(identities) = self.identities_by_namespace.get_mut(namespace) else { return };
        identities.remove(&identity);
        if identities.is_empty() {
            self.identities_by_namespace.remove(namespace);
        }
    }

    /// Puts a peer into its class in the tables of all subjects that use one of the selectors.
    fn reclassify(&mut self, identity: NumericIdentity, selectors: &[SelectorId], change: &mut Change) {
        let Some(known) = self.identities.get(&identity) else { return };
        let users = selectors.iter().filter_map(|selector| self.users.get(selector)).flatten();
        let subjects: BTreeSet<NumericIdentity> = users.copied().collect();
        for subject in subjects {
            if let Some(tables) = self.subjects.get_mut(&subject) {
                let what = tables.classify(identity, known, &mut self.rule_sets);
                change.tables.extend(what.map(|what| TableChange { subject, what }));
            }
        }
    }

    /// Makes the tables of those of the identities anew that are subjects. Where the rules cannot be put together the
    /// old tables stay.
    fn rebuild(&mut self, subjects: impl IntoIterator<Item = NumericIdentity>, change: &mut Change) {
        for subject in subjects {
            if !self.subjects.contains_key(&subject) {
                continue;
            }
            let built = self.build(subject);
            if let Some(Err(error)) = &built {
                if let Some(old) = self.subjects.get_mut(&subject) {
                    old.fail(error.clone());
                }
            } else {
                self.release_subject(subject);
            }
            if let Some(Ok(tables)) = built {
                self.register(subject, tables);
            }
            let revision = self.revision;
            let policy = self.subjects.get_mut(&subject).map(|tables| tables.snapshot(revision));
            change.tables.extend(policy.map(|policy| TableChange { subject, what: What::Rebuilt(policy) }));
        }
        let in_use = self.subjects.values();
        self.rule_sets.forget(in_use.map(|tables| tables.rule_set_ids()));
    }

    /// Tables hold their selectors, so that those of policies that could not be put together live on with them.
    fn register(&mut self, subject: NumericIdentity, tables: SubjectTables) {
        for selector in tables.selectors() {
            self.users.entry(*selector).or_default().insert(subject);
            self.selectors.retain(*selector);
            if let Some(peer) = self.selectors.peer(*selector) {
                self.prefixes.add(&self.selectors.prefixes(peer));
            }
        }
        self.subjects.insert(subject, tables);
    }

    fn unregister(&mut self, subject: NumericIdentity, tables: &SubjectTables) {
        for selector in tables.selectors() {
            if let Some(users) = self.users.get_mut(selector) {
                users.remove(&subject);
                if users.is_empty() {
                    self.users.remove(selector);
                }
            }
            self.release(*selector);
        }
    }

    /// The tables of a subject, if it is known; an error if its rules cannot be put together.
    fn build(&mut self, subject: NumericIdentity) -> Option<Result<SubjectTables, Arc<str>>> {
        self.build_with(subject, None)
    }

    fn build_with(
        &mut self,
        subject: NumericIdentity,
        ports: Option<&NamedPorts>,
    ) -> Option<Result<SubjectTables, Arc<str>>> {
        let known = self.identities.get(&subject)?;
        let namespaces = ["", known.peer.labels.namespace().unwrap_or_default()];
        let distinct = if namespaces[1].is_empty() { &namespaces[..1] } else { &namespaces[..] };
        let policies = distinct.iter().filter_map(|namespace| self.by_namespace.get(*namespace)).flatten();
        let rules = policies.filter_map(|name| self.policies.get(name)).flat_map(|policy| &policy.rules);
        let rules: Vec<Arc<Compiled>> =
            rules.filter(|compiled| compiled.rule.subject.selects(&known.peer)).cloned().collect();
        let rules = match SubjectRules::new(&self.settings, &known.peer, rules, self.host) {
            Ok(rules) => rules,
            Err(error) => return Some(Err(Arc::from(error))),
        };
        let ports = ports.unwrap_or(&known.named_ports);
        let mut tables = SubjectTables::new(rules, ports, None, &mut self.rule_sets);
        let members = if tables.asks_peers_for_names() {
            self.identities.keys().copied().collect()
        } else {
            self.selectors.members(tables.selectors())
        };
        for identity in members {
            if let Some(known) = self.identities.get(&identity) {
                tables.classify(identity, known, &mut self.rule_sets);
            }
        }
        Some(Ok(tables))
    }

    fn take_prefixes(&mut self, change: &mut Change) {
        (change.prefixes_added, change.prefixes_removed) = self.prefixes.take_changes();
    }
}

impl Subject {
    /// True if the rule is for endpoints of this identity. Rules for nodes are for the own node, rules for endpoints
    /// never are.
    pub fn selects(&self, subject: &PeerIdentity) -> bool {
        match self {
            Subject::Endpoints(selector) => subject.identity != HOST && selector.matches(&subject.labels),
            Subject::Nodes(selector) => subject.identity == HOST && selector.matches(&subject.labels),
        }
    }
}
