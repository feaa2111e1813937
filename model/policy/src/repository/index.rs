//! What is known under a label?

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState as FastHash;

/// Things by label. Labels that look alike share a place, and a label's source is not asked: what is found under a
/// label is all that can have it, and whoever asks looks again.
pub(super) struct LabelIndex<T>(HashMap<u64, BTreeSet<T>, FastHash>);

impl<T> Default for LabelIndex<T> {
    fn default() -> Self {
        LabelIndex(HashMap::default())
    }
}

impl<T: Ord + Copy> LabelIndex<T> {
    /// Puts a thing under a label.
    pub fn insert(&mut self, key: &str, value: &str, thing: T) {
        self.0.entry(place(key, value)).or_default().insert(thing);
    }

    /// Takes it away.
    pub fn remove(&mut self, key: &str, value: &str, thing: T) {
        let place = place(key, value);
        let Some(things) = self.0.get_mut(&place) else { return };
        things.remove(&thing);
        if things.is_empty() {
            self.0.remove(&place);
        }
    }

    /// What is under a label.
    pub fn get(&self, key: &str, value: &str) -> Option<&BTreeSet<T>> {
        self.0.get(&place(key, value))
    }
}

fn place(key: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}
