//! Who has a label?

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState as FastHash;
use hashbrown::HashTable;
use identity::NumericIdentity;
use labels::{Label, Labels, source};
use roaring::RoaringBitmap;

/// The labels of all identities, each once, with the identities that have it.
#[derive(Default)]
pub(super) struct LabelIndex {
    /// By key and value, so that those that differ in their source alone are found together.
    known: HashTable<Entry>,
    hash: FastHash,
}

struct Entry {
    /// Where it stands, so that a table that grows need not hash it again.
    place: u64,
    label: Arc<Label>,
    identities: RoaringBitmap,
}

impl LabelIndex {
    /// An identity has these labels. Yields the same labels, those that others have too in common with them.
    pub fn insert(&mut self, labels: &Labels, identity: NumericIdentity) -> Labels {
        let LabelIndex { known, hash } = self;
        labels.shared(|label| {
            let place = place(hash, &label.key, &label.value);
            let same = |one: &Entry| one.place == place && (Arc::ptr_eq(&one.label, label) || one.label == *label);
            let entry = known.entry(place, same, |one| one.place);
            let new = || Entry { place, label: label.clone(), identities: RoaringBitmap::new() };
            let mut entry = entry.or_insert_with(new);
            let entry = entry.get_mut();
            entry.identities.insert(identity);
            entry.label.clone()
        })
    }

    /// The identity does not have these labels any more.
    pub fn remove(&mut self, labels: &Labels, identity: NumericIdentity) {
        for label in labels {
            let place = place(&self.hash, &label.key, &label.value);
            let Ok(mut entry) = self.known.find_entry(place, |one| one.place == place && *one.label == *label) else {
                continue;
            };
            entry.get_mut().identities.remove(identity);
            if entry.get().identities.is_empty() {
                entry.remove();
            }
        }
    }

    /// Those that have a label; for each source that there is if `source` is [`source::ANY`].
    pub fn get(&self, source: &str, key: &str, value: &str) -> impl Iterator<Item = &RoaringBitmap> {
        let of_source = move |one: &&Entry| source == source::ANY || one.label.source == source;
        let place = place(&self.hash, key, value);
        let alike = move |one: &&Entry| one.place == place && one.label.key == key && one.label.value == value;
        let found = self.known.iter_hash(place).filter(alike).filter(of_source);
        found.map(|one| &one.identities)
    }
}

fn place(hash: &FastHash, key: &str, value: &str) -> u64 {
    hash.hash_one((key, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_are_kept_once_and_forgotten_with_the_last_who_has_them() {
        let mut index = LabelIndex::default();
        let labels = |number: u32| Labels::parse(["k8s:app=web", format!("k8s:n={number}").as_str()]).unwrap();
        let (one, two) = (index.insert(&labels(1), 1), index.insert(&labels(2), 2));
        assert_eq!((&one, &two), (&labels(1), &labels(2)));
        let (first, second) = (one.iter().next().unwrap(), two.iter().next().unwrap());
        assert!(std::ptr::eq(first, second), "both have the same label");
        let who =
            |index: &LabelIndex, source: &str| -> Vec<u32> { index.get(source, "app", "web").flatten().collect() };
        assert_eq!((who(&index, "k8s"), who(&index, "any"), who(&index, "node")), (vec![1, 2], vec![1, 2], vec![]));
        index.remove(&one, 1);
        index.insert(&Labels::parse(["node:app=web"]).unwrap(), 3);
        assert_eq!((who(&index, "k8s"), who(&index, "node"), who(&index, "any").len()), (vec![2], vec![3], 2));
        assert_eq!(index.known.len(), 3);
    }
}
