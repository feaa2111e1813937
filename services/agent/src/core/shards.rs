//! How can others read a large map as it was while it changes?

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;

const PARTS: usize = 512;

/// A map in parts. A copy shares all parts; who changes an entry copies the part that it is in, if others have it too.
#[derive(Clone, Debug)]
pub struct Shards<K, V>(Box<[Arc<HashMap<K, V>>]>);

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> Shards<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0[part(key)].get(key)
    }

    /// Gives a key this value, or none.
    pub fn set(&mut self, key: K, value: Option<V>) {
        let part = &mut self.0[part(&key)];
        if part.get(&key) == value.as_ref() {
            return;
        }
        let part = Arc::make_mut(part);
        match value {
            Some(value) => drop(part.insert(key, value)),
            None => drop(part.remove(&key)),
        }
    }

    /// All entries, in no order.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().flat_map(|part| part.iter())
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Shards((0..PARTS).map(|_| Arc::default()).collect())
    }
}

fn part<K: Hash>(key: &K) -> usize {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut map: Shards<u32, u32> = Shards::default();
        (0..2000).for_each(|number| map.set(number, Some(number)));
        let copy = map.clone();
        (0..1000).for_each(|number| map.set(number, None));
        map.set(1500, Some(1));
        assert_eq!((map.iter().count(), copy.iter().count()), (1000, 2000));
        assert_eq!(
            (map.get(&1500), copy.get(&1500), map.get(&5), copy.get(&5)),
            (Some(&1), Some(&1500), None, Some(&5))
        );
    }
}
