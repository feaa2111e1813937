//! How does an agent drive the policy engine? Identities for prefixes as it asks for them, tables kept by its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use abi::policy as tables;
use identity::{NumericIdentity, Outside, OutsideChange};
use ipnet::IpNet;
use labels::Labels;
use policy::{Change, Direction, EndpointPolicy, Known, Learned, Repository, RuleOrigin, What};

use crate::evaluate::{Decision, Other, Packet, Verdict};
use crate::world::World;

/// The engine with what an agent keeps beside it.
pub struct Engine {
    /// The engine.
    pub repository: Repository,
    /// The identities of prefixes that policies name and of addresses that they know by name, as the IP cache has them.
    pub outside: Outside,
    /// The addresses of names.
    learned: BTreeMap<Learned, Vec<IpNet>>,
    /// What the engine was told of groups and services.
    told: BTreeMap<Learned, Known>,
    kept: BTreeMap<NumericIdentity, EndpointPolicy>,
}

impl Engine {
    /// With a world's identities, addresses and policies.
    pub fn new(world: &World) -> Engine {
        let mut engine = Engine {
            repository: Repository::new(world.settings.clone()),
            outside: Outside::new(world.settings.families, &BTreeMap::new(), []),
            learned: BTreeMap::new(),
            told: BTreeMap::new(),
            kept: BTreeMap::new(),
        };
        for (identity, party) in &world.parties {
            engine.add(*identity, &party.labels, &party.ports);
        }
        for (learned, addresses) in &world.learned {
            engine.learn(learned, addresses.clone());
        }
        for policy in &world.policies {
            let change = engine.repository.upsert_policy(policy.clone());
            engine.take(change);
            engine.tell(world);
        }
        engine
    }

    /// Tells what the policies want to know of groups and services, as far as it is not told yet.
    pub fn tell(&mut self, world: &World) {
        let wanted: BTreeSet<Learned> = self.repository.learned().filter(|one| !one.is_name()).cloned().collect();
        self.told.retain(|learned, _| wanted.contains(learned));
        for learned in wanted {
            let known = world.known(&learned);
            if self.told.get(&learned) != Some(&known) {
                let change = self.repository.set_learned(&learned, known.clone());
                self.take(change);
                self.told.insert(learned, known);
            }
        }
    }

    /// A workload comes, or changes.
    pub fn add(&mut self, identity: NumericIdentity, labels: &Labels, ports: &policy::NamedPorts) {
        let change = self.repository.upsert_identity(identity, labels);
        self.take(change);
        let change = self.repository.set_named_ports(identity, ports.clone());
        self.take(change);
    }

    /// A workload goes.
    pub fn remove(&mut self, identity: NumericIdentity) {
        self.kept.remove(&identity);
        let change = self.repository.remove_identity(identity);
        self.take(change);
    }

    /// Does what a change asks for.
    pub fn take(&mut self, change: Change) {
        for one in change.tables {
            let kept = self.kept.get_mut(&one.subject).expect("changes are for subjects that were asked for");
            apply(kept, one.what);
        }
        let added = change.prefixes_added.into_iter().map(|prefix| (prefix, true));
        let named = added.chain(change.prefixes_removed.into_iter().map(|prefix| (prefix, false))).collect();
        let learned = self.names_of_addresses();
        let change = self.outside.change(&named, learned);
        self.take_outside(change);
    }

    /// A name stands for these addresses now.
    pub fn learn(&mut self, name: &Learned, addresses: Vec<IpNet>) {
        let mut learned: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        let before = self.learned.insert(name.clone(), addresses).into_iter().flatten();
        learned.extend(before.map(|address| (address.addr(), BTreeSet::new())));
        learned.extend(self.names_of_addresses());
        let change = self.outside.change(&BTreeMap::new(), learned);
        self.take_outside(change);
    }

    /// Which of the names of policies each address was learned for.
    fn names_of_addresses(&self) -> BTreeMap<IpAddr, BTreeSet<String>> {
        let wanted: Vec<&Learned> = self.repository.learned().collect();
        let mut all: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        for (learned, addresses) in &self.learned {
            let (Learned::Name(name) | Learned::Pattern(name)) = learned else { continue };
            for address in addresses {
                let names = all.entry(address.addr()).or_default();
                names.extend(wanted.contains(&learned).then(|| name.clone()));
            }
        }
        all
    }

    fn take_outside(&mut self, change: OutsideChange) {
        for (identity, labels) in change.added {
            let change = self.repository.upsert_identity(identity, &labels);
            self.take(change);
        }
        for identity in change.removed {
            let change = self.repository.remove_identity(identity);
            self.take(change);
        }
        self.outside.retire();
    }

    /// The tables of a subject.
    pub fn policy(&mut self, subject: NumericIdentity) -> Arc<EndpointPolicy> {
        let policy = self.repository.subject_policy(subject).expect("a known identity");
        self.kept.entry(subject).or_insert_with(|| (*policy).clone());
        policy
    }

    /// The tables of a subject as changes alone kept them since they were first asked for.
    pub fn kept(&mut self, subject: NumericIdentity) -> &EndpointPolicy {
        self.policy(subject);
        &self.kept[&subject]
    }

    /// The identity of the other side, as the IP cache gives it.
    pub fn identity(&self, other: Other) -> NumericIdentity {
        let address = match other {
            Other::Party(identity) => return identity,
            Other::Address(address) => address,
        };
        let around = self.outside.iter().filter(|(prefix, _)| prefix.contains(&address));
        let longest = around.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, identity)| identity);
        longest.unwrap_or_else(|| match (self.repository.settings().families.ipv6, address) {
            (false, _) => 2,
            (true, IpAddr::V4(_)) => 9,
            (true, IpAddr::V6(_)) => 10,
        })
    }

    /// What the engine's tables say.
    pub fn decision(&mut self, packet: &Packet) -> Decision {
        let policy = self.policy(packet.subject);
        decision(&policy, self.identity(packet.other), packet)
    }

    /// What the tables say that were kept by changes alone.
    pub fn kept_decision(&self, packet: &Packet) -> Decision {
        decision(&self.kept[&packet.subject], self.identity(packet.other), packet)
    }
}

/// What an agent does to its tables.
fn apply(kept: &mut EndpointPolicy, what: What) {
    match what {
        What::Rebuilt(policy) => *kept = (*policy).clone(),
        What::ClassRemoved { identity } => {
            kept.classes.remove(identity);
        }
        What::ClassSet { identity, class, verdicts, rule_sets } => {
            kept.add_verdicts(verdicts);
            kept.rule_sets.extend(rule_sets);
            kept.rule_sets.sort_by_key(|set| set.id);
            kept.classes.insert(identity, class);
        }
    }
}

fn decision(policy: &EndpointPolicy, peer: NumericIdentity, packet: &Packet) -> Decision {
    let entry = policy.verdict(peer, packet.direction, packet.protocol, packet.port);
    meaning(policy, &entry, packet.direction)
}

/// What an entry of a subject's tables means, in the oracle's words.
pub fn meaning(policy: &EndpointPolicy, entry: &tables::VerdictEntry, direction: Direction) -> Decision {
    let set = policy.rule_set(entry.rule_set).expect("a rule set of the tables");
    Decision {
        verdict: match entry.verdict {
            tables::VERDICT_DEFAULT_DENY => Verdict::DefaultDeny,
            tables::VERDICT_DENY => Verdict::Deny,
            tables::VERDICT_ALLOW => Verdict::Allow,
            _ => Verdict::Redirect,
        },
        match_type: match entry.match_type {
            tables::MATCH_NONE => "none",
            tables::MATCH_L3_ONLY => "l3-only",
            tables::MATCH_L3_L4 => "l3-l4",
            tables::MATCH_L4_ONLY => "l4-only",
            tables::MATCH_ALL => "all",
            tables::MATCH_L3_PROTO => "l3-proto",
            _ => "proto-only",
        },
        implicit: set.implicit,
        rules: set.rules.iter().map(|rule| (**rule).clone()).collect::<BTreeSet<RuleOrigin>>(),
        enforced: policy.enforced(direction),
        auth: (set.auth, set.auth_explicit),
    }
}
