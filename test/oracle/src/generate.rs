//! Which worlds, policies and packets are worth trying?
//!
//! Everything is drawn from small pools, so that rules meet often: equal labels, overlapping prefixes, ports at the
//! edges of ranges. One seed gives one sequence, for ever.

use std::collections::BTreeMap;
use std::net::IpAddr;

use identity::{Families, NumericIdentity, RESERVED, reserved_labels};
use labels::{Label, Labels};
use policy::{AllowLocalhost, Direction, Learned, Mode, NamedPorts, PolicyObject, Settings};
use serde_json::{Value, json};

use crate::evaluate::{Other, Packet};
use crate::world::{Party, World};

/// Numbers that look random: xorshift64*.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn list<T>(&mut self, most: usize, mut make: impl FnMut(&mut Random) -> T) -> Vec<T> {
        (0..1 + self.below(most)).map(|_| make(self)).collect()
    }
}

const NAMESPACES: &[&str] = &["a", "b", "c"];
const APPS: &[&str] = &["x", "y", "z"];
const PORTS: &[u16] = &[1, 22, 53, 79, 80, 81, 443, 1023, 1024, 6443, 6444, 8080, 65535];
const PREFIXES: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "10.1.2.128/25",
    "::/0",
    "fd00::/8",
    "fd00:1::/32",
];
const EXCEPT: &[(&str, &str)] = &[
    ("0.0.0.0/0", "10.0.0.0/8"),
    ("0.0.0.0/0", "10.1.2.0/24"),
    ("10.0.0.0/8", "10.1.0.0/16"),
    ("10.0.0.0/8", "10.1.2.3/32"),
    ("10.1.0.0/16", "10.1.2.0/24"),
    ("10.1.0.0/16", "10.1.0.0/16"),
    ("fd00::/8", "fd00:1::/32"),
    ("::/0", "fd00::/8"),
];
const ADDRESSES: &[&str] = &[
    "10.1.2.3",
    "10.1.2.200",
    "10.1.2.4",
    "10.1.9.9",
    "10.9.9.9",
    "11.0.0.1",
    "fd00:1::1",
    "fd00:2::1",
    "2001:db8::1",
];
const ENTITIES: &[&str] = &[
    "all",
    "world",
    "cluster",
    "cluster-mesh",
    "host",
    "init",
    "ingress",
    "unmanaged",
    "remote-node",
    "health",
    "none",
    "kube-apiserver",
    "kube-apiserver",
    "kube-apiserver",
];
const PORT_NAMES: &[&str] = &["web", "dns", "odd"];

/// A world without policies.
pub fn world(random: &mut Random) -> World {
    let ipv6 = random.once_in(3);
    let settings = Settings {
        mode: if random.once_in(12) {
            Mode::Never
        } else {
            random.pick(&[Mode::Default, Mode::Default, Mode::Default, Mode::Always])
        },
        cluster_name: "here".to_owned(),
        families: Families { ipv4: true, ipv6 },
        allow_localhost: match () {
            () if random.once_in(4) => AllowLocalhost::Policy,
            () if random.once_in(2) => AllowLocalhost::EvenWithoutRules,
            () => AllowLocalhost::Always,
        },
        host_firewall: random.once_in(2),
        ..Settings::default()
    };
    let mut parties = BTreeMap::new();
    for (number, _) in RESERVED.iter().filter(|(number, _)| *number != 0) {
        let labels = reserved_labels(*number).unwrap_or_default();
        let node = if *number == 1 { vec![Label::k8s("role", "plain")] } else { Vec::new() };
        parties.insert(*number, Party { labels: labels.with(node), ports: NamedPorts::new() });
    }
    // The world as a whole has another identity if both families are in use.
    let absent: &[NumericIdentity] = if ipv6 { &[2] } else { &[9, 10] };
    parties.retain(|number, _| !absent.contains(number));
    let mut world = World { settings, policies: Vec::new(), parties, learned: BTreeMap::new() };
    for _ in 0..8 {
        add_workload(random, &mut world);
    }
    let names = Learned::Name("one.example".to_owned());
    world
        .learned
        .insert(names, vec!["10.1.2.3/32".parse().expect("a prefix"), "10.9.9.9/32".parse().expect("a prefix")]);
    world
}

/// One workload more; yields its identity.
pub fn add_workload(random: &mut Random, world: &mut World) -> NumericIdentity {
    let elsewhere = random.once_in(6);
    let base = if elsewhere { 3 << 16 } else { 256 };
    // Few numbers, so that a number comes back with other labels.
    let identity = base + random.below(30) as u32;
    let mut labels = vec![
        Label::k8s("app", random.pick(APPS)),
        Label::k8s(labels::POD_NAMESPACE, random.pick(NAMESPACES)),
        Label::k8s(labels::CLUSTER, if elsewhere { "there" } else { "here" }),
    ];
    if random.once_in(2) {
        labels.push(Label::k8s("tier", random.pick(APPS)));
    }
    if random.once_in(3) {
        labels.push(Label::k8s(format!("{}.team", labels::NAMESPACE_LABELS), random.pick(APPS)));
    }
    let labels = Labels::new(labels);
    if !world.parties.contains_key(&identity) && world.parties.values().all(|party| party.labels != labels) {
        world.parties.insert(identity, Party { labels, ports: named_ports(random) });
    }
    identity
}

/// Names for some ports.
pub fn named_ports(random: &mut Random) -> NamedPorts {
    let mut ports = NamedPorts::new();
    for _ in 0..random.below(3) {
        let key = (random.pick(&[6_u8, 17]), random.pick(PORT_NAMES).to_owned());
        ports.entry(key).or_default().insert(random.pick(PORTS));
    }
    ports
}

/// A policy that is right, of one of four kinds; names repeat, so that policies replace each other.
pub fn policy(random: &mut Random, settings: &Settings) -> PolicyObject {
    read(policy_value(random), settings)
}

/// The same with rules that ask for proof. Traffic is never passed on then, which the field does not support.
pub fn policy_with_proof(random: &mut Random, settings: &Settings, mode: &str) -> PolicyObject {
    let clusterwide = random.once_in(4);
    let mut value = cilium(random, clusterwide);
    for spec in value["specs"].as_array_mut().into_iter().flatten() {
        for section in ["ingress", "egress"] {
            for rule in spec.get_mut(section).and_then(Value::as_array_mut).into_iter().flatten() {
                if random.once_in(3) {
                    rule["authentication"] = json!({ "mode": mode });
                }
            }
        }
    }
    read(value, settings)
}

fn read(value: Value, settings: &Settings) -> PolicyObject {
    // What an API server would not store has a meaning all the same.
    let settings = Settings { schema: policy::SchemaMode::Off, ..settings.clone() };
    let read = PolicyObject::from_value(&value, &crds::Source::default(), &settings);
    read.unwrap_or_else(|problems| panic!("a generated policy is wrong: {problems:?}: {value}"))
}

fn policy_value(random: &mut Random) -> Value {
    match random.below(6) {
        0 => network_policy(random),
        1 => cluster_network_policy(random),
        2 if random.once_in(2) => cluster_network_policy(random),
        2 | 3 => cilium(random, true),
        _ => cilium(random, false),
    }
}

fn cilium(random: &mut Random, clusterwide: bool) -> Value {
    let name = format!("p{}", random.below(5));
    let specs: Vec<Value> = random.list(2, |random| spec(random, clusterwide));
    let (kind, metadata) = match clusterwide {
        true => ("CiliumClusterwideNetworkPolicy", json!({ "name": name })),
        false => ("CiliumNetworkPolicy", json!({ "name": name, "namespace": random.pick(NAMESPACES) })),
    };
    json!({ "apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "specs": specs })
}

fn spec(random: &mut Random, clusterwide: bool) -> Value {
    let mut spec = json!({});
    let nodes = clusterwide && random.once_in(4);
    if nodes {
        spec["nodeSelector"] = json!({});
    } else {
        spec["endpointSelector"] = selector(random, true);
    }
    let sections = ["ingress", "egress", "ingressDeny", "egressDeny"];
    let first = random.pick(&sections[..2]);
    let second = random.pick(&sections);
    for section in [first, second] {
        let (ingress, deny) = (section.starts_with("ingress"), section.ends_with("Deny"));
        spec[section] = random.list(3, |random| rule(random, ingress, deny, nodes)).into();
    }
    if random.once_in(5) {
        spec["enableDefaultDeny"] = json!({ "ingress": random.once_in(2), "egress": random.once_in(2) });
    }
    spec
}

fn rule(random: &mut Random, ingress: bool, deny: bool, nodes: bool) -> Value {
    let mut rule = json!({});
    let field = |kind: &str| format!("{}{kind}", if ingress { "from" } else { "to" });
    match random.below(10) {
        0 => {}
        1..=4 => rule[field("Endpoints")] = random.list(2, |random| selector(random, false)).into(),
        5 | 6 => rule[field("Entities")] = random.list(2, |random| json!(random.pick(ENTITIES))).into(),
        7 => rule[field("CIDR")] = random.list(2, |random| json!(random.pick(PREFIXES))).into(),
        8 => rule[field("CIDRSet")] = random.list(2, cidr_rule).into(),
        _ if ingress => rule[field("Endpoints")] = json!([]),
        _ => rule["toFQDNs"] = json!([{ "matchName": "one.example" }]),
    }
    match random.below(5) {
        0 => {}
        1 => rule["icmps"] = json!([{ "fields": random.list(2, icmp) }]),
        _ => rule["toPorts"] = random.list(2, |random| port_rule(random, deny || nodes)).into(),
    }
    rule
}

fn selector(random: &mut Random, subject: bool) -> Value {
    let mut labels = json!({});
    if random.once_in(2) {
        labels["app"] = json!(random.pick(APPS));
    }
    if random.once_in(4) {
        labels["k8s:tier"] = json!(random.pick(APPS));
    }
    if !subject && random.once_in(4) {
        labels["k8s:io.kubernetes.pod.namespace"] = json!(random.pick(NAMESPACES));
    }
    if random.once_in(8) {
        labels["io.cilium.k8s.namespace.labels.team"] = json!(random.pick(APPS));
    }
    if !subject && random.once_in(10) {
        labels = json!({ format!("reserved:{}", random.pick(&["host", "world", "remote-node"])): "" });
    }
    let expression = match random.below(8) {
        0 => json!([{ "key": "tier", "operator": "Exists" }]),
        1 => json!([{ "key": "tier", "operator": "DoesNotExist" }]),
        2 => json!([{ "key": "app", "operator": "In", "values": [random.pick(APPS), random.pick(APPS)] }]),
        3 => json!([{ "key": "app", "operator": "NotIn", "values": [random.pick(APPS)] }]),
        _ => return json!({ "matchLabels": labels }),
    };
    json!({ "matchLabels": labels, "matchExpressions": expression })
}

fn cidr_rule(random: &mut Random) -> Value {
    let (cidr, except) = random.pick(EXCEPT);
    json!({ "cidr": cidr, "except": [except] })
}

fn icmp(random: &mut Random) -> Value {
    match random.below(4) {
        0 => json!({ "type": "EchoRequest" }),
        1 => json!({ "type": random.below(4) }),
        2 => json!({ "type": "EchoRequest", "family": "IPv6" }),
        _ => json!({ "type": 128 + random.below(3), "family": "IPv6" }),
    }
}

fn port_rule(random: &mut Random, plain: bool) -> Value {
    let asks = !plain && random.once_in(3);
    let ports: Vec<Value> = random.list(3, |random| port(random, asks));
    let mut rule = json!({ "ports": ports });
    if asks && random.once_in(4) {
        rule["serverNames"] = json!([random.pick(APPS)]);
        rule["terminatingTLS"] = json!({ "secret": { "name": "s" } });
    }
    if asks {
        rule["rules"] = json!({ "http": [{ "method": random.pick(&["GET", "PUT"]) }] });
    }
    rule
}

fn port(random: &mut Random, asks: bool) -> Value {
    let protocol = if asks { "TCP" } else { random.pick(&["TCP", "TCP", "UDP", "SCTP", "ANY"]) };
    if random.once_in(5) {
        return json!({ "port": random.pick(PORT_NAMES), "protocol": protocol });
    }
    if !asks && random.once_in(8) {
        return json!({ "port": "0", "protocol": protocol });
    }
    let first = random.pick(PORTS);
    let mut port = json!({ "port": first.to_string(), "protocol": protocol });
    if random.once_in(3) {
        port["endPort"] = json!(random.pick(PORTS));
    }
    port
}

fn cluster_network_policy(random: &mut Random) -> Value {
    let mut spec = json!({
        "tier": random.pick(&["Admin", "Admin", "Baseline"]),
        "priority": random.below(3),
        "subject": if random.once_in(2) { json!({ "namespaces": {} }) } else { json!({ "pods": namespaced_pod(random) }) },
    });
    for section in ["ingress", "egress"] {
        if random.once_in(2) {
            spec[section] = random.list(3, |random| cluster_rule(random, section)).into();
        }
    }
    let metadata = json!({ "name": format!("c{}", random.below(3)) });
    json!({ "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": metadata, "spec": spec })
}

fn cluster_rule(random: &mut Random, section: &str) -> Value {
    let egress = section == "egress";
    let action = random.pick(&["Accept", "Deny", "Pass", "Pass"]);
    let mut rule = json!({ "action": action });
    if !random.once_in(4) {
        let peers = random.list(2, |random| match random.below(if egress { 4 } else { 3 }) {
            0 => json!({ "namespaces": { "matchLabels": { "team": random.pick(APPS) } } }),
            1 => json!({ "pods": namespaced_pod(random) }),
            2 => json!({ "namespaces": {} }),
            _ => json!({ "networks": random.list(2, |random| json!(random.pick(PREFIXES))) }),
        });
        rule[if egress { "to" } else { "from" }] = peers.into();
    }
    if random.once_in(2) {
        rule["protocols"] = random.list(2, cluster_protocol).into();
    }
    rule
}

fn namespaced_pod(random: &mut Random) -> Value {
    let namespaces =
        if random.once_in(2) { json!({}) } else { json!({ "matchLabels": { "team": random.pick(APPS) } }) };
    json!({ "namespaceSelector": namespaces, "podSelector": plain_selector(random) })
}

fn cluster_protocol(random: &mut Random) -> Value {
    let (one, two) = (random.pick(PORTS), random.pick(PORTS));
    match random.below(5) {
        0 => json!({ "tcp": {} }),
        1 => json!({ "destinationNamedPort": random.pick(PORT_NAMES) }),
        2 => json!({ "udp": { "destinationPort": { "number": one } } }),
        3 => json!({ "tcp": { "destinationPort": { "range": { "start": one.min(two), "end": one.max(two) } } } }),
        _ => json!({ "tcp": { "destinationPort": { "number": one } } }),
    }
}

fn network_policy(random: &mut Random) -> Value {
    let mut spec = json!({ "podSelector": plain_selector(random) });
    if random.once_in(2) {
        spec["ingress"] = random.list(2, |random| k8s_rule(random, "from")).into();
    }
    if random.once_in(2) {
        spec["egress"] = random.list(2, |random| k8s_rule(random, "to")).into();
    }
    spec["policyTypes"] = random.pick(&[json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let metadata = json!({ "name": format!("k{}", random.below(3)), "namespace": random.pick(NAMESPACES) });
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec })
}

fn plain_selector(random: &mut Random) -> Value {
    if random.once_in(3) { json!({}) } else { json!({ "matchLabels": { "app": random.pick(APPS) } }) }
}

fn k8s_rule(random: &mut Random, peers: &str) -> Value {
    let mut rule = json!({});
    if !random.once_in(4) {
        rule[peers] = random.list(2, k8s_peer).into();
    }
    if random.once_in(2) {
        let first = random.pick(PORTS);
        rule["ports"] = random.pick(&[
            json!([{ "port": first }]),
            json!([{ "port": first, "endPort": 65535, "protocol": "UDP" }]),
            json!([{ "port": "web" }]),
            json!([{ "protocol": "TCP" }]),
        ]);
    }
    rule
}

fn k8s_peer(random: &mut Random) -> Value {
    match random.below(4) {
        0 => json!({ "podSelector": plain_selector(random) }),
        1 => json!({ "namespaceSelector": {}, "podSelector": plain_selector(random) }),
        2 => json!({ "namespaceSelector": { "matchLabels": { "team": random.pick(APPS) } } }),
        _ => json!({ "ipBlock": cidr_rule(random) }),
    }
}

/// A packet of or to somebody in the world, more often than not one that some rule may speak of.
pub fn packet(random: &mut Random, world: &World) -> Packet {
    let parties: Vec<NumericIdentity> = world.parties.keys().copied().collect();
    let addresses: Vec<IpAddr> = ADDRESSES.iter().filter_map(|text| text.parse().ok()).collect();
    let used = |address: &IpAddr| world.settings.families.ipv6 || address.is_ipv4();
    let addresses: Vec<IpAddr> = addresses.into_iter().filter(used).collect();
    let other = match random.once_in(3) {
        true => Other::Address(random.pick(&addresses)),
        false => Other::Party(random.pick(&parties)),
    };
    let (protocol, port) = protocol_and_port(random, world);
    let direction = random.pick(&Direction::BOTH);
    Packet { subject: subject(random, world), other, direction, protocol, port }
}

/// A workload or the host, preferably one that some rule is for.
fn subject(random: &mut Random, world: &World) -> NumericIdentity {
    let all: Vec<NumericIdentity> = world.parties.keys().copied().filter(|one| *one == 1 || *one > 255).collect();
    let is_subject = |identity: &NumericIdentity| {
        let known = policy::PeerIdentity::new(*identity, world.parties[identity].labels.clone());
        world.rules().any(|rule| rule.subject.selects(&known))
    };
    let selected: Vec<NumericIdentity> = all.iter().copied().filter(is_subject).collect();
    if selected.is_empty() || random.once_in(8) { random.pick(&all) } else { random.pick(&selected) }
}

fn protocol_and_port(random: &mut Random, world: &World) -> (u8, u16) {
    let specs = world.rules().filter_map(|rule| match &rule.ports {
        policy::Ports::Some(ports) => Some(ports),
        policy::Ports::All => None,
    });
    let specs: Vec<&policy::PortSpec> = specs.flatten().collect();
    let protocol = random.pick(&[6_u8, 6, 6, 17, 132, 1, 58, 47]);
    let spec = if specs.is_empty() || random.once_in(4) { None } else { Some(random.pick(&specs)) };
    // Edges, and what lies just outside of them.
    let near = |random: &mut Random, port: u16| port.saturating_add(random.below(3) as u16).saturating_sub(1);
    match (spec, spec.map(|spec| &spec.range)) {
        (Some(spec), Some(policy::PortRange::Numbers(first, last))) => {
            let edge = random.pick(&[*first, *first, *last, first.midpoint(*last)]);
            (spec.protocol, if random.once_in(2) { edge } else { near(random, edge) })
        }
        (Some(spec), _) => (spec.protocol, random.pick(PORTS)),
        (None, _) => match protocol {
            1 | 58 => (protocol, random.pick(&[0, 1, 2, 3, 8, 128, 129, 130])),
            47 => (protocol, 0),
            _ => {
                let port = random.pick(PORTS);
                (protocol, near(random, port))
            }
        },
    }
}
