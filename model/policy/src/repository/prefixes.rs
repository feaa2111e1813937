//! Which prefixes do selectors need identities for?

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

/// Prefixes counted by use, and what changed since it was last asked.
#[derive(Default)]
pub(super) struct Prefixes {
    uses: BTreeMap<IpNet, usize>,
    touched: BTreeMap<IpNet, bool>,
}

impl Prefixes {
    /// One use more of each.
    pub fn add(&mut self, prefixes: &[IpNet]) {
        for prefix in needed(prefixes) {
            self.touched.entry(prefix).or_insert_with(|| self.uses.contains_key(&prefix));
            *self.uses.entry(prefix).or_default() += 1;
        }
    }

    /// One use less of each.
    pub fn remove(&mut self, prefixes: &[IpNet]) {
        for prefix in needed(prefixes) {
            self.touched.entry(prefix).or_insert_with(|| self.uses.contains_key(&prefix));
            if let Some(uses) = self.uses.get_mut(&prefix) {
                *uses -= 1;
                if *uses == 0 {
                    self.uses.remove(&prefix);
                }
            }
        }
    }

    /// All in use.
    pub fn all(&self) -> BTreeSet<IpNet> {
        self.uses.keys().copied().collect()
    }

    /// Those that came and those that went since the last time.
    pub fn take_changes(&mut self) -> (Vec<IpNet>, Vec<IpNet>) {
        let touched = std::mem::take(&mut self.touched);
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (prefix, was) in touched {
            match (was, self.uses.contains_key(&prefix)) {
                (false, true) => added.push(prefix),
                (true, false) => removed.push(prefix),
                _ => {}
            }
        }
        (added, removed)
    }
}

/// Whole families are the world and need no identity of their own.
fn needed(prefixes: &[IpNet]) -> impl Iterator<Item = IpNet> {
    prefixes.iter().copied().filter(|prefix| prefix.prefix_len() > 0)
}
