//! What follows for the tables of which endpoints if a policy, an identity or an address changes?

mod compiled;
mod groups;
mod hashed;
mod identities;
mod index;
mod places;
mod policies;
mod prefixes;
mod rule_sets;
mod selectors;
mod subject;
mod subject_rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use abi::policy::{Class, VerdictEntry, VerdictKey};
use identity::NumericIdentity;
use ipnet::IpNet;
use labels::Labels;

use crate::origin::{PolicyRef, RuleSet};
use crate::peer::{Context, Entity, Known, Learned, Peer};
use crate::rule::PolicyObject;
use crate::settings::{Mode, Settings};
use crate::tables::EndpointPolicy;

use compiled::Compiled;
use groups::{Group, Groups};
use identities::{Identities, Identity};
use policies::{Policies, Policy};
use prefixes::Prefixes;
use rule_sets::RuleSets;
use selectors::{SelectorId, Selectors};
use smallvec::SmallVec;

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

/// All policies and identities, and the tables of the subjects that were asked for.
///
/// An identity that comes or goes costs what the selectors of its labels and the tables that use them do, a selector
/// that is new the identities that have its rarest label: neither depends on how many others there are. A changed
/// policy costs new tables once for all subjects that have the same rules.
pub struct Repository {
    settings: Settings,
    revision: u64,
    policies: Policies,
    identities: Identities,
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
            policies: Policies::default(),
            identities: Identities::default(),
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
        self.policies.all()
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
        let known = self.policies.get_mut(&object.reference);
        if let Some(policy) = known.filter(|old| old.object.rules == object.rules && old.object.uid == object.uid) {
            policy.object = Arc::new(object);
            return self.unchanged();
        }
        let object = Arc::new(object);
        let rules: Vec<Arc<Compiled>> = (0..object.rules.len()).map(|at| Arc::new(self.compile(&object, at))).collect();
        let old = self.policies.insert(Policy { object, rules: rules.clone() });
        self.policy_changed(old.map(|policy| policy.rules).unwrap_or_default(), rules)
    }

    /// Takes a policy away.
    pub fn remove_policy(&mut self, reference: &PolicyRef) -> Change {
        match self.policies.remove(reference) {
            Some(policy) => self.policy_changed(policy.rules, Vec::new()),
            None => self.unchanged(),
        }
    }

    /// Tells of an identity and its labels; also if they changed.
    pub fn upsert_identity(&mut self, identity: NumericIdentity, labels: &Labels) -> Change {
        let known = self.identities.get(&identity);
        if known.is_some_and(|known| known.peer.labels == *labels) {
            return self.unchanged();
        }
        let before = known.map(|known| self.selectors.holding(&known.peer)).unwrap_or_default();
        let known = self.identities.insert(identity, labels);
        let after = self.selectors.selecting(&known.peer, &Context::of(&self.settings));
        let differs = self.moved(identity, &before, &after);
        let mut change = self.unchanged();
        self.reclassify(identity, &differs, &after, &mut change);
        self.rebuild([identity], &mut change);
        change
    }

    /// An identity is gone. Its tables, if it is a subject, go with it.
    pub fn remove_identity(&mut self, identity: NumericIdentity) -> Change {
        self.release_subject(identity);
        let Some(known) = self.identities.remove(identity) else { return self.unchanged() };
        let before = self.selectors.holding(&known.peer);
        let differs = self.moved(identity, &before, &[]);
        let mut change = self.unchanged();
        let users = differs.iter().flat_map(|selector| self.selectors.users(*selector)).copied();
        self.groups.each_of(users, true, |group| {
            if group.tables.remove(identity) {
                group.tell(&What::ClassRemoved { identity }, &mut change);
            }
        });
        change.sort();
        change
    }

    /// An identity was selected by some and is by others; yields those that differ.
    fn moved(&mut self, identity: NumericIdentity, before: &[SelectorId], after: &[SelectorId]) -> Vec<SelectorId> {
        let gone = before.iter().filter(|id| after.binary_search(id).is_err()).map(|id| (*id, false));
        let come = after.iter().filter(|id| before.binary_search(id).is_err()).map(|id| (*id, true));
        let mut differs = Vec::new();
        for (selector, selected) in gone.chain(come) {
            self.selectors.set_member(selector, identity, selected);
            differs.push(selector);
        }
        differs
    }

    /// Tells which ports of an identity's pods have names.
    pub fn set_named_ports(&mut self, identity: NumericIdentity, ports: NamedPorts) -> Change {
        let mut change = self.unchanged();
        let Some(known) = self.identities.get_mut(&identity) else { return change };
        if known.named_ports == ports {
            return change;
        }
        known.named_ports = ports;
        let (known, selectors) = (&*known, self.selectors.holding(&known.peer));
        self.groups.each_of(std::iter::empty(), true, |group| {
            if let Some(what) = group.tables.classify(identity, known, &selectors, &mut self.rule_sets) {
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
        let before = self.selectors.select(selector, &self.identities, &Context::of(&self.settings));
        for identity in before ^ self.selectors.members(selector) {
            let holding = |known: &Identity| self.selectors.holding(&known.peer);
            let all = self.identities.get(&identity).map(holding).unwrap_or_default();
            self.reclassify(identity, &[selector], &all, &mut change);
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
            self.rebuild(self.groups.subjects(), &mut change);
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
        if let Some((group, tables)) = self.groups.leave(subject) {
            for selector in tables.selectors() {
                self.selectors.let_go(*selector, group);
                self.release(*selector);
            }
        }
    }

    fn unchanged(&self) -> Change {
        Change { revision: self.revision, ..Change::default() }
    }

    fn compile(&mut self, object: &Arc<PolicyObject>, at: usize) -> Compiled {
        let context = Context::of(&self.settings);
        let mut selectors = SmallVec::new();
        for peer in object.rules[at].peers.iter().filter(|peer| **peer != Peer::All) {
            let (selector, is_new) = self.selectors.acquire(peer, &context);
            self.prefixes.add(&self.selectors.prefixes(peer));
            if is_new {
                self.selectors.select(selector, &self.identities, &context);
            }
            selectors.push(selector);
        }
        self.compiled += 1;
        let origin = self.rule_sets.origin(&object.rules[at].origin);
        Compiled::new(self.compiled, object, at, origin, selectors)
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
        self.selectors.release(selector, &Context::of(&self.settings));
    }

    /// Puts a peer into its class in the tables of all subjects that use one of the selectors that differ. `all` are the
    /// selectors that select it.
    fn reclassify(
        &mut self,
        identity: NumericIdentity,
        differ: &[SelectorId],
        all: &[SelectorId],
        change: &mut Change,
    ) {
        let Some(known) = self.identities.get(&identity) else { return };
        let users = differ.iter().flat_map(|selector| self.selectors.users(*selector)).copied();
        self.groups.each_of(users, false, |group| {
            if let Some(what) = group.tables.classify(identity, known, all, &mut self.rule_sets) {
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
