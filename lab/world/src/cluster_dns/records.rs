//! What does the cluster's DNS know of namespaces, services and endpoints?

use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

/// The label by which a slice belongs to a service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An object's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace; empty for what has none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A service as far as names go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What its name stands for.
    pub kind: Kind,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// What the name of a service stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Addresses of its own.
    Addresses(Vec<IpAddr>),
    /// The addresses of its endpoints.
    Headless,
    /// Another name.
    External(Name),
}

/// A named port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name, perhaps empty.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The port.
    pub number: u16,
}

/// Some endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Of which service.
    pub service: Key,
    /// Those that are ready.
    pub endpoints: Vec<Endpoint>,
    /// Their ports.
    pub ports: Vec<Port>,
}

/// One address of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name below the service: the host name that it has, else the address with dashes.
    pub name: String,
    /// The address.
    pub address: IpAddr,
}

/// The kinds of objects that names come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Namespaces.
    Namespaces,
    /// Services.
    Services,
    /// Endpoint slices.
    Slices,
}

/// All that names are made of.
#[derive(Debug)]
pub struct Cluster {
    domain: Name,
    namespaces: HashSet<String>,
    services: HashMap<Key, Service>,
    slices: HashMap<Key, Slice>,
    slices_of: HashMap<Key, BTreeSet<Key>>,
    service_at: HashMap<IpAddr, Key>,
    slices_at: HashMap<IpAddr, BTreeSet<Key>>,
    listed: HashSet<Source>,
    changes: u32,
}

impl Cluster {
    /// A cluster of which nothing is known.
    pub fn new(domain: Name) -> Cluster {
        let mut domain = domain.to_lowercase();
        domain.set_fqdn(true);
        Cluster {
            domain,
            namespaces: HashSet::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            service_at: HashMap::new(),
            slices_at: HashMap::new(),
            listed: HashSet::new(),
            changes: 1,
        }
    }

    /// The domain that its names end with.
    pub fn domain(&self) -> &Name {
        &self.domain
    }

    /// Whether everything was listed once.
    pub fn complete(&self) -> bool {
        self.listed.len() == 3
    }

    /// A number that grows with each change.
    pub fn serial(&self) -> u32 {
        self.changes
    }

    /// Whether there is such a namespace.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// A service.
    pub fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key)
    }

    /// The slices of a service, in the order of their names.
    pub fn slices(&self, service: &Key) -> impl Iterator<Item = &Slice> {
        self.slices_of.get(service).into_iter().flatten().filter_map(|key| self.slices.get(key))
    }

    /// The service that has this address for its own.
    pub fn service_at(&self, address: IpAddr) -> Option<&Key> {
        self.service_at.get(&address)
    }

    /// Services and names of the endpoints that have this address.
    pub fn endpoints_at(&self, address: IpAddr) -> BTreeSet<(&Key, &str)> {
        let slices = self.slices_at.get(&address).into_iter().flatten().filter_map(|key| self.slices.get(key));
        slices
            .flat_map(|s| s.endpoints.iter().filter(|e| e.address == address).map(|e| (&s.service, e.name.as_str())))
            .collect()
    }

    /// Takes note of a namespace.
    pub fn set_namespace(&mut self, name: &str) {
        self.changes = self.changes.wrapping_add(1);
        self.namespaces.insert(name.to_string());
    }

    /// Takes note of a service; one that cannot be named is as none.
    pub fn set_service(&mut self, key: Key, service: Option<Service>) {
        self.remove(Source::Services, &key);
        let Some(service) = service else { return };
        if let Kind::Addresses(addresses) = &service.kind {
            self.service_at.extend(addresses.iter().map(|a| (*a, key.clone())));
        }
        self.services.insert(key, service);
    }

    /// Takes note of a slice; one that belongs to no service is as none.
    pub fn set_slice(&mut self, key: Key, slice: Option<Slice>) {
        self.remove(Source::Slices, &key);
        let Some(slice) = slice else { return };
        self.slices_of.entry(slice.service.clone()).or_default().insert(key.clone());
        for endpoint in &slice.endpoints {
            self.slices_at.entry(endpoint.address).or_default().insert(key.clone());
        }
        self.slices.insert(key, slice);
    }

    /// Forgets an object.
    pub fn remove(&mut self, source: Source, key: &Key) {
        self.changes = self.changes.wrapping_add(1);
        match source {
            Source::Namespaces => drop(self.namespaces.remove(&key.name)),
            Source::Services => {
                if let Some(Service { kind: Kind::Addresses(addresses), .. }) = self.services.remove(key) {
                    // another service may have taken the address in the meantime
                    addresses.iter().for_each(|a| drop(remove_if(&mut self.service_at, a, |owner| owner == key)));
                }
            }
            Source::Slices => {
                let Some(slice) = self.slices.remove(key) else { return };
                take_out(&mut self.slices_of, &slice.service, key);
                slice.endpoints.iter().for_each(|e| take_out(&mut self.slices_at, &e.address, key));
            }
        }
    }

    /// Ends a list of all objects of a kind: those that are not in it are gone.
    pub fn listed(&mut self, source: Source, present: &HashSet<Key>) {
        let known: Vec<Key> = match source {
            Source::Namespaces => {
                let key = |name: &String| Key { namespace: String::new(), name: name.clone() };
                self.namespaces.iter().map(key).collect()
            }
            Source::Services => self.services.keys().cloned().collect(),
            Source::Slices => self.slices.keys().cloned().collect(),
        };
        known.iter().filter(|key| !present.contains(key)).for_each(|key| self.remove(source, key));
        self.listed.insert(source);
    }
}

fn remove_if<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: &K, is: impl Fn(&V) -> bool) -> Option<V> {
    if map.get(key).is_some_and(is) { map.remove(key) } else { None }
}

fn take_out<K: std::hash::Hash + Eq>(map: &mut HashMap<K, BTreeSet<Key>>, from: &K, key: &Key) {
    let Some(set) = map.get_mut(from) else { return };
    set.remove(key);
    if set.is_empty() {
        map.remove(from);
    }
}

/// What the API's service means for names.
pub fn service(object: &core::Service) -> Option<Service> {
    let spec = object.spec.as_ref()?;
    let kind = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (Some("ExternalName"), _) => {
            let mut name = Name::from_ascii(spec.external_name.as_deref()?).ok()?;
            name.set_fqdn(true);
            Kind::External(name)
        }
        (_, Some("None")) => Kind::Headless,
        (_, first) => {
            let all = spec.cluster_ips.as_deref().unwrap_or_default().iter().map(String::as_str);
            let mut addresses: Vec<IpAddr> = all.chain(first).filter_map(|a| a.parse().ok()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            Kind::Addresses(addresses)
        }
    };
    let port = |p: &core::ServicePort| port(p.name.as_deref(), p.protocol.as_deref(), Some(p.port));
    Some(Service { kind, ports: spec.ports.iter().flatten().filter_map(port).collect() })
}

/// What the API's endpoint slice means for names.
pub fn slice(object: &discovery::EndpointSlice) -> Option<Slice> {
    let metadata = &object.metadata;
    let name = metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
    let service = Key { namespace: metadata.namespace.clone().unwrap_or_default(), name };
    let ready = |e: &&discovery::Endpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    let endpoints = object.endpoints.iter().filter(ready).filter_map(endpoint).collect();
    let port = |p: &discovery::EndpointPort| port(p.name.as_deref(), p.protocol.as_deref(), p.port);
    Some(Slice { service, endpoints, ports: object.ports.iter().flatten().filter_map(port).collect() })
}

fn endpoint(endpoint: &discovery::Endpoint) -> Option<Endpoint> {
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let named = endpoint.hostname.clone().filter(|n| !n.is_empty());
    Some(Endpoint { name: named.unwrap_or_else(|| dashed(address)), address })
}

/// An address as a label: `10-244-1-5`.
pub fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn port(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or_default().to_lowercase(),
        protocol: protocol.unwrap_or("TCP").to_lowercase(),
        number: u16::try_from(number?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{from_value, json};

    fn key(name: &str) -> Key {
        Key { namespace: "shop".into(), name: name.into() }
    }

    fn with_address(address: &str) -> Option<Service> {
        service(&from_value(json!({"spec": {"clusterIP": address, "ports": [{"port": 80}]}})).unwrap())
    }

    fn with_endpoint(of: &str, address: &str) -> Option<Slice> {
        let object = json!({"metadata": {"namespace": "shop", "labels": {SERVICE_NAME: of}}, "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}]});
        slice(&from_value(object).unwrap())
    }

    #[test]
    fn an_address_belongs_to_who_had_it_last() {
        let address = "10.96.0.7".parse().unwrap();
        let mut cluster = Cluster::new(Name::from_ascii("Cluster.Local").unwrap());
        cluster.set_service(key("a"), with_address("10.96.0.7"));
        cluster.set_service(key("b"), with_address("10.96.0.7"));
        cluster.remove(Source::Services, &key("a"));
        assert_eq!(cluster.service_at(address), Some(&key("b")));
        cluster.set_service(key("b"), with_address("10.96.0.8"));
        assert_eq!(cluster.service_at(address), None);
    }

    #[test]
    fn slices_leave_nothing_behind() {
        let address = "10.244.1.5".parse().unwrap();
        let mut cluster = Cluster::new(Name::from_ascii("cluster.local").unwrap());
        cluster.set_slice(key("a-1"), with_endpoint("a", "10.244.1.5"));
        cluster.set_slice(key("a-2"), with_endpoint("a", "10.244.1.5"));
        assert_eq!(cluster.endpoints_at(address).len(), 1);
        cluster.set_slice(key("a-1"), with_endpoint("b", "10.244.1.6"));
        assert_eq!(cluster.slices(&key("a")).count(), 1);
        cluster.listed(Source::Slices, &[key("a-1")].into());
        assert!(cluster.endpoints_at(address).is_empty());
        cluster.set_slice(key("a-1"), None);
        assert!(cluster.slices.is_empty() && cluster.slices_of.is_empty() && cluster.slices_at.is_empty());
    }

    #[test]
    fn complete_when_all_kinds_were_listed() {
        let mut cluster = Cluster::new(Name::from_ascii("cluster.local").unwrap());
        for source in [Source::Namespaces, Source::Services, Source::Services, Source::Slices] {
            assert!(!cluster.complete());
            cluster.listed(source, &HashSet::new());
        }
        assert!(cluster.complete());
    }

    #[test]
    fn only_ready_endpoints_count_and_host_names_come_first() {
        let object = json!({"metadata": {"namespace": "shop", "labels": {SERVICE_NAME: "db"}}, "addressType": "IPv6",
            "endpoints": [
                {"addresses": ["fd00::5"], "conditions": {"ready": false}},
                {"addresses": ["fd00::6"], "hostname": "db-1"},
                {"addresses": ["fd00::7"], "conditions": {"ready": true}},
                {"addresses": ["nonsense"]},
            ],
            "ports": [{"name": "SQL", "port": 5432}, {"port": 99999}]});
        let slice = slice(&from_value(object).unwrap()).unwrap();
        let names: Vec<&str> = slice.endpoints.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["db-1", "fd00--7"]);
        assert_eq!(slice.ports, [Port { name: "sql".into(), protocol: "tcp".into(), number: 5432 }]);
    }

    #[test]
    fn services_are_addresses_names_or_their_endpoints() {
        let of = |spec| service(&from_value(json!({ "spec": spec })).unwrap()).map(|s| s.kind);
        assert_eq!(of(json!({"clusterIP": "None"})), Some(Kind::Headless));
        let both = of(json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"]}));
        let addresses = ["10.96.0.7", "fd00::7"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(both, Some(Kind::Addresses(addresses)));
        let external = Name::from_ascii("cnn.com.").unwrap();
        assert_eq!(of(json!({"type": "ExternalName", "externalName": "cnn.com"})), Some(Kind::External(external)));
        assert_eq!(of(json!({"type": "ExternalName"})), None);
    }
}
