//! What follows for the tables of which endpoints if a policy, an identity or an address changes?

mod compiled;
mod groups;
mod identities;
mod index;
mod prefixes;
mod rule_sets;
mod selectors;
mod subject;
mod subject_rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use abi::policy::{Class, VerdictEntry, VerdictKey};
use identity::NumericIdentity;
use ipnet::IpNet;
use labels::{KnownLabels, Labels};

use crate::origin::{PolicyRef, RuleSet};
use crate::peer::{Context, Entity, Known, Learned, Peer, PeerIdentity};
use crate::rule::PolicyObject;
use crate::settings::{Mode, Settings};
use crate::tables::EndpointPolicy;

use compiled::Compiled;
use groups::{Group, Groups};
use identities::Identities;
use prefixes::Prefixes;
use rule_sets::RuleSets;
use selectors::{SelectorId, SelectorSet, Selectors};

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

struct Policy {
    object: Arc<PolicyObject>,
    rules: Vec<Arc<Compiled>>,
}

/// All policies and identities, and the tables of the subjects that were asked for.
///
/// An identity that comes or goes costs what the selectors of its labels and the tables that use them do, a selector
/// that is new the identities that have its rarest label: neither depends on how many others there are. A changed
/// policy costs new tables once for all subjects that have the same rules.
pub struct Repository {
    settings: Settings,
    revision: u64,
    /// By namespace (empty: of the whole cluster) and name.
    policies: HashMap<String, BTreeMap<PolicyRef, Policy>>,
    identities: Identities,
    labels: KnownLabels,
    selectors: Selectors,
    prefixes: Prefixes,
    rule_sets: RuleSets,
    groups: Groups,
    host: SelectorId,
    /// How many rules were compiled; each has a number of its own.
    compiled: u64,
}

impl Repository {
    /// A repository without policies and identities.
    pub fn new(settings: Settings) -> Self {
        let mut selectors = Selectors::default();
        let localhost = Peer::Entity { entity: Entity::Host, sum: false };
        let (host, _) = selectors.acquire(&localhost, &Context::of(&settings));
        let rule_sets = RuleSets::starting_at(settings.first_rule_set);
        Repository {
            settings,
            revision: 1,
            policies: HashMap::new(),
            identities: Identities::default(),
            labels: KnownLabels::default(),
            selectors,
            prefixes: Prefixes::default(),
            rule_sets,
            groups: Groups::default(),
            host,
            compiled: 0,
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
        let mut policies: Vec<(&PolicyRef, &Policy)> = self.policies.values().flatten().collect();
        policies.sort_unstable_by_key(|(reference, _)| *reference);
        policies.into_iter().map(|(_, policy)| &policy.object)
    }

    /// A policy.
    pub fn policy(&self, reference: &PolicyRef) -> Option<&Arc<PolicyObject>> {
        self.policies.get(&reference.namespace)?.get(reference).map(|policy| &policy.object)
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
        self.groups.of(subject)?.tables.error().map(AsRef::as_ref)
    }

    /// A rule set of some subject's tables.
    pub fn rule_set(&self, id: u32) -> Option<&RuleSet> {
        self.rule_sets.get(id)
    }

    /// The number that the next rule set gets that is not known yet.
    pub fn next_rule_set(&self) -> u32 {
        self.rule_sets.next()
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

    /// How often a selector was compared with an identity since there is this repository: for measurements.
    pub fn comparisons(&self) -> u64 {
        self.selectors.comparisons()
    }

    /// Adds a policy, or puts it in place of the one of its name.
    pub fn upsert_policy(&mut self, object: PolicyObject) -> Change {
        let known = self.policies.get_mut(&object.reference.namespace);
        let known = known.and_then(|policies| policies.get_mut(&object.reference));
        if let Some(policy) = known.filter(|old| old.object.rules == object.rules && old.object.uid == object.uid) {
            policy.object = Arc::new(object);
            return self.unchanged();
        }
        let (reference, object) = (object.reference.clone(), Arc::new(object));
        let rules: Vec<Arc<Compiled>> = (0..object.rules.len()).map(|at| Arc::new(self.compile(&object, at))).collect();
        let policy = Policy { object, rules: rules.clone() };
        let policies = match self.policies.get_mut(&reference.namespace) {
            Some(policies) => policies,
            None => self.policies.entry(reference.namespace.clone()).or_default(),
        };
        let old = policies.insert(reference, policy);
        let old = old.map(|policy| policy.rules).unwrap_or_default();
        self.policy_changed(old, rules)
    }

    /// Takes a policy away.
    pub fn remove_policy(&mut self, reference: &PolicyRef) -> Change {
        let policies = self.policies.get_mut(&reference.namespace);
        let Some(policy) = policies.and_then(|policies| policies.remove(reference)) else { return self.unchanged() };
        if self.policies.get(&reference.namespace).is_some_and(BTreeMap::is_empty) {
            self.policies.remove(&reference.namespace);
        }
        self.policy_changed(policy.rules, Vec::new())
    }

    /// Tells of an identity and its labels; also if they changed.
    pub fn upsert_identity(&mut self, identity: NumericIdentity, labels: &Labels) -> Change {
        let known = self.identities.get(&identity);
        if known.is_some_and(|known| known.peer.labels == *labels) {
            return self.unchanged();
        }
        let peer = PeerIdentity::new(identity, labels.shared(&mut self.labels));
        let selected = self.selectors.selecting(&peer, &Context::of(&self.settings));
        let before = self.identities.insert(peer, selected.clone());
        self.selectors.moved(identity, &before, &selected);
        let differs: Vec<SelectorId> = before.without(&selected).chain(selected.without(&before)).collect();
        let mut change = self.unchanged();
        self.reclassify(identity, &differs, &mut change);
        self.rebuild([identity], &mut change);
        change
    }

    /// An identity is gone. Its tables, if it is a subject, go with it.
    pub fn remove_identity(&mut self, identity: NumericIdentity) -> Change {
        self.release_subject(identity);
        let Some(known) = self.identities.remove(identity) else { return self.unchanged() };
        self.selectors.moved(identity, &known.selectors, &SelectorSet::default());
        let mut change = self.unchanged();
        self.groups.each_using(known.selectors.iter(), true, |group| {
            if group.tables.remove(identity) {
                group.tell(&What::ClassRemoved { identity }, &mut change);
            }
        });
        change.sort();
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
        let known = &*known;
        self.groups.each_using(std::iter::empty(), true, |group| {
            if let Some(what) = group.tables.classify(identity, known, &mut self.rule_sets) {
                group.tell(&what, &mut change);
            }
        });
        change.sort();
        if self.groups.of(identity).is_some_and(Group::asks_subject_for_names) {
            self.rebuild([identity], &mut change);
        }
        change
    }

    /// Tells which prefixes a group has now, or which addresses or labels of pods a service. Names need no telling: the
    /// addresses that were learned for them have labels that say so.
    pub fn set_learned(&mut self, learned: &Learned, known: impl Into<Known>) -> Change {
        if learned.is_name() {
            return self.unchanged();
        }
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
            self.groups.forget_keys();
            let subjects: Vec<NumericIdentity> = self.groups.subjects().collect();
            self.rebuild(subjects, &mut change);
        }
        change
    }

    /// The tables for endpoints of an identity, which from now on are kept up to date; `None` if it is not known.
    pub fn subject_policy(&mut self, subject: NumericIdentity) -> Option<Arc<EndpointPolicy>> {
        if self.groups.of(subject).is_none() {
            self.join(subject)?;
        }
        let revision = self.revision;
        self.groups.of_mut(subject).map(|group| group.tables.snapshot(revision))
    }

    /// The tables for one endpoint of an identity, whose ports have these names. They are those of the identity unless
    /// rules name ports of the endpoint and its names are not those of all the identity's endpoints together.
    pub fn endpoint_policy(&mut self, subject: NumericIdentity, ports: &NamedPorts) -> Option<Arc<EndpointPolicy>> {
        let shared = self.subject_policy(subject)?;
        let asks = self.groups.of(subject).is_some_and(|group| group.tables.asks_subject_for_names());
        if !asks || self.identities.get(&subject).is_none_or(|known| known.named_ports == *ports) {
            return Some(shared);
        }
        let rules = self.rules_of(subject)?;
        let mut tables = self.tables(subject, &rules, Some(ports))?.ok()?;
        Some(tables.snapshot(self.revision))
    }

    /// The identity has no endpoints here any more.
    pub fn release_subject(&mut self, subject: NumericIdentity) {
        if let Some(tables) = self.groups.leave(subject) {
            for selector in tables.selectors() {
                self.release(*selector);
            }
        }
    }

    fn unchanged(&self) -> Change {
        Change { revision: self.revision, ..Change::default() }
    }

    fn compile(&mut self, object: &Arc<PolicyObject>, at: usize) -> Compiled {
        let mut selectors = Vec::new();
        for peer in object.rules[at].peers.iter().filter(|peer| **peer != Peer::All) {
            let (selector, is_new) = self.selectors.acquire(peer, &Context::of(&self.settings));
            self.prefixes.add(&self.selectors.prefixes(peer));
            if is_new {
                self.select_again(selector);
            }
            selectors.push(selector);
        }
        self.compiled += 1;
        Compiled::new(self.compiled, object, at, selectors)
    }

    fn policy_changed(&mut self, old: Vec<Arc<Compiled>>, new: Vec<Arc<Compiled>>) -> Change {
        self.revision += 1;
        let mut change = self.unchanged();
        self.exchange(&old, &new, &mut change);
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
        let Some(peer) = self.selectors.peer(selector) else { return };
        self.prefixes.remove(&self.selectors.prefixes(peer));
        for member in self.selectors.release(selector, &Context::of(&self.settings)) {
            if let Some(known) = self.identities.get_mut(&member) {
                known.selectors.remove(selector);
            }
        }
    }

    /// Finds the identities that a selector selects now; yields those for which that is new.
    fn select_again(&mut self, selector: SelectorId) -> Vec<NumericIdentity> {
        let context = Context::of(&self.settings);
        let Some(peer) = self.selectors.peer(selector) else { return Vec::new() };
        let mut asked = self.identities.candidates(peer, &context);
        // Those that it selected need not be among those that it can select now.
        asked.extend(self.selectors.members(selector));
        asked.sort_unstable();
        asked.dedup();
        let mut moved = Vec::new();
        for identity in asked {
            let Some(known) = self.identities.get_mut(&identity) else { continue };
            let selects = self.selectors.selects(selector, &known.peer, &context);
            let differs = if selects { known.selectors.insert(selector) } else { known.selectors.remove(selector) };
            if differs {
                self.selectors.set_member(selector, identity, selects);
                moved.push(identity);
            }
        }
        moved
    }

    /// Puts a peer into its class in the tables of all subjects that use one of the selectors.
    fn reclassify(&mut self, identity: NumericIdentity, selectors: &[SelectorId], change: &mut Change) {
        let Some(known) = self.identities.get(&identity) else { return };
        self.groups.each_using(selectors.iter().copied(), false, |group| {
            if let Some(what) = group.tables.classify(identity, known, &mut self.rule_sets) {
                group.tell(&what, change);
            }
        });
        change.sort();
    }

    fn take_prefixes(&mut self, change: &mut Change) {
        (change.prefixes_added, change.prefixes_removed) = self.prefixes.take_changes();
    }
}

impl Change {
    /// Changes of different subjects come in the subjects' order.
    fn sort(&mut self) {
        self.tables.sort_by_key(|change| change.subject);
    }
}
