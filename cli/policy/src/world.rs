//! Who is there, and what do policies mean for them?

mod identities;
mod nodes;
mod search;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use abi::identity as id;
use foldhash::fast::RandomState as FastHash;
use identity::{Families, NumericIdentity, reserved_labels};
use ipnet::IpNet;
use labels::{Label, LabelFilter, Labels, Workload, source, workload_labels};
use policy::{
    AllowLocalhost, EndpointPolicy, Known, Learned, Mode, NamedPorts, Peer, PolicyObject, Repository, SchemaMode,
    Settings, protocol,
};

use crate::address::Addresses;
use crate::case::{Case, Config, Endpoint, Map, Service};
use crate::objects::Objects;
use identities::Identities;

/// Somebody who can have a policy.
pub struct Party {
    /// `namespace/name`
    pub name: String,
    /// Its identity.
    pub identity: NumericIdentity,
    /// Its labels.
    pub labels: Labels,
    /// Its policy is asked here.
    pub local: bool,
    /// Its ports that have names.
    pub ports: NamedPorts,
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
    /// What is known of names, groups and services that policies speak of.
    pub learned: BTreeMap<Learned, Known>,
    addresses: Addresses,
    nodes: HashMap<String, NumericIdentity>,
    names: Vec<(String, Vec<IpAddr>)>,
    by_dns_name: HashMap<String, Vec<IpAddr>>,
    /// The prefixes that policies name, backends of services among them.
    cidrs: BTreeSet<IpNet>,
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
        first_rule_set: 1,
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

impl World {
    /// The world of a case, in which its policies hold. Wrong policies are left out.
    pub fn new(case: &Case, objects: &Objects, settings: Settings) -> Result<World, String> {
        let mut world = World {
            repository: Repository::new(settings),
            parties: Vec::new(),
            learned: BTreeMap::new(),
            by_name: HashMap::default(),
            by_address: HashMap::default(),
            addresses: Addresses::default(),
            nodes: HashMap::new(),
            names: case.dns.iter().map(|name| (policy::canonical_name(&name.name), ips(&name.ips))).collect(),
            by_dns_name: HashMap::new(),
            cidrs: BTreeSet::new(),
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
        world.add_addresses(case, objects)?;
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
                Learned::Name(_) | Learned::Pattern(_) => self.addresses_of(|name| learned.means(name)).into(),
                Learned::Group(name, _) => {
                    objects.groups.get(name).map(|group| group.prefixes.clone()).unwrap_or_default().into()
                }
                Learned::Groups(..) => objects.all_groups(),
                Learned::Service(namespace, name) => {
                    let is = |one: &Service| in_namespace(one, namespace) && one.name == *name;
                    self.backends(services.iter().filter(|one| is(one)))
                }
                Learned::Services(namespace, selector) => {
                    let is = |one: &Service| in_namespace(one, namespace) && selector.matches(&plain(&one.labels));
                    self.backends(services.iter().filter(|one| is(one)))
                }
            };
            if learned.is_service() {
                self.cidrs.extend(&known.prefixes);
            }
            self.cidrs.extend(learned.except());
            self.repository.set_learned(&learned, known.clone());
            self.learned.insert(learned, known);
        }
        let rules = self.repository.policies().flat_map(|policy| &policy.rules);
        let sets = rules.flat_map(|rule| &rule.peers).filter_map(|peer| match peer {
            Peer::Cidr(set) => Some(set),
            Peer::All | Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } | Peer::Learned(_) => None,
        });
        let named = sets.flat_map(|set| [set.prefix].into_iter().chain(set.except.iter().copied()));
        self.cidrs.extend(named.collect::<Vec<IpNet>>());
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

    fn add_endpoint(&mut self, case: &Case, objects: &Objects, endpoint: &Endpoint) -> Result<(), String> {
        let name = format!("{}/{}", or_default(&endpoint.namespace), endpoint.name);
        let labels = self.endpoint_labels(case, objects, endpoint).map_err(|why| format!("endpoint {name}: {why}"))?;
        let cluster = endpoint.cluster_id.unwrap_or(case.config.cluster_id);
        let identity = match endpoint.reserved.as_str() {
            "host" if endpoint.raw_labels.is_empty() => id::HOST,
            _ if endpoint.identity.is_some() => endpoint.identity.unwrap_or_default(),
            _ => self.identities.of(cluster, &labels)?,
        };
        // The own node as a peer has the labels that it has as a node.
        if identity != id::HOST || case.nodes.iter().all(|node| !node.local) {
            self.repository.upsert_identity(identity, &labels);
        }
        let at = self.parties.len();
        for address in ips(&endpoint.ips) {
            self.addresses.set(IpNet::from(address), identity);
            self.by_address.insert(address, at);
        }
        let ports = endpoint_ports(endpoint);
        if let Some(short) = name.strip_prefix("default/").filter(|short| !short.contains('/')) {
            self.by_name.insert(short.to_owned(), at);
        }
        self.by_name.insert(name.clone(), at);
        self.parties.push(Party { name, identity, labels, local: !endpoint.remote, ports, policy: None });
        Ok(())
    }

    fn endpoint_labels(&self, case: &Case, objects: &Objects, endpoint: &Endpoint) -> Result<Labels, String> {
        if !endpoint.raw_labels.is_empty() {
            let labels = Labels::parse(endpoint.raw_labels.iter().map(String::as_str));
            return labels.map_err(|error| error.to_string());
        }
        let filter = LabelFilter::default();
        let kept = |labels: &Map| -> Vec<Label> {
            let all = labels.iter().map(|(key, value)| Label::k8s(key, &value.0));
            all.filter(|label| filter.keeps(label)).collect()
        };
        let labels: Labels = match endpoint.reserved.as_str() {
            "" => self.pod_labels(case, objects, endpoint),
            "host" => {
                let node = case.nodes.iter().find(|node| node.local);
                let of_node = node.map(|node| kept(&node.labels)).unwrap_or_default();
                of_node.into_iter().chain(kept(&endpoint.labels)).chain([Label::reserved("host")]).collect()
            }
            reserved => kept(&endpoint.labels).into_iter().chain([Label::reserved(reserved)]).collect(),
        };
        let is_reserved = labels.iter().any(|label| label.source == source::RESERVED);
        if is_reserved { Ok(labels) } else { Ok(labels.with(self.labels_of_addresses(objects, endpoint))) }
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
        let labels = workload_labels(&workload, &LabelFilter::default());
        if case.config.no_port_labels { labels } else { labels.with(port_labels(endpoint)) }
    }

    /// Where prefixes select pods, a pod has a label for the longest prefix around each of its addresses, and those of
    /// the groups that it lies in.
    fn labels_of_addresses(&self, objects: &Objects, endpoint: &Endpoint) -> Vec<Label> {
        if !self.repository.settings().cidr_matches_pods {
            return Vec::new();
        }
        let mut labels = Vec::new();
        for address in ips(&endpoint.ips) {
            let around = self.cidrs.iter().filter(|prefix| prefix.prefix_len() > 0 && prefix.contains(&address));
            labels.push(match (around.max_by_key(|prefix| prefix.prefix_len()), address) {
                (Some(prefix), _) => identity::cidr_label(*prefix),
                (None, IpAddr::V4(_)) => Label::new(source::CIDR, "0.0.0.0/0", ""),
                (None, IpAddr::V6(_)) => Label::new(source::CIDR, "::/0", ""),
            });
            labels.extend(objects.group_labels(|prefix| prefix.contains(&address)));
        }
        labels
    }

    /// Prefixes that policies speak of, and those that have labels.
    fn add_addresses(&mut self, case: &Case, objects: &Objects) -> Result<(), String> {
        let mut given: BTreeMap<IpNet, Vec<Label>> = BTreeMap::new();
        for one in &case.ip_labels {
            let Some(prefix) = policy::parse_prefix_or_address(&one.prefix) else {
                return Err(format!("ip_labels: {:?} is not a prefix", one.prefix));
            };
            let labels = Labels::parse(one.labels.iter().map(String::as_str)).map_err(|error| error.to_string())?;
            given.entry(prefix).or_default().extend(labels.iter().cloned());
        }
        let mut named = self.repository.prefixes();
        named.extend(objects.groups.values().flat_map(|group| &group.prefixes));
        let learned = self.learned.iter().filter(|(learned, _)| learned.is_name());
        let learned: Vec<IpNet> = learned.flat_map(|(_, known)| &known.prefixes).copied().collect();
        for prefix in named.iter().copied().chain(given.keys().copied()).chain(learned) {
            if self.addresses.exact(&prefix).is_some() {
                continue;
            }
            let labels = self.labels_of_prefix(prefix, named.contains(&prefix), &given);
            let identity = self.identities.of(case.config.cluster_id, &labels)?;
            self.repository.upsert_identity(identity, &labels);
            self.addresses.set(prefix, identity);
        }
        Ok(())
    }

    /// The labels of the names and patterns that an address was learned for.
    pub(super) fn labels_of_names(&self, prefix: &IpNet) -> Vec<Label> {
        let learned = self.learned.iter().filter(|(_, known)| known.prefixes.contains(prefix));
        let names = learned.filter_map(|(learned, _)| match learned {
            Learned::Name(name) | Learned::Pattern(name) => Some(name),
            Learned::Group(..) | Learned::Groups(..) | Learned::Service(..) | Learned::Services(..) => None,
        });
        names.map(|name| identity::name_label(name)).collect()
    }

    /// A prefix has the labels that it and those around it were given, and its own as an address if a policy names it,
    /// else that of the longest one around it that a policy names; and one for each name that it was learned for. What is
    /// in the cluster is no address outside.
    fn labels_of_prefix(&self, prefix: IpNet, is_named: bool, given: &BTreeMap<IpNet, Vec<Label>>) -> Labels {
        let around = given.iter().filter(|(known, _)| known.contains(&prefix));
        let given: Labels = around.flat_map(|(_, labels)| labels).cloned().collect();
        let is_node = ["host", "remote-node"].iter().any(|name| given.has_reserved(name));
        let in_cluster = is_node || ["health", "ingress"].iter().any(|name| given.has_reserved(name));
        if in_cluster && !(is_node && self.repository.settings().cidr_matches_nodes) {
            return given.iter().filter(|label| label.source != source::CIDR).cloned().collect();
        }
        let outer = self.cidrs.iter().filter(|known| known.prefix_len() > 0 && known.contains(&prefix));
        let named = if is_named { Some(prefix) } else { outer.copied().max_by_key(IpNet::prefix_len) };
        let own = named.filter(|prefix| prefix.prefix_len() > 0).map(identity::cidr_label);
        let has_own = given.iter().any(|label| label.source == source::CIDR);
        let world = identity::world_label(prefix.addr().is_ipv6(), self.families());
        let world = Some(world).filter(|_| !in_cluster);
        given.with(own.filter(|_| !has_own)).with(world).with(self.labels_of_names(&prefix))
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
}

/// The ports of a pod that have names. Of several with one name the last one counts.
fn ports_by_name(endpoint: &Endpoint) -> BTreeMap<String, (u8, u16)> {
    let mut ports = BTreeMap::new();
    for port in &endpoint.ports {
        let protocol =
            if port.protocol.is_empty() { Ok(protocol::TCP) } else { crate::protocol::number(&port.protocol) };
        let name = port.name.to_ascii_lowercase();
        if let (Ok(protocol), true, 1..) = (protocol, policy::is_port_name(&name), port.port) {
            ports.insert(name, (protocol, port.port));
        }
    }
    ports
}

fn endpoint_ports(endpoint: &Endpoint) -> NamedPorts {
    let ports = ports_by_name(endpoint).into_iter();
    ports.map(|(name, (protocol, port))| ((protocol, name), BTreeSet::from([port]))).collect()
}

fn port_labels(endpoint: &Endpoint) -> Vec<Label> {
    let ports = ports_by_name(endpoint).into_iter();
    let ports = ports.map(|(name, (protocol, port))| (name, (crate::protocol::name(protocol), port))).collect();
    labels::named_port_labels(&ports)
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
