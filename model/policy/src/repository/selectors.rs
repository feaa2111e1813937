//! Which identities does each peer selector select?

use std::collections::{BTreeSet, HashMap, HashSet};

use foldhash::fast::RandomState as FastHash;
use identity::NumericIdentity;
use ipnet::IpNet;
use labels::{CLUSTER, POD_NAMESPACE, Selector as LabelSelector};

use super::identities::values;
use super::index::LabelIndex;
use crate::peer::{Context, Known, Learned, Peer, PeerIdentity};

/// Number of a selector; none is used twice.
pub(super) type SelectorId = u64;

/// Some selectors, in order: few for each identity, so that a list is smaller than a tree.
#[derive(Clone, Default)]
pub(super) struct SelectorSet(Vec<SelectorId>);

impl SelectorSet {
    /// True if it was not in the set.
    pub fn insert(&mut self, id: SelectorId) -> bool {
        let place = self.0.binary_search(&id);
        if let Err(at) = place {
            self.0.insert(at, id);
        }
        place.is_err()
    }

    /// True if it was in the set.
    pub fn remove(&mut self, id: SelectorId) -> bool {
        let place = self.0.binary_search(&id);
        if let Ok(at) = place {
            self.0.remove(at);
        }
        place.is_ok()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = SelectorId> {
        self.0.iter().copied()
    }

    /// Those that are not in the other set.
    pub fn without(&self, other: &SelectorSet) -> impl Iterator<Item = SelectorId> {
        self.iter().filter(|id| other.0.binary_search(id).is_err())
    }
}

impl FromIterator<SelectorId> for SelectorSet {
    fn from_iter<I: IntoIterator<Item = SelectorId>>(ids: I) -> Self {
        let mut ids: Vec<SelectorId> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        ids.shrink_to_fit();
        SelectorSet(ids)
    }
}

/// The distinct selectors of all policies, each with the identities that it selects.
#[derive(Default)]
pub(super) struct Selectors {
    by_id: HashMap<SelectorId, Selector, FastHash>,
    by_peer: HashMap<Peer, SelectorId, FastHash>,
    /// Selectors by a label that all have whom they select.
    by_label: LabelIndex<SelectorId>,
    /// The others by the namespaces that they select in, and those that select in any.
    by_namespace: HashMap<String, BTreeSet<SelectorId>>,
    anywhere: BTreeSet<SelectorId>,
    learned: HashMap<Learned, Known>,
    nothing: Known,
    next: SelectorId,
    comparisons: u64,
}

struct Selector {
    peer: Peer,
    uses: usize,
    members: HashSet<NumericIdentity, FastHash>,
}

impl Selectors {
    /// The selector's number, one use more; true if it is new.
    pub fn acquire(&mut self, peer: &Peer, context: &Context<'_>) -> (SelectorId, bool) {
        if let Some(&id) = self.by_peer.get(peer) {
            if let Some(selector) = self.by_id.get_mut(&id) {
                selector.uses += 1;
            }
            return (id, false);
        }
        let id = self.next;
        self.next += 1;
        self.by_peer.insert(peer.clone(), id);
        match (anchors(peer), peer.namespaces(context)) {
            (Some((key, values)), _) => values.iter().for_each(|value| self.by_label.insert(key, value, id)),
            (None, None) => drop(self.anywhere.insert(id)),
            (None, Some(names)) => names.into_iter().for_each(|name| {
                self.by_namespace.entry(name.to_owned()).or_default().insert(id);
            }),
        }
        self.by_id.insert(id, Selector { peer: peer.clone(), uses: 1, members: HashSet::default() });
        (id, true)
    }

    /// One use more of a selector that is in use.
    pub fn retain(&mut self, id: SelectorId) {
        if let Some(selector) = self.by_id.get_mut(&id) {
            selector.uses += 1;
        }
    }

    /// One use less. If it was the last one the selector is gone; yields whom it selected then.
    pub fn release(&mut self, id: SelectorId, context: &Context<'_>) -> Vec<NumericIdentity> {
        let Some(selector) = self.by_id.get_mut(&id) else { return Vec::new() };
        selector.uses -= 1;
        if selector.uses > 0 {
            return Vec::new();
        }
        let Some(gone) = self.by_id.remove(&id) else { return Vec::new() };
        self.by_peer.remove(&gone.peer);
        if let Some((key, values)) = anchors(&gone.peer) {
            values.iter().for_each(|value| self.by_label.remove(key, value, id));
        }
        self.anywhere.remove(&id);
        for name in gone.peer.namespaces(context).unwrap_or_default() {
            self.forget(name, id);
        }
        gone.members.into_iter().collect()
    }

    fn forget(&mut self, namespace: &str, id: SelectorId) {
        let Some(selectors) = self.by_namespace.get_mut(namespace) else { return };
        selectors.remove(&id);
        if selectors.is_empty() {
            self.by_namespace.remove(namespace);
        }
    }

    /// The number of a selector that is in use.
    pub fn id(&self, peer: &Peer) -> Option<SelectorId> {
        self.by_peer.get(peer).copied()
    }

    /// The selector of a number.
    pub fn peer(&self, id: SelectorId) -> Option<&Peer> {
        self.by_id.get(&id).map(|selector| &selector.peer)
    }

    /// How often it is used.
    pub fn uses(&self, id: SelectorId) -> usize {
        self.by_id.get(&id).map_or(0, |selector| selector.uses)
    }

    /// Remembers what is known of a name, a group or a service, asked for or not.
    pub fn set_learned(&mut self, learned: &Learned, known: Known) {
        if known == Known::default() {
            self.learned.remove(learned);
        } else {
            self.learned.insert(learned.clone(), known);
        }
    }

    /// What is to be learned.
    pub fn learned(&self) -> impl Iterator<Item = &Learned> {
        self.by_peer.keys().filter_map(|peer| match peer {
            Peer::Learned(learned) => Some(learned),
            Peer::All | Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) => None,
        })
    }

    /// The prefixes that a selector needs identities for.
    pub fn prefixes(&self, peer: &Peer) -> Vec<IpNet> {
        peer.prefixes(self.known(peer)).collect()
    }

    /// The selectors that select an identity.
    pub fn selecting(&mut self, identity: &PeerIdentity, context: &Context<'_>) -> SelectorSet {
        let here = self.by_namespace.get(identity.namespace()).into_iter().flatten();
        let labels = identity.labels.iter();
        let by_label = labels.filter_map(|label| self.by_label.get(&label.key, &label.value)).flatten();
        let asked: Vec<SelectorId> = self.anywhere.iter().chain(here).chain(by_label).copied().collect();
        asked.into_iter().filter(|id| self.selects(*id, identity, context)).collect()
    }

    /// True if a selector selects an identity.
    pub fn selects(&mut self, id: SelectorId, identity: &PeerIdentity, context: &Context<'_>) -> bool {
        self.comparisons += 1;
        let selector = self.by_id.get(&id);
        selector.is_some_and(|one| one.peer.selects(identity, context, self.known(&one.peer)))
    }

    /// How often a selector was asked for an identity.
    pub fn comparisons(&self) -> u64 {
        self.comparisons
    }

    /// An identity was selected by some and is by others.
    pub fn moved(&mut self, identity: NumericIdentity, from: &SelectorSet, to: &SelectorSet) {
        from.without(to).for_each(|id| self.set_member(id, identity, false));
        to.without(from).for_each(|id| self.set_member(id, identity, true));
    }

    /// An identity is selected or is not any more.
    pub fn set_member(&mut self, id: SelectorId, identity: NumericIdentity, selected: bool) {
        let Some(selector) = self.by_id.get_mut(&id) else { return };
        if selected {
            selector.members.insert(identity);
        } else {
            selector.members.remove(&identity);
        }
    }

    /// Whom a selector selects, in no order.
    pub fn members(&self, id: SelectorId) -> impl Iterator<Item = NumericIdentity> {
        self.by_id.get(&id).into_iter().flat_map(|selector| selector.members.iter().copied())
    }

    /// Whom a selector that some rule uses selects.
    pub fn selected(&self, peer: &Peer) -> impl Iterator<Item = NumericIdentity> + '_ {
        let selector = self.by_peer.get(peer).and_then(|id| self.by_id.get(id));
        selector.into_iter().flat_map(|selector| selector.members.iter().copied())
    }

    fn known(&self, peer: &Peer) -> &Known {
        match peer {
            Peer::Learned(learned) => self.learned.get(learned).unwrap_or(&self.nothing),
            Peer::All | Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) => &self.nothing,
        }
    }
}

/// Of labels that are keys alone.
static NO_VALUE: [String; 1] = [String::new()];

/// Labels of which whoever is selected has one: those of the condition with the fewest values. Namespace and cluster
/// are asked for by most selectors and tell little.
fn anchors(peer: &Peer) -> Option<(&str, &[String])> {
    let selector: &LabelSelector = match peer {
        Peer::Labels(selector) => selector,
        Peer::Learned(Learned::Name(name) | Learned::Pattern(name)) => return Some((name, &NO_VALUE)),
        Peer::All | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) | Peer::Learned(_) => return None,
    };
    let telling = selector.requirements().iter().filter(|one| one.key.key != POD_NAMESPACE && one.key.key != CLUSTER);
    let asking = telling.filter_map(|one| Some((one.key.key.as_str(), values(one)?)));
    asking.min_by_key(|(_, values)| values.len())
}
