//! Which numbers of this node stand for labels that mean something on this node only?

use std::collections::{BTreeMap, BTreeSet, HashMap};

use abi::identity::{LOCAL_CIDR, LOCAL_REMOTE_NODE};
use labels::Labels;

use crate::NumericIdentity;

/// Hands out numbers for labels of prefixes, counted by use.
///
/// A number passes through three states: in use; released, while tables may still hold it; free, once whoever keeps
/// the tables has called [`LocalAllocator::retire`]. Labels that come back while released get their number back. New
/// numbers are taken in order round the whole range, so that a freed one rests as long as possible.
#[derive(Clone, Debug)]
pub struct LocalAllocator {
    first: NumericIdentity,
    last: NumericIdentity,
    next: NumericIdentity,
    by_labels: HashMap<Labels, NumericIdentity>,
    in_use: BTreeMap<NumericIdentity, Use>,
    released: BTreeSet<NumericIdentity>,
    /// In tables of an earlier run, for labels that nobody knows.
    resting: BTreeSet<NumericIdentity>,
}

#[derive(Clone, Debug)]
struct Use {
    labels: Labels,
    count: u64,
}

/// A number for labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acquired {
    /// The number.
    pub identity: NumericIdentity,
    /// True if nobody held it before: others need to be told.
    pub is_new: bool,
}

/// No number is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("all {count} node-local identities are in use")]
pub struct Exhausted {
    /// How many there are.
    pub count: u32,
}

impl Default for LocalAllocator {
    fn default() -> Self {
        LocalAllocator::with_range(LOCAL_CIDR, LOCAL_REMOTE_NODE - 1)
    }
}

impl LocalAllocator {
    /// An allocator of the numbers from `first` to `last`.
    pub fn with_range(first: NumericIdentity, last: NumericIdentity) -> Self {
        let (by_labels, in_use) = (HashMap::new(), BTreeMap::new());
        LocalAllocator {
            first,
            last,
            next: first,
            by_labels,
            in_use,
            released: BTreeSet::new(),
            resting: BTreeSet::new(),
        }
    }

    /// The number for these labels, one use more.
    pub fn acquire(&mut self, labels: &Labels) -> Result<Acquired, Exhausted> {
        if let Some(&identity) = self.by_labels.get(labels) {
            let known = self.in_use.get_mut(&identity).expect("labels lead to numbers that are known");
            known.count += 1;
            return Ok(Acquired { identity, is_new: self.released.remove(&identity) });
        }
        let identity = self.free_number()?;
        self.insert(identity, labels);
        Ok(Acquired { identity, is_new: true })
    }

    /// Takes over a number that these labels had before a restart, if both are free, one use more.
    pub fn restore(&mut self, labels: &Labels, identity: NumericIdentity) -> bool {
        let in_range = (self.first..=self.last).contains(&identity);
        let is_free = !self.in_use.contains_key(&identity) && !self.resting.contains(&identity);
        if !in_range || !is_free || self.by_labels.contains_key(labels) {
            return false;
        }
        self.insert(identity, labels);
        self.go_on_after(identity);
        true
    }

    /// Also numbers of an earlier run rest as long as possible.
    fn go_on_after(&mut self, identity: NumericIdentity) {
        if (self.next..self.last).contains(&identity) {
            self.next = identity + 1;
        }
    }

    /// Nobody gets the number before it is retired, unless labels have it already.
    pub fn rest(&mut self, identity: NumericIdentity) {
        if !self.in_use.contains_key(&identity) {
            self.resting.insert(identity);
            self.go_on_after(identity);
        }
    }

    /// One use less. True if that was the last one: nothing should refer to the number any more; once nothing does,
    /// call [`LocalAllocator::retire`].
    pub fn release(&mut self, identity: NumericIdentity) -> bool {
        let Some(known) = self.in_use.get_mut(&identity).filter(|known| known.count > 0) else { return false };
        known.count -= 1;
        if known.count == 0 {
            self.released.insert(identity);
        }
        known.count == 0
    }

    /// No table holds the number any more: it is free, unless it came back into use meanwhile.
    pub fn retire(&mut self, identity: NumericIdentity) -> bool {
        if !self.released.remove(&identity) {
            return self.resting.remove(&identity);
        }
        if let Some(known) = self.in_use.remove(&identity) {
            self.by_labels.remove(&known.labels);
        }
        true
    }

    /// The labels that a number stands for, released or not.
    pub fn labels(&self, identity: NumericIdentity) -> Option<&Labels> {
        self.in_use.get(&identity).map(|known| &known.labels)
    }

    /// The number of labels, if they have one in use.
    pub fn identity(&self, labels: &Labels) -> Option<NumericIdentity> {
        self.by_labels.get(labels).copied().filter(|identity| !self.released.contains(identity))
    }

    /// Numbers in use, with their labels.
    pub fn iter(&self) -> impl Iterator<Item = (NumericIdentity, &Labels)> {
        let in_use = self.in_use.iter().filter(|(identity, _)| !self.released.contains(identity));
        in_use.map(|(identity, known)| (*identity, &known.labels))
    }

    /// All numbers with their labels, those that are released and not retired too.
    pub fn all(&self) -> impl Iterator<Item = (NumericIdentity, &Labels)> {
        self.in_use.iter().map(|(identity, known)| (*identity, &known.labels))
    }

    fn insert(&mut self, identity: NumericIdentity, labels: &Labels) {
        self.by_labels.insert(labels.clone(), identity);
        self.in_use.insert(identity, Use { labels: labels.clone(), count: 1 });
    }

    fn free_number(&mut self) -> Result<NumericIdentity, Exhausted> {
        let count = self.last - self.first + 1;
        if self.in_use.len() as u64 + self.resting.len() as u64 >= u64::from(count) {
            return Err(Exhausted { count });
        }
        loop {
            let identity = self.next;
            self.next = if identity == self.last { self.first } else { identity + 1 };
            if !self.in_use.contains_key(&identity) && !self.resting.contains(&identity) {
                return Ok(identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn labels(prefix: &str) -> Labels {
        Labels::parse([prefix, "reserved:world"]).unwrap()
    }

    #[test]
    fn equal_labels_share_a_number_from_2_to_the_24() {
        let mut allocator = LocalAllocator::default();
        let first = allocator.acquire(&labels("cidr:10.0.0.0/8")).unwrap();
        assert_eq!(first, Acquired { identity: 16_777_216, is_new: true });
        assert_eq!(allocator.acquire(&labels("cidr:10.0.0.0/8")).unwrap(), Acquired { is_new: false, ..first });
        assert_eq!(allocator.acquire(&labels("cidr:11.0.0.0/8")).unwrap().identity, 16_777_217);
        assert!(!allocator.release(first.identity));
        assert!(allocator.release(first.identity));
        assert!(!allocator.release(first.identity), "released once too often");
    }

    #[test]
    fn a27_a_number_is_not_used_anew_while_tables_hold_it() {
        let mut allocator = LocalAllocator::with_range(1, 2);
        let one = allocator.acquire(&labels("cidr:10.0.0.0/8")).unwrap().identity;
        let two = allocator.acquire(&labels("cidr:11.0.0.0/8")).unwrap().identity;
        allocator.release(one);
        // Released, but not retired: its labels may have it back, others not.
        assert_eq!(allocator.acquire(&labels("cidr:12.0.0.0/8")), Err(Exhausted { count: 2 }));
        assert_eq!(allocator.acquire(&labels("cidr:10.0.0.0/8")).unwrap(), Acquired { identity: one, is_new: true });
        assert!(!allocator.retire(one), "it is in use again");
        allocator.release(one);
        assert!(allocator.retire(one));
        assert_eq!(allocator.acquire(&labels("cidr:12.0.0.0/8")).unwrap().identity, one);
        assert_eq!(allocator.labels(two), Some(&labels("cidr:11.0.0.0/8")));
    }

    #[test]
    fn a27_freed_numbers_rest_as_long_as_possible() {
        let mut allocator = LocalAllocator::with_range(1, 100);
        let first = allocator.acquire(&labels("cidr:10.0.0.0/8")).unwrap().identity;
        allocator.release(first);
        allocator.retire(first);
        for n in 0..99 {
            assert_ne!(allocator.acquire(&labels(&format!("cidr:11.0.0.{n}/32"))).unwrap().identity, first);
        }
    }

    #[test]
    fn numbers_survive_a_restart() {
        let mut allocator = LocalAllocator::default();
        assert!(allocator.restore(&labels("cidr:10.0.0.0/8"), LOCAL_CIDR + 5));
        assert!(!allocator.restore(&labels("cidr:11.0.0.0/8"), LOCAL_CIDR + 5));
        assert!(!allocator.restore(&labels("cidr:11.0.0.0/8"), 300));
        assert_eq!(allocator.acquire(&labels("cidr:10.0.0.0/8")).unwrap().identity, LOCAL_CIDR + 5);
        assert_eq!(allocator.iter().count(), 1);
    }
}
