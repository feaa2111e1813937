//! Which identities are there, and which of them does a selector select?

use std::borrow::Cow;
use std::collections::HashMap;

use abi::identity::HOST;
use foldhash::fast::RandomState as FastHash;
use identity::NumericIdentity;
use labels::{Labels, Operator, POD_NAMESPACE, Requirement, Selector, source};
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::NamedPorts;
use super::index::LabelIndex;
use crate::peer::{Context, Learned, Peer, PeerIdentity};

/// An identity.
pub(super) struct Identity {
    pub peer: PeerIdentity,
    pub named_ports: NamedPorts,
}

impl Identity {
    /// The number that all pods of the identity give the name; none if they disagree.
    pub fn port_of(&self, name: &(u8, String)) -> Option<u16> {
        let numbers = self.named_ports.get(name)?;
        numbers.first().copied().filter(|_| numbers.len() == 1)
    }
}

/// The identities by number and by label.
#[derive(Default)]
pub(super) struct Identities {
    known: HashMap<NumericIdentity, Identity, FastHash>,
    /// By the labels that selectors of peers ask.
    by_label: LabelIndex,
    /// Those that are in no namespace.
    outside: RoaringBitmap,
}

/// Those who have one of the labels that a condition asks for.
type Having<'a> = SmallVec<[&'a RoaringBitmap; 2]>;

/// Lists so many times as long are not walked through.
const LONG: u64 = 32;
/// Sets of more numbers than this are not lists in a compressed bitmap, if the numbers are near each other.
const LONGEST_LIST: u64 = 4096;

impl Identities {
    /// An identity.
    pub fn get(&self, identity: &NumericIdentity) -> Option<&Identity> {
        self.known.get(identity)
    }

    /// An identity; its labels stay as they are.
    pub fn get_mut(&mut self, identity: &NumericIdentity) -> Option<&mut Identity> {
        self.known.get_mut(identity)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&NumericIdentity, &Identity)> {
        self.known.iter()
    }

    /// The numbers of all of them, in no order.
    pub fn numbers(&self) -> impl Iterator<Item = NumericIdentity> {
        self.known.keys().copied()
    }

    /// Adds an identity, or gives it other labels.
    pub fn insert(&mut self, number: NumericIdentity, labels: &Labels) -> &Identity {
        let named_ports = self.remove(number).map(|old| old.named_ports).unwrap_or_default();
        let peer = if number == HOST {
            let peer = PeerIdentity::new(number, labels.clone());
            self.by_label.insert(peer.peer_labels(), number);
            peer
        } else {
            PeerIdentity::new(number, self.by_label.insert(labels, number))
        };
        if peer.namespace().is_empty() {
            self.outside.insert(number);
        }
        self.known.entry(number).insert_entry(Identity { peer, named_ports }).into_mut()
    }

    /// Takes an identity away.
    pub fn remove(&mut self, number: NumericIdentity) -> Option<Identity> {
        let known = self.known.remove(&number)?;
        self.by_label.remove(known.peer.peer_labels(), number);
        self.outside.remove(number);
        Some(known)
    }

    /// Those that a selector selects, in order. `selects` tells it of one, if labels alone do not; `asked` counts those
    /// that were looked at: who has the rarest of its labels.
    pub fn selected(
        &self,
        peer: &Peer,
        context: &Context<'_>,
        asked: &mut u64,
        selects: impl Fn(&PeerIdentity) -> bool,
    ) -> RoaringBitmap {
        let mut ask = |number: &NumericIdentity| {
            *asked += 1;
            self.known.get(number).is_some_and(|one| selects(&one.peer))
        };
        if let Peer::Labels(selector) = peer
            && selector.requirements().iter().any(|one| values(one).is_some())
        {
            return self.with_labels(selector, asked);
        }
        if let Peer::Learned(Learned::Name(name) | Learned::Pattern(name)) = peer {
            return self.by_label.get(source::FQDN, name, "").flatten().filter(|number| ask(number)).collect();
        }
        match peer.namespaces(context) {
            None => self.numbers().filter(ask).collect(),
            Some(names) => {
                names.into_iter().flat_map(|name| self.in_namespace(name)).filter(|number| ask(number)).collect()
            }
        }
    }

    /// Who fulfils all conditions, of which one at least asks for values.
    fn with_labels(&self, selector: &Selector, asked: &mut u64) -> RoaringBitmap {
        let mut having: SmallVec<[Having<'_>; 4]> = SmallVec::new();
        let mut others: SmallVec<[&Requirement; 4]> = SmallVec::new();
        for one in selector.requirements() {
            match values(one) {
                Some(values) => having.push(self.having(one, values)),
                None => others.push(one),
            }
        }
        having.sort_unstable_by_key(|one| one.iter().map(|identities| identities.len()).sum::<u64>());
        let Some((rarest, rest)) = having.split_first() else { return RoaringBitmap::new() };
        *asked += rarest.iter().map(|identities| identities.len()).sum::<u64>();
        let found = rest.iter().fold(one_of(rarest), |found, one| Cow::Owned(those_in(&found, one)));
        if others.is_empty() {
            return found.into_owned();
        }
        found.iter().filter(|number| self.fulfils(*number, &others)).collect()
    }

    fn fulfils(&self, number: NumericIdentity, requirements: &[&Requirement]) -> bool {
        let known = self.known.get(&number);
        known.is_some_and(|known| requirements.iter().all(|one| one.matches(known.peer.peer_labels())))
    }

    fn having(&self, requirement: &Requirement, values: &[String]) -> Having<'_> {
        let key = &requirement.key;
        let mut having = Having::new();
        values.iter().for_each(|value| having.extend(self.by_label.get(&key.source, &key.key, value)));
        having
    }

    fn in_namespace(&self, name: &str) -> impl Iterator<Item = NumericIdentity> {
        let outside = name.is_empty().then_some(&self.outside);
        let inside = self.by_label.get(source::K8S, POD_NAMESPACE, name).filter(move |_| !name.is_empty());
        outside.into_iter().chain(inside).flatten()
    }
}

/// Those of a set who have one label or another. Meeting two lists walks through both; in a long one, each of a few is
/// looked for from where the last one was.
fn those_in(found: &RoaringBitmap, having: &Having<'_>) -> RoaringBitmap {
    let others = one_of(having);
    if others.len() > LONGEST_LIST || found.len() * LONG > others.len() {
        return found & &*others;
    }
    let mut ahead = others.iter();
    let mut next = ahead.next();
    let has = |number: &NumericIdentity| {
        if next.is_some_and(|next| next < *number) {
            ahead.advance_to(*number);
            next = ahead.next();
        }
        next == Some(*number)
    };
    RoaringBitmap::from_sorted_iter(found.iter().filter(has)).expect("a bitmap tells its numbers in order")
}

/// Those who have one label or another.
fn one_of<'a>(having: &[&'a RoaringBitmap]) -> Cow<'a, RoaringBitmap> {
    match having {
        [] => Cow::Owned(RoaringBitmap::new()),
        [one] => Cow::Borrowed(*one),
        [first, others @ ..] => Cow::Owned(others.iter().fold((*first).clone(), |all, one| all | *one)),
    }
}

/// The values that a condition asks for, if it does.
pub(super) fn values(requirement: &Requirement) -> Option<&[String]> {
    match &requirement.operator {
        Operator::In(values) => Some(values),
        Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_in_other_sets_are_the_same_however_long_these_are() {
        let found: RoaringBitmap = (0..40).map(|number| 700 * number).collect();
        for (count, step) in [(30, 350), (1_500, 7), (4_000, 5), (6_000, 3), (0, 1)] {
            let others: RoaringBitmap = (0..count).map(|number| step * number).collect();
            let more: RoaringBitmap = [1_400, 2_101].into_iter().collect();
            let having: Having<'_> = [&others, &more].into_iter().collect();
            assert_eq!(those_in(&found, &having), &found & &(&others | &more), "{count} others");
        }
    }
}
