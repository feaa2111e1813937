//! What may happen in a cluster while packets are under way?

use identity::NumericIdentity;
use ipnet::IpNet;
use labels::Labels;

use crate::engine::Engine;
use crate::evaluate::Other;
use crate::generate::{self, Random};
use crate::world::World;

/// A policy takes the place of that of the same name.
pub fn upsert(world: &mut World, policy: policy::PolicyObject) {
    world.policies.retain(|other| other.reference != policy.reference);
    world.policies.push(policy);
}

/// One step of a cluster's life: policies, workloads, ports and names come, change and go, for the world and for the engine
/// alike. Says whom it was about.
pub fn step(random: &mut Random, world: &mut World, engine: &mut Engine) -> Option<Other> {
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
            engine.learn(&name, some);
            Some(Other::Address(random.pick(&["10.1.2.3", "10.9.9.9", "11.0.0.1"]).parse().expect("an address")))
        }
    }
}
