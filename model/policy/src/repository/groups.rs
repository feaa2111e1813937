//! Which subjects share their tables, and what becomes of these if rules or subjects change?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState as FastHash;
use identity::NumericIdentity;
use roaring::RoaringBitmap;

use super::compiled::{Compiled, Rules};
use super::hashed::Hashed;
use super::subject::SubjectTables;
use super::subject_rules::{SubjectRules, Whom};
use super::{Change, NamedPorts, Repository, TableChange, What};

pub(super) type GroupId = u64;

/// Subjects that have the same rules, and their tables.
pub(super) struct Group {
    pub tables: SubjectTables,
    /// The rules that select the subjects.
    rules: Rules,
    subjects: BTreeSet<NumericIdentity>,
    /// What others must have in common with these subjects to join them; nobody does if the tables are not those of
    /// the rules.
    key: Option<Hashed<Arc<Key>>>,
}

/// Everything that tables depend on besides identities and settings.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    rules: Rules,
    own: Own,
}

/// What rules ask of the subject.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Own {
    whom: Whom,
    /// The subject's own ports that have names, if rules ask for them.
    ports: Option<NamedPorts>,
}

/// All subjects in their groups.
#[derive(Default)]
pub(super) struct Groups {
    by_id: HashMap<GroupId, Box<Group>, FastHash>,
    by_subject: HashMap<NumericIdentity, GroupId, FastHash>,
    by_key: HashMap<Hashed<Arc<Key>>, GroupId, FastHash>,
    hash: FastHash,
    /// Groups whose rules name ports that peers give numbers.
    asking_peers: BTreeSet<GroupId>,
    next: GroupId,
}

impl Group {
    /// True if some rule names ports that the subject gives numbers, so that the subjects have these in common. Tables
    /// may not need them, if such a rule has no peers.
    pub fn asks_subject_for_names(&self) -> bool {
        self.rules.iter().any(|one| one.asks_subject)
    }

    /// Tells all its subjects of a change.
    pub fn tell(&self, what: &What, change: &mut Change) {
        let tables = self.subjects.iter().map(|subject| TableChange { subject: *subject, what: what.clone() });
        change.tables.extend(tables);
    }
}

impl Groups {
    /// The group of a subject.
    pub fn of(&self, subject: NumericIdentity) -> Option<&Group> {
        self.by_id.get(self.by_subject.get(&subject)?).map(AsRef::as_ref)
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, subject: NumericIdentity) -> Option<&mut Group> {
        self.by_id.get_mut(self.by_subject.get(&subject)?).map(AsMut::as_mut)
    }

    /// All subjects, in order.
    pub fn subjects(&self) -> BTreeSet<NumericIdentity> {
        self.by_subject.keys().copied().collect()
    }

    /// The tables of all groups.
    pub fn tables(&self) -> impl Iterator<Item = &SubjectTables> {
        self.by_id.values().map(|group| &group.tables)
    }

    /// Nobody joins a group that is there already: what all tables depend on has changed.
    pub fn forget_keys(&mut self) {
        self.by_key.clear();
        self.by_id.values_mut().for_each(|group| group.key = None);
    }

    /// Does something with some groups, in order and once with each; if `names`, also with those that ask peers for the
    /// numbers of ports.
    pub fn each_of(&mut self, users: impl Iterator<Item = GroupId>, names: bool, mut work: impl FnMut(&mut Group)) {
        let asking = self.asking_peers.iter().copied().filter(|_| names);
        let wanted: BTreeSet<GroupId> = users.chain(asking).collect();
        for id in wanted {
            if let Some(group) = self.by_id.get_mut(&id) {
                work(group);
            }
        }
    }

    fn add(&mut self, group: Group) -> GroupId {
        let id = self.next;
        self.next += 1;
        if group.tables.asks_peers_for_names() {
            self.asking_peers.insert(id);
        }
        if let Some(key) = &group.key {
            self.by_key.insert(key.clone(), id);
        }
        self.by_id.insert(id, Box::new(group));
        id
    }

    /// A subject is one no more. If it was the last one of its group, the tables are nobody's now.
    pub fn leave(&mut self, subject: NumericIdentity) -> Option<(GroupId, SubjectTables)> {
        let id = self.by_subject.remove(&subject)?;
        let group = self.by_id.get_mut(&id)?;
        group.subjects.remove(&subject);
        if !group.subjects.is_empty() {
            return None;
        }
        let group = self.by_id.remove(&id)?;
        if let Some(key) = group.key.as_ref().filter(|key| self.by_key.get(*key) == Some(&id)) {
            self.by_key.remove(key);
        }
        self.asking_peers.remove(&id);
        Some((id, group.tables))
    }
}

impl Repository {
    /// Makes an identity a subject; `None` if it is not known.
    pub(super) fn join(&mut self, subject: NumericIdentity) -> Option<()> {
        let rules = self.rules_of(subject)?;
        self.move_to(&[subject], rules).map(drop)
    }

    /// The rules that select an identity.
    pub(super) fn rules_of(&self, subject: NumericIdentity) -> Option<Rules> {
        Some(self.policies.selecting(&self.identities.get(&subject)?.peer))
    }

    /// Makes the tables of those of the identities anew that are subjects. Where the rules cannot be put together the
    /// old tables stay.
    pub(super) fn rebuild(&mut self, identities: impl IntoIterator<Item = NumericIdentity>, change: &mut Change) {
        for subject in identities {
            if self.groups.by_subject.contains_key(&subject) {
                let rules = self.rules_of(subject).unwrap_or_default();
                self.change(&[subject], rules, change);
            }
        }
        self.forget_rule_sets();
        change.sort();
    }

    /// Some rules are gone and others are there: new tables for those subjects that they select.
    pub(super) fn exchange(&mut self, old: &[Arc<Compiled>], new: &[Arc<Compiled>], change: &mut Change) {
        let mut concerned: Vec<(Vec<NumericIdentity>, Rules)> = Vec::new();
        for group in self.groups.by_id.values() {
            let had = old.iter().any(|one| group.rules.has(one));
            for (numbers, subjects) in self.by_rules(group, new) {
                if !had && numbers.is_empty() {
                    continue;
                }
                let stay = group.rules.iter().filter(|one| old.iter().all(|gone| gone.number != one.number));
                let now = new.iter().filter(|one| numbers.contains(&one.number));
                let rules = Rules::new(stay.chain(now).cloned().collect());
                concerned.push((subjects, rules));
            }
        }
        for (subjects, rules) in concerned {
            // Rules that are new may ask for what the subjects do not have in common.
            let mut alike: BTreeMap<Own, Vec<NumericIdentity>> = BTreeMap::new();
            for subject in subjects {
                let own = self.own(subject, &rules);
                own.into_iter().for_each(|own| alike.entry(own).or_default().push(subject));
            }
            alike.into_values().for_each(|subjects| self.change(&subjects, rules.clone(), change));
        }
        self.forget_rule_sets();
        change.sort();
    }

    /// The subjects of a group by which of the rules select them.
    fn by_rules(&self, group: &Group, rules: &[Arc<Compiled>]) -> BTreeMap<Vec<u64>, Vec<NumericIdentity>> {
        let mut parts: BTreeMap<Vec<u64>, Vec<NumericIdentity>> = BTreeMap::new();
        for subject in &group.subjects {
            let Some(known) = self.identities.get(subject) else { continue };
            let selecting = rules.iter().filter(|one| one.rule().subject.selects(&known.peer));
            parts.entry(selecting.map(|one| one.number).collect()).or_default().push(*subject);
        }
        parts
    }

    fn change(&mut self, subjects: &[NumericIdentity], rules: Rules, change: &mut Change) {
        let Some(id) = self.move_to(subjects, rules) else { return };
        let revision = self.revision;
        let Some(group) = self.groups.by_id.get_mut(&id) else { return };
        let policy = group.tables.snapshot(revision);
        let rebuilt =
            |subject: &NumericIdentity| TableChange { subject: *subject, what: What::Rebuilt(policy.clone()) };
        change.tables.extend(subjects.iter().map(rebuilt));
    }

    /// Puts subjects that have all in common into the group of these rules; `None` if they are not known.
    fn move_to(&mut self, subjects: &[NumericIdentity], rules: Rules) -> Option<GroupId> {
        let first = *subjects.first()?;
        let key = self.key(first, &rules)?;
        let id = match self.groups.by_key.get(&key) {
            Some(id) => *id,
            None => {
                let group = self.new_group(first, rules, key)?;
                self.add_group(group)
            }
        };
        for subject in subjects {
            if self.groups.by_subject.get(subject) != Some(&id) {
                self.release_subject(*subject);
                self.groups.by_subject.insert(*subject, id);
                self.groups.by_id.get_mut(&id)?.subjects.insert(*subject);
            }
        }
        Some(id)
    }

    /// Tables hold their selectors, so that those of policies that could not be put together live on.
    fn add_group(&mut self, group: Group) -> GroupId {
        let id = self.groups.next;
        for selector in group.tables.selectors() {
            self.selectors.hold(*selector, id);
            if let Some(peer) = self.selectors.peer(*selector) {
                self.prefixes.add(&self.selectors.prefixes(peer));
            }
        }
        self.groups.add(group)
    }

    fn new_group(&mut self, subject: NumericIdentity, rules: Rules, key: Hashed<Arc<Key>>) -> Option<Group> {
        let (tables, key) = match self.tables(subject, &rules, None)? {
            Ok(tables) => (tables, Some(key)),
            Err(error) => (self.failed(subject, error)?, None),
        };
        Some(Group { tables, rules, subjects: BTreeSet::new(), key })
    }

    /// The tables that a subject has, or else closed ones, with the reason why they are not those of its rules.
    fn failed(&mut self, subject: NumericIdentity, error: Arc<str>) -> Option<SubjectTables> {
        if let Some(group) = self.groups.of(subject) {
            let mut tables = group.tables.clone();
            tables.fail(error);
            return Some(tables);
        }
        let known = self.identities.get(&subject)?;
        Some(SubjectTables::new(SubjectRules::closed(), &known.named_ports, Some(error), &mut self.rule_sets))
    }

    fn key(&self, subject: NumericIdentity, rules: &Rules) -> Option<Hashed<Arc<Key>>> {
        let key = Key { rules: rules.clone(), own: self.own(subject, rules)? };
        Some(Hashed::new(Arc::new(key), &self.groups.hash))
    }

    fn own(&self, subject: NumericIdentity, rules: &Rules) -> Option<Own> {
        let known = self.identities.get(&subject)?;
        let asks = |of: fn(&Compiled) -> bool| rules.iter().any(|one| of(one));
        let ports = asks(|one| one.asks_subject).then(|| known.named_ports.clone());
        Some(Own { whom: Whom::of(&known.peer, asks(|one| one.asks_proxy)), ports })
    }

    /// The tables of these rules, if the subject is known; an error if they cannot be put together.
    pub(super) fn tables(
        &mut self,
        subject: NumericIdentity,
        rules: &Rules,
        ports: Option<&NamedPorts>,
    ) -> Option<Result<SubjectTables, Arc<str>>> {
        let known = self.identities.get(&subject)?;
        let whom = Whom::of(&known.peer, rules.iter().any(|one| one.asks_proxy));
        let rules = match SubjectRules::new(&self.settings, &whom, rules.clone(), self.host) {
            Ok(rules) => rules,
            Err(error) => return Some(Err(Arc::from(error))),
        };
        let ports = ports.unwrap_or(&known.named_ports);
        let mut tables = SubjectTables::new(rules, ports, None, &mut self.rule_sets);
        if tables.asks_peers_for_names() {
            let mut numbers: Vec<NumericIdentity> = self.identities.numbers().collect();
            numbers.sort_unstable();
            for identity in numbers {
                if let Some(known) = self.identities.get(&identity) {
                    tables.classify(identity, known, &self.selectors.holding(&known.peer), &mut self.rule_sets);
                }
            }
        } else {
            let members: Vec<&RoaringBitmap> =
                tables.selectors().iter().map(|selector| self.selectors.members(*selector)).collect();
            tables.classify_all(&members, &mut self.rule_sets);
        }
        Some(Ok(tables))
    }

    fn forget_rule_sets(&mut self) {
        let tables = self.groups.tables();
        self.rule_sets.forget(tables.map(SubjectTables::rule_set_ids));
    }
}
