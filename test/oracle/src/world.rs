//! Who is there, and what policies are in force?

use std::collections::BTreeMap;
use std::net::IpAddr;

use identity::NumericIdentity;
use ipnet::IpNet;
use labels::{Label, Labels};
use policy::{CidrSet, Known, Learned, NamedPorts, Peer, PolicyObject, Rule, Settings};

/// Everything that a decision depends on.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The agent's settings.
    pub settings: Settings,
    /// The policies.
    pub policies: Vec<PolicyObject>,
    /// Workloads and reserved identities.
    pub parties: BTreeMap<NumericIdentity, Party>,
    /// Addresses of names and patterns.
    pub learned: BTreeMap<Learned, Vec<IpNet>>,
    /// Groups of prefixes by name.
    pub groups: BTreeMap<String, Group>,
    /// Services by namespace and name.
    pub services: BTreeMap<(String, String), Service>,
}

/// A CiliumCIDRGroup.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// The labels by which it is selected.
    pub labels: Labels,
    /// What lies in it.
    pub prefixes: Vec<IpNet>,
}

/// A service.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    /// The labels by which it is selected.
    pub labels: Labels,
    /// Pods with this `app` are its backends; `None`: it selects none.
    pub app: Option<String>,
    /// Its backends, if it selects no pods.
    pub backends: Vec<IpNet>,
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

    /// The identities of workloads.
    pub fn workloads(&self) -> Vec<NumericIdentity> {
        self.parties.keys().copied().filter(|one| (256..abi::identity::LOCAL_CIDR).contains(one)).collect()
    }

    /// The services that a peer means.
    pub(crate) fn services_of(&self, learned: &Learned) -> Vec<(&str, &Service)> {
        let (wanted, name, selector) = match learned {
            Learned::Service(namespace, name) => (namespace, Some(name), None),
            Learned::Services(namespace, selector) => (namespace, None, Some(selector)),
            Learned::Name(_) | Learned::Pattern(_) | Learned::Group(..) | Learned::Groups(..) => return Vec::new(),
        };
        let is_meant = |(namespace, known): &(String, String), service: &Service| {
            (wanted.is_empty() || wanted == namespace)
                && name.is_none_or(|name| name == known)
                && selector.is_none_or(|selector| selector.matches(&service.labels))
        };
        let all = self.services.iter().filter(|(key, service)| is_meant(key, service));
        all.map(|((namespace, _), service)| (namespace.as_str(), service)).collect()
    }

    /// What an agent tells the engine of a group or of services.
    pub fn known(&self, learned: &Learned) -> Known {
        match learned {
            Learned::Name(_) | Learned::Pattern(_) => self.learned.get(learned).cloned().unwrap_or_default().into(),
            Learned::Group(name, _) => {
                self.groups.get(name).map(|group| group.prefixes.clone()).unwrap_or_default().into()
            }
            Learned::Groups(..) => Known::of_groups(
                self.groups
                    .values()
                    .flat_map(|group| group.prefixes.iter().map(|prefix| (group.labels.clone(), *prefix))),
            ),
            Learned::Service(..) | Learned::Services(..) => {
                let mut known = Known::default();
                for (namespace, service) in self.services_of(learned) {
                    let selector = service.app.iter().map(|app| ("app", app.as_str()));
                    known.add_service(namespace, selector, service.backends.iter().copied(), &self.settings);
                }
                known
            }
        }
    }

    /// The sets of addresses that a peer selector means, if it is one that means addresses by themselves.
    pub fn address_sets(&self, peer: &Peer) -> Vec<CidrSet> {
        let learned = match peer {
            Peer::Cidr(set) => return vec![set.clone()],
            Peer::Learned(learned) => learned,
            Peer::All | Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } => return Vec::new(),
        };
        let prefixes: Vec<IpNet> = match learned {
            Learned::Name(_) | Learned::Pattern(_) => self.learned.get(learned).cloned().unwrap_or_default(),
            Learned::Group(name, _) => self.groups.get(name).map(|group| group.prefixes.clone()).unwrap_or_default(),
            Learned::Groups(..) => Vec::new(),
            Learned::Service(..) | Learned::Services(..) => {
                let bare = self.services_of(learned).into_iter().filter(|(_, service)| service.app.is_none());
                bare.flat_map(|(_, service)| service.backends.clone()).collect()
            }
        };
        // What is left out may be wider than what there is.
        let set = |prefix: IpNet| CidrSet { prefix, except: learned.except().to_vec() };
        prefixes.into_iter().map(set).collect()
    }

    /// The labels of all groups that an address lies in, several of one key too; the world as a whole lies in none.
    pub(crate) fn labels_of_groups(&self, address: Option<IpAddr>) -> Vec<&Label> {
        let around = self.groups.values().filter(|group| {
            address.is_some_and(|address| group.prefixes.iter().any(|prefix| prefix.contains(&address)))
        });
        around.flat_map(|group| &group.labels).collect()
    }

    /// The prefixes that the policies speak of.
    pub(crate) fn named_prefixes(&self) -> Vec<IpNet> {
        let peers = self.rules().flat_map(|rule| &rule.peers);
        let of_peer = |peer: &Peer| -> Vec<IpNet> {
            let sets = self.address_sets(peer).into_iter().flat_map(|set| [set.prefix].into_iter().chain(set.except));
            let (groups, except) = match peer {
                Peer::Learned(learned @ Learned::Groups(_, except)) => (self.known(learned).prefixes, except.clone()),
                Peer::Learned(Learned::Group(_, except)) => (Vec::new(), except.clone()),
                _ => (Vec::new(), Vec::new()),
            };
            sets.chain(groups).chain(except).collect()
        };
        peers.flat_map(of_peer).collect()
    }

    /// True if some policy speaks of the address in particular, and not only of its whole family.
    pub fn is_named(&self, address: IpAddr) -> bool {
        self.named_prefixes().iter().any(|prefix| prefix.prefix_len() > 0 && prefix.contains(&address))
    }
}
