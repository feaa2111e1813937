//! What does one rule say of one peer selector and one range of ports?

use std::collections::HashMap;
use std::sync::Arc;

use crate::origin::Implicit;
use crate::resolve::Prefix;
use crate::rule::{L7, PortRange};

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
    /// Ports of a protocol.
    Ports(u8, PortRange),
}

/// One rule for one peer selector and one range of ports.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Candidate {
    pub by: By,
    pub peer: PeerKey,
    pub range: RangeKey,
    /// True if the peer selector is a sum in the eyes of match types.
    pub sum: bool,
    pub deny: bool,
    pub redirect: bool,
    pub l7: Option<Arc<L7>>,
}

impl Candidate {
    /// Where it stands among candidates for a packet: the lowest decides.
    pub fn rank(&self, prefix: Prefix) -> (bool, bool, bool, u32, bool) {
        let implicit = matches!(self.by, By::Implicit(_));
        (implicit, !self.deny, !self.redirect, u32::MAX - prefix.len(), self.sum)
    }

    /// The prefixes of its ports; none for a name, which means something for a peer or a subject only.
    pub fn prefixes(&self) -> Vec<Prefix> {
        match &self.range {
            RangeKey::Any => vec![Prefix::ANY],
            RangeKey::Ports(protocol, PortRange::All) => vec![Prefix::protocol(*protocol)],
            RangeKey::Ports(protocol, PortRange::Numbers(first, last)) => Prefix::range(*protocol, *first, *last),
            RangeKey::Ports(_, PortRange::Named(_)) => Vec::new(),
        }
    }
}

/// Settles what the rules of one subject and direction say together, whoever the peer is: one selector's rules for
/// one range of ports need a proxy only if all of them do, and a selector that says what everybody's rule for the
/// range says is left out.
pub(crate) fn settle(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut plain: HashMap<(PeerKey, RangeKey), bool> = HashMap::new();
    for one in candidates.iter().filter(|one| one.is_allowing_rule()) {
        *plain.entry((one.peer, one.range.clone())).or_default() |= !one.redirect;
    }
    for one in candidates.iter_mut().filter(|one| one.is_allowing_rule()) {
        one.redirect &= !plain.get(&(one.peer, one.range.clone())).copied().unwrap_or_default();
    }
    let everybody = said(&candidates, |peer| peer == PeerKey::All);
    let others = said(&candidates, |peer| peer != PeerKey::All);
    candidates.retain(|one| {
        let covered = one.peer != PeerKey::All
            && one.range.names_ports()
            && everybody.get(&(PeerKey::All, one.range.clone())) == others.get(&(one.peer, one.range.clone()));
        !covered || !matches!(one.by, By::Rule(_))
    });
    candidates
}

/// What a selector's rules for a range of ports say together.
#[derive(PartialEq, Debug, Default)]
struct Said {
    deny: bool,
    redirect: bool,
    l7: Vec<Arc<L7>>,
}

/// What the rules of some selectors say.
fn said(candidates: &[Candidate], of: impl Fn(PeerKey) -> bool) -> HashMap<(PeerKey, RangeKey), Said> {
    let mut all: HashMap<(PeerKey, RangeKey), Said> = HashMap::new();
    let rules = candidates.iter().filter(|one| of(one.peer) && matches!(one.by, By::Rule(_)));
    for one in rules {
        let said = all.entry((one.peer, one.range.clone())).or_default();
        said.deny |= one.deny;
        said.redirect |= one.redirect;
        // The order in which rules are added means nothing.
        let l7 = one.l7.iter().filter(|l7| one.redirect && !said.l7.contains(*l7)).cloned().collect::<Vec<_>>();
        said.l7.extend(l7);
    }
    for said in all.values_mut() {
        if said.deny {
            *said = Said { deny: true, redirect: false, l7: Vec::new() };
        }
        said.l7.sort_by_cached_key(|l7| format!("{l7:?}"));
    }
    all
}

impl RangeKey {
    /// True if it is narrower than a protocol.
    fn names_ports(&self) -> bool {
        matches!(self, RangeKey::Ports(_, PortRange::Numbers(..) | PortRange::Named(_)))
    }
}

impl Candidate {
    fn is_allowing_rule(&self) -> bool {
        !self.deny && matches!(self.by, By::Rule(_))
    }
}
