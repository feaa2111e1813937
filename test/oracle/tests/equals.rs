//! Do the engine's tables say what the oracle reads in the rules?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use abi::policy as tables;
use identity::{LocalAllocator, NumericIdentity, cidr_labels};
use ipnet::IpNet;
use labels::Labels;
use oracle::generate::{self, Random};
use oracle::{Decision, Other, Packet, Verdict, World, evaluate};
use policy::{Change, EndpointPolicy, Repository, RuleOrigin, RuleSet, What};

/// The engine as an agent drives it: identities for prefixes as it asks for them, tables kept by its changes alone.
struct Engine {
    repository: Repository,
    allocator: LocalAllocator,
    by_prefix: BTreeMap<IpNet, NumericIdentity>,
    kept: BTreeMap<NumericIdentity, EndpointPolicy>,
}

impl Engine {
    fn new(world: &World) -> Engine {
        let mut engine = Engine {
            repository: Repository::new(world.settings.clone()),
            allocator: LocalAllocator::default(),
            by_prefix: BTreeMap::new(),
            kept: BTreeMap::new(),
        };
        for (identity, party) in &world.parties {
            engine.add(*identity, &party.labels, &party.ports);
        }
        for (learned, addresses) in &world.learned {
            let change = engine.repository.set_learned(learned, addresses.clone());
            engine.take(change);
        }
        for policy in &world.policies {
            let change = engine.repository.upsert_policy(policy.clone());
            engine.take(change);
        }
        engine
    }

    fn add(&mut self, identity: NumericIdentity, labels: &Labels, ports: &policy::NamedPorts) {
        let change = self.repository.upsert_identity(identity, labels);
        self.take(change);
        let change = self.repository.set_named_ports(identity, ports.clone());
        self.take(change);
    }

    fn remove(&mut self, identity: NumericIdentity) {
        self.kept.remove(&identity);
        let change = self.repository.remove_identity(identity);
        self.take(change);
    }

    /// Does what a change asks for.
    fn take(&mut self, change: Change) {
        for one in change.tables {
            let kept = self.kept.get_mut(&one.subject).expect("changes are for subjects that were asked for");
            apply(kept, one.what);
        }
        for prefix in change.prefixes_added {
            let labels = cidr_labels(prefix, self.repository.settings().families);
            let identity = self.allocator.acquire(&labels).expect("a free number").identity;
            self.by_prefix.insert(prefix, identity);
            let change = self.repository.upsert_identity(identity, &labels);
            self.take(change);
        }
        for prefix in change.prefixes_removed {
            let identity = self.by_prefix.remove(&prefix).expect("a prefix that was asked for");
            let change = self.repository.remove_identity(identity);
            self.take(change);
            self.allocator.release(identity);
            self.allocator.retire(identity);
        }
    }

    fn policy(&mut self, subject: NumericIdentity) -> Arc<EndpointPolicy> {
        let policy = self.repository.subject_policy(subject).expect("a known identity");
        self.kept.entry(subject).or_insert_with(|| (*policy).clone());
        policy
    }

    /// The identity of the other side, as the IP cache gives it.
    fn identity(&self, other: Other) -> NumericIdentity {
        let address = match other {
            Other::Party(identity) => return identity,
            Other::Address(address) => address,
        };
        let around = self.by_prefix.iter().filter(|(prefix, _)| prefix.contains(&address));
        let longest = around.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, identity)| *identity);
        longest.unwrap_or_else(|| match (self.repository.settings().families.ipv6, address) {
            (false, _) => 2,
            (true, IpAddr::V4(_)) => 9,
            (true, IpAddr::V6(_)) => 10,
        })
    }

    fn decision(&mut self, packet: &Packet) -> Decision {
        let policy = self.policy(packet.subject);
        decision(&policy, self.identity(packet.other), packet)
    }

    fn kept_decision(&self, packet: &Packet) -> Decision {
        decision(&self.kept[&packet.subject], self.identity(packet.other), packet)
    }
}

/// What an agent does to its tables.
fn apply(kept: &mut EndpointPolicy, what: What) {
    match what {
        What::Rebuilt(policy) => *kept = (*policy).clone(),
        What::ClassRemoved { identity } => {
            kept.classes.remove(&identity);
        }
        What::ClassSet { identity, class, verdicts, rule_sets } => {
            kept.verdicts.extend(verdicts);
            kept.verdicts.sort_by_key(|(key, _)| *key);
            kept.rule_sets.extend(rule_sets);
            kept.rule_sets.sort_by_key(|set| set.id);
            kept.classes.insert(identity, class);
        }
    }
}

fn decision(policy: &EndpointPolicy, peer: NumericIdentity, packet: &Packet) -> Decision {
    let entry = policy.verdict(peer, packet.direction, packet.protocol, packet.port);
    let set: &RuleSet = policy.rule_set(entry.rule_set).expect("a rule set of the tables");
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
        enforced: policy.enforced(packet.direction),
    }
}

fn compare(world: &World, packet: &Packet, found: &Decision, seed: u64) {
    let expected = evaluate(world, packet);
    assert_eq!(*found, expected, "seed {seed}: {packet:?}\n{:#?}\n{:#?}", world.settings, world.policies);
}

fn upsert(world: &mut World, policy: policy::PolicyObject) {
    world.policies.retain(|other| other.reference != policy.reference);
    world.policies.push(policy);
}

#[test]
fn tables_say_what_the_rules_say() {
    let mut verdicts = BTreeMap::new();
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let mut world = generate::world(&mut random);
        for _ in 0..2 + random.below(7) {
            let policy = generate::policy(&mut random, &world.settings);
            upsert(&mut world, policy);
        }
        let mut engine = Engine::new(&world);
        for _ in 0..75 {
            let packet = generate::packet(&mut random, &world);
            let found = engine.decision(&packet);
            *verdicts.entry(format!("{:?} {}", found.verdict, found.match_type)).or_insert(0) += 1;
            compare(&world, &packet, &found, seed);
        }
    }
    // The pools are no good if some answer never comes.
    assert!(verdicts.values().sum::<u32>() >= 25_000);
    for verdict in [
        "Allow all",
        "Allow l3-l4",
        "Allow l4-only",
        "Allow l3-only",
        "Deny l3-l4",
        "Deny l4-only",
        "Redirect l3-l4",
        "Redirect l4-only",
        "DefaultDeny none",
        "Allow l3-proto",
        "Allow proto-only",
    ] {
        assert!(verdicts.get(verdict).is_some_and(|count| *count > 20), "{verdict} is rare: {verdicts:?}");
    }
}

#[test]
fn changes_lead_where_a_fresh_start_leads() {
    for seed in 1_000..1_080 {
        let mut random = Random::new(seed);
        let mut world = generate::world(&mut random);
        let mut engine = Engine::new(&world);
        for step in 0..40 {
            let touched = change(&mut random, &mut world, &mut engine);
            let mut fresh = if step % 10 == 9 { Some(Engine::new(&world)) } else { None };
            for at in 0..12 {
                let mut packet = generate::packet(&mut random, &world);
                // Half of the packets are from or to whom the change was about.
                if let Some(other) = touched.filter(|_| at % 2 == 0) {
                    packet.other = other;
                }
                let found = engine.decision(&packet);
                compare(&world, &packet, &found, seed);
                assert_eq!(
                    engine.kept_decision(&packet),
                    found,
                    "seed {seed}, step {step}: changes that were told differ"
                );
                if let Some(fresh) = &mut fresh {
                    assert_eq!(fresh.decision(&packet), found);
                }
            }
            if let Some(fresh) = fresh {
                assert_eq!(fresh.repository.prefixes(), engine.repository.prefixes());
                let wanted: BTreeSet<IpNet> = engine.by_prefix.keys().copied().collect();
                assert_eq!(engine.repository.prefixes(), wanted);
            }
        }
    }
}

/// One step of a cluster's life; says whom it was about.
fn change(random: &mut Random, world: &mut World, engine: &mut Engine) -> Option<Other> {
    match random.below(11) {
        0..=2 => {
            let policy = generate::policy(random, &world.settings);
            upsert(world, policy.clone());
            let change = engine.repository.upsert_policy(policy);
            engine.take(change);
            None
        }
        3 if !world.policies.is_empty() => {
            let gone = world.policies.swap_remove(random.below(world.policies.len()));
            let change = engine.repository.remove_policy(&gone.reference);
            engine.take(change);
            None
        }
        4..=6 => {
            let identity = generate::add_workload(random, world);
            let party = world.parties.get(&identity).cloned()?;
            engine.add(identity, &party.labels, &party.ports);
            Some(Other::Party(identity))
        }
        7 => {
            let workloads: Vec<NumericIdentity> = world.parties.keys().copied().filter(|one| *one > 255).collect();
            if workloads.len() > 3 {
                let gone = random.pick(&workloads);
                world.parties.remove(&gone);
                engine.remove(gone);
            }
            None
        }
        8 => {
            // The own node becomes one that serves the API, or is none any more; and gets another label.
            let host = world.parties.get_mut(&1).expect("the own node");
            let api = if random.once_in(2) { vec!["reserved:kube-apiserver"] } else { Vec::new() };
            let role = if random.once_in(2) { "k8s:app=x" } else { "k8s:app=y" };
            host.labels = Labels::parse(["reserved:host", role].into_iter().chain(api)).expect("labels");
            let labels = host.labels.clone();
            let change = engine.repository.upsert_identity(1, &labels);
            engine.take(change);
            Some(Other::Party(1))
        }
        9 => {
            let identities: Vec<NumericIdentity> = world.parties.keys().copied().filter(|one| *one > 255).collect();
            let identity = random.pick(&identities);
            let ports = generate::named_ports(random);
            let party = world.parties.get_mut(&identity).expect("a known identity");
            party.ports.clone_from(&ports);
            let change = engine.repository.set_named_ports(identity, ports);
            engine.take(change);
            Some(Other::Party(identity))
        }
        _ => {
            let name = policy::Learned::Name("one.example".to_owned());
            let all: Vec<IpNet> = ["10.1.2.3/32", "10.9.9.9/32", "11.0.0.1/32"]
                .iter()
                .map(|text| text.parse().expect("a prefix"))
                .collect();
            let some: Vec<IpNet> = all.into_iter().filter(|_| random.once_in(2)).collect();
            world.learned.insert(name.clone(), some.clone());
            let change = engine.repository.set_learned(&name, some);
            engine.take(change);
            Some(Other::Address(random.pick(&["10.1.2.3", "10.9.9.9", "11.0.0.1"]).parse().expect("an address")))
        }
    }
}
