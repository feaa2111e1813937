//! Which identity has every address, and behind which node is it?

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use abi::identity::{self, Identity};
use abi::ipcache::RemoteEndpoint;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What is known of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub identity: Identity,
    /// The node behind which it lies, if the way there is the tunnel.
    pub tunnel: Option<Ipv4Addr>,
    /// Who says so.
    pub source: Source,
    /// `namespace/name` of the pod, if it is one.
    pub pod: Option<(String, String)>,
}

/// Who knows of a prefix; a later one of this list is believed rather than an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Made from a policy's prefix, or the world.
    Generated,
    /// A pod that no agent manages.
    Kubernetes,
    /// A CiliumEndpoint of another node.
    CustomResource,
    /// A node of the cluster.
    Node,
    /// This agent.
    Local,
}

impl Source {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Generated => "generated",
            Source::Kubernetes => "k8s",
            Source::CustomResource => "custom-resource",
            Source::Node => "kvstore",
            Source::Local => "agent-local",
        }
    }
}

impl Entry {
    /// As the datapath reads it.
    pub fn value(&self) -> RemoteEndpoint {
        let tunnel_endpoint = self.tunnel.map_or(abi::V4::default(), Into::into);
        RemoteEndpoint { identity: self.identity, tunnel_endpoint, flags: 0 }
    }
}

/// All prefixes; the longest that contains an address says who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpCache(BTreeMap<IpNet, Entry>);

/// One change of the datapath's IP cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The prefix is new or means something else.
    Set(IpNet, RemoteEndpoint),
    /// The prefix is no more.
    Remove(IpNet),
}

impl IpCache {
    /// Only the world.
    pub fn new(ipv4: bool, ipv6: bool) -> Self {
        let mut cache = IpCache::default();
        let world = |identity| Entry { identity, tunnel: None, source: Source::Generated, pod: None };
        // With both families on, the world has an identity for each.
        let (four, six) = match (ipv4, ipv6) {
            (true, true) => (identity::WORLD_IPV4, identity::WORLD_IPV6),
            _ => (identity::WORLD, identity::WORLD),
        };
        if ipv4 {
            cache.0.insert(IpNet::V4(Ipv4Net::default()), world(four));
        }
        if ipv6 {
            cache.0.insert(IpNet::V6(Ipv6Net::default()), world(six));
        }
        cache
    }

    /// Adds what is known of a prefix; of two that speak of the same one, the better source counts.
    pub fn add(&mut self, prefix: IpNet, entry: Entry) {
        match self.0.get(&prefix.trunc()) {
            Some(known) if known.source > entry.source => {}
            _ => {
                self.0.insert(prefix.trunc(), entry);
            }
        }
    }

    /// Adds what is known of an address.
    pub fn add_address(&mut self, address: IpAddr, entry: Entry) {
        self.add(IpNet::from(address), entry);
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &Entry)> {
        self.0.iter()
    }

    /// Who has an address.
    pub fn find(&self, address: IpAddr) -> Option<(IpNet, &Entry)> {
        let longest = IpNet::from(address);
        (0..=longest.prefix_len()).rev().find_map(|length| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            self.0.get(&prefix).map(|entry| (prefix, entry))
        })
    }

    /// What must be written so that a datapath with `now` knows what is known here; and whether anything that it said
    /// before is no longer true.
    pub fn changes(&self, now: &BTreeMap<IpNet, RemoteEndpoint>) -> (Vec<Change>, bool) {
        let mut changes = Vec::new();
        let mut outdated = false;
        for (prefix, entry) in &self.0 {
            let value = entry.value();
            if now.get(prefix) != Some(&value) {
                // A new prefix changes what a shorter one said of its addresses; the two may be the same to everybody.
                outdated = true;
                changes.push(Change::Set(*prefix, value));
            }
        }
        for prefix in now.keys().filter(|prefix| !self.0.contains_key(*prefix)) {
            outdated = true;
            changes.push(Change::Remove(*prefix));
        }
        (changes, outdated)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(identity: Identity, source: Source) -> Entry {
        Entry { identity, tunnel: None, source, pod: None }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_and_the_better_source_count() {
        let mut cache = IpCache::new(true, false);
        cache.add(net("10.0.0.1/8"), entry(identity::LOCAL_CIDR, Source::Generated));
        cache.add(net("10.244.1.5/32"), entry(1000, Source::CustomResource));
        cache.add(net("10.244.1.5/32"), entry(identity::LOCAL_CIDR + 1, Source::Generated));
        let who = |address: &str| cache.find(address.parse().unwrap()).unwrap().1.identity;
        assert_eq!(who("10.244.1.5"), 1000);
        assert_eq!(who("10.9.9.9"), identity::LOCAL_CIDR);
        assert_eq!(who("1.1.1.1"), identity::WORLD);
        assert!(cache.find("fd00::1".parse().unwrap()).is_none());
    }

    #[test]
    fn only_differences_are_written() {
        let mut cache = IpCache::new(true, true);
        cache.add(net("10.244.1.5/32"), entry(1000, Source::CustomResource));
        let (changes, _) = cache.changes(&BTreeMap::new());
        let mut now = BTreeMap::new();
        for change in changes {
            let Change::Set(prefix, value) = change else { panic!("{change:?}") };
            now.insert(prefix, value);
        }
        assert_eq!(cache.changes(&now), (Vec::new(), false));
        let later = IpCache::new(true, true);
        assert_eq!(later.changes(&now), (vec![Change::Remove(net("10.244.1.5/32"))], true));
        assert_eq!(now[&net("0.0.0.0/0")].identity, identity::WORLD_IPV4);
    }
}
