//! What do the policies of a side say to one subject of these peers? The engine is asked with them alone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use abi::identity as id;
use identity::{NumericIdentity, cidr_labels, name_label};
use ipnet::IpNet;
use labels::Labels;
use policy::{EndpointPolicy, Learned, NamedPorts, PeerIdentity, PolicyObject, Repository, Settings};

use super::{Scene, Stand};

/// Reserved identities from here on are nobody's.
const FIRST_FREE: NumericIdentity = 32;

/// A repository with some peers.
pub(super) struct Round<'a> {
    scene: &'a Scene<'a>,
    side: usize,
    repository: Repository,
    subject: NumericIdentity,
    ports: NamedPorts,
    taken: BTreeSet<IpAddr>,
    next: u32,
}

impl<'a> Round<'a> {
    /// The policies of a side and their subject, nobody else yet.
    pub(super) fn new(scene: &'a Scene<'a>, side: usize, policies: &[PolicyObject], subject: &Stand) -> Round<'a> {
        let settings = &scene.sides[side].settings;
        let mut repository = Repository::new(settings.clone());
        for policy in policies {
            repository.upsert_policy(policy.clone());
        }
        let wanted: Vec<Learned> = repository.learned().cloned().collect();
        for learned in wanted {
            let known = scene.sides[side].learned.get(&learned).cloned().unwrap_or_default();
            repository.set_learned(&learned, known);
        }
        let mut round = Round {
            scene,
            side,
            repository,
            subject: 0,
            ports: subject.ports.clone(),
            taken: BTreeSet::new(),
            next: 0,
        };
        let is_fixed = subject.identity < id::MINIMAL_ALLOCATED;
        round.subject = if is_fixed { subject.identity } else { round.number(subject.identity) };
        round.add(round.subject, &subject.labels, &subject.ports);
        round
    }

    fn settings(&self) -> &Settings {
        &self.scene.sides[self.side].settings
    }

    /// A free number of the kind of this one.
    fn number(&mut self, like: NumericIdentity) -> NumericIdentity {
        self.next += 1;
        match like {
            // Which of them it is, selectors see by its labels.
            like if like < id::MINIMAL_ALLOCATED => FIRST_FREE + self.next,
            like if like >= id::LOCAL_REMOTE_NODE => id::LOCAL_REMOTE_NODE + self.next,
            like if like >= id::LOCAL_CIDR => id::LOCAL_CIDR + self.next,
            like => (like & 0xff_0000) + id::MINIMAL_ALLOCATED + self.next,
        }
    }

    fn add(&mut self, number: NumericIdentity, labels: &Labels, ports: &NamedPorts) {
        self.repository.upsert_identity(number, labels);
        self.repository.set_named_ports(number, ports.clone());
    }

    /// Puts a peer in; its number. `None` if it does not go with those that are in.
    pub(super) fn seat(&mut self, peer: &Stand) -> Option<NumericIdentity> {
        let Some(address) = peer.address else {
            let number = self.number(peer.identity);
            if peer.identity < id::MINIMAL_ALLOCATED && number >= id::MINIMAL_ALLOCATED {
                return None;
            }
            // By another number, the own node would show as a peer what it shows as a subject only.
            let labels = match peer.identity {
                id::HOST => PeerIdentity::new(id::HOST, peer.labels.clone()).peer_labels().clone(),
                _ => peer.labels.clone(),
            };
            self.add(number, &labels, &peer.ports);
            return Some(number);
        };
        if !self.taken.insert(address) {
            return None;
        }
        let exact = IpNet::from(address);
        let own = !peer.learned.is_empty() || peer.labels.iter().count() > 1;
        let around = self.scene.rules.prefixes[self.side].iter().filter(|prefix| prefix.contains(&address));
        let longest = around.max_by_key(|prefix| prefix.prefix_len()).copied();
        let prefix = if own { Some(exact) } else { longest };
        let families = self.settings().families;
        let (number, labels) = match prefix {
            Some(prefix) => {
                let names = self.names_of(peer, address);
                let names = names.iter().map(|name| name_label(&crate::names::text(name)));
                let labels = cidr_labels(prefix, families).with(peer.labels.iter().cloned()).with(names);
                (self.number(id::LOCAL_CIDR), labels)
            }
            None => {
                let both = families.ipv4 && families.ipv6;
                let world = match (both, address.is_ipv6()) {
                    (false, _) => id::WORLD,
                    (true, false) => id::WORLD_IPV4,
                    (true, true) => id::WORLD_IPV6,
                };
                (world, peer.labels.clone())
            }
        };
        self.add(number, &labels, &NamedPorts::new());
        Some(number)
    }

    /// The names and patterns that an address was learned for.
    fn names_of(&self, peer: &Stand, address: IpAddr) -> Vec<Learned> {
        if self.scene.open_names {
            return peer.learned.clone();
        }
        let known = self.scene.sides[self.side].learned.iter().filter(|(learned, _)| learned.is_name());
        let known = known.filter(|(_, known)| known.prefixes.iter().any(|prefix| prefix.contains(&address)));
        known.map(|(learned, _)| learned.clone()).collect()
    }

    /// The tables of the subject.
    pub(super) fn finish(mut self) -> Arc<EndpointPolicy> {
        // One endpoint's own tables are not made where its rules cannot be put together: those of all say so.
        let own = self.repository.endpoint_policy(self.subject, &self.ports);
        own.or_else(|| self.repository.subject_policy(self.subject)).expect("the subject was put in first")
    }
}
