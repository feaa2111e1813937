//! Which class is each peer of a policy in?

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Peekable;
use std::sync::Arc;

use abi::policy::Class;
use identity::NumericIdentity;

/// Peers with their classes, in order. Copies have in common what was there when all was put together; what changed
/// since is kept apart, so that a change costs the same among few and many.
#[derive(Clone)]
pub struct Classes {
    settled: Arc<[(NumericIdentity, Class)]>,
    /// Peers whose classes are not as settled; `None` if they have none any more.
    changed: BTreeMap<NumericIdentity, Option<Class>>,
    len: usize,
}

impl Classes {
    /// These, sorted by peer, each once.
    pub(crate) fn of(sorted: Vec<(NumericIdentity, Class)>) -> Self {
        Classes { len: sorted.len(), settled: sorted.into(), changed: BTreeMap::new() }
    }

    /// How many peers have a class.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if none has.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The class of a peer, if it has one.
    pub fn get(&self, peer: NumericIdentity) -> Option<Class> {
        match self.changed.get(&peer) {
            Some(class) => *class,
            None => self.settled(peer),
        }
    }

    fn settled(&self, peer: NumericIdentity) -> Option<Class> {
        self.settled.binary_search_by_key(&peer, |(known, _)| *known).ok().map(|at| self.settled[at].1)
    }

    /// Gives a peer a class; yields the one that it had.
    pub fn insert(&mut self, peer: NumericIdentity, class: Class) -> Option<Class> {
        self.set(peer, Some(class))
    }

    /// Takes a peer's class away; yields it.
    pub fn remove(&mut self, peer: NumericIdentity) -> Option<Class> {
        self.set(peer, None)
    }

    fn set(&mut self, peer: NumericIdentity, class: Option<Class>) -> Option<Class> {
        let before = self.get(peer);
        if self.settled(peer) == class {
            self.changed.remove(&peer);
        } else {
            self.changed.insert(peer, class);
        }
        self.len = self.len + usize::from(class.is_some()) - usize::from(before.is_some());
        if self.changed.len() > 64 + self.settled.len() / 2 {
            *self = Classes::of(self.iter().collect());
        }
        before
    }

    /// All of them in the peers' order.
    pub fn iter(&self) -> impl Iterator<Item = (NumericIdentity, Class)> {
        Iter { settled: self.settled.iter().peekable(), changed: self.changed.iter().peekable() }
    }
}

struct Iter<'a> {
    settled: Peekable<std::slice::Iter<'a, (NumericIdentity, Class)>>,
    changed: Peekable<std::collections::btree_map::Iter<'a, NumericIdentity, Option<Class>>>,
}

impl Iterator for Iter<'_> {
    type Item = (NumericIdentity, Class);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((&peer, &class)) = self.changed.peek().copied() else { return self.settled.next().copied() };
            match self.settled.peek() {
                Some((settled, _)) if *settled < peer => return self.settled.next().copied(),
                Some((settled, _)) if *settled == peer => drop(self.settled.next()),
                _ => {}
            }
            self.changed.next();
            if let Some(class) = class {
                return Some((peer, class));
            }
        }
    }
}

impl Default for Classes {
    fn default() -> Self {
        Classes::of(Vec::new())
    }
}

impl PartialEq for Classes {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as with a plain map, whatever comes and goes.
    #[test]
    fn changes_and_what_is_settled_are_one() {
        let mut plain: BTreeMap<u32, u32> = (0..400).map(|peer| (3 * peer, 7)).collect();
        let mut classes = Classes::of(plain.iter().map(|(peer, class)| (*peer, *class)).collect());
        let mut random = 1_u32;
        for step in 0..4_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (peer, class) = ((random >> 8) % 1_500, (random >> 20) % 3);
            if class == 0 {
                assert_eq!(classes.remove(peer), plain.remove(&peer));
            } else {
                assert_eq!(classes.insert(peer, 6 + class), plain.insert(peer, 6 + class));
            }
            assert_eq!((classes.len(), classes.get(peer)), (plain.len(), plain.get(&peer).copied()));
            if step % 50 == 0 {
                assert!(classes.iter().eq(plain.iter().map(|(peer, class)| (*peer, *class))));
            }
        }
    }
}
