//! Whom, seen so far or not, do conditions on labels, addresses, names and ports leave over?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use labels::{CLUSTER, Label, Labels, NAMESPACE_LABELS, Operator, POD_NAMESPACE, Requirement, source};
use policy::Learned;

use crate::area::Area;
use crate::domain::{Domain, domains};

/// What somebody is, which no label of its own can change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A pod of the own cluster.
    Pod,
    /// A pod of another cluster.
    ForeignPod,
    /// The own node; true if it serves the API.
    Host(bool),
    /// Another node; true if it serves the API.
    RemoteNode(bool),
    /// An address outside of the cluster, with what labels it has beside that of its prefix.
    Address(Labels),
}

/// Whose port has a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// The identity, whose endpoints agree about it.
    Identity,
    /// The endpoint itself.
    Endpoint,
}

/// Protocol and name of a port.
pub type PortName = (u8, String);

/// As what somebody is asked for: the own node shows other labels as a subject than as a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Its policy is meant.
    Subject,
    /// It is the other end.
    Peer,
}

/// A part of all that can be there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Region {
    /// What they are.
    pub kind: Kind,
    /// The labels that all have.
    fixed: Labels,
    /// The source of the labels that they choose; empty if they choose none.
    chosen: &'static str,
    labels: BTreeMap<String, Domain>,
    area: Option<Area>,
    learned: BTreeMap<Learned, bool>,
    ports: BTreeMap<(Owner, PortName), bool>,
}

/// Who somebody is, and what of the port that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Somebody<'a> {
    /// What it is.
    pub kind: &'a Kind,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its address, if it is outside of the cluster.
    pub address: Option<IpAddr>,
    /// What its address was learned for.
    pub learned: &'a BTreeSet<Learned>,
    /// Names that the port has at the endpoint.
    pub names: &'a BTreeSet<PortName>,
    /// Names that the port has at the identity's endpoints, if these agree about them.
    pub identity_names: &'a BTreeSet<PortName>,
}

impl Region {
    /// All pods of the own cluster that can be.
    pub fn pods(cluster: &str) -> Region {
        let mut region = Region::new(Kind::Pod, Labels::new([Label::k8s(CLUSTER, cluster)]), source::K8S);
        region.labels.insert(CLUSTER.to_owned(), Domain::absent());
        region.labels.insert(POD_NAMESPACE.to_owned(), Domain::present());
        region
    }

    /// All pods of other clusters that can be.
    pub fn foreign_pods(cluster: &str) -> Region {
        let mut region = Region::new(Kind::ForeignPod, Labels::empty(), source::K8S);
        let other = Domain { absent: false, values: BTreeSet::from([cluster.to_owned()]), only: false };
        region.labels.insert(CLUSTER.to_owned(), other);
        region.labels.insert(POD_NAMESPACE.to_owned(), Domain::present());
        region
    }

    /// The own node, whatever its labels.
    pub fn host(serves_api: bool) -> Region {
        let api = serves_api.then(|| Label::reserved("kube-apiserver"));
        let labels = Labels::new([Label::reserved("host")].into_iter().chain(api));
        let mut region = Region::new(Kind::Host(serves_api), labels, source::K8S);
        region.labels.insert(CLUSTER.to_owned(), Domain::absent());
        region
    }

    /// Other nodes, whatever their labels, if nodes are told apart by labels.
    pub fn remote_nodes(serves_api: bool, by_labels: bool) -> Region {
        let api = serves_api.then(|| Label::reserved("kube-apiserver"));
        let labels = Labels::new([Label::reserved("remote-node")].into_iter().chain(api));
        let chosen = if by_labels { source::NODE } else { "" };
        Region::new(Kind::RemoteNode(serves_api), labels, chosen)
    }

    /// Addresses outside of the cluster. `labels` are those that they have beside that of their prefix.
    pub fn addresses(area: Area, labels: Labels) -> Region {
        Region { area: Some(area), ..Region::new(Kind::Address(labels.clone()), labels, "") }
    }

    fn new(kind: Kind, fixed: Labels, chosen: &'static str) -> Region {
        let (labels, learned, ports) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Region { kind, fixed, chosen, labels, area: None, learned, ports }
    }

    /// Those that fulfil the condition, and those that do not.
    pub fn split(&self, requirement: &Requirement, role: Role) -> (Option<Region>, Option<Region>) {
        let (yes, no) = (Some(self.clone()), None);
        let is_host = matches!(self.kind, Kind::Host(_));
        let chosen = if is_host && role == Role::Peer { "" } else { self.chosen };
        let by_fixed = match role {
            Role::Subject if is_host => requirement.matches(&Labels::reserved("host")),
            Role::Subject | Role::Peer => requirement.matches(&self.fixed),
        };
        let settled = match &requirement.operator {
            Operator::In(_) | Operator::Exists if by_fixed => return (yes, no),
            Operator::NotIn(_) | Operator::DoesNotExist if !by_fixed => return (no, yes),
            _ => chosen.is_empty() || ![source::ANY, chosen].contains(&requirement.key.source.as_str()),
        };
        if settled {
            return if by_fixed { (yes, no) } else { (no, yes) };
        }
        let key = self.canonical(&requirement.key.key);
        let (wanted, unwanted) = domains(&requirement.operator);
        (self.with_label(key, &wanted), self.with_label(key, &unwanted))
    }

    /// A namespace's label that is its name says the same as the name.
    fn canonical<'a>(&self, key: &'a str) -> &'a str {
        let pod = matches!(self.kind, Kind::Pod | Kind::ForeignPod);
        if pod && key == namespace_name() { POD_NAMESPACE } else { key }
    }

    fn with_label(&self, key: &str, domain: &Domain) -> Option<Region> {
        let narrowed = self.labels.get(key).unwrap_or(&Domain::ANYTHING).and(domain)?;
        let mut region = self.clone();
        region.labels.insert(key.to_owned(), narrowed);
        Some(region)
    }

    /// The addresses that are meant, if they are some.
    pub fn area(&self) -> Option<&Area> {
        self.area.as_ref()
    }

    /// The same with other addresses.
    pub fn with_area(&self, area: Area) -> Region {
        Region { area: Some(area), ..self.clone() }
    }

    /// Those whose address was learned for the name or pattern, or was not; `None` if it is settled otherwise.
    pub fn with_learned(&self, learned: &Learned, is: bool) -> Option<Region> {
        match self.learned.get(learned) {
            Some(known) => (*known == is).then(|| self.clone()),
            None => {
                let mut region = self.clone();
                region.learned.insert(learned.clone(), is);
                crate::names::possible(&region.learned).then_some(region)
            }
        }
    }

    /// Those that give the port this name, or do not.
    pub fn with_port_name(&self, owner: Owner, name: &PortName, is: bool) -> Option<Region> {
        let has_ports = matches!(self.kind, Kind::Pod | Kind::ForeignPod);
        if !has_ports {
            return (!is).then(|| self.clone());
        }
        let mut region = self.clone();
        let known = region.ports.insert((owner, name.clone()), is);
        known.is_none_or(|known| known == is).then_some(region)
    }

    /// What both have.
    pub fn and(&self, other: &Region) -> Option<Region> {
        let apart = |(key, domain): (&String, &Domain)| self.labels.get(key).is_some_and(|own| !own.meets(domain));
        if self.kind != other.kind || other.labels.iter().any(apart) {
            return None;
        }
        let mut region = self.clone();
        for (key, domain) in &other.labels {
            region = region.with_label(key, domain)?;
        }
        if let (Some(one), Some(two)) = (&self.area, &other.area) {
            region.area = Some(one.and(two)?);
        }
        for (learned, is) in &other.learned {
            region = region.with_learned(learned, *is)?;
        }
        for ((owner, name), is) in &other.ports {
            region = region.with_port_name(*owner, name, *is)?;
        }
        Some(region)
    }

    /// The same in fewer regions: two that differ in one label become one.
    pub fn joined(mut regions: Vec<Region>) -> Vec<Region> {
        if regions.len() < 3 {
            return regions;
        }
        let keys: BTreeSet<String> = regions.iter().flat_map(|region| region.labels.keys().cloned()).collect();
        for key in keys {
            let mut by_rest: HashMap<Region, Domain> = HashMap::with_capacity(regions.len());
            let mut order: Vec<Region> = Vec::with_capacity(regions.len());
            for mut region in regions {
                let domain = region.labels.remove(&key).unwrap_or(Domain::ANYTHING);
                match by_rest.get_mut(&region) {
                    Some(known) => *known = known.or(&domain),
                    None => {
                        order.push(region.clone());
                        by_rest.insert(region, domain);
                    }
                }
            }
            let whole = |mut region: Region| {
                let domain = by_rest.remove(&region).unwrap_or(Domain::ANYTHING);
                if domain != Domain::ANYTHING {
                    region.labels.insert(key.clone(), domain);
                }
                region
            };
            regions = order.into_iter().map(whole).collect();
        }
        let learned: BTreeSet<Learned> = regions.iter().flat_map(|region| region.learned.keys().cloned()).collect();
        for name in learned {
            regions = either_way(
                regions,
                |region| region.learned.remove(&name),
                |region, is| {
                    region.learned.insert(name.clone(), is);
                },
            );
        }
        let ports: BTreeSet<(Owner, PortName)> =
            regions.iter().flat_map(|region| region.ports.keys().cloned()).collect();
        for name in ports {
            regions = either_way(
                regions,
                |region| region.ports.remove(&name),
                |region, is| {
                    region.ports.insert(name.clone(), is);
                },
            );
        }
        regions
    }

    /// Labels of somebody in it, without the label of a prefix.
    pub fn example(&self) -> Labels {
        let chosen = self.labels.iter().filter_map(|(key, domain)| Some((key, domain.example()?)));
        let mut labels: Vec<Label> = chosen.map(|(key, value)| Label::new(self.chosen, key, value)).collect();
        let namespace = labels.iter().find(|label| label.key == POD_NAMESPACE).map(|label| label.value.clone());
        labels.extend(namespace.map(|name| Label::k8s(namespace_name(), name)));
        self.fixed.with(labels)
    }

    /// An address of somebody in it, preferably none of those that are taken.
    pub fn address(&self, taken: &dyn Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        self.area.as_ref().map(|area| area.address(taken))
    }

    /// True for addresses with labels besides that of the world, which have identities of their own.
    pub fn has_own_labels(&self) -> bool {
        self.area.is_some() && self.fixed.iter().count() > 1
    }

    /// Names and patterns that the address was learned for.
    pub fn learned(&self) -> impl Iterator<Item = &Learned> {
        self.learned.iter().filter(|(_, is)| **is).map(|(learned, _)| learned)
    }

    /// Names of the port, in the eyes of its identity or of itself.
    pub fn port_names(&self, owner: Owner) -> impl Iterator<Item = &PortName> {
        self.ports.iter().filter(move |((of, _), is)| **is && *of == owner).map(|((_, name), _)| name)
    }

    /// True if somebody is in it, as far as kind, labels, address and names of ports go.
    pub fn has(&self, who: &Somebody<'_>) -> bool {
        let label = |(key, domain): (&String, &Domain)| {
            // What all of the kind have is no choice of theirs.
            let value = who.labels.get(self.chosen, key).filter(|_| self.fixed.get(self.chosen, key).is_none());
            match value {
                None => domain.absent,
                Some(value) => domain.values.contains(value) == domain.only,
            }
        };
        let port = |((owner, name), is): (&(Owner, PortName), &bool)| {
            let names = if *owner == Owner::Identity { who.identity_names } else { who.names };
            names.contains(name) == *is
        };
        self.kind == *who.kind
            && self.labels.iter().all(label)
            && self.area.as_ref().is_none_or(|area| who.address.is_some_and(|address| area.has(&address)))
            && self.learned.iter().all(|(learned, is)| who.learned.contains(learned) == *is)
            && self.ports.iter().all(port)
    }

    /// DNS names that make the address learned for just what it is to be learned for.
    pub fn dns_names(&self) -> Vec<String> {
        crate::names::examples(&self.learned)
    }
}

/// Where it does not matter whether something is so, it is not said.
fn either_way(
    regions: Vec<Region>,
    take: impl Fn(&mut Region) -> Option<bool>,
    put: impl Fn(&mut Region, bool),
) -> Vec<Region> {
    let mut by_rest: HashMap<Region, [bool; 2]> = HashMap::with_capacity(regions.len());
    let mut order = Vec::with_capacity(regions.len());
    for mut region in regions {
        let is = take(&mut region);
        let known = by_rest.entry(region.clone()).or_insert_with(|| {
            order.push(region);
            [false, false]
        });
        known[0] |= is != Some(true);
        known[1] |= is != Some(false);
    }
    let whole = |mut region: Region| {
        match by_rest.get(&region) {
            Some([true, false]) => put(&mut region, false),
            Some([false, true]) => put(&mut region, true),
            _ => {}
        }
        region
    };
    order.into_iter().map(whole).collect()
}

fn namespace_name() -> &'static str {
    const KEY: &str = "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name";
    debug_assert!(KEY.starts_with(NAMESPACE_LABELS));
    KEY
}

/// `pods of namespace a, app=x, without tier`
impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match &self.kind {
            Kind::Pod => "pods".to_owned(),
            Kind::ForeignPod => "pods of other clusters".to_owned(),
            Kind::Host(false) => "the own node".to_owned(),
            Kind::Host(true) => "the own node if it serves the API".to_owned(),
            Kind::RemoteNode(false) => "other nodes".to_owned(),
            Kind::RemoteNode(true) => "other nodes that serve the API".to_owned(),
            Kind::Address(labels) => {
                let api = if labels.has_reserved("kube-apiserver") { " (serving the API)" } else { "" };
                format!("{}{api}", self.area.as_ref().map(ToString::to_string).unwrap_or_default())
            }
        };
        f.write_str(&what)?;
        let own = matches!(self.kind, Kind::Pod);
        let labels = self.labels.iter().filter(|(key, _)| !(own && *key == CLUSTER));
        for (key, domain) in labels {
            let shown = match key.as_str() {
                POD_NAMESPACE => "namespace",
                CLUSTER => "cluster",
                other => other,
            };
            // That pods are in a namespace goes without saying.
            let text = if *domain == Domain::present() && key == POD_NAMESPACE {
                String::new()
            } else {
                domain.describe(shown)
            };
            if !text.is_empty() {
                write!(f, ", {text}")?;
            }
        }
        for (learned, is) in &self.learned {
            let name = crate::names::text(learned);
            write!(f, ", {}learned for {name}", if *is { "" } else { "not " })?;
        }
        let mut told = BTreeSet::new();
        for ((_, (_, name)), is) in &self.ports {
            if told.insert((name, is)) {
                write!(f, ", whose port is {}called {name}", if *is { "" } else { "not " })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use labels::SelectorKey;

    fn requirement(key: &str, operator: Operator) -> Requirement {
        Requirement { key: key.parse::<SelectorKey>().unwrap(), operator }
    }

    fn values(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn both_parts_have_examples_that_are_in_them() {
        let conditions = [
            requirement("app", Operator::In(values(&["a", "b"]))),
            requirement("k8s:app", Operator::NotIn(values(&["a"]))),
            requirement("tier", Operator::Exists),
            requirement("tier", Operator::DoesNotExist),
            requirement("k8s:io.kubernetes.pod.namespace", Operator::In(values(&["x"]))),
            requirement("reserved:host", Operator::Exists),
        ];
        let all = [Region::pods("c"), Region::foreign_pods("c"), Region::host(false), Region::remote_nodes(true, true)];
        let mut regions: Vec<Region> = all.to_vec();
        for condition in &conditions {
            let mut next = Vec::new();
            for region in regions {
                let (yes, no) = region.split(condition, Role::Subject);
                for (part, is) in [(yes, true), (no, false)] {
                    let Some(part) = part else { continue };
                    assert_eq!(condition.matches(&part.example()), is, "{condition}: {part}");
                    next.push(part);
                }
            }
            regions = next;
        }
        assert!(regions.len() > 20);
    }

    #[test]
    fn the_own_node_shows_labels_of_kubernetes_as_a_subject_only() {
        let host = Region::host(true);
        let asked = |key: &str, role: Role| {
            let (yes, no) = host.split(&requirement(key, Operator::Exists), role);
            (yes.is_some(), no.is_some())
        };
        assert_eq!(asked("k8s:zone", Role::Subject), (true, true));
        assert_eq!(asked("k8s:zone", Role::Peer), (false, true));
        assert_eq!(asked("reserved:kube-apiserver", Role::Subject), (false, true));
        assert_eq!(asked("reserved:kube-apiserver", Role::Peer), (true, false));
        assert_eq!(asked("reserved:host", Role::Subject), (true, false));
        assert_eq!(asked("k8s:io.cilium.k8s.policy.cluster", Role::Subject), (false, true));
    }

    #[test]
    fn a_namespace_is_its_name() {
        let by_label = "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name";
        let (in_a, _) = Region::pods("c")
            .split(&requirement("k8s:io.kubernetes.pod.namespace", Operator::In(values(&["a"]))), Role::Peer);
        let (yes, no) = in_a.unwrap().split(&requirement(by_label, Operator::In(values(&["a"]))), Role::Peer);
        assert!(yes.is_some() && no.is_none());
    }
}
