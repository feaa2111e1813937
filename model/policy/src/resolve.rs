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

use abi::Port;
use abi::policy::{
    Class, MATCH_ALL, MATCH_L3_L4, MATCH_L3_ONLY, MATCH_L3_PROTO, MATCH_L4_ONLY, MATCH_NONE, MATCH_PROTO_ONLY,
    PREFIX_ANY_PROTOCOL, VERDICT_ALLOW, VERDICT_DEFAULT_DENY, VERDICT_DENY, VERDICT_REDIRECT, VerdictEntry, VerdictKey,
};

use smallvec::SmallVec;

use crate::origin::{Direction, Implicit};
use crate::rule::Auth;

pub(crate) use candidate::{By, Candidate, PeerKey, RangeKey, Row, settle};
pub(crate) use decide::{Chosen, Placed};
pub(crate) use prefix::Prefix;

/// Who decided an entry, as numbers of the subject's rules and candidates.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Deciders {
    pub implicit: Option<Implicit>,
    pub rules: SmallVec<[u32; 4]>,
    /// Besides, all rules that close the subject.
    pub closing: bool,
    pub auth: Auth,
    pub auth_explicit: bool,
    /// Candidates whose redirects the proxy follows.
    pub redirects: SmallVec<[u32; 4]>,
}

impl Deciders {
    /// True if nobody decides: those of the entry that answers where no candidate does.
    pub fn is_base(&self) -> bool {
        let base = matches!(self.implicit, Some(Implicit::DefaultDeny | Implicit::NotEnforced));
        base && self.closing && self.rules.is_empty() && self.redirects.is_empty() && self.auth == Auth::Disabled
    }

    /// The rule, if it alone decides and there is nothing else to tell.
    pub fn one_rule(&self) -> Option<u32> {
        let others = self.implicit.is_some() || self.closing || self.auth_explicit || self.auth != Auth::Disabled;
        match self.rules.as_slice() {
            [one] if !others && self.redirects.is_empty() => Some(*one),
            _ => None,
        }
    }
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
pub(crate) fn entries(placed: &mut [Placed<'_>], base: &Entry, passes: bool) -> SmallVec<[Entry; 2]> {
    if placed.len() > 1 {
        placed.sort_by_key(|one| one.prefix);
    }
    let placed = ByPrefix::of(placed);
    // Sorted by length, so that what is wider is there before what is narrower.
    let mut kept: SmallVec<[Entry; 2]> = SmallVec::new();
    let any = if placed.has_any() { None } else { Some(Prefix::ANY) };
    for prefix in any.into_iter().chain(placed.prefixes()) {
        let mut covering: Chosen<'_> = SmallVec::new();
        placed.covering(prefix).for_each(|same| covering.extend_from_slice(same));
        let entry = decide::decide(prefix, &covering, base, passes);
        let wider = placed.lengths().filter(|length| *length < prefix.len()).find_map(|length| {
            let wide = prefix.of_length(length)?;
            kept.binary_search_by_key(&wide, |entry| entry.prefix).ok()
        });
        let wider = wider.or_else(|| (prefix != Prefix::ANY).then_some(0));
        if wider.is_none_or(|wider| !kept[wider].says_the_same(&entry)) {
            kept.push(entry);
        }
    }
    kept
}

/// Candidates sorted by prefix.
struct ByPrefix<'p, 'a> {
    placed: &'p [Placed<'a>],
    /// Which lengths of prefixes there are, as bits from the shortest on.
    lengths: u64,
}

impl<'p, 'a> ByPrefix<'p, 'a> {
    fn of(placed: &'p [Placed<'a>]) -> Self {
        let lengths = placed.iter().fold(0, |lengths, one| lengths | 1_u64 << (one.prefix.len() - PREFIX_ANY_PROTOCOL));
        ByPrefix { placed, lengths }
    }

    fn has_any(&self) -> bool {
        self.lengths & 1 == 1
    }

    /// The lengths that there are, the longest first.
    fn lengths(&self) -> impl Iterator<Item = u32> {
        let mut left = self.lengths;
        std::iter::from_fn(move || {
            let longest = left.checked_ilog2()?;
            left ^= 1 << longest;
            Some(PREFIX_ANY_PROTOCOL + longest)
        })
    }

    /// All prefixes, each once.
    fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        self.placed
            .chunk_by(|one, next| one.prefix == next.prefix)
            .filter_map(|same| same.first())
            .map(|one| one.prefix)
    }

    /// The candidates that speak of all of a prefix, the narrowest first.
    fn covering(&self, prefix: Prefix) -> impl Iterator<Item = &'p [Placed<'a>]> {
        self.lengths().filter_map(move |length| {
            let wide = prefix.of_length(length)?;
            let from = self.placed.partition_point(|one| one.prefix < wide);
            let same = self.placed[from..].partition_point(|one| one.prefix == wide);
            Some(&self.placed[from..from + same])
        })
    }
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
