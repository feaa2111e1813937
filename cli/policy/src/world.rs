//! Who is there, and what do policies mean for them?

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use abi::identity as id;
use foldhash::fast::RandomState as FastHash;
use identity::{Families, LocalAllocator, NumericIdentity, cidr_labels, reserved_by_labels, reserved_labels};
use ipnet::IpNet;
use labels::{CLUSTER, Label, LabelFilter, Labels, Workload, source, workload_labels};
use policy::{
    AllowLocalhost, EndpointPolicy, Known, Learned, Mode, NamedPorts, PolicyObject, Repository, SchemaMode, Settings,
};

use crate::address::{Addresses, prefix};
use crate::case::{Case, Config, Endpoint, Map, Node, Service};
use crate::objects::Objects;

/// Somebody who can have a policy.
pub struct Party {
    /// `namespace/name`
    pub name: String,
    /// Its identity.
    pub identity: NumericIdentity,
    /// Its policy is asked here.
    pub local: bool,
    ports: NamedPorts,
    policy: Option<Arc<EndpointPolicy>>,
}

/// Everything that a verdict depends on.
pub struct World {
    /// Policies and identities.
    pub repository: Repository,
    /// The endpoints in the order of the case.
    pub parties: Vec<Party>,
    /// By `namespace/name`, and by the name alone in the namespace default.
    by_name: HashMap<String, usize, FastHash>,
    by_address: HashMap<IpAddr, usize, FastHash>,
    addresses: Addresses,
    nodes: HashMap<String, NumericIdentity>,
    names: Vec<(String, Vec<IpAddr>)>,
    by_dns_name: HashMap<String, Vec<IpAddr>>,
    identities: Identities,
}

/// The settings that a case's configuration asks for.
pub fn settings(config: &Config) -> Result<Settings, String> {
    let wrong = |field: &str, found: &str, known: &str| format!("config.{field}: {found:?} is not one of {known}");
    let mode = match config.mode.as_str() {
        "default" | "" => Mode::Default,
        "always" => Mode::Always,
        "never" => Mode::Never,
        other => return Err(wrong("mode", other, "default, always, never")),
    };
    let allow_localhost = match config.allow_localhost.as_str() {
        "always" | "auto" | "" => AllowLocalhost::Always,
        "policy" => AllowLocalhost::Policy,
        other => return Err(wrong("allow_localhost", other, "always, policy")),
    };
    let schema = match config.crd.as_str() {
        "reject" | "" => SchemaMode::Reject,
        "warn" => SchemaMode::Warn,
        // YAML takes off for false.
        "off" | "false" => SchemaMode::Off,
        other => return Err(wrong("crd", other, "reject, warn, off")),
    };
    if let Some(other) = config.cidr_match_mode.iter().find(|mode| !["nodes", "pods"].contains(&mode.as_str())) {
        return Err(wrong("cidr_match_mode", other, "nodes, pods"));
    }
    let matches = |mode: &str| config.cidr_match_mode.iter().any(|one| one == mode);
    Ok(Settings {
        mode,
        cluster_name: config.cluster_name.clone(),
        cluster_id: config.cluster_id,
        any_cluster: config.any_cluster,
        families: Families { ipv4: config.ipv4, ipv6: config.ipv6 },
        allow_localhost,
        cidr_matches_nodes: matches("nodes"),
        cidr_matches_pods: matches("pods"),
        host_firewall: config.host_firewall,
        node_selector_labels: config.node_selector_labels,
        extended_ip_protocols: config.extended_ip_protocols,
        l7_proxy: !config.no_l7_proxy,
        icmp_rules: !config.no_icmp_rules,
        schema,
    })
}

/// Numbers for labels.
struct Identities {
    by_labels: HashMap<(u32, Labels), NumericIdentity>,
    next: HashMap<u32, NumericIdentity>,
    addresses: LocalAllocator,
    nodes: LocalAllocator,
}

impl Identities {
    fn new() -> Self {
        Identities {
            by_labels: HashMap::new(),
            next: HashMap::new(),
            addresses: LocalAllocator::default(),
            nodes: LocalAllocator::with_range(id::LOCAL_REMOTE_NODE, id::LOCAL_REMOTE_NODE + (1 << 24) - 1),
        }
    }

    fn workload(&mut self, cluster: u32, labels: &Labels) -> NumericIdentity {
        if let Some(known) = self.by_labels.get(&(cluster, labels.clone())) {
            return *known;
        }
        let next = self.next.entry(cluster).or_insert((cluster << 16) + id::MINIMAL_ALLOCATED);
        let number = *next;
        *next += 1;
        self.by_labels.insert((cluster, labels.clone()), number);
        number
    }

    fn address(&mut self, labels: &Labels) -> Result<NumericIdentity, String> {
        self.addresses.acquire(labels).map(|one| one.identity).map_err(|error| error.to_string())
    }

    /// Labels that somebody made up: what Cilium would take them for.
    fn of(&mut self, cluster: u32, labels: &Labels) -> Result<NumericIdentity, String> {
        if let Some(reserved) = reserved_by_labels(labels) {
            return Ok(reserved);
        }
        let local = [source::CIDR, source::FQDN, source::RESERVED, source::CIDR_GROUP];
        if !labels.is_empty() && labels.iter().all(|label| local.contains(&label.source.as_str())) {
            return self.address(labels);
        }
        Ok(self.workload(cluster, labels))
    }
}

impl World {
    /// The world of a case, in which its policies hold. Wrong policies are left out.
    pub fn new(case: &Case, objects: &Objects, settings: Settings) -> Result<World, String> {
        let mut world = World {
            repository: Repository::new(settings),
            parties: Vec::new(),
            by_name: HashMap::default(),
            by_address: HashMap::default(),
            addresses: Addresses::default(),
            nodes: HashMap::new(),
            names: case.dns.iter().map(|name| (policy::canonical_name(&name.name), ips(&name.ips))).collect(),
            by_dns_name: HashMap::new(),
            identities: Identities::new(),
        };
        for (name, addresses) in &world.names {
            world.by_dns_name.entry(name.clone()).or_default().extend(addresses);
        }
        let policies = objects.policies.iter().filter_map(|read| read.object.as_ref().ok());
        policies.for_each(|policy| drop(world.repository.upsert_policy(PolicyObject::clone(policy))));
        world.add_reserved();
        world.learn(case, objects);
        world.add_nodes(case)?;
        for endpoint in &case.endpoints {
            world.add_endpoint(case, objects, endpoint)?;
        }
        world.add_addresses(case)?;
        world.add_named_ports();
        Ok(world)
    }

    fn families(&self) -> Families {
        self.repository.settings().families
    }

    fn add_reserved(&mut self) {
        let dual = self.families().ipv4 && self.families().ipv6;
        for (number, _) in identity::RESERVED {
            let other_family = [id::WORLD_IPV4, id::WORLD_IPV6].contains(number) && !dual;
            if *number == id::UNKNOWN || other_family {
                continue;
            }
            if let Some(labels) = reserved_labels(*number) {
                self.repository.upsert_identity(*number, &labels);
            }
        }
    }

    /// Names, groups and services that policies speak of.
    fn learn(&mut self, case: &Case, objects: &Objects) {
        let services: Vec<&Service> = case.services.iter().chain(&objects.services).collect();
        let wanted: Vec<Learned> = self.repository.learned().cloned().collect();
        for learned in wanted {
            let known = match &learned {
                Learned::Name(wanted) => self.addresses_of(|name| name == wanted).into(),
                Learned::Pattern(pattern) => self.addresses_of(|name| policy::name_matches(pattern, name)).into(),
                Learned::Group(name, _) => {
                    objects.groups.get(name).map(|group| group.prefixes.clone()).unwrap_or_default().into()
                }
                Learned::Groups(selector, _) => {
                    let groups = objects.groups.values().filter(|group| selector.matches(&group.labels));
                    groups.flat_map(|group| group.prefixes.iter().copied()).collect::<Vec<IpNet>>().into()
                }
                Learned::Service(namespace, name) => {
                    let is = |one: &Service| in_namespace(one, namespace) && one.name == *name;
                    self.backends(services.iter().filter(|one| is(one)))
                }
                Learned::Services(namespace, selector) => {
                    let is = |one: &Service| in_namespace(one, namespace) && selector.matches(&plain(&one.labels));
                    self.backends(services.iter().filter(|one| is(one)))
                }
            };
            self.repository.set_learned(&learned, known);
        }
    }

    fn addresses_of(&self, is: impl Fn(&str) -> bool) -> Vec<IpNet> {
        let names = self.names.iter().filter(|(name, _)| is(name));
        names.flat_map(|(_, addresses)| addresses.iter().copied().map(IpNet::from)).collect()
    }

    /// The pods of services that have selectors, the addresses of others.
    fn backends<'a>(&self, services: impl Iterator<Item = &'a &'a Service>) -> Known {
        let mut known = Known::default();
        for service in services {
            let selector = service.selector.iter().map(|(key, value)| (key.as_str(), value.0.as_str()));
            let backends = ips(&service.backends).into_iter().map(IpNet::from);
            known.add_service(or_default(&service.namespace), selector, backends, self.repository.settings());
        }
        known
    }

    fn add_nodes(&mut self, case: &Case) -> Result<(), String> {
        let settings = self.repository.settings();
        let by_labels = settings.node_selector_labels || settings.cidr_matches_nodes;
        for node in &case.nodes {
            let identity = if node.local {
                self.local_host(case, node)
            } else if by_labels {
                let labels = self.node_labels(node);
                let acquired = self.identities.nodes.acquire(&labels).map_err(|error| error.to_string())?;
                self.repository.upsert_identity(acquired.identity, &labels);
                acquired.identity
            } else if node.kube_apiserver {
                id::KUBE_APISERVER
            } else {
                id::REMOTE_NODE
            };
            self.nodes.insert(node.name.clone(), identity);
            for address in ips(&node.ips) {
                self.addresses.set(IpNet::from(address), identity);
            }
        }
        Ok(())
    }

    /// The own node: its labels are those of the node and of its endpoint.
    fn local_host(&mut self, case: &Case, node: &Node) -> NumericIdentity {
        let endpoint = case.endpoints.iter().find(|one| one.reserved == "host");
        let labels = host_labels(endpoint, Some(node), self.node_prefix(node));
        self.repository.upsert_identity(id::HOST, &labels);
        id::HOST
    }

    fn node_prefix(&self, node: &Node) -> Option<Label> {
        let by_prefix = self.repository.settings().cidr_matches_nodes;
        let first = ips(&node.ips).into_iter().next();
        first.filter(|_| by_prefix).map(|address| identity::cidr_label(IpNet::from(address)))
    }

    fn node_labels(&self, node: &Node) -> Labels {
        let settings = self.repository.settings();
        let cluster = if node.cluster.is_empty() { &settings.cluster_name } else { &node.cluster };
        let mut labels = vec![Label::reserved("remote-node")];
        if node.kube_apiserver {
            labels.push(Label::reserved("kube-apiserver"));
        }
        if settings.node_selector_labels {
            labels.extend(node.labels.iter().map(|(key, value)| Label::new(source::NODE, key, &value.0)));
            labels.push(Label::k8s(CLUSTER, cluster.as_str()));
        }
        labels.extend(self.node_prefix(node));
        labels.into_iter().collect()
    }

    fn add_endpoint(&mut self, case: &Case, objects: &Objects, endpoint: &Endpoint) -> Result<(), String> {
        let name = format!("{}/{}", or_default(&endpoint.namespace), endpoint.name);
        let labels = self.endpoint_labels(case, objects, endpoint).map_err(|why| format!("endpoint {name}: {why}"))?;
        let cluster = endpoint.cluster_id.unwrap_or(case.config.cluster_id);
        let identity = match endpoint.reserved.as_str() {
            "host" if endpoint.raw_labels.is_empty() => id::HOST,
            _ => self.identities.of(cluster, &labels)?,
        };
        self.repository.upsert_identity(identity, &labels);
        let at = self.parties.len();
        for address in ips(&endpoint.ips) {
            self.addresses.set(IpNet::from(address), identity);
            self.by_address.insert(address, at);
        }
        let ports = if case.config.no_port_labels { NamedPorts::new() } else { named_ports(endpoint) };
        if let Some(short) = name.strip_prefix("default/").filter(|short| !short.contains('/')) {
            self.by_name.insert(short.to_owned(), at);
        }
        self.by_name.insert(name.clone(), at);
        self.parties.push(Party { name, identity, local: !endpoint.remote, ports, policy: None });
        Ok(())
    }

    fn endpoint_labels(&self, case: &Case, objects: &Objects, endpoint: &Endpoint) -> Result<Labels, String> {
        if !endpoint.raw_labels.is_empty() {
            let labels = Labels::parse(endpoint.raw_labels.iter().map(String::as_str));
            return labels.map_err(|error| error.to_string());
        }
        match endpoint.reserved.as_str() {
            "" => Ok(self.pod_labels(case, objects, endpoint)),
            "host" => {
                let node = case.nodes.iter().find(|node| node.local);
                Ok(host_labels(Some(endpoint), node, node.and_then(|node| self.node_prefix(node))))
            }
            reserved => {
                let own = endpoint.labels.iter().map(|(key, value)| Label::k8s(key, &value.0));
                Ok(own.chain([Label::reserved(reserved)]).collect())
            }
        }
    }

    fn pod_labels(&self, case: &Case, objects: &Objects, endpoint: &Endpoint) -> Labels {
        let namespace = or_default(&endpoint.namespace);
        let mut of_namespace = objects.namespaces.get(namespace).cloned().unwrap_or_default();
        of_namespace.extend(case.namespaces.get(namespace).map(strings).unwrap_or_default());
        of_namespace.extend(endpoint.namespace_labels.as_ref().map(strings).unwrap_or_default());
        let settings = self.repository.settings();
        let workload = Workload {
            labels: &strings(&endpoint.labels),
            namespace,
            namespace_labels: &of_namespace,
            service_account: &endpoint.service_account,
            cluster: if endpoint.cluster.is_empty() { &settings.cluster_name } else { &endpoint.cluster },
        };
        workload_labels(&workload, &LabelFilter::default())
    }

    /// Prefixes that policies speak of, and those that have labels.
    fn add_addresses(&mut self, case: &Case) -> Result<(), String> {
        let mut given: BTreeMap<IpNet, Vec<Label>> = BTreeMap::new();
        for one in &case.ip_labels {
            let Some(prefix) = prefix(&one.prefix) else {
                return Err(format!("ip_labels: {:?} is not a prefix", one.prefix));
            };
            let labels = Labels::parse(one.labels.iter().map(String::as_str)).map_err(|error| error.to_string())?;
            given.entry(prefix).or_default().extend(labels.iter().cloned());
        }
        let named = self.repository.prefixes();
        for prefix in named.iter().copied().chain(given.keys().copied()) {
            if self.addresses.exact(&prefix).is_some() {
                continue;
            }
            let more = given.get(&prefix).into_iter().flatten().cloned();
            let labels = cidr_labels(prefix, self.families()).with(more);
            let in_cluster = ["host", "remote-node"].iter().any(|name| labels.has_reserved(name));
            let identity = if in_cluster { self.node_identity(&labels) } else { self.identities.address(&labels)? };
            self.repository.upsert_identity(identity, &labels);
            self.addresses.set(prefix, identity);
        }
        Ok(())
    }

    fn node_identity(&self, labels: &Labels) -> NumericIdentity {
        reserved_by_labels(labels).unwrap_or(id::REMOTE_NODE)
    }

    fn add_named_ports(&mut self) {
        let mut by_identity: BTreeMap<NumericIdentity, NamedPorts> = BTreeMap::new();
        for party in &self.parties {
            let ports = by_identity.entry(party.identity).or_default();
            for (name, numbers) in &party.ports {
                ports.entry(name.clone()).or_default().extend(numbers);
            }
        }
        for (identity, ports) in by_identity {
            self.repository.set_named_ports(identity, ports);
        }
    }

    /// The policy of an endpoint.
    pub fn policy(&mut self, party: usize) -> Option<Arc<EndpointPolicy>> {
        let Party { identity, ports, policy, .. } = self.parties.get_mut(party)?;
        if policy.is_none() {
            *policy = self.repository.endpoint_policy(*identity, ports);
        }
        policy.clone()
    }

    /// The policy of an endpoint, if it was asked for before.
    pub fn made_policy(&self, party: usize) -> Option<&Arc<EndpointPolicy>> {
        self.parties.get(party)?.policy.as_ref()
    }

    /// The labels of an identity.
    pub fn labels(&self, identity: NumericIdentity) -> Option<&Labels> {
        self.repository.identity_labels(identity)
    }

    /// Who is called this.
    pub fn find(&self, text: &str, ipv6: bool) -> Result<(Option<usize>, NumericIdentity), String> {
        let party = |at: usize| (Some(at), self.parties[at].identity);
        if let Some(name) = text.strip_prefix("node:") {
            let identity = self.nodes.get(name).ok_or_else(|| format!("there is no node {name:?}"))?;
            return Ok((None, *identity));
        }
        if let Some(name) = text.strip_prefix("dns:") {
            return self.find_name(name, ipv6);
        }
        if let Some(name) = text.strip_prefix("reserved:") {
            return Ok((None, self.reserved(name, ipv6)?));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(self.find_address(address));
        }
        self.by_name.get(text).map(|at| party(*at)).ok_or_else(|| format!("there is no endpoint {text:?}"))
    }

    fn find_address(&self, address: IpAddr) -> (Option<usize>, NumericIdentity) {
        if let Some(at) = self.by_address.get(&address) {
            return (Some(*at), self.parties[*at].identity);
        }
        let world = || self.world(address.is_ipv6());
        (None, self.addresses.of(address).unwrap_or_else(world))
    }

    fn find_name(&self, name: &str, ipv6: bool) -> Result<(Option<usize>, NumericIdentity), String> {
        let known = self.by_dns_name.get(name).or_else(|| self.by_dns_name.get(&policy::canonical_name(name)));
        let known = known.map(Vec::as_slice).unwrap_or_default();
        let of_family = known.iter().find(|address| address.is_ipv6() == ipv6).or(known.first());
        let address = of_family.ok_or_else(|| format!("no address of {name:?} was learned"))?;
        Ok(self.find_address(*address))
    }

    fn world(&self, ipv6: bool) -> NumericIdentity {
        match (self.families().ipv4 && self.families().ipv6, ipv6) {
            (false, _) => id::WORLD,
            (true, false) => id::WORLD_IPV4,
            (true, true) => id::WORLD_IPV6,
        }
    }

    fn reserved(&self, name: &str, ipv6: bool) -> Result<NumericIdentity, String> {
        if name == "world" {
            return Ok(self.world(ipv6));
        }
        let known = identity::RESERVED.iter().find(|(_, known)| *known == name);
        known.map(|(number, _)| *number).ok_or_else(|| format!("there is no reserved identity {name:?}"))
    }
}

/// Labels of the own node.
fn host_labels(endpoint: Option<&Endpoint>, node: Option<&Node>, prefix: Option<Label>) -> Labels {
    let of_node = node.iter().flat_map(|node| &node.labels);
    let own = endpoint.iter().flat_map(|endpoint| &endpoint.labels);
    let labels = of_node.chain(own).map(|(key, value)| Label::k8s(key, &value.0));
    let serves_api = node.is_some_and(|node| node.kube_apiserver).then(|| Label::reserved("kube-apiserver"));
    labels.chain([Label::reserved("host")]).chain(serves_api).chain(prefix).collect()
}

fn named_ports(endpoint: &Endpoint) -> NamedPorts {
    let mut ports = NamedPorts::new();
    for port in &endpoint.ports {
        let protocol = crate::protocol::number(&port.protocol).unwrap_or(policy::protocol::TCP);
        ports.entry((protocol, port.name.to_ascii_lowercase())).or_default().insert(port.port);
    }
    ports
}

fn in_namespace(service: &Service, namespace: &str) -> bool {
    namespace.is_empty() || or_default(&service.namespace) == namespace
}

/// Labels of an object that is no workload: their source does not matter.
fn plain(labels: &Map) -> Labels {
    labels.iter().map(|(key, value)| Label::k8s(key, &value.0)).collect()
}

fn strings(map: &Map) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

fn ips(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.split('/').next()?.parse().ok()).collect()
}

fn or_default(namespace: &str) -> &str {
    if namespace.is_empty() { "default" } else { namespace }
}
