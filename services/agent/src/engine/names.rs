//! Which addresses do the names and patterns of policies stand for? Counted, so that an answer costs what it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use policy::Learned;

/// What policies wait for, and what is known of it.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<String, BTreeSet<IpAddr>>,
    /// How many of the names that are meant stand for an address.
    wanted: HashMap<Learned, BTreeMap<IpAddr, usize>>,
}

/// Whether a policy that waits for this means a name.
pub fn is_meant(learned: &Learned, name: &str) -> bool {
    match learned {
        Learned::Name(wanted) => wanted == name,
        Learned::Pattern(pattern) => policy::name_matches(pattern, name),
        Learned::Group(..) | Learned::Groups(..) | Learned::Service(..) | Learned::Services(..) => false,
    }
}

impl Names {
    /// Takes a change into account; what policies wait for and has other addresses now.
    pub fn change(&mut self, change: &fqdn::Change) -> HashSet<Learned> {
        let mut changed = HashSet::new();
        for (name, address) in &change.removed {
            let Some(addresses) = self.known.get_mut(name) else { continue };
            if !addresses.remove(address) {
                continue;
            }
            if addresses.is_empty() {
                self.known.remove(name);
            }
            for (learned, counts) in self.wanted.iter_mut().filter(|(learned, _)| is_meant(learned, name)) {
                if let Some(count) = counts.get_mut(address) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(address);
                        changed.insert(learned.clone());
                    }
                }
            }
        }
        for (name, address) in &change.added {
            if !self.known.entry(name.clone()).or_default().insert(*address) {
                continue;
            }
            for (learned, counts) in self.wanted.iter_mut().filter(|(learned, _)| is_meant(learned, name)) {
                let count = counts.entry(*address).or_default();
                *count += 1;
                if *count == 1 {
                    changed.insert(learned.clone());
                }
            }
        }
        changed
    }

    /// The addresses of what a policy waits for. From now on changes of it are told.
    pub fn addresses(&mut self, learned: &Learned) -> Vec<IpNet> {
        if !self.wanted.contains_key(learned) {
            let mut counts = BTreeMap::new();
            for (_, addresses) in self.known.iter().filter(|(name, _)| is_meant(learned, name)) {
                addresses.iter().for_each(|address| *counts.entry(*address).or_default() += 1);
            }
            self.wanted.insert(learned.clone(), counts);
        }
        self.wanted.get(learned).into_iter().flat_map(BTreeMap::keys).map(|address| IpNet::from(*address)).collect()
    }

    /// What policies wait for, with its addresses.
    pub fn wanted(&self) -> impl Iterator<Item = agent_api::NameSelector> + '_ {
        self.wanted.iter().filter_map(|(learned, addresses)| {
            let selector = match learned {
                Learned::Name(name) => format!("MatchName: {name}., MatchPattern: "),
                Learned::Pattern(pattern) => format!("MatchName: , MatchPattern: {pattern}"),
                Learned::Group(..) | Learned::Groups(..) | Learned::Service(..) | Learned::Services(..) => return None,
            };
            let addresses = addresses.keys().map(ToString::to_string).collect();
            Some(agent_api::NameSelector { selector, addresses })
        })
    }

    /// Forgets what no policy waits for any more.
    pub fn keep(&mut self, wanted: &HashSet<Learned>) {
        self.wanted.retain(|learned, _| wanted.contains(learned));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn all() -> [Learned; 4] {
        let pattern = |text: &str| Learned::Pattern(text.to_owned());
        [Learned::Name("a.x".into()), pattern("*.x"), pattern("**.x"), pattern("*")]
    }

    proptest! {
        /// Against counting anew.
        #[test]
        fn counts_follow_changes(
            steps in prop::collection::vec((any::<bool>(), 0..4usize, 0..3u8), 1..40),
            wanted_from in 0..40usize,
        ) {
            let hosts = ["a.x", "b.x", "c.b.x", "d.y"];
            let mut names = Names::default();
            let mut plain: BTreeSet<(String, IpAddr)> = BTreeSet::new();
            for (at, (add, host, last)) in steps.into_iter().enumerate() {
                if at == wanted_from {
                    all().iter().for_each(|learned| drop(names.addresses(learned)));
                }
                let pair = (hosts[host].to_owned(), ip(last));
                let pairs = BTreeSet::from([pair.clone()]);
                let before: Vec<_> = all().map(|learned| of(&plain, &learned)).to_vec();
                let change = if add {
                    plain.insert(pair);
                    fqdn::Change { added: pairs, ..Default::default() }
                } else {
                    plain.remove(&pair);
                    fqdn::Change { removed: pairs, ..Default::default() }
                };
                let changed = names.change(&change);
                for (learned, before) in all().iter().zip(before) {
                    let now = of(&plain, learned);
                    if at >= wanted_from {
                        prop_assert_eq!(changed.contains(learned), before != now);
                        prop_assert_eq!(names.addresses(learned), now);
                    }
                }
            }
        }
    }

    fn of(plain: &BTreeSet<(String, IpAddr)>, learned: &Learned) -> Vec<IpNet> {
        let meant: BTreeSet<IpAddr> =
            plain.iter().filter(|(name, _)| is_meant(learned, name)).map(|(_, ip)| *ip).collect();
        meant.into_iter().map(IpNet::from).collect()
    }
}
