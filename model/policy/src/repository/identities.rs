//! Which identities are there, and which of them can a selector select?

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState as FastHash;
use identity::NumericIdentity;
use labels::{CLUSTER, Operator, POD_NAMESPACE, Requirement, Selector};

use super::NamedPorts;
use super::index::LabelIndex;
use super::selectors::SelectorSet;
use crate::peer::{Context, Learned, Peer, PeerIdentity};

/// An identity.
pub(super) struct Identity {
    pub peer: PeerIdentity,
    pub named_ports: NamedPorts,
    /// The selectors that select it.
    pub selectors: SelectorSet,
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
    by_label: LabelIndex<NumericIdentity>,
    /// Those that are in no namespace.
    outside: BTreeSet<NumericIdentity>,
}

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

    /// Adds an identity, or gives it other labels; yields the selectors that selected it before.
    pub fn insert(&mut self, peer: PeerIdentity, selectors: SelectorSet) -> SelectorSet {
        let number = peer.identity;
        let old = self.remove(number);
        indexed(&peer, |key, value| self.by_label.insert(key, value, number));
        if peer.namespace().is_empty() {
            self.outside.insert(number);
        }
        let (named_ports, before) = old.map(|old| (old.named_ports, old.selectors)).unwrap_or_default();
        self.known.insert(number, Identity { peer, named_ports, selectors });
        before
    }

    /// Takes an identity away.
    pub fn remove(&mut self, number: NumericIdentity) -> Option<Identity> {
        let known = self.known.remove(&number)?;
        indexed(&known.peer, |key, value| self.by_label.remove(key, value, number));
        self.outside.remove(&number);
        Some(known)
    }

    /// All that a selector can select, and perhaps others: those with its rarest label.
    pub fn candidates(&self, peer: &Peer, context: &Context<'_>) -> Vec<NumericIdentity> {
        let by_label = match peer {
            Peer::Labels(selector) => self.rarest(selector),
            Peer::Learned(Learned::Name(name) | Learned::Pattern(name)) => {
                Some(self.by_label.get(name, "").into_iter().collect())
            }
            Peer::All | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) | Peer::Learned(_) => None,
        };
        if let Some(sets) = by_label {
            return sets.into_iter().flatten().copied().collect();
        }
        match peer.namespaces(context) {
            None => self.numbers().collect(),
            Some(names) => names.into_iter().flat_map(|name| self.in_namespace(name)).copied().collect(),
        }
    }

    fn in_namespace(&self, name: &str) -> impl Iterator<Item = &NumericIdentity> {
        let set = if name.is_empty() { Some(&self.outside) } else { self.by_label.get(POD_NAMESPACE, name) };
        set.into_iter().flatten()
    }

    /// The identities of the condition that the fewest fulfil, of those that ask for values.
    fn rarest(&self, selector: &Selector) -> Option<Vec<&BTreeSet<NumericIdentity>>> {
        let sets = selector.requirements().iter().filter(|one| one.key.key != CLUSTER).filter_map(|one| {
            let values = values(one)?;
            let sets = values.iter().filter_map(|value| self.by_label.get(&one.key.key, value));
            Some(sets.collect::<Vec<_>>())
        });
        sets.min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>())
    }
}

/// The values that a condition asks for, if it does.
pub(super) fn values(requirement: &Requirement) -> Option<&[String]> {
    match &requirement.operator {
        Operator::In(values) => Some(values),
        Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
    }
}

/// The labels by which an identity can be found. The cluster's name is left out: nearly all have it.
fn indexed(peer: &PeerIdentity, mut put: impl FnMut(&str, &str)) {
    let labels = peer.labels.iter().filter(|label| label.key != CLUSTER);
    labels.for_each(|label| put(&label.key, &label.value));
}
