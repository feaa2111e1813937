//! What does the engine say, with all policies, of one flow between somebody of two sets?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use analysis::{ELSEWHERE, Kind, Owner, PortName, Region, Set, Space};
use policy::Learned;

use crate::case::{AddressLabels, Case, Endpoint, Flow, Name, NamedPort, Node, Text};
use crate::judge::{Judge, Verdict};
use crate::objects::Objects;
use crate::world::{World, settings};

/// A flow, and the cluster with whoever it takes for it.
pub struct Witness {
    /// The cluster.
    pub case: Case,
    /// The flow.
    pub flow: Flow,
    /// Labels of those who are not there.
    pub made_up: BTreeMap<String, Vec<String>>,
}

impl Witness {
    /// A flow from somebody of the one set to somebody of the other.
    pub fn new(space: &Space, case: &Case, ends: [&Set; 2], protocol: u8, port: u16) -> Option<Witness> {
        let mut witness = Witness { case: case.clone(), flow: Flow::default(), made_up: BTreeMap::new() };
        let [source, destination] = ends;
        witness.flow.src = witness.end(space, source, "unseen-source", (protocol, port))?;
        witness.flow.dst = witness.end(space, destination, "unseen-destination", (protocol, port))?;
        witness.flow.ipv6 = [&witness.flow.src, &witness.flow.dst]
            .iter()
            .any(|name| name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()));
        witness.flow.proto = crate::protocol::text(protocol);
        if [1, 58].contains(&protocol) {
            witness.flow.icmp_type = u8::try_from(port).ok();
        } else {
            witness.flow.port = port;
        }
        Some(witness)
    }

    /// What the engine says of it with these policies.
    pub fn verdict(&self, objects: &Objects, mode: &str) -> Result<Verdict, String> {
        let mut case = self.case.clone();
        mode.clone_into(&mut case.config.mode);
        let mut world = World::new(&case, objects, settings(&case.config)?)?;
        Judge::new(&mut world, false).verdict(&self.flow)
    }

    fn end(&mut self, space: &Space, set: &Set, name: &str, port: (u8, u16)) -> Option<String> {
        if let Some(party) = set.parties().next().map(|at| space.party(at)) {
            let Some(reserved) = party.name.strip_prefix("reserved:").filter(|_| party.is_subject) else {
                return Some(party.name.clone());
            };
            let endpoint = Endpoint { name: name.to_owned(), reserved: reserved.to_owned(), ..Endpoint::default() };
            self.case.endpoints.push(endpoint);
            self.made_up.insert(name.to_owned(), party.labels.to_strings());
            return Some(format!("default/{name}"));
        }
        let region = set.regions.first()?;
        let example = region.example();
        let plain = || example.iter().map(|label| (label.key.clone(), Text(label.value.clone())));
        match &region.kind {
            Kind::Pod | Kind::ForeignPod => {
                let foreign = region.kind == Kind::ForeignPod;
                let raw_labels = example.to_strings();
                self.made_up.insert(name.to_owned(), raw_labels.clone());
                self.case.endpoints.push(Endpoint {
                    name: name.to_owned(),
                    raw_labels: raw_labels.clone(),
                    cluster_id: foreign.then(|| self.other_cluster()),
                    remote: foreign,
                    ports: ports(region, Owner::Endpoint, port),
                    ..Endpoint::default()
                });
                // Another endpoint of the identity can have more names.
                let of_others = ports(region, Owner::Identity, port);
                if of_others.len() > ports(region, Owner::Endpoint, port).len() {
                    self.case.endpoints.push(Endpoint {
                        name: format!("{name}-too"),
                        raw_labels,
                        cluster_id: foreign.then(|| self.other_cluster()),
                        remote: foreign,
                        ports: of_others,
                        ..Endpoint::default()
                    });
                }
                Some(format!("default/{name}"))
            }
            Kind::Host(api) => {
                self.case.nodes.retain(|node| !node.local);
                self.case.endpoints.retain(|one| one.reserved != "host");
                self.case.nodes.push(Node {
                    name: name.to_owned(),
                    local: true,
                    kube_apiserver: *api,
                    ..Node::default()
                });
                let labels = plain().filter(|(key, _)| !["host", "kube-apiserver"].contains(&key.as_str()));
                let endpoint = Endpoint {
                    name: name.to_owned(),
                    reserved: "host".to_owned(),
                    labels: labels.collect(),
                    ..Endpoint::default()
                };
                self.case.endpoints.push(endpoint);
                self.made_up.insert(name.to_owned(), example.to_strings());
                Some(format!("default/{name}"))
            }
            Kind::RemoteNode(api) => {
                let labels = plain().filter(|(key, _)| !["remote-node", "kube-apiserver"].contains(&key.as_str()));
                let node =
                    Node { name: name.to_owned(), kube_apiserver: *api, labels: labels.collect(), ..Node::default() };
                self.case.nodes.push(node);
                self.made_up.insert(name.to_owned(), example.to_strings());
                Some(format!("node:{name}"))
            }
            Kind::Address(labels) => {
                let taken = self.taken();
                let address = region.address(&|address| taken.contains(address))?;
                let names = region.dns_names().into_iter().map(|name| Name { name, ips: vec![address.to_string()] });
                self.case.dns.extend(names);
                if labels.has_reserved("kube-apiserver") {
                    let labels = vec!["reserved:kube-apiserver".to_owned()];
                    self.case.ip_labels.push(AddressLabels { prefix: address.to_string(), labels });
                }
                // Whatever that policy is, it gives the address an identity of its own.
                let elsewhere = |learned: &Learned| *learned == Learned::Name(ELSEWHERE.to_owned());
                if region.learned().any(elsewhere) {
                    let labels = vec![format!("fqdn:{ELSEWHERE}")];
                    self.case.ip_labels.push(AddressLabels { prefix: address.to_string(), labels });
                }
                Some(address.to_string())
            }
        }
    }

    /// Another cluster than the own.
    fn other_cluster(&self) -> u32 {
        let own = self.case.config.cluster_id;
        if own < 255 { own + 1 } else { 1 }
    }

    fn taken(&self) -> BTreeSet<IpAddr> {
        let endpoints = self.case.endpoints.iter().flat_map(|one| &one.ips);
        let all = endpoints.chain(self.case.nodes.iter().flat_map(|one| &one.ips));
        all.filter_map(|text| text.split('/').next()?.parse().ok()).collect()
    }
}

fn ports(region: &Region, owner: Owner, (protocol, port): (u8, u16)) -> Vec<NamedPort> {
    let names = region.port_names(owner).filter(|(of, _): &&PortName| *of == protocol);
    names.map(|(_, name)| NamedPort { name: name.clone(), port, protocol: crate::protocol::text(protocol) }).collect()
}
