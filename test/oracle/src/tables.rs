//! What do the field's own tables hold of a packet, and what does its datapath find in them?
//!
//! Entries have a key (the other side itself or the sum that it is part of, and how much of protocol and port they pin
//! down) and a precedence. They are put in one by one, the first tier first: what is covered by something stronger
//! stays out or goes, what a higher tier passed on is lifted to where it passed it on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use policy::{Auth, Effect, Implicit, Parser, RuleOrigin, Tier};

use crate::filters::{Filter, Merged, Who};

const LOWEST_PRIORITY: u32 = (1 << 24) - 1;
/// As the field numbers its tiers.
const TIERS: [(Tier, usize); 4] =
    [(Tier::Admin, 100), (Tier::Normal, 200), (Tier::Baseline, 250), (Tier::Default, 255)];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    own: bool,
    detail: u8,
}

/// A place from which traffic is passed on, and the bounds of its tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pass {
    precedence: u32,
    most: u32,
    least: u32,
}

/// An entry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Entry {
    /// Allows or denies, with this precedence; `None`: passes on only.
    precedence: Option<u32>,
    proxy: Option<(Parser, Option<String>)>,
    auth: Option<Auth>,
    /// Not said by the rule itself, but by a wider one.
    derived: Option<Auth>,
    passes: Vec<Pass>,
    logs: BTreeSet<String>,
    pub origins: BTreeSet<RuleOrigin>,
    pub implicit: Option<Implicit>,
}

/// What the datapath finds.
pub(crate) struct Found {
    pub own: bool,
    pub detail: u8,
    pub deny: bool,
    pub redirect: bool,
    pub auth: (Auth, bool),
    pub entry: Entry,
}

pub(crate) struct Tables {
    entries: BTreeMap<Key, Entry>,
    has_auth: bool,
    has_pass: bool,
}

fn base(priority: u32) -> u32 {
    (LOWEST_PRIORITY - priority.min(LOWEST_PRIORITY)) << 8
}

fn is_deny(precedence: u32) -> bool {
    precedence & 255 == 255
}

impl Entry {
    fn denies(&self) -> bool {
        self.precedence.is_some_and(is_deny)
    }

    fn strength(&self) -> u32 {
        self.precedence.unwrap_or(0)
    }

    fn is_equivalent(&self, other: &Entry) -> bool {
        (self.precedence, &self.proxy, self.auth, self.derived, &self.passes, &self.logs)
            == (other.precedence, &other.proxy, other.auth, other.derived, &other.passes, &other.logs)
    }
}

/// Priorities of places, and of each tier the first and, below it, the next tier's first.
struct Priorities {
    of_level: Vec<u32>,
    tiers: BTreeMap<Tier, (u32, u32)>,
}

fn number(tier: Tier) -> usize {
    TIERS.iter().find(|(known, _)| *known == tier).map_or(0, |(_, number)| *number)
}

/// Every place that passes on has room below it for all of the tiers that follow.
fn priorities(places: &[((Tier, u32), bool)]) -> Priorities {
    let round = |n: u32| n.div_ceil(10) * 10;
    let last = places.last().map_or(0, |((tier, _), _)| number(*tier));
    let mut levels = vec![0_u32; last + 1];
    let mut passes = vec![0_u32; last + 1];
    for ((tier, _), pass) in places {
        levels[number(*tier)] += 1;
        passes[number(*tier)] += u32::from(*pass);
    }
    levels.iter_mut().for_each(|count| *count = round(*count));
    for tier in (0..last).rev() {
        levels[tier] = round(levels[tier] + (passes[tier] + 1) * levels[tier + 1]);
    }
    let mut bases = vec![0_u32; last + 1];
    for tier in 1..=last {
        bases[tier] = bases[tier - 1] + levels[tier - 1] - levels[tier];
    }
    let mut of_level = Vec::new();
    let mut before: Option<(usize, u32, bool)> = None;
    for ((tier, _), pass) in places {
        let tier = number(*tier);
        let priority = match before {
            Some((known, priority, passed)) if known == tier => {
                let gap = if passed && tier < last { levels[tier + 1] + 1 } else { 1 };
                priority + gap
            }
            _ => bases[tier],
        };
        of_level.push(priority);
        before = Some((tier, priority, *pass));
    }
    let bounds = |number: usize| (bases[number], bases.get(number + 1).copied().unwrap_or(LOWEST_PRIORITY));
    let tiers = TIERS.iter().filter(|(_, number)| *number <= last).map(|(tier, number)| (*tier, bounds(*number)));
    Priorities { of_level, tiers: tiers.collect() }
}

impl Tables {
    pub fn new(merged: Merged) -> Tables {
        let priorities = priorities(&merged.places);
        let mut tables = Tables { entries: BTreeMap::new(), has_auth: merged.has_auth, has_pass: merged.has_pass };
        let mut filters = merged.filters;
        // In the field nothing determines the order within a tier; what it changes is rare. Here its own come first, and
        // of these what is wider.
        filters.sort_by_key(|filter| (filter.said.place.0, !filter.said.own, filter.said.detail));
        for filter in &filters {
            let (first, next) = priorities.tiers[&filter.said.place.0];
            let detail = filter.said.detail.expect("only what speaks of the packet is here");
            let key = Key { own: filter.said.own, detail };
            let entry = entry(filter, priorities.of_level[filter.level], (first, next));
            tables.insert(base(first) | 255, key, entry);
        }
        tables
    }

    /// Greater precedence, then narrower, then its own.
    pub fn find(self) -> Option<Found> {
        let longest = |own: bool| {
            let valid = self.entries.iter().filter(|(key, entry)| key.own == own && entry.precedence.is_some());
            valid.max_by_key(|(key, _)| key.detail)
        };
        let (first, second) = match (longest(true), longest(false)) {
            (Some(own), _) if own.1.precedence == Some(u32::MAX) => (own, None),
            (Some(own), Some(sum)) => {
                let narrower = own.1.strength() == sum.1.strength() && sum.0.detail > own.0.detail;
                if sum.1.strength() > own.1.strength() || narrower { (sum, Some(own)) } else { (own, Some(sum)) }
            }
            (Some(one), None) | (None, Some(one)) => (one, None),
            (None, None) => return None,
        };
        let (key, entry) = first;
        let mut auth = (entry.auth.or(entry.derived).unwrap_or_default(), entry.auth.is_some());
        if let Some((_, other)) = second.filter(|other| other.1.strength() == entry.strength() && !auth.1) {
            auth.0 = auth.0.max(other.auth.or(other.derived).unwrap_or_default());
        }
        Some(Found {
            own: key.own,
            detail: key.detail,
            deny: entry.denies(),
            redirect: entry.proxy.is_some(),
            auth: if entry.denies() { (Auth::Disabled, false) } else { auth },
            entry: entry.clone(),
        })
    }

    /// Keys that this one lies in. Of a sum, those of its members are not.
    fn covering(&self, key: Key) -> Vec<(Key, Entry)> {
        self.select(|k| k.detail <= key.detail && (k.own == key.own || !k.own))
    }

    /// Those, and of a sum those of its members with as wide ports.
    fn broader(&self, key: Key) -> Vec<(Key, Entry)> {
        self.select(|k| k.detail <= key.detail && (k.own == key.own || !k.own || !key.own))
    }

    fn covered(&self, key: Key) -> Vec<(Key, Entry)> {
        self.select(|k| k.detail >= key.detail && (k.own == key.own || !key.own))
    }

    fn narrower(&self, key: Key) -> Vec<(Key, Entry)> {
        self.select(|k| k.detail >= key.detail)
    }

    fn select(&self, wanted: impl Fn(Key) -> bool) -> Vec<(Key, Entry)> {
        self.entries.iter().filter(|(key, _)| wanted(**key)).map(|(key, entry)| (*key, entry.clone())).collect()
    }

    fn insert(&mut self, most: u32, key: Key, entry: Entry) {
        let sum = self.entries.get(&Key { own: false, ..key });
        let said_by_sum = key.own && sum.is_some_and(|sum| sum.is_equivalent(&entry));
        if self.has_pass {
            // In the field nothing is lifted either if the sum came first, which nothing determines.
            return self.insert_with_passes(most, key, entry, said_by_sum);
        }
        if said_by_sum {
            return;
        }
        if self.has_auth && !entry.denies() {
            return self.insert_with_auth(key, entry);
        }
        for (k, v) in self.covering(key) {
            if v.strength() > entry.strength() || entry.denies() && v.strength() == entry.strength() && k != key {
                return;
            }
        }
        for (k, v) in self.covered(key) {
            if v.strength() < entry.strength() || entry.denies() && v.strength() == entry.strength() && k != key {
                self.entries.remove(&k);
            }
        }
        self.add(key, entry);
    }

    fn insert_with_auth(&mut self, key: Key, mut entry: Entry) {
        let mut same: Vec<(Key, Entry)> = self.covering(key).into_iter().filter(|(k, _)| k.own == key.own).collect();
        same.sort_by_key(|(k, _)| std::cmp::Reverse(k.detail));
        for (k, v) in &same {
            if v.strength() > entry.strength() {
                if v.denies() || entry.auth.is_none() {
                    return;
                }
                (entry.proxy, entry.precedence) = (v.proxy.clone(), v.precedence);
                break;
            }
            let as_high = v.strength() >> 8 >= entry.strength() >> 8;
            if entry.derived.is_none() && entry.auth.is_none() && k.detail != key.detail && v.auth.is_some() && as_high
            {
                entry.derived = v.auth;
            }
        }
        let mut propagated = false;
        for (k, v) in self.covered(key).into_iter().filter(|(k, _)| k.own == key.own) {
            let mut kept = v.clone();
            if v.strength() < entry.strength() {
                if v.auth.is_none() {
                    self.entries.remove(&k);
                    continue;
                }
                (kept.proxy, kept.precedence) = (entry.proxy.clone(), entry.precedence);
            }
            if !propagated && entry.auth.is_some() && k.detail != key.detail {
                if v.denies() || v.auth.is_some() {
                    propagated = true;
                } else {
                    kept.derived = entry.auth;
                }
            }
            self.entries.insert(k, kept);
        }
        self.add(key, entry);
    }

    fn insert_with_passes(&mut self, most: u32, key: Key, entry: Entry, said_by_sum: bool) {
        if let Some(pass) = entry.passes.first().copied() {
            for (_, v) in self.covering(key) {
                let decided = v.precedence.is_some_and(|one| one <= most && one > pass.precedence);
                let passed = v.passes.iter().any(|one| one.least == pass.least && one.precedence >= pass.precedence);
                if decided || passed {
                    return;
                }
            }
            for (k, v) in self.covered(key) {
                self.prune((k, v), key, &entry, pass.precedence);
            }
            return self.add(key, entry);
        }
        let (mut queue, mut done) = (VecDeque::new(), BTreeSet::new());
        let precedence = entry.strength();
        let (mut passes, mut bail, mut made) = (Vec::new(), Vec::new(), Vec::new());
        for (k, v) in self.broader(key) {
            let covering = key.own || !k.own;
            for pass in &v.passes {
                if pass.least > precedence {
                    if !covering {
                        queue.push_back(Key { own: k.own, ..key });
                        break;
                    }
                    collect(&mut passes, *pass);
                } else if covering && pass.precedence > precedence {
                    return;
                }
            }
            let stronger =
                v.precedence.is_some_and(|one| one > precedence || entry.denies() && one == precedence && k != key);
            match (stronger, covering) {
                (true, true) if v.strength() <= most => return,
                (true, true) => bail.push((k, v.strength())),
                (true, false) if v.strength() <= most => drop(done.insert(Key { own: k.own, ..key })),
                _ => {}
            }
        }
        queue.retain(|one| done.insert(*one));
        let mut bailed = !bail.is_empty();
        for (k, v) in self.narrower(key) {
            if !bailed && (!key.own || k.own == key.own) {
                self.prune((k, v.clone()), key, &entry, precedence);
            }
            let target = Key { own: k.own || key.own, ..k };
            if target != key && v.passes.iter().any(|pass| pass.precedence > most) && done.insert(target) {
                queue.push_back(target);
            }
        }
        if !passes.is_empty() {
            let lifted = lift(precedence, &passes);
            if stands(lifted, key, &bail) {
                self.add_lifted(key, &entry, lifted);
                made.push((key, lifted));
                bailed = true;
            }
        }
        if !bailed && !said_by_sum {
            self.add(key, entry.clone());
        }
        // Wider places first: what is lifted there stands for the narrower ones that it covers as strongly.
        queue.make_contiguous().sort_by_key(|place| place.detail);
        while let Some(key) = queue.pop_front() {
            let (mut passes, mut bail, mut more) = (Vec::new(), Vec::new(), Vec::new());
            for (k, v) in self.broader(key) {
                let covering = key.own || !k.own;
                for pass in v.passes.iter().filter(|pass| pass.least > precedence) {
                    if !covering {
                        more.push(Key { own: k.own, ..key });
                        break;
                    }
                    collect(&mut passes, *pass);
                }
                let stronger =
                    v.precedence.is_some_and(|one| one > precedence || entry.denies() && one == precedence && k != key);
                if stronger && covering && v.strength() > most {
                    bail.push((k, v.strength()));
                } else if stronger && !covering && v.strength() <= most {
                    done.insert(Key { own: k.own, ..key });
                }
            }
            queue.extend(more.into_iter().filter(|one| done.insert(*one)));
            let lifted = lift(precedence, &passes);
            let own = |(k, one): &(Key, u32)| k.detail <= key.detail && (k.own == key.own || !k.own) && *one >= lifted;
            if !passes.is_empty() && stands(lifted, key, &bail) && !made.iter().any(own) {
                self.add_lifted(key, &entry, lifted);
                made.push((key, lifted));
            }
        }
    }

    fn add_lifted(&mut self, key: Key, entry: &Entry, lifted: u32) {
        let raised = Entry { precedence: Some(lifted), ..entry.clone() };
        // As for what is not lifted; in the field that, too, depends on what came first.
        let sum = self.entries.get(&Key { own: false, ..key });
        let says_the_same = |sum: &Entry| Entry { passes: Vec::new(), ..sum.clone() }.is_equivalent(&raised);
        if key.own && sum.is_some_and(says_the_same) {
            return;
        }
        for (k, v) in self.covered(key) {
            self.prune((k, v), key, entry, lifted);
        }
        self.add(key, raised);
    }

    /// Takes from a covered entry what is weaker.
    fn prune(&mut self, (k, mut v): (Key, Entry), key: Key, entry: &Entry, precedence: u32) {
        let same = k.detail == key.detail && k.own && !key.own && v.is_equivalent(entry);
        let stays = |pass: &Pass| !(pass.least..=pass.most).contains(&precedence) || pass.precedence > precedence;
        v.passes.retain(stays);
        let weaker = v.precedence.is_none_or(|one| one < precedence || is_deny(one) && one == precedence && k != key);
        if weaker || same {
            v.precedence = None;
        }
        if v.precedence.is_none() && v.passes.is_empty() {
            self.entries.remove(&k);
        } else {
            self.entries.insert(k, v);
        }
    }

    fn add(&mut self, key: Key, entry: Entry) {
        let passes = entry.passes.clone();
        self.put(key, entry);
        // The field compares a peer's own entry with what is put in, not with what the sum then comes to: whether it goes
        // depends on which of the sum's came first, which nothing determines.
        let sum = Entry { passes, ..self.entries[&key].clone() };
        let own = Key { own: true, ..key };
        if !key.own && self.entries.get(&own).is_some_and(|one| one.is_equivalent(&sum)) {
            self.entries.remove(&own);
        }
    }

    fn put(&mut self, key: Key, entry: Entry) {
        let Some(known) = self.entries.get_mut(&key) else {
            self.entries.insert(key, entry);
            return;
        };
        let passes = entry.passes.clone();
        match (known.precedence, entry.precedence) {
            (_, None) => {}
            (None, Some(_)) => *known = Entry { passes: std::mem::take(&mut known.passes), ..entry },
            (Some(old), Some(new)) if old ^ new <= 255 && is_deny(old) == is_deny(new) => join(known, entry),
            (Some(old), Some(new)) if old < new => {
                *known = Entry { passes: std::mem::take(&mut known.passes), ..entry };
            }
            _ => {}
        }
        passes.into_iter().for_each(|pass| collect(&mut known.passes, pass));
    }
}

fn join(known: &mut Entry, entry: Entry) {
    if !known.denies() {
        if entry.proxy.is_some() && entry.strength() > known.strength() {
            (known.proxy, known.precedence) = (entry.proxy, entry.precedence);
        } else if entry.strength() == known.strength() {
            // The field compares numbers that the proxies' ports happen to have.
            known.proxy = known.proxy.take().min(entry.proxy);
        }
        known.auth = known.auth.max(entry.auth);
        known.derived = if known.auth.is_some() { None } else { known.derived.max(entry.derived) };
    }
    known.origins.extend(entry.origins);
    known.logs.extend(entry.logs);
    known.implicit = known.implicit.or(entry.implicit);
}

/// One for each tier, the strongest.
fn collect(passes: &mut Vec<Pass>, pass: Pass) {
    match passes.iter_mut().find(|known| known.least == pass.least) {
        Some(known) if known.precedence < pass.precedence => *known = pass,
        Some(_) => {}
        None => passes.push(pass),
    }
    passes.sort_by_key(|pass| pass.least);
}

/// What was lifted stays beside what allows as strongly, and joins what says the same of the same. In the field that
/// depends on which of them came first, which nothing determines.
fn stands(lifted: u32, key: Key, bail: &[(Key, u32)]) -> bool {
    bail.iter().all(|(k, one)| lifted > *one || lifted == *one && (!is_deny(lifted) || *k == key))
}

fn lift(precedence: u32, passes: &[Pass]) -> u32 {
    passes.iter().fold(precedence, |lifted, pass| lifted.wrapping_sub(pass.least).wrapping_add(pass.precedence))
}

fn entry(filter: &Filter, priority: u32, (first, next): (u32, u32)) -> Entry {
    let mut entry = Entry { logs: filter.logs.clone(), ..Entry::default() };
    for who in &filter.who {
        match who {
            Who::Rule(rule) => drop(entry.origins.insert(rule.clone())),
            Who::Implied(what) => entry.implicit = Some(*what),
        }
    }
    match filter.said.effect {
        Effect::Pass => {
            let least = base(next) + 0x100;
            entry.passes.push(Pass { precedence: base(priority), most: base(first) | 255, least });
        }
        Effect::Deny => entry.precedence = Some(base(priority) | 255),
        Effect::Allow => {
            let redirect = filter.said.redirect.as_ref();
            entry.precedence = Some(base(priority) + redirect.map_or(1, |one| u32::from(one.strength())));
            entry.proxy = redirect.map(|one| (one.parser, one.listener.clone()));
            entry.auth = filter.said.auth;
        }
    }
    entry
}
