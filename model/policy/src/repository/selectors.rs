//! Which identities does each peer selector select, and whose tables use it?

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

use foldhash::fast::RandomState as FastHash;
use hashbrown::HashTable;
use identity::NumericIdentity;
use ipnet::IpNet;
use labels::CLUSTER;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::groups::GroupId;
use super::identities::{Identities, values};
use crate::peer::{Context, Known, Learned, Peer, PeerIdentity};

/// Number of a selector; none is used twice.
pub(super) type SelectorId = u64;

/// The distinct selectors of all policies, each with the identities that it selects.
#[derive(Default)]
pub(super) struct Selectors {
    by_id: HashMap<SelectorId, Selector, FastHash>,
    /// Numbers of selectors with the hashes of whom they mean.
    by_peer: HashTable<(u64, SelectorId)>,
    /// Selectors by a label that all have whom they select: the hash of its key and value. What is found under a label
    /// is all that can select who has it, and whoever asks looks again.
    by_label: HashMap<u64, SmallVec<[SelectorId; 2]>, FastHash>,
    hash: FastHash,
    /// The others by the namespaces that they select in, and those that select in any.
    by_namespace: HashMap<String, BTreeSet<SelectorId>>,
    anywhere: BTreeSet<SelectorId>,
    learned: HashMap<Learned, Known>,
    nothing: Known,
    nobody: RoaringBitmap,
    next: SelectorId,
    comparisons: u64,
}

struct Selector {
    peer: Peer,
    uses: usize,
    members: RoaringBitmap,
    /// The groups whose tables use it, in order.
    users: SmallVec<[GroupId; 2]>,
    /// By which of its conditions it is found, if by a label.
    anchor: Option<usize>,
}

/// The labels of which whoever is selected has one, for each condition that asks for some: key and value.
fn anchors(peer: &Peer) -> impl Iterator<Item = Anchor<'_>> {
    let (requirements, name) = match peer {
        Peer::Labels(selector) => (selector.requirements(), None),
        // Addresses that were learned for a name have a label that is its key alone.
        Peer::Learned(Learned::Name(name) | Learned::Pattern(name)) => (&[][..], Some((name.as_str(), &NO_VALUE[..]))),
        Peer::All | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) | Peer::Learned(_) => (&[][..], None),
    };
    // The cluster's name nearly all have.
    let telling = requirements.iter().filter(|one| one.key.key != CLUSTER);
    telling.filter_map(|one| Some((one.key.key.as_str(), values(one)?))).chain(name)
}

type Anchor<'a> = (&'a str, &'a [String]);

static NO_VALUE: [String; 1] = [String::new()];

impl Selector {
    fn anchor(&self) -> Option<Anchor<'_>> {
        anchors(&self.peer).nth(self.anchor?)
    }
}

impl Selectors {
    /// The selector's number, one use more; true if it is new.
    pub fn acquire(&mut self, peer: &Peer, context: &Context<'_>) -> (SelectorId, bool) {
        let hash = self.hash.hash_one(peer);
        if let Some(id) = self.find(hash, peer)
            && let Some(selector) = self.by_id.get_mut(&id)
        {
            selector.uses += 1;
            return (id, false);
        }
        let id = self.next;
        self.next += 1;
        self.by_peer.insert_unique(hash, (hash, id), |(hash, _)| *hash);
        let anchor = self.best_anchor(peer);
        let (members, users) = (RoaringBitmap::new(), SmallVec::new());
        let selector = Selector { peer: peer.clone(), uses: 1, members, users, anchor };
        if let Some((key, values)) = selector.anchor() {
            for value in values {
                let place = self.place(key, value);
                self.by_label.entry(place).or_default().push(id);
            }
        } else if let Some(names) = peer.namespaces(context) {
            names.into_iter().for_each(|name| {
                self.by_namespace.entry(name.to_owned()).or_default().insert(id);
            });
        } else {
            self.anywhere.insert(id);
        }
        self.by_id.insert(id, selector);
        (id, true)
    }

    /// The condition that the fewest selectors are found by.
    fn best_anchor(&self, peer: &Peer) -> Option<usize> {
        let crowd = |(key, values): Anchor<'_>| -> usize {
            let at = |value: &String| self.by_label.get(&self.place(key, value)).map_or(0, SmallVec::len);
            values.iter().map(|value| 1 + at(value)).sum()
        };
        anchors(peer).enumerate().min_by_key(|(_, anchor)| crowd(*anchor)).map(|(at, _)| at)
    }

    /// Where selectors are found by a label.
    fn place(&self, key: &str, value: &str) -> u64 {
        self.hash.hash_one((key, value))
    }

    /// A group's tables use a selector, which is one use more.
    pub fn hold(&mut self, id: SelectorId, user: GroupId) {
        let Some(selector) = self.by_id.get_mut(&id) else { return };
        selector.uses += 1;
        if let Err(at) = selector.users.binary_search(&user) {
            selector.users.insert(at, user);
        }
    }

    /// A group's tables do not use a selector any more. The use remains, to be released.
    pub fn let_go(&mut self, id: SelectorId, user: GroupId) {
        let Some(selector) = self.by_id.get_mut(&id) else { return };
        if let Ok(at) = selector.users.binary_search(&user) {
            selector.users.remove(at);
        }
    }

    /// The groups whose tables use a selector.
    pub fn users(&self, id: SelectorId) -> &[GroupId] {
        self.by_id.get(&id).map_or(&[], |selector| &selector.users)
    }

    /// One use less. If it was the last one the selector is gone.
    pub fn release(&mut self, id: SelectorId, context: &Context<'_>) {
        let Some(selector) = self.by_id.get_mut(&id) else { return };
        selector.uses -= 1;
        if selector.uses > 0 {
            return;
        }
        let Some(gone) = self.by_id.remove(&id) else { return };
        let hash = self.hash.hash_one(&gone.peer);
        if let Ok(entry) = self.by_peer.find_entry(hash, |(_, known)| *known == id) {
            entry.remove();
        }
        let Some((key, values)) = gone.anchor() else {
            self.anywhere.remove(&id);
            gone.peer.namespaces(context).unwrap_or_default().into_iter().for_each(|name| self.forget(name, id));
            return;
        };
        for value in values {
            let place = self.place(key, value);
            let Some(selectors) = self.by_label.get_mut(&place) else { continue };
            if let Ok(at) = selectors.binary_search(&id) {
                selectors.remove(at);
            }
            if selectors.is_empty() {
                self.by_label.remove(&place);
            }
        }
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
        self.find(self.hash.hash_one(peer), peer)
    }

    fn find(&self, hash: u64, peer: &Peer) -> Option<SelectorId> {
        let is = |selector: &Selector| selector.peer == *peer;
        let same = |(known, id): &(u64, SelectorId)| *known == hash && self.by_id.get(id).is_some_and(is);
        self.by_peer.find(hash, same).map(|(_, id)| *id)
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
        self.by_id.values().filter_map(|selector| match &selector.peer {
            Peer::Learned(learned) => Some(learned),
            Peer::All | Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) => None,
        })
    }

    /// The prefixes that a selector needs identities for.
    pub fn prefixes(&self, peer: &Peer) -> Vec<IpNet> {
        peer.prefixes(self.known(peer)).collect()
    }

    /// The selectors that select an identity by its labels, in order.
    pub fn selecting(&mut self, identity: &PeerIdentity, context: &Context<'_>) -> Vec<SelectorId> {
        let asked = self.concerned(identity);
        self.comparisons += asked.len() as u64;
        let selects = |selector: &Selector| selector.peer.selects(identity, context, self.known(&selector.peer));
        asked.into_iter().filter(|id| self.by_id.get(id).is_some_and(selects)).collect()
    }

    /// The selectors that have an identity among those that they select, in order.
    pub fn holding(&self, identity: &PeerIdentity) -> Vec<SelectorId> {
        let has = |selector: &Selector| selector.members.contains(identity.identity);
        self.concerned(identity).into_iter().filter(|id| self.by_id.get(id).is_some_and(has)).collect()
    }

    /// All selectors that can select an identity, in order.
    fn concerned(&self, identity: &PeerIdentity) -> Vec<SelectorId> {
        let here = self.by_namespace.get(identity.namespace()).into_iter().flatten();
        let labels = identity.peer_labels().iter();
        let by_label = labels.filter_map(|label| self.by_label.get(&self.place(&label.key, &label.value))).flatten();
        let mut all: Vec<SelectorId> = self.anywhere.iter().chain(here).chain(by_label).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// How often a selector was asked for an identity.
    pub fn comparisons(&self) -> u64 {
        self.comparisons
    }

    /// Finds whom a selector selects now; yields those whom it selected before.
    pub fn select(&mut self, id: SelectorId, identities: &Identities, context: &Context<'_>) -> RoaringBitmap {
        let Some(selector) = self.by_id.get(&id) else { return RoaringBitmap::new() };
        let known = self.known(&selector.peer);
        let selects = |peer: &PeerIdentity| selector.peer.selects(peer, context, known);
        let mut asked = 0;
        let now = identities.selected(&selector.peer, context, &mut asked, selects);
        self.comparisons += asked;
        let selector = self.by_id.get_mut(&id);
        selector.map(|selector| std::mem::replace(&mut selector.members, now)).unwrap_or_default()
    }

    /// An identity is selected or is not any more.
    pub fn set_member(&mut self, id: SelectorId, identity: NumericIdentity, selected: bool) {
        let Some(selector) = self.by_id.get_mut(&id) else { return };
        if selected {
            selector.members.insert(identity);
        } else {
            selector.members.remove(identity);
        }
    }

    /// Whom a selector selects.
    pub fn members(&self, id: SelectorId) -> &RoaringBitmap {
        self.by_id.get(&id).map_or(&self.nobody, |selector| &selector.members)
    }

    /// Whom a selector that some rule uses selects.
    pub fn selected(&self, peer: &Peer) -> impl Iterator<Item = NumericIdentity> + '_ {
        self.id(peer).into_iter().flat_map(|id| self.members(id))
    }

    fn known(&self, peer: &Peer) -> &Known {
        match peer {
            Peer::Learned(learned) => self.learned.get(learned).unwrap_or(&self.nothing),
            Peer::All | Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) => &self.nothing,
        }
    }
}
