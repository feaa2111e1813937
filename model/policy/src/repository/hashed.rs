//! How does a table grow without asking its keys for their hashes again?

use std::hash::{BuildHasher, Hash, Hasher};

/// A key with its hash. What a hash is made of lies scattered in memory, and tables that grow ask every key for it.
#[derive(Clone, Copy)]
pub(super) struct Hashed<T> {
    hash: u64,
    key: T,
}

impl<T: Hash> Hashed<T> {
    /// The key, hashed by this.
    pub fn new(key: T, by: &impl BuildHasher) -> Self {
        Hashed { hash: by.hash_one(&key), key }
    }

    /// The key.
    pub fn key(&self) -> &T {
        &self.key
    }
}

impl<T> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<T: PartialEq> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.key == other.key
    }
}

impl<T: Eq> Eq for Hashed<T> {}
