//! For which of the names and patterns that policies speak of was an address learned? Kept, so that an answer costs what it
//! changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use l7::dns::Patterns;

use crate::Change;

/// The names and patterns of policies with the addresses that they stand for now.
///
/// A name and a pattern of the same text are one: without stars a pattern means itself alone.
#[derive(Debug, Default)]
pub struct Selected {
    selectors: BTreeMap<Arc<str>, BTreeMap<IpAddr, usize>>,
    patterns: Patterns,
    names: HashMap<String, Named>,
    /// How many names make an address one of a selector.
    addresses: HashMap<IpAddr, BTreeMap<Arc<str>, usize>>,
    changed: BTreeSet<IpAddr>,
}

#[derive(Debug, Default)]
struct Named {
    addresses: BTreeSet<IpAddr>,
    selectors: Vec<Arc<str>>,
}

impl Selected {
    /// Policies speak of these names and patterns, in canonical form, and of no others.
    pub fn select(&mut self, wanted: &BTreeSet<String>) {
        if wanted.len() == self.selectors.len() && wanted.iter().all(|one| self.selectors.contains_key(one.as_str())) {
            return;
        }
        self.patterns = Patterns::new([], wanted.iter().map(String::as_str));
        let gone = self.selectors.extract_if(.., |one, _| !wanted.contains(&**one));
        let gone: BTreeSet<Arc<str>> = gone.map(|(one, _)| one).collect();
        let new: BTreeSet<Arc<str>> = wanted
            .iter()
            .filter(|one| !self.selectors.contains_key(one.as_str()))
            .map(|one| one.as_str().into())
            .collect();
        self.selectors.extend(new.iter().map(|one| (one.clone(), BTreeMap::new())));
        let known = Patterns::new([], new.iter().map(AsRef::as_ref));
        let names: Vec<String> = self.names.keys().cloned().collect();
        for name in names {
            self.name_is_meant_by_others(&name, &gone, &known, &new);
        }
    }

    fn name_is_meant_by_others(
        &mut self,
        name: &str,
        gone: &BTreeSet<Arc<str>>,
        known: &Patterns,
        new: &BTreeSet<Arc<str>>,
    ) {
        let Some(mut named) = self.names.remove(name) else { return };
        let lost: Vec<Arc<str>> = named.selectors.extract_if(.., |one| gone.contains(one)).collect();
        let won: Vec<Arc<str>> = known.matching(name).filter_map(|one| new.get(one).cloned()).collect();
        for address in &named.addresses {
            lost.iter().for_each(|one| self.discount(*address, one));
            won.iter().for_each(|one| self.count(*address, one));
        }
        named.selectors.extend(won);
        self.names.insert(name.to_owned(), named);
    }

    /// Names came to stand for addresses, or do not any more.
    pub fn change(&mut self, change: &Change) {
        for (name, address) in &change.removed {
            let Some(named) = self.names.get_mut(name) else { continue };
            if !named.addresses.remove(address) {
                continue;
            }
            let selectors = named.selectors.clone();
            if named.addresses.is_empty() {
                self.names.remove(name);
            }
            selectors.iter().for_each(|one| self.discount(*address, one));
        }
        for (name, address) in &change.added {
            if !self.names.contains_key(name) {
                let meant = self.patterns.matching(name);
                let selectors = meant.filter_map(|one| self.selectors.get_key_value(one)).map(|(one, _)| one.clone());
                let selectors = selectors.collect();
                self.names.insert(name.clone(), Named { addresses: BTreeSet::new(), selectors });
            }
            let Some(named) = self.names.get_mut(name) else { continue };
            if named.addresses.insert(*address) {
                let selectors = named.selectors.clone();
                selectors.iter().for_each(|one| self.count(*address, one));
            }
        }
    }

    /// The names and patterns that an address was learned for.
    pub fn of(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.addresses.get(&address).into_iter().flat_map(|selectors| selectors.keys().map(AsRef::as_ref))
    }

    /// Addresses that were learned for others since the last time.
    pub fn take_changed(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.changed)
    }

    /// The addresses that were learned for a name or a pattern of policies.
    pub fn addresses(&self, selector: &str) -> impl Iterator<Item = IpAddr> + '_ {
        self.selectors.get(selector).into_iter().flat_map(|addresses| addresses.keys().copied())
    }

    fn count(&mut self, address: IpAddr, selector: &Arc<str>) {
        let names = self.addresses.entry(address).or_default().entry(selector.clone()).or_default();
        *names += 1;
        if *names == 1 {
            self.changed.insert(address);
        }
        if let Some(addresses) = self.selectors.get_mut(selector) {
            *addresses.entry(address).or_default() += 1;
        }
    }

    fn discount(&mut self, address: IpAddr, selector: &Arc<str>) {
        let less = |names: &mut usize| {
            *names -= 1;
            *names == 0
        };
        if let Some(selectors) = self.addresses.get_mut(&address) {
            if selectors.get_mut(selector).is_some_and(less) {
                selectors.remove(selector);
                self.changed.insert(address);
            }
            if selectors.is_empty() {
                self.addresses.remove(&address);
            }
        }
        if let Some(addresses) = self.selectors.get_mut(selector)
            && addresses.get_mut(&address).is_some_and(less)
        {
            addresses.remove(&address);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOSTS: [&str; 4] = ["a.x", "b.x", "c.b.x", "d.y"];
    const SELECTORS: [&str; 5] = ["a.x", "*.x", "**.x", "*", "b.*"];

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_meant(selector: &str, name: &str) -> bool {
        if selector.contains('*') { l7::dns::name_matches(selector, name) } else { selector == name }
    }

    fn wanted(bits: usize) -> BTreeSet<String> {
        let chosen = SELECTORS.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        chosen.map(|(_, one)| (*one).to_owned()).collect()
    }

    fn plain(pairs: &BTreeSet<(String, IpAddr)>, wanted: &BTreeSet<String>, address: IpAddr) -> BTreeSet<String> {
        let names = || pairs.iter().filter(|(_, one)| *one == address).map(|(name, _)| name);
        wanted.iter().filter(|one| names().any(|name| is_meant(one, name))).cloned().collect()
    }

    proptest! {
        /// Against counting anew, whatever comes first: names, addresses or policies.
        #[test]
        fn counts_follow_changes_of_names_and_policies(
            steps in prop::collection::vec((0..3usize, 0..4usize, 0..3u8, 0..32usize), 1..40),
        ) {
            let mut selected = Selected::default();
            let (mut pairs, mut now) = (BTreeSet::new(), BTreeSet::new());
            for (what, host, last, bits) in steps {
                let before: Vec<_> = (0..3).map(|last| plain(&pairs, &now, ip(last))).collect();
                let pair = (HOSTS[host].to_owned(), ip(last));
                match what {
                    0 => {
                        pairs.insert(pair.clone());
                        selected.change(&Change { added: [pair].into(), ..Change::default() });
                    }
                    1 => {
                        pairs.remove(&pair);
                        selected.change(&Change { removed: [pair].into(), ..Change::default() });
                    }
                    _ => {
                        now = wanted(bits);
                        selected.select(&now);
                    }
                }
                let changed = selected.take_changed();
                for last in 0..3 {
                    let wanted = plain(&pairs, &now, ip(last));
                    let found: BTreeSet<String> = selected.of(ip(last)).map(str::to_owned).collect();
                    prop_assert_eq!(&found, &wanted);
                    prop_assert!(changed.contains(&ip(last)) || wanted == before[usize::from(last)]);
                }
                for selector in SELECTORS {
                    let found: BTreeSet<IpAddr> = selected.addresses(selector).collect();
                    let meant = pairs.iter().filter(|(name, _)| now.contains(selector) && is_meant(selector, name));
                    prop_assert_eq!(found, meant.map(|(_, address)| *address).collect::<BTreeSet<_>>());
                }
            }
        }
    }
}
