//! What may happen in a cluster while packets are under way?

use labels::{Label, Labels, source};

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
    match random.below(12) {
        0..=2 => {
            let policy = generate::policy(random, &world.settings);
            upsert(world, policy.clone());
            let change = engine.repository.upsert_policy(policy);
            engine.take(change);
            engine.tell(world);
            None
        }
        3 if !world.policies.is_empty() => {
            let gone = world.policies.swap_remove(random.below(world.policies.len()));
            let change = engine.repository.remove_policy(&gone.reference);
            engine.take(change);
            engine.tell(world);
            None
        }
        4..=6 => {
            let identity = generate::add_workload(random, world);
            let party = world.parties.get(&identity).cloned()?;
            engine.add(identity, &party.labels, &party.ports);
            Some(Other::Party(identity))
        }
        7 => {
            let workloads = world.workloads();
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
            let of_node = |label: &&Label| label.source == source::NODE || label.key == labels::CLUSTER;
            let kept: Vec<Label> = host.labels.iter().filter(of_node).cloned().collect();
            host.labels = Labels::parse(["reserved:host", role].into_iter().chain(api)).expect("labels").with(kept);
            let labels = host.labels.clone();
            let change = engine.repository.upsert_identity(1, &labels);
            engine.take(change);
            Some(Other::Party(1))
        }
        9 => {
            let identity = random.pick(&world.workloads());
            let ports = generate::named_ports(random);
            let party = world.parties.get_mut(&identity).expect("a known identity");
            party.ports.clone_from(&ports);
            let change = engine.repository.set_named_ports(identity, ports);
            engine.take(change);
            Some(Other::Party(identity))
        }
        10 => {
            let group = world.groups.get_mut(random.pick(&["g0", "g1", "g2"])).expect("a known group");
            let all = ["10.1.0.0/16", "10.1.2.0/24", "10.1.2.128/25", "10.9.9.9/32"];
            let some = all.iter().filter(|_| random.once_in(2));
            group.prefixes = some.map(|text| text.parse().expect("a prefix")).collect();
            engine.tell(world);
            Some(Other::Address(random.pick(&["10.1.2.3", "10.9.9.9", "10.1.2.200"]).parse().expect("an address")))
        }
        _ => {
            let all = ["10.1.2.3/32", "10.9.9.9/32", "11.0.0.1/32"];
            let named: Vec<&str> = all.into_iter().filter(|_| random.once_in(2)).collect();
            let others: Vec<&str> = all.into_iter().filter(|_| random.once_in(3)).collect();
            generate::set_names(world, &named, &others);
            for (name, addresses) in world.learned.clone() {
                engine.learn(&name, addresses);
            }
            Some(Other::Address(random.pick(&["10.1.2.3", "10.9.9.9", "11.0.0.1"]).parse().expect("an address")))
        }
    }
}
