//! Which entries does a class of peers get?
//!
//! A candidate is what the rules of a tier say of one peer selector and one range of ports. For a packet the tiers are
//! asked in order. In a tier the candidates with the greatest precedence decide, or leave it to the next tier. Of
//! several that allow, those with the narrowest ports do, and of these those that mean the peer itself before those
//! that mean the sum that it is part of, unless they say the same. Of several that deny, those with the widest ports
//! do.

mod candidate;
mod decide;
mod prefix;

use std::collections::{BTreeMap, BTreeSet};

use abi::Port;
use abi::policy::{
    Class, MATCH_ALL, MATCH_L3_L4, MATCH_L3_ONLY, MATCH_L3_PROTO, MATCH_L4_ONLY, MATCH_NONE, MATCH_PROTO_ONLY,
    VERDICT_ALLOW, VERDICT_DEFAULT_DENY, VERDICT_DENY, VERDICT_REDIRECT, VerdictEntry, VerdictKey,
};

use crate::origin::{Direction, Implicit};
use crate::rule::Auth;

pub(crate) use candidate::{By, Candidate, PeerKey, RangeKey, Row, Statement, settle};
pub(crate) use decide::Placed;
pub(crate) use prefix::Prefix;

/// Who decided an entry, as numbers of the subject's rules and candidates.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Deciders {
    pub implicit: Option<Implicit>,
    pub rules: Vec<u32>,
    /// Besides, all rules that close the subject.
    pub closing: bool,
    pub auth: Auth,
    pub auth_explicit: bool,
    /// Candidates whose redirects the proxy follows.
    pub redirects: Vec<u32>,
}

/// One entry, before its rule set has a number.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub prefix: Prefix,
    pub verdict: u8,
    pub match_type: u8,
    pub deciders: Deciders,
}

/// The entries of one class and direction: for each prefix that some candidate has, what decides there, unless a
/// wider prefix says the same. `base` answers where no candidate does. `passes` is true if some rule of the direction
/// leaves something to the next tier: then no proof is taken over from wider rules.
pub(crate) fn entries(placed: &[Placed<'_>], base: Entry, passes: bool) -> Vec<Entry> {
    let mut by_prefix: BTreeMap<Prefix, Vec<Placed<'_>>> = BTreeMap::new();
    for one in placed {
        by_prefix.entry(one.prefix).or_default().push(*one);
    }
    let wanted: BTreeSet<Prefix> = by_prefix.keys().copied().chain([Prefix::ANY]).collect();
    // Sorted by length, so that what is wider is there before what is narrower.
    let mut kept: BTreeMap<Prefix, Entry> = BTreeMap::new();
    for prefix in wanted {
        let covering = [prefix].into_iter().chain(prefix.wider());
        let covering: Vec<Placed<'_>> = covering.filter_map(|wide| by_prefix.get(&wide)).flatten().copied().collect();
        let entry = decide::decide(prefix, &covering, &base, passes);
        let wider = prefix.wider().find_map(|wider| kept.get(&wider));
        if wider.is_none_or(|wider| !wider.says_the_same(&entry)) {
            kept.insert(prefix, entry);
        }
    }
    kept.into_values().collect()
}

fn match_type(row: Row, prefix: Prefix) -> u8 {
    match (row, prefix.protocol.is_some(), prefix.bits > 0) {
        (Row::Sum, false, _) => MATCH_ALL,
        (Row::Sum, true, false) => MATCH_PROTO_ONLY,
        (Row::Sum, true, true) => MATCH_L4_ONLY,
        (Row::Own, false, _) => MATCH_L3_ONLY,
        (Row::Own, true, false) => MATCH_L3_PROTO,
        (Row::Own, true, true) => MATCH_L3_L4,
    }
}

impl Entry {
    /// What holds where nothing allows and nothing denies.
    pub fn base(enforced: bool) -> Entry {
        let (verdict, match_type, implicit) = match enforced {
            true => (VERDICT_DEFAULT_DENY, MATCH_NONE, Implicit::DefaultDeny),
            false => (VERDICT_ALLOW, MATCH_ALL, Implicit::NotEnforced),
        };
        let deciders = Deciders { implicit: Some(implicit), closing: true, ..Deciders::default() };
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

/// How an entry that allows looks in the tables. Proof that is asked for is given by nobody yet, so that asking for it
/// denies.
fn allowing(redirects: bool, auth: Auth) -> u8 {
    match (auth, redirects) {
        (Auth::Spire | Auth::AlwaysFail, _) => VERDICT_DENY,
        (Auth::Disabled, true) => VERDICT_REDIRECT,
        (Auth::Disabled, false) => VERDICT_ALLOW,
    }
}
