//! Which entries does a class of peers get?
//!
//! A candidate is one rule with one peer selector and one range of ports. Of all candidates that speak of a packet
//! the first ones in this order decide, and those that are equal in it decide together:
//!
//! 1. rules before what holds in their absence (own node, nobody closes the endpoint);
//! 2. denial before allowance;
//! 3. allowance that needs a proxy before allowance without one;
//! 4. the longer prefix of protocol and port;
//! 5. a peer selector of its own before one of a sum (everybody, all of the cluster, the world, all nodes).
//!
//! Two rules of one selector and one range of ports are one: if one of them needs no proxy, neither does the other.
//! A selector whose rule says for a range of ports what a rule for everybody says too is part of everybody.

mod candidate;
mod prefix;

use std::collections::{BTreeMap, BTreeSet};

use abi::Port;
use abi::policy::{
    Class, MATCH_ALL, MATCH_L3_L4, MATCH_L3_ONLY, MATCH_L3_PROTO, MATCH_L4_ONLY, MATCH_NONE, MATCH_PROTO_ONLY,
    VERDICT_ALLOW, VERDICT_DEFAULT_DENY, VERDICT_DENY, VERDICT_REDIRECT, VerdictEntry, VerdictKey,
};

pub(crate) use candidate::{By, Candidate, PeerKey, RangeKey, settle};
pub(crate) use prefix::Prefix;

use crate::origin::{Direction, Implicit};

/// Who decides an entry, by number of the rule among the subject's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Deciders {
    pub implicit: Option<Implicit>,
    pub rules: Vec<u32>,
}

/// One entry, before its rule set has a number.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub prefix: Prefix,
    pub verdict: u8,
    pub match_type: u8,
    pub deciders: Deciders,
}

/// A candidate for one prefix.
type Placed<'a> = (Prefix, &'a Candidate);

/// The entries of one class and direction: for each prefix that some candidate has, what decides there, unless a
/// wider prefix says the same. `base` answers where no candidate does.
pub(crate) fn entries(candidates: &[Placed<'_>], base: Entry) -> Vec<Entry> {
    let mut by_prefix: BTreeMap<Prefix, Vec<&Candidate>> = BTreeMap::new();
    for (prefix, candidate) in candidates {
        by_prefix.entry(*prefix).or_default().push(candidate);
    }
    let wanted: BTreeSet<Prefix> = by_prefix.keys().copied().chain([Prefix::ANY]).collect();
    // Sorted by length, so that what is wider is there before what is narrower.
    let mut kept: BTreeMap<Prefix, Entry> = BTreeMap::new();
    for prefix in wanted {
        let entry = decide(prefix, &by_prefix).unwrap_or_else(|| Entry { prefix, ..base.clone() });
        let wider = prefix.wider().find_map(|wider| kept.get(&wider));
        if wider.is_none_or(|wider| !wider.says_the_same(&entry)) {
            kept.insert(prefix, entry);
        }
    }
    kept.into_values().collect()
}

/// What decides for packets of this prefix that no narrower one has.
fn decide(prefix: Prefix, by_prefix: &BTreeMap<Prefix, Vec<&Candidate>>) -> Option<Entry> {
    let covering = [prefix].into_iter().chain(prefix.wider());
    let placed = covering.flat_map(|wide| by_prefix.get(&wide).into_iter().flatten().map(move |one| (wide, *one)));
    let placed: Vec<Placed<'_>> = placed.collect();
    let rank = |(prefix, candidate): &Placed<'_>| candidate.rank(*prefix);
    let best = placed.iter().map(rank).min()?;
    let (wide, first) = placed.iter().find(|one| rank(one) == best)?;
    let mut rules: Vec<u32> = Vec::new();
    let mut implicit = None;
    for (_, candidate) in placed.iter().filter(|one| rank(one) == best) {
        match candidate.by {
            By::Rule(rule) => rules.push(rule),
            By::Implicit(what) => implicit = Some(what),
        }
    }
    rules.sort_unstable();
    rules.dedup();
    let deciders = Deciders { implicit, rules };
    Some(Entry { prefix, verdict: first.verdict(), match_type: match_type(first.sum, *wide), deciders })
}

fn match_type(sum: bool, prefix: Prefix) -> u8 {
    match (sum, prefix.protocol.is_some(), prefix.bits > 0) {
        (true, false, _) => MATCH_ALL,
        (true, true, false) => MATCH_PROTO_ONLY,
        (true, true, true) => MATCH_L4_ONLY,
        (false, false, _) => MATCH_L3_ONLY,
        (false, true, false) => MATCH_L3_PROTO,
        (false, true, true) => MATCH_L3_L4,
    }
}

impl Entry {
    /// What holds where nothing allows and nothing denies.
    pub fn base(enforced: bool, closed_by: Vec<u32>) -> Entry {
        let (verdict, match_type, implicit) = match enforced {
            true => (VERDICT_DEFAULT_DENY, MATCH_NONE, Implicit::DefaultDeny),
            false => (VERDICT_ALLOW, MATCH_ALL, Implicit::NotEnforced),
        };
        let deciders = Deciders { implicit: Some(implicit), rules: closed_by };
        Entry { prefix: Prefix::ANY, verdict, match_type, deciders }
    }

    fn says_the_same(&self, other: &Entry) -> bool {
        (self.verdict, self.match_type, &self.deciders) == (other.verdict, other.match_type, &other.deciders)
    }

    /// The entry as the tables have it.
    pub fn row(&self, class: Class, direction: Direction, rule_set: u32) -> (VerdictKey, VerdictEntry) {
        let key = VerdictKey {
            prefix_len: self.prefix.len(),
            class,
            direction: direction.number(),
            protocol: self.prefix.protocol.unwrap_or(0),
            port: Port::new(self.prefix.port),
        };
        let entry =
            VerdictEntry { rule_set, verdict: self.verdict, match_type: self.match_type, proxy_port: Port::new(0) };
        (key, entry)
    }
}

impl Candidate {
    fn verdict(&self) -> u8 {
        match (self.deny, self.redirect) {
            (true, _) => VERDICT_DENY,
            (false, true) => VERDICT_REDIRECT,
            (false, false) => VERDICT_ALLOW,
        }
    }
}
