//! Who can send and receive in a cluster, those who are not there yet included?

use std::collections::BTreeMap;

use abi::identity as id;
use analysis::{Area, Party, Region, Side, Space};
use anyhow::{Result, anyhow, bail};
use ipnet::IpNet;
use labels::{Label, Labels};
use policy::{NamedPorts, PolicyObject, Settings};

use crate::case::Case;
use crate::objects::Objects;
use crate::world::{World, settings};

/// Labels of what is in the cluster, which are looked for among nodes and endpoints.
const IN_CLUSTER: [&str; 4] = ["host", "remote-node", "health", "ingress"];

/// Policies and the cluster that they are for, ready to be reasoned about.
pub struct Universe {
    /// The cluster.
    pub case: Case,
    /// What was read.
    pub objects: Objects,
    /// What policies mean.
    pub side: Side,
    /// Who is there.
    pub world: World,
}

impl Universe {
    /// Of a cluster and policies. A policy that is refused is an error: nothing can be said without it.
    pub fn new(case: &Case, objects: Objects) -> Result<Universe> {
        let settings = settings(&case.config).map_err(anyhow::Error::msg)?;
        let wrong = objects.policies.iter().filter_map(|read| read.object.as_ref().err()).flatten();
        let wrong: Vec<String> = objects.problems.iter().chain(wrong).map(ToString::to_string).collect();
        if !wrong.is_empty() {
            return Err(anyhow!("{}", wrong.join("\n")));
        }
        let world = World::new(case, &objects, settings.clone()).map_err(anyhow::Error::msg)?;
        let policies = objects.policies.iter().filter_map(|read| read.object.as_ref().ok());
        let policies: Vec<PolicyObject> = policies.cloned().collect();
        let given = case.ip_labels.iter().filter_map(|one| policy::parse_prefix_or_address(&one.prefix));
        let groups = objects.groups.values().flat_map(|group| &group.prefixes).copied();
        let prefixes = given.chain(groups).collect();
        let side = Side { settings, policies, learned: world.learned.clone(), prefixes };
        Ok(Universe { case: case.clone(), objects, side, world })
    }

    /// Who is there, and all addresses outside; with `unseen`, whoever could be there.
    pub fn space(&self, unseen: bool) -> Result<Space> {
        let mut regions = self.addresses(unseen)?;
        if unseen {
            regions.extend(unseen_regions(&self.side.settings));
        }
        Ok(Space::new(self.parties(unseen), regions, self.side.settings.clone(), unseen))
    }

    fn parties(&self, unseen: bool) -> Vec<Party> {
        let repository = &self.world.repository;
        let mut by_identity: BTreeMap<u32, NamedPorts> = BTreeMap::new();
        for party in &self.world.parties {
            let all = by_identity.entry(party.identity).or_default();
            for (name, numbers) in &party.ports {
                all.entry(name.clone()).or_default().extend(numbers);
            }
        }
        let endpoints = self.world.parties.iter().map(|party| Party {
            name: party.name.clone(),
            identity: party.identity,
            labels: self.world.labels(party.identity).cloned().unwrap_or_default(),
            is_subject: party.local,
            ports: party.ports.clone(),
            identity_ports: by_identity.get(&party.identity).cloned().unwrap_or_default(),
        });
        let world = [id::UNKNOWN, id::WORLD, id::WORLD_IPV4, id::WORLD_IPV6];
        let mut others: Vec<(u32, &Labels)> = repository
            .identities()
            .filter(|(identity, _)| !by_identity.contains_key(identity) && !world.contains(identity))
            .filter(|(identity, _)| *identity < id::MINIMAL_ALLOCATED || *identity >= id::LOCAL_REMOTE_NODE)
            .collect();
        others.sort_unstable_by_key(|(identity, _)| *identity);
        let others = others.into_iter().map(|(identity, labels)| Party {
            name: self.name_of(identity),
            identity,
            labels: labels.clone(),
            // Endpoints of these kinds can be there, though the cluster names none.
            is_subject: unseen && [id::HEALTH, id::INIT, id::INGRESS].contains(&identity),
            ports: NamedPorts::new(),
            identity_ports: NamedPorts::new(),
        });
        endpoints.chain(others).collect()
    }

    fn name_of(&self, identity: u32) -> String {
        match identity::reserved_name(identity) {
            Some(name) => format!("reserved:{name}"),
            None => {
                let nodes = self.case.nodes.iter().filter(|node| {
                    self.world.find(&format!("node:{}", node.name), false).is_ok_and(|(_, found)| found == identity)
                });
                nodes.map(|node| format!("node:{}", node.name)).next().unwrap_or_else(|| format!("identity {identity}"))
            }
        }
    }

    fn addresses(&self, unseen: bool) -> Result<Vec<Region>> {
        let families = self.side.settings.families;
        let mut labelled: BTreeMap<IpNet, Vec<Label>> = BTreeMap::new();
        for one in &self.case.ip_labels {
            let prefix = policy::parse_prefix_or_address(&one.prefix)
                .ok_or_else(|| anyhow!("ip_labels: {:?} is not a prefix", one.prefix))?;
            let labels = Labels::parse(one.labels.iter().map(String::as_str))?;
            if let Some(name) = IN_CLUSTER.iter().find(|name| labels.has_reserved(name)) {
                bail!(
                    "ip_labels: {prefix} is reserved:{name}, not an address outside of the cluster: name it among nodes or endpoints"
                );
            }
            labelled.entry(prefix).or_default().extend(labels.iter().cloned());
        }
        let mut regions = Vec::new();
        for (is_used, whole) in [(families.ipv4, "0.0.0.0/0"), (families.ipv6, "::/0")] {
            if !is_used {
                continue;
            }
            let whole: IpNet = whole.parse()?;
            let world = identity::world_label(whole.addr().is_ipv6(), families);
            let within: Vec<IpNet> = labelled.keys().filter(|prefix| whole.contains(*prefix)).copied().collect();
            let plain = Area::new(whole).without(&within);
            regions.extend(plain.map(|area| Region::addresses(area, Labels::new([world.clone()]))));
            for prefix in &within {
                let more = labelled[prefix].iter().cloned();
                let labels = Labels::new([world.clone()].into_iter().chain(more));
                let narrower: Vec<IpNet> =
                    within.iter().filter(|one| *one != prefix && prefix.contains(*one)).copied().collect();
                let area = Area::new(*prefix).without(&narrower);
                regions.extend(area.map(|area| Region::addresses(area, labels)));
            }
            if unseen {
                let api = Labels::new([world, Label::reserved("kube-apiserver")]);
                regions.push(Region::addresses(Area::new(whole), api));
            }
        }
        Ok(regions)
    }
}

fn unseen_regions(settings: &Settings) -> Vec<Region> {
    let name = &settings.cluster_name;
    let mut regions = vec![Region::pods(name), Region::foreign_pods(name)];
    for api in [false, true] {
        regions.push(Region::host(api));
        regions.push(Region::remote_nodes(api, settings.node_selector_labels));
    }
    regions
}
