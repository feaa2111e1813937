//! How are entries kept that others read and change while more are added, without a lock and without `unsafe`?

use core::cell::{Cell, OnceCell, RefCell};
use core::hash::Hash;
use std::collections::HashMap;
use std::vec::Vec;

/// A table of shared entries. A place is used once: what was removed makes no room until [`Shelf::tidy`].
#[derive(Debug)]
pub struct Shelf<K, V> {
    index: RefCell<HashMap<K, usize>>,
    places: Vec<OnceCell<V>>,
    next: Cell<usize>,
}

impl<K: Eq + Hash + Copy, V> Shelf<K, V> {
    /// A table with this many places.
    pub fn new(places: usize) -> Self {
        let places = (0..places).map(|_| OnceCell::new()).collect();
        Shelf { index: RefCell::new(HashMap::new()), places, next: Cell::new(0) }
    }

    /// The entry of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let place = *self.index.borrow().get(key)?;
        self.places.get(place)?.get()
    }

    /// Adds or replaces an entry; false if there is no room.
    pub fn put(&self, key: &K, value: V) -> bool {
        let place = self.next.get();
        let Some(cell) = self.places.get(place) else { return false };
        if cell.set(value).is_err() {
            return false;
        }
        self.next.set(place + 1);
        self.index.borrow_mut().insert(*key, place);
        true
    }

    /// Removes an entry.
    pub fn remove(&self, key: &K) {
        self.index.borrow_mut().remove(key);
    }

    /// All keys.
    pub fn keys(&self) -> Vec<K> {
        self.index.borrow().keys().copied().collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.index.borrow().len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room of what was removed.
    pub fn tidy(&mut self) {
        let index = self.index.get_mut();
        let mut kept: Vec<(K, V)> = Vec::new();
        for (key, place) in index.drain() {
            if let Some(value) = self.places.get_mut(place).and_then(OnceCell::take) {
                kept.push((key, value));
            }
        }
        for place in &mut self.places {
            place.take();
        }
        self.next.set(0);
        for (key, value) in kept {
            self.put(&key, value);
        }
    }
}
