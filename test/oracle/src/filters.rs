//! What do the rules of a tier say together of one selector and one range of ports?

use std::collections::{BTreeMap, BTreeSet};

use policy::{Auth, Effect, Implicit, Peer, PortRange, Redirect, RuleOrigin, Tier};

/// Who says something.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Who {
    Rule(RuleOrigin),
    Implied(Implicit),
}

/// Protocol and ports as a rule has them, and the end of the range as it is written; `None`: all.
pub(crate) type Range = Option<(u8, PortRange, u16)>;

/// What one rule says of one peer selector and one range of ports.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub who: Who,
    /// Tier and priority.
    pub place: (Tier, u32),
    pub peer: Peer,
    pub range: Range,
    /// How much of the packet's protocol and port the range pins down; `None` if the packet is not in it.
    pub detail: Option<u8>,
    /// The selector selects the packet's other side.
    pub selects: bool,
    /// It means the other side itself, not the sum that it is part of.
    pub own: bool,
    pub effect: Effect,
    pub auth: Option<Auth>,
    pub redirect: Option<Redirect>,
    pub log: String,
}

/// What all of them say.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub who: BTreeSet<Who>,
    pub logs: BTreeSet<String>,
    pub said: Statement,
    /// Tiers and priorities of all statements, of the packet or not, and which of them pass on.
    pub level: usize,
}

/// All places in the order in which they are asked, with those that pass on, and the filters that speak of the packet.
pub(crate) struct Merged {
    pub places: Vec<((Tier, u32), bool)>,
    pub filters: Vec<Filter>,
    pub has_auth: bool,
    pub has_pass: bool,
}

pub(crate) fn merge(said: Vec<Statement>) -> Merged {
    let mut places: BTreeMap<(Tier, u32), bool> = BTreeMap::new();
    for one in &said {
        *places.entry(one.place).or_default() |= one.effect == Effect::Pass;
    }
    let places: Vec<((Tier, u32), bool)> = places.into_iter().collect();
    let level = |place| places.iter().position(|(known, _)| *known == place).expect("every place is known");
    let has_auth = said.iter().any(|one| one.auth.is_some());
    let has_pass = said.iter().any(|one| one.effect == Effect::Pass);
    let mut filters: BTreeMap<(Tier, Range, Peer), Filter> = BTreeMap::new();
    for one in said {
        let key = (one.place.0, one.range.clone(), one.peer.clone());
        let filter = Filter {
            who: BTreeSet::from([one.who.clone()]),
            logs: Some(&one.log).filter(|log| !log.is_empty()).cloned().into_iter().collect(),
            level: level(one.place),
            said: one,
        };
        match filters.get_mut(&key) {
            Some(known) => join(known, filter),
            None => drop(filters.insert(key, filter)),
        }
    }
    let covered = |filter: &Filter| {
        let key = (filter.said.place.0, filter.said.range.clone(), Peer::All);
        let named = matches!(filter.said.range, Some((_, PortRange::Numbers(..) | PortRange::Named(_), _)));
        let all = filters.get(&key).filter(|all| all.said.effect != Effect::Pass);
        named && filter.said.peer != Peer::All && all.is_some_and(|all| looks_like(filter, all))
    };
    let speaks = |filter: &&Filter| filter.said.selects && filter.said.detail.is_some() && !covered(filter);
    let filters = filters.values().filter(speaks).cloned().collect();
    Merged { places, filters, has_auth, has_pass }
}

fn join(known: &mut Filter, other: Filter) {
    let rank = |one: &Filter| {
        (one.level, [Effect::Deny, Effect::Allow, Effect::Pass].iter().position(|e| *e == one.said.effect))
    };
    if rank(known) != rank(&other) {
        if rank(&other) < rank(known) {
            *known = other;
        }
        return;
    }
    if known.said.effect == Effect::Allow {
        known.said.redirect = match (known.said.redirect.take(), other.said.redirect) {
            (None, None) => None,
            (Some(one), Some(two)) if one == two => Some(one),
            (Some(one), Some(two)) => Some(one.merge(&two).expect("generated rules fit together")),
            (Some(one), None) | (None, Some(one)) => Some(one.opened()),
        };
        known.said.auth = known.said.auth.or(other.said.auth);
    }
    known.who.extend(other.who);
    known.logs.extend(other.logs);
}

/// The datapath would see no difference.
fn looks_like(one: &Filter, other: &Filter) -> bool {
    let seen = |filter: &Filter| {
        let redirect = filter.said.redirect.as_ref();
        (
            filter.level,
            filter.said.effect,
            redirect.map(|redirect| (redirect.strength(), redirect.listener.clone())),
            filter.said.auth,
        )
    };
    seen(one) == seen(other)
}
