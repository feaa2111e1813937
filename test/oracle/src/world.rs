//! Who is there, and what policies are in force?

use std::collections::BTreeMap;
use std::net::IpAddr;

use identity::NumericIdentity;
use ipnet::IpNet;
use labels::Labels;
use policy::{CidrSet, Learned, NamedPorts, Peer, PolicyObject, Rule, Settings};

/// Everything that a decision depends on.
#[derive(Clone, Debug)]
pub struct World {
    /// The agent's settings.
    pub settings: Settings,
    /// The policies.
    pub policies: Vec<PolicyObject>,
    /// Workloads and reserved identities.
    pub parties: BTreeMap<NumericIdentity, Party>,
    /// Addresses of names and groups.
    pub learned: BTreeMap<Learned, Vec<IpNet>>,
}

/// Somebody who is not an address.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Party {
    /// The labels.
    pub labels: Labels,
    /// The ports that have names.
    pub ports: NamedPorts,
}

impl World {
    /// All rules of all policies.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.policies.iter().flat_map(|policy| &policy.rules)
    }

    /// The sets of addresses that a peer selector means.
    pub fn address_sets(&self, peer: &Peer) -> Vec<CidrSet> {
        match peer {
            Peer::Cidr(set) => vec![set.clone()],
            Peer::Learned(learned) => {
                let prefixes = self.learned.get(learned).into_iter().flatten();
                prefixes.map(|prefix| CidrSet::new(*prefix, learned.except().iter().copied())).collect()
            }
            Peer::All | Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } => Vec::new(),
        }
    }

    /// True if some policy speaks of the address in particular, and not only of its whole family.
    pub fn is_named(&self, address: IpAddr) -> bool {
        let peers = self.rules().flat_map(|rule| &rule.peers);
        let sets = peers.flat_map(|peer| self.address_sets(peer));
        let prefixes = sets.flat_map(|set| [set.prefix].into_iter().chain(set.except));
        prefixes.filter(|prefix| prefix.prefix_len() > 0).any(|prefix| prefix.contains(&address))
    }
}
