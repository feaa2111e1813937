//! Which identity has each prefix outside of the cluster that policies name, and each address that they know by name?
//!
//! Addresses share an identity if they lie in the same longest prefix that policies name and were learned for the same
//! names and patterns. So one more address of a known kind is no new identity.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use labels::Labels;

use crate::{Acquired, Exhausted, Families, LocalAllocator, NumericIdentity, address_labels};

/// Prefixes and addresses with their identities, kept as they change.
#[derive(Clone, Debug)]
pub struct Outside {
    families: Families,
    allocator: LocalAllocator,
    /// The prefixes that policies name, and how many there are of each length.
    named: BTreeSet<IpNet>,
    lengths: BTreeMap<(bool, u8), usize>,
    /// The names and patterns of policies that an address was learned for.
    learned: BTreeMap<IpAddr, Box<[String]>>,
    identities: BTreeMap<IpNet, NumericIdentity>,
    /// Released by the last change: tables and IP cache may hold them still.
    leaving: Vec<NumericIdentity>,
    /// Numbers of an earlier run that the IP cache may hold: nobody gets one until it is retired.
    earlier: BTreeSet<NumericIdentity>,
    version: u64,
}

/// What follows from a change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OutsideChange {
    /// Identities that are there now and were not, with their labels.
    pub added: Vec<(NumericIdentity, Labels)>,
    /// Identities that nobody has any more. Who writes an IP cache must know them until it is written.
    pub removed: Vec<NumericIdentity>,
    /// Prefixes that have another identity now, or none any more.
    pub moved: BTreeMap<IpNet, Option<NumericIdentity>>,
    /// Why some prefix has none though it should: its addresses count as those around it.
    pub exhausted: Option<Exhausted>,
}

impl Outside {
    /// Nothing is named or learned. `numbers` are those of an earlier run with their labels, `held` all that the IP cache
    /// still holds: labels get their number back, and others none of them before [`Outside::retire`].
    pub fn new(
        families: Families,
        numbers: &BTreeMap<NumericIdentity, Labels>,
        held: impl IntoIterator<Item = NumericIdentity>,
    ) -> Self {
        let mut allocator = LocalAllocator::default();
        let mut earlier = BTreeSet::new();
        for (number, labels) in numbers {
            if allocator.restore(labels, *number) {
                allocator.release(*number);
                earlier.insert(*number);
            }
        }
        for number in held {
            allocator.rest(number);
            earlier.insert(number);
        }
        Outside {
            families,
            allocator,
            named: BTreeSet::new(),
            lengths: BTreeMap::new(),
            learned: BTreeMap::new(),
            identities: BTreeMap::new(),
            leaving: Vec::new(),
            earlier,
            version: 0,
        }
    }

    /// Policies name other prefixes (true: from now on, false: no more), and addresses are learned for other names.
    pub fn change(
        &mut self,
        named: &BTreeMap<IpNet, bool>,
        learned: BTreeMap<IpAddr, BTreeSet<String>>,
    ) -> OutsideChange {
        let mut touched: BTreeSet<IpNet> = BTreeSet::new();
        for (prefix, is_named) in named {
            if self.set_named(*prefix, *is_named) {
                touched.insert(*prefix);
                let within = self.learned.range(prefix.network()..=prefix.broadcast());
                touched.extend(within.map(|(address, _)| IpNet::from(*address)));
            }
        }
        for (address, names) in learned {
            touched.insert(IpNet::from(address));
            if names.is_empty() {
                self.learned.remove(&address);
            } else {
                self.learned.insert(address, names.into_iter().collect());
            }
        }
        self.settle(touched)
    }

    /// What was removed is in no IP cache any more: others may have the numbers. Yields the numbers that this holds for.
    pub fn retire(&mut self) -> Vec<NumericIdentity> {
        let gone = std::mem::take(&mut self.leaving).into_iter().chain(std::mem::take(&mut self.earlier));
        let gone: Vec<NumericIdentity> = gone.filter(|number| self.allocator.retire(*number)).collect();
        self.version += gone.len() as u64;
        gone
    }

    /// The identity of exactly this prefix.
    pub fn identity(&self, prefix: &IpNet) -> Option<NumericIdentity> {
        self.identities.get(prefix).copied()
    }

    /// All prefixes with their identities.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, NumericIdentity)> {
        self.identities.iter().map(|(prefix, number)| (prefix, *number))
    }

    /// What is to survive a restart: the numbers with their labels, those that are leaving among them.
    pub fn numbers(&self) -> BTreeMap<NumericIdentity, Labels> {
        self.allocator.all().map(|(number, labels)| (number, labels.clone())).collect()
    }

    /// Grows with each change of [`Outside::numbers`].
    pub fn version(&self) -> u64 {
        self.version
    }

    fn set_named(&mut self, prefix: IpNet, is_named: bool) -> bool {
        let key = (prefix.addr().is_ipv6(), prefix.prefix_len());
        if is_named {
            let is_new = self.named.insert(prefix);
            *self.lengths.entry(key).or_default() += usize::from(is_new);
            return is_new;
        }
        let was = self.named.remove(&prefix);
        if let Some(count) = self.lengths.get_mut(&key).filter(|_| was) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&key);
            }
        }
        was
    }

    fn settle(&mut self, touched: BTreeSet<IpNet>) -> OutsideChange {
        let mut change = OutsideChange::default();
        let mut released = BTreeSet::new();
        for prefix in touched {
            let now = self.wanted(prefix).and_then(|labels| match self.allocator.acquire(&labels) {
                Ok(Acquired { identity, is_new }) => {
                    // What was released by this change and is taken again never went.
                    if is_new && !released.remove(&identity) {
                        change.added.push((identity, labels));
                    }
                    Some(identity)
                }
                Err(error) => {
                    change.exhausted = Some(error);
                    None
                }
            });
            let before = match now {
                Some(number) => self.identities.insert(prefix, number),
                None => self.identities.remove(&prefix),
            };
            released.extend(before.filter(|number| self.allocator.release(*number)));
            if before != now {
                change.moved.insert(prefix, now);
            }
        }
        let taken: BTreeSet<NumericIdentity> = change.added.iter().map(|(number, _)| *number).collect();
        self.leaving.retain(|number| !taken.contains(number));
        self.earlier.retain(|number| !taken.contains(number));
        self.version += taken.len() as u64;
        self.leaving.extend(&released);
        change.removed.extend(released);
        change
    }

    /// The labels that a prefix is to have, if it is to have an identity of its own.
    fn wanted(&self, prefix: IpNet) -> Option<Labels> {
        let is_address = prefix.prefix_len() == prefix.max_prefix_len();
        let names = self.learned.get(&prefix.addr()).filter(|_| is_address);
        let around = if self.named.contains(&prefix) { Some(prefix) } else { names.and_then(|_| self.around(prefix)) };
        if names.is_none() && around.is_none() {
            return None;
        }
        let names = names.into_iter().flatten().map(String::as_str);
        Some(address_labels(around, names, prefix.addr().is_ipv6(), self.families))
    }

    /// The longest prefix that policies name around an address.
    fn around(&self, address: IpNet) -> Option<IpNet> {
        let is_ipv6 = address.addr().is_ipv6();
        let lengths = self.lengths.range((is_ipv6, 0)..=(is_ipv6, u8::MAX)).rev();
        lengths
            .filter_map(|((_, length), _)| Some(IpNet::new(address.addr(), *length).ok()?.trunc()))
            .find(|prefix| self.named.contains(prefix))
    }
}

#[cfg(test)]
mod tests;
