//! What do the rules of one subject say together of one peer selector and one range of ports?

use std::sync::Arc;

use smallvec::SmallVec;

use crate::origin::Implicit;
use crate::redirect::{Parser, Redirect};
use crate::resolve::Prefix;
use crate::rule::{Auth, Effect, PortRange, Tier};

/// Who is behind a candidate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum By {
    /// The subject's rule of this number.
    Rule(u32),
    /// What holds in the absence of rules.
    Implicit(Implicit),
}

/// A peer selector.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum PeerKey {
    /// Everybody.
    All,
    /// The subject's selector of this number.
    Selector(u32),
}

/// Protocol and ports as a rule names them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum RangeKey {
    /// Everything.
    Any,
    /// Ports of a protocol, and the end of the range as it is written.
    Ports(u8, PortRange, u16),
}

/// As which of its identities a peer is meant: its own, or the sum that it is part of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Row {
    /// The sum.
    Sum,
    /// Its own.
    Own,
}

/// What the rules of a tier say of one peer selector and one range of ports: at first one rule alone, then all of them.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Candidate {
    pub by: SmallVec<[By; 2]>,
    pub tier: Tier,
    /// Its place among all tiers and priorities of the subject's direction; the lowest comes first.
    pub level: u32,
    pub peer: PeerKey,
    pub range: RangeKey,
    pub row: Row,
    pub effect: Effect,
    pub auth: Option<Auth>,
    pub redirect: Option<Arc<Redirect>>,
    /// What the rules want to be logged.
    pub logs: Vec<Arc<str>>,
    /// True if everybody's rules say the same, so that this only adds to what the proxy asks.
    pub elided: bool,
}

/// Where candidates stand in the eyes of the datapath: the greatest decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Precedence {
    level: std::cmp::Reverse<u32>,
    strength: u8,
}

impl Candidate {
    /// Denial is stronger than a proxy, a proxy than plain allowance, and that than leaving it to the next tier.
    pub fn precedence(&self) -> Precedence {
        let strength = match (self.effect, &self.redirect) {
            (Effect::Deny, _) => 255,
            (Effect::Allow, Some(redirect)) => redirect.strength(),
            (Effect::Allow, None) => 1,
            (Effect::Pass, _) => 0,
        };
        Precedence { level: std::cmp::Reverse(self.level), strength }
    }

    /// Adds the prefixes of its ports; none for a name, which means something for a peer or a subject only.
    pub fn prefixes(&self, mut add: impl FnMut(Prefix)) {
        match &self.range {
            RangeKey::Any => add(Prefix::ANY),
            RangeKey::Ports(protocol, PortRange::All, _) => add(Prefix::protocol(*protocol)),
            RangeKey::Ports(protocol, PortRange::Numbers(first, last), _) => {
                Prefix::range(*protocol, *first, *last).for_each(add);
            }
            RangeKey::Ports(_, PortRange::Named(_), _) => {}
        }
    }

    /// Which proxy gets the traffic.
    pub fn proxy(&self) -> Option<(Parser, Option<&str>)> {
        let redirect = self.redirect.as_ref()?;
        Some((redirect.parser, redirect.listener.as_deref()))
    }

    /// Those of one place are put together.
    fn place(&self) -> (PeerKey, Tier, &RangeKey) {
        (self.peer, self.tier, &self.range)
    }

    /// Adds what another rule of the tier says of the same peers and ports.
    fn merge(&mut self, other: Candidate) -> Result<(), String> {
        let (own, others) = (self.rank(), other.rank());
        if own != others {
            if others < own {
                *self = other;
            }
            return Ok(());
        }
        if self.effect == Effect::Allow {
            self.redirect = match (self.redirect.take(), &other.redirect) {
                (None, None) => None,
                (Some(one), Some(two)) if one == *two => Some(one),
                (Some(one), Some(two)) => Some(Arc::new(one.merge(two)?)),
                (Some(one), None) => Some(Arc::new(one.opened())),
                (None, Some(two)) => Some(Arc::new(two.opened())),
            };
            self.auth = merge_auth(self.auth, other.auth)?;
        }
        self.by.extend(other.by);
        self.logs.extend(other.logs);
        Ok(())
    }

    /// Denial before allowance before leaving it to the next tier, after the place in the tier.
    fn rank(&self) -> (u32, u8) {
        let effect = match self.effect {
            Effect::Deny => 0,
            Effect::Allow => 1,
            Effect::Pass => 2,
        };
        (self.level, effect)
    }

    /// True if the datapath could not tell one from the other.
    fn looks_like(&self, other: &Candidate) -> bool {
        let listener = |one: &Candidate| one.redirect.as_ref().map(|redirect| redirect.listener.clone());
        self.effect == other.effect
            && self.precedence() == other.precedence()
            && listener(self) == listener(other)
            && self.auth == other.auth
    }
}

fn merge_auth(one: Option<Auth>, two: Option<Auth>) -> Result<Option<Auth>, String> {
    match (one, two) {
        (Some(first), Some(second)) if first != second => {
            Err(format!("cannot merge conflicting authentication types ({}/{})", first.name(), second.name()))
        }
        (first, second) => Ok(first.or(second)),
    }
}

/// Puts together what rules say of the same selectors and ports, in order of the selectors; those for everybody come
/// first. What cannot be put together makes the whole policy of the subject one that cannot be made.
pub(crate) fn settle(mut said: Vec<Candidate>) -> Result<Vec<Candidate>, String> {
    // Stable: what is said of the same selector and ports stays in the order of the rules.
    said.sort_by(|one, two| one.place().cmp(&two.place()));
    let mut candidates =
        if said.windows(2).any(|near| near[0].place() == near[1].place()) { merged(said)? } else { said };
    let first = candidates.partition_point(|one| one.peer == PeerKey::All);
    let (everybody, selected) = candidates.split_at_mut(first);
    if everybody.is_empty() {
        return Ok(candidates);
    }
    for one in selected.iter_mut().filter(|one| one.range.names_ports()) {
        let place = (PeerKey::All, one.tier, &one.range);
        let all = everybody.binary_search_by(|all| all.place().cmp(&place)).ok().map(|at| &everybody[at]);
        one.elided = all.is_some_and(|all| all.effect != Effect::Pass && one.looks_like(all));
    }
    Ok(candidates)
}

/// Those of one place, which are neighbours, put together.
fn merged(said: Vec<Candidate>) -> Result<Vec<Candidate>, String> {
    let mut candidates: Vec<Candidate> = Vec::with_capacity(said.len());
    for one in said {
        match candidates.last_mut() {
            Some(known) if known.place() == one.place() => known.merge(one)?,
            _ => candidates.push(one),
        }
    }
    Ok(candidates)
}

impl RangeKey {
    /// True if it is narrower than a protocol.
    fn names_ports(&self) -> bool {
        matches!(self, RangeKey::Ports(_, PortRange::Numbers(..) | PortRange::Named(_), _))
    }
}
