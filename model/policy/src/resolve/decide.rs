//! Who decides for the packets of one prefix?

use abi::policy::VERDICT_DENY;
use smallvec::SmallVec;

use super::candidate::{By, Candidate, Precedence, Row};
use super::{Deciders, Entry, Prefix, allowing, match_type};
use crate::rule::{Auth, Effect};

/// A candidate of a class for one of its prefixes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'a> {
    pub prefix: Prefix,
    pub row: Row,
    /// The candidate's number in its subject's direction.
    pub number: u32,
    pub candidate: &'a Candidate,
}

/// Some candidates: nearly always few.
pub(crate) type Chosen<'a> = SmallVec<[Placed<'a>; 4]>;

/// What narrows candidates: what higher tiers passed on was passed on for these peers and ports only. Where a peer's
/// own and the sum's were passed on alike, by different rules, each has its own.
#[derive(Clone, Copy, Debug)]
struct Clip {
    own: Key,
    sum: Key,
}

/// Where an entry would stand in the field's own tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    row: Row,
    prefix: Prefix,
}

/// What decides for packets of this prefix that no narrower one has. `covering` are the candidates that speak of them.
pub(super) fn decide(prefix: Prefix, covering: &[Placed<'_>], base: &Entry, passes: bool) -> Entry {
    let mut clip = Clip::NONE;
    let mut next = covering.iter().map(|one| one.candidate.tier).min();
    while let Some(tier) = next {
        next = covering.iter().map(|one| one.candidate.tier).filter(|one| *one > tier).min();
        let in_force = || covering.iter().filter(|one| one.candidate.tier == tier && !one.candidate.elided);
        let Some(greatest) = in_force().map(precedence).max() else { continue };
        let first: Chosen<'_> = in_force().filter(|one| precedence(one) == greatest).copied().collect();
        match first[0].candidate.effect {
            Effect::Pass => clip = clip.and(&first),
            Effect::Deny => return deny(prefix, &first, clip),
            Effect::Allow => return allow(prefix, covering, &first, clip, passes),
        }
    }
    Entry { prefix, ..base.clone() }
}

fn precedence(one: &Placed<'_>) -> Precedence {
    one.candidate.precedence()
}

impl Key {
    const ANY: Key = Key { row: Row::Sum, prefix: Prefix::ANY };

    fn and(self, row: Row, prefix: Prefix) -> Key {
        Key { row: self.row.max(row), prefix: self.prefix.max(prefix) }
    }
}

impl Clip {
    const NONE: Clip = Clip { own: Key::ANY, sum: Key::ANY };

    /// Narrowed by what these pass on: of equal ones the widest of each row counts, and the peer's own only if it is
    /// wider than the sum's.
    fn and(self, passes: &[Placed<'_>]) -> Clip {
        let widest = |row: Row| passes.iter().filter(|one| one.row == row).map(|one| one.prefix).min();
        let sum = widest(Row::Sum);
        let own = widest(Row::Own).filter(|own| sum.is_none_or(|sum| *own < sum));
        let (sum, own) = (sum.map(|prefix| (Row::Sum, prefix)), own.map(|prefix| (Row::Own, prefix)));
        let with = |key: Key, pass: Option<(Row, Prefix)>| pass.map_or(key, |(row, prefix)| key.and(row, prefix));
        Clip { own: with(self.own, own.or(sum)), sum: with(self.sum, sum.or(own)) }
    }

    fn key(self, one: &Placed<'_>) -> Key {
        let clip = if one.row == Row::Own { self.own } else { self.sum };
        clip.and(one.row, one.prefix)
    }

    fn is_none(self) -> bool {
        self.own == Key::ANY && self.sum == Key::ANY
    }
}

/// Of equal denials the widest counts, and the sum's before the peer's own unless the latter is wider.
fn deny(prefix: Prefix, denials: &[Placed<'_>], clip: Clip) -> Entry {
    let widest = |row: Row| {
        let of_row = denials.iter().map(|one| clip.key(one)).filter(move |key| key.row == row);
        of_row.min_by_key(|key| key.prefix)
    };
    let first_of_all = denials[0].candidate.level == 0 && clip.is_none();
    let key = match (widest(Row::Own), widest(Row::Sum)) {
        (Some(own), Some(sum)) if sum.prefix <= own.prefix || !first_of_all => sum,
        (Some(own), _) => own,
        (None, Some(sum)) => sum,
        (None, None) => clip.key(&denials[0]),
    };
    // Of several that were passed on to the same place the wider hides the narrower, as it does where nothing is passed
    // on; but the sum's does not hide the peer's own.
    let of_key = || denials.iter().filter(|one| clip.key(one) == key);
    let hidden = |one: &Placed<'_>| of_key().any(|other| other.row >= one.row && other.prefix < one.prefix);
    let mut deciders = deciders(of_key().filter(|one| !hidden(one)));
    if deciders.implicit.is_some() {
        deciders.rules.clear();
        deciders.closing = true;
    }
    Entry { prefix, verdict: VERDICT_DENY, match_type: match_type(key.row, key.prefix), deciders }
}

/// What the allowing candidates of one row come to.
struct Allowance<'a> {
    key: Key,
    precedence: Precedence,
    auth: Auth,
    explicit: bool,
    members: Chosen<'a>,
    /// Of the candidates that the proxy follows.
    leader: Placed<'a>,
}

/// The narrowest of each row, and of the two what the datapath would take.
fn allow<'a>(prefix: Prefix, covering: &[Placed<'a>], first: &[Placed<'a>], clip: Clip, passes: bool) -> Entry {
    let with_auth = !passes && covering.iter().any(|one| one.candidate.auth.is_some());
    let all = if with_auth { covering } else { first };
    let of_row = |row: Row| {
        let of_row = |one: &&Placed<'a>| is_allowing(one) && clip.key(one).row == row;
        let own: Chosen<'a> = all.iter().filter(of_row).copied().collect();
        row_allowance(&own, clip, with_auth)
    };
    let chosen = match (of_row(Row::Own), of_row(Row::Sum)) {
        (Some(own), Some(sum)) => between(own, sum),
        (Some(one), None) | (None, Some(one)) => one,
        // Not reached: `first` has a candidate, which is in one of the rows.
        (None, None) => return Entry { prefix, ..Entry::base(true) },
    };
    let mut deciders = deciders(chosen.members.iter());
    (deciders.auth, deciders.auth_explicit) = (chosen.auth, chosen.explicit);
    deciders.redirects = followed(covering, &chosen.leader);
    let redirects = chosen.leader.candidate.redirect.is_some();
    let verdict = allowing(redirects, chosen.auth);
    Entry { prefix, verdict, match_type: match_type(chosen.key.row, chosen.key.prefix), deciders }
}

fn is_allowing(one: &Placed<'_>) -> bool {
    one.candidate.effect == Effect::Allow && !one.candidate.elided
}

/// Greater precedence, then narrower ports, then the peer's own; what says the same as the sum is not there at all.
fn between<'a>(own: Allowance<'a>, sum: Allowance<'a>) -> Allowance<'a> {
    if own.precedence != sum.precedence {
        return if own.precedence > sum.precedence { own } else { sum };
    }
    let (mut chosen, other) = match own.key.prefix.cmp(&sum.key.prefix) {
        std::cmp::Ordering::Equal if own.says_the_same(&sum) => return sum,
        std::cmp::Ordering::Less => (sum, own),
        std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => (own, sum),
    };
    if !chosen.explicit && other.auth > chosen.auth {
        chosen.auth = other.auth;
    }
    chosen
}

impl<'a> Allowance<'a> {
    /// What one candidate comes to that is alone in its row.
    fn of(only: &Placed<'a>, clip: Clip) -> Self {
        Allowance {
            key: clip.key(only),
            precedence: precedence(only),
            auth: only.candidate.auth.unwrap_or_default(),
            explicit: only.candidate.auth.is_some(),
            members: SmallVec::from_slice(&[*only]),
            leader: *only,
        }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        let logs = |one: &Self| {
            let logs = one.members.iter().flat_map(|member| member.candidate.logs.iter().cloned());
            logs.collect::<std::collections::BTreeSet<_>>()
        };
        let proxy =
            |one: &Self| one.leader.candidate.proxy().map(|(range, listener)| (range, listener.map(str::to_owned)));
        (self.auth, self.explicit) == (other.auth, other.explicit)
            && proxy(self) == proxy(other)
            && logs(self) == logs(other)
    }
}

/// What holds in one row: the narrowest of the greatest precedence; a rule that asks for proof itself is there besides
/// a wider and stronger one, and goes where that goes.
fn row_allowance<'a>(all: &[Placed<'a>], clip: Clip, with_auth: bool) -> Option<Allowance<'a>> {
    if let [only] = all {
        return Some(Allowance::of(only, clip));
    }
    let greatest = all.iter().map(precedence).max()?;
    let top = || all.iter().filter(|one| precedence(one) == greatest);
    let keeps_up = |one: &&Placed<'a>| {
        let prefix = clip.key(one).prefix;
        precedence(one) == greatest
            || one.candidate.auth.is_some() && top().any(|wider| clip.key(wider).prefix <= prefix)
    };
    let in_force = || all.iter().filter(keeps_up);
    let key = in_force().map(|one| clip.key(one)).max_by_key(|key| key.prefix)?;
    let members: Chosen<'a> = in_force().filter(|one| clip.key(one).prefix == key.prefix).copied().collect();
    let explicit = members.iter().filter_map(|one| one.candidate.auth).max();
    let level = members.iter().map(|one| one.candidate.level).min()?;
    let wider = all.iter().filter(|one| {
        with_auth && clip.key(one).prefix < key.prefix && one.candidate.auth.is_some() && one.candidate.level <= level
    });
    let inherited = wider.max_by_key(|one| clip.key(one).prefix).and_then(|one| one.candidate.auth);
    let strongest = top().filter(|one| clip.key(one).prefix <= key.prefix).max_by_key(|one| clip.key(one).prefix)?;
    // Of several proxies that claim the traffic as strongly, the first by name gets it.
    let claiming = members.iter().filter(|one| precedence(one) == greatest);
    let leader = *claiming.min_by_key(|one| one.candidate.proxy()).unwrap_or(strongest);
    Some(Allowance {
        key,
        precedence: greatest,
        auth: explicit.or(inherited).unwrap_or_default(),
        explicit: explicit.is_some(),
        members,
        leader,
    })
}

/// The candidates whose redirects the proxy of this one follows: all that speak of the peer and that proxy.
fn followed(covering: &[Placed<'_>], leader: &Placed<'_>) -> SmallVec<[u32; 4]> {
    let Some(proxy) = leader.candidate.proxy() else { return SmallVec::new() };
    let same = |one: &&Placed<'_>| {
        one.candidate.effect == Effect::Allow
            && one.candidate.level == leader.candidate.level
            && one.candidate.proxy() == Some(proxy)
    };
    let mut numbers: SmallVec<[u32; 4]> = covering.iter().filter(same).map(|one| one.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn deciders<'p, 'a: 'p>(members: impl Iterator<Item = &'p Placed<'a>>) -> Deciders {
    let mut deciders = Deciders::default();
    for by in members.flat_map(|one| &one.candidate.by) {
        match by {
            By::Rule(rule) => deciders.rules.push(*rule),
            By::Implicit(what) => deciders.implicit = Some(*what),
        }
    }
    deciders.rules.sort_unstable();
    deciders.rules.dedup();
    deciders
}
