//! Which identity has every address, and behind which node is it?
//!
//! Several may say something of one prefix; whoever is believed most counts. What was said is kept, so that a change
//! costs what it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use abi::identity::{self, Identity};
use abi::ipcache::RemoteEndpoint;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::objects::Key;

/// What is known of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub identity: Identity,
    /// The node behind which it lies, if the way there is the tunnel.
    pub tunnel: Option<Ipv4Addr>,
    /// `namespace/name` of the pod, if it is one.
    pub pod: Option<Key>,
}

impl Entry {
    /// Of somebody who is no pod of another node.
    pub fn of(identity: Identity) -> Self {
        Entry { identity, tunnel: None, pod: None }
    }

    /// As the datapath reads it.
    pub fn value(&self) -> RemoteEndpoint {
        let tunnel_endpoint = self.tunnel.map_or(abi::V4::default(), Into::into);
        RemoteEndpoint { identity: self.identity, tunnel_endpoint, flags: 0 }
    }
}

/// Who says something of a prefix; a later one of this list is believed rather than an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Teller {
    /// Nobody else.
    World,
    /// A policy names it, or knows it by name.
    Policy,
    /// The CiliumEndpoint of another node's pod.
    Pod(Key),
    /// It serves the Kubernetes API.
    ApiServer,
    /// A node of the cluster.
    Node(String),
    /// The own node.
    Host,
    /// An endpoint of this node.
    Endpoint(u32),
}

impl Teller {
    /// As the API names where an entry comes from.
    pub fn source(&self) -> &'static str {
        match self {
            Teller::World | Teller::Policy => "generated",
            Teller::Pod(_) => "custom-resource",
            Teller::ApiServer | Teller::Node(_) => "kvstore",
            Teller::Host | Teller::Endpoint(_) => "agent-local",
        }
    }
}

/// All prefixes; the longest that contains an address says who it is.
#[derive(Clone, Debug, Default)]
pub struct IpCache {
    ipv4: bool,
    ipv6: bool,
    /// What is said of each prefix, in the order in which it is believed.
    said: BTreeMap<IpNet, Vec<(Teller, Entry)>>,
    /// Of whom each speaks; policies speak of one at a time.
    told: HashMap<Teller, Vec<IpNet>>,
    touched: BTreeSet<IpNet>,
}

/// One change of the datapath's IP cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The prefix is new or means something else.
    Set(IpNet, RemoteEndpoint),
    /// The prefix is no more.
    Remove(IpNet),
}

impl IpCache {
    /// Only the world, of the families that are on.
    pub fn new(ipv4: bool, ipv6: bool) -> Self {
        let mut cache = IpCache { ipv4, ipv6, ..IpCache::default() };
        // With both families on, the world has an identity for each.
        let (four, six) = match (ipv4, ipv6) {
            (true, true) => (identity::WORLD_IPV4, identity::WORLD_IPV6),
            _ => (identity::WORLD, identity::WORLD),
        };
        let worlds = [(IpNet::V4(Ipv4Net::default()), four), (IpNet::V6(Ipv6Net::default()), six)];
        cache.tell(Teller::World, worlds.map(|(all, identity)| (all, Entry::of(identity))));
        cache
    }

    /// Somebody says this and nothing else any more; families that are off do not count.
    pub fn tell(&mut self, teller: Teller, entries: impl IntoIterator<Item = (IpNet, Entry)>) {
        let mut now: BTreeMap<IpNet, Entry> = BTreeMap::new();
        now.extend(entries.into_iter().map(|(prefix, entry)| (prefix.trunc(), entry)));
        now.retain(|prefix, _| self.is_on(prefix));
        let before = self.told.remove(&teller).unwrap_or_default();
        for gone in before.iter().filter(|prefix| !now.contains_key(*prefix)) {
            self.set(&teller, *gone, None);
        }
        if !now.is_empty() {
            self.told.insert(teller.clone(), now.keys().copied().collect());
        }
        now.into_iter().for_each(|(prefix, entry)| self.set(&teller, prefix, Some(entry)));
    }

    /// Which identity policies give to a prefix; nothing: none.
    pub fn tell_policy(&mut self, prefix: IpNet, identity: Option<Identity>) {
        if self.is_on(&prefix) {
            self.set(&Teller::Policy, prefix.trunc(), identity.map(Entry::of));
        }
    }

    /// All prefixes with what counts, and who says so.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &Teller, &Entry)> {
        self.said.iter().filter_map(|(prefix, all)| all.last().map(|(teller, entry)| (prefix, teller, entry)))
    }

    /// What is known of exactly this prefix.
    pub fn get(&self, prefix: &IpNet) -> Option<&Entry> {
        self.said.get(prefix)?.last().map(|(_, entry)| entry)
    }

    /// Who has an address.
    pub fn find(&self, address: IpAddr) -> Option<(IpNet, &Entry)> {
        let longest = IpNet::from(address);
        (0..=longest.prefix_len()).rev().find_map(|length| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            self.get(&prefix).map(|entry| (prefix, entry))
        })
    }

    /// The prefixes of which something may have changed since the last time.
    pub fn take_touched(&mut self) -> BTreeSet<IpNet> {
        std::mem::take(&mut self.touched)
    }

    /// Something may have changed of these.
    pub fn touch(&mut self, prefixes: impl IntoIterator<Item = IpNet>) {
        self.touched.extend(prefixes);
    }

    fn is_on(&self, prefix: &IpNet) -> bool {
        if prefix.addr().is_ipv4() { self.ipv4 } else { self.ipv6 }
    }

    fn set(&mut self, teller: &Teller, prefix: IpNet, entry: Option<Entry>) {
        let all = self.said.entry(prefix).or_default();
        let place = all.binary_search_by(|(known, _)| known.cmp(teller));
        match (place, entry) {
            (Ok(at), Some(entry)) if all[at].1 == entry => return,
            (Ok(at), Some(entry)) => all[at].1 = entry,
            (Ok(at), None) => drop(all.remove(at)),
            (Err(at), Some(entry)) => all.insert(at, (teller.clone(), entry)),
            (Err(_), None) => {}
        }
        if all.is_empty() {
            self.said.remove(&prefix);
        }
        self.touched.insert(prefix);
    }
}

/// What the datapath's IP cache holds.
#[derive(Clone, Debug, Default)]
pub struct Written {
    entries: BTreeMap<IpNet, RemoteEndpoint>,
    /// Writing or removing these failed: what is there is not known.
    unsure: HashSet<IpNet>,
}

impl Written {
    /// What an earlier run left.
    pub fn new(found: BTreeMap<IpNet, RemoteEndpoint>) -> Self {
        Written { entries: found, unsure: HashSet::new() }
    }

    /// All prefixes that it may hold.
    pub fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.entries.keys().chain(&self.unsure)
    }

    /// True if all that was written and removed is there and gone.
    pub fn is_sure(&self) -> bool {
        self.unsure.is_empty()
    }

    /// The change that a prefix needs so that the datapath has what is known; it counts as done.
    pub fn change(&mut self, prefix: IpNet, now: Option<&Entry>) -> Option<Change> {
        let unsure = self.unsure.remove(&prefix);
        match now.map(Entry::value) {
            // A new prefix changes what a shorter one said of its addresses; the two may be the same to everybody.
            Some(value) if self.entries.insert(prefix, value) != Some(value) || unsure => {
                Some(Change::Set(prefix, value))
            }
            Some(_) => None,
            None => (self.entries.remove(&prefix).is_some() || unsure).then_some(Change::Remove(prefix)),
        }
    }

    /// A change was refused.
    pub fn refused(&mut self, prefix: IpNet) {
        self.entries.remove(&prefix);
        self.unsure.insert(prefix);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_and_the_better_source_count() {
        let mut cache = IpCache::new(true, false);
        cache.tell_policy(net("10.0.0.1/8"), Some(identity::LOCAL_CIDR));
        let pod = Teller::Pod(("default".into(), "web".into()));
        cache.tell(pod.clone(), [(net("10.244.1.5/32"), Entry::of(1000))]);
        cache.tell_policy(net("10.244.1.5/32"), Some(identity::LOCAL_CIDR + 1));
        cache.tell_policy(net("fd00::/8"), Some(identity::LOCAL_CIDR + 2));
        let who = |cache: &IpCache, address: &str| cache.find(address.parse().unwrap()).unwrap().1.identity;
        assert_eq!(who(&cache, "10.244.1.5"), 1000);
        assert_eq!(who(&cache, "10.9.9.9"), identity::LOCAL_CIDR);
        assert_eq!(who(&cache, "1.1.1.1"), identity::WORLD);
        assert!(cache.find("fd00::1".parse().unwrap()).is_none());
        cache.tell(pod, []);
        assert_eq!(who(&cache, "10.244.1.5"), identity::LOCAL_CIDR + 1);
    }

    #[test]
    fn a13_a_pod_s_address_that_is_gone_leaves_nothing_to_the_prefix_around_it() {
        let mut cache = IpCache::new(true, false);
        cache.tell_policy(net("10.244.1.0/24"), Some(identity::LOCAL_CIDR));
        let around = cache.find("10.244.1.9".parse().unwrap()).map(|(prefix, entry)| (prefix, entry.clone()));
        let pod = Teller::Pod(("default".into(), "web".into()));
        let tunnel = Some("192.168.0.2".parse().unwrap());
        cache.tell(pod.clone(), [(net("10.244.1.5/32"), Entry { tunnel, ..Entry::of(1000) })]);
        assert_eq!(cache.find("10.244.1.5".parse().unwrap()).unwrap().1.tunnel, tunnel);
        cache.tell(pod, []);
        for address in ["10.244.1.5", "10.244.1.9"] {
            let found = cache.find(address.parse().unwrap()).map(|(prefix, entry)| (prefix, entry.clone()));
            assert_eq!(found, around, "{address}");
        }
        assert_eq!(around.unwrap().1, Entry::of(identity::LOCAL_CIDR));
    }

    fn flush(cache: &mut IpCache, written: &mut Written, kernel: &mut BTreeMap<IpNet, RemoteEndpoint>) -> usize {
        let touched = cache.take_touched();
        let changes: Vec<Change> =
            touched.into_iter().filter_map(|prefix| written.change(prefix, cache.get(&prefix))).collect();
        for change in &changes {
            match change {
                Change::Set(prefix, value) => drop(kernel.insert(*prefix, *value)),
                Change::Remove(prefix) => drop(kernel.remove(prefix)),
            }
        }
        changes.len()
    }

    #[test]
    fn only_differences_are_written() {
        let mut cache = IpCache::new(true, true);
        let pod = Teller::Pod(("default".into(), "web".into()));
        cache.tell(pod.clone(), [(net("10.244.1.5/32"), Entry::of(1000))]);
        let (mut written, mut kernel) = (Written::default(), BTreeMap::new());
        assert_eq!(flush(&mut cache, &mut written, &mut kernel), 3);
        cache.tell(pod.clone(), [(net("10.244.1.5/32"), Entry::of(1000))]);
        assert_eq!(flush(&mut cache, &mut written, &mut kernel), 0);
        cache.tell(pod, []);
        assert_eq!(flush(&mut cache, &mut written, &mut kernel), 1);
        assert_eq!(kernel[&net("0.0.0.0/0")].identity, identity::WORLD_IPV4);
        assert_eq!(kernel.len(), 2);
    }

    fn teller(at: usize) -> Teller {
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        match at {
            0 => Teller::Pod(key("a")),
            1 => Teller::Pod(key("b")),
            2 => Teller::ApiServer,
            3 => Teller::Node("n".into()),
            4 => Teller::Host,
            _ => Teller::Endpoint(1),
        }
    }

    proptest! {
        /// Whatever is said in whatever order, the datapath has what the last words of all, said once, give.
        #[test]
        fn changes_lead_where_a_fresh_start_leads(
            steps in prop::collection::vec((0..8usize, 0..16usize, 256..260u32, any::<bool>()), 1..40),
        ) {
            let prefixes = ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.0/8", "fd00::1/128"].map(net);
            let mut cache = IpCache::new(true, false);
            let (mut written, mut kernel) = (Written::default(), BTreeMap::new());
            let (mut last, mut policy) = (BTreeMap::new(), BTreeMap::new());
            for (who, bits, identity, refused) in steps {
                let chosen: Vec<(IpNet, Entry)> = prefixes
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| bits >> at & 1 == 1)
                    .map(|(_, prefix)| (*prefix, Entry::of(identity)))
                    .collect();
                if who > 5 {
                    let identity = (who == 6).then_some(identity);
                    for (prefix, _) in chosen {
                        policy.insert(prefix, identity);
                        cache.tell_policy(prefix, identity);
                    }
                } else {
                    last.insert(who, chosen.clone());
                    cache.tell(teller(who), chosen);
                }
                flush(&mut cache, &mut written, &mut kernel);
                if refused {
                    // The kernel kept or lost something; it is written again when it is time.
                    written.refused(prefixes[bits % 4]);
                    kernel.remove(&prefixes[bits % 4]);
                    cache.touch([prefixes[bits % 4]]);
                    flush(&mut cache, &mut written, &mut kernel);
                }
                let mut fresh = IpCache::new(true, false);
                last.iter().rev().for_each(|(who, entries)| fresh.tell(teller(*who), entries.clone()));
                policy.iter().for_each(|(prefix, identity)| fresh.tell_policy(*prefix, *identity));
                let wanted: BTreeMap<IpNet, RemoteEndpoint> =
                    fresh.iter().map(|(prefix, _, entry)| (*prefix, entry.value())).collect();
                prop_assert_eq!(&kernel, &wanted);
            }
        }
    }
}
