//! Which worlds, policies and packets are worth trying?
//!
//! Everything is drawn from small pools, so that rules meet often: equal labels, overlapping prefixes, ports at the
//! edges of ranges. One seed gives one sequence, for ever.

mod cilium;
mod kubernetes;

use std::collections::BTreeMap;
use std::net::IpAddr;

use identity::{Families, NumericIdentity, RESERVED, reserved_labels};
use ipnet::IpNet;
use labels::{Label, Labels, source};
use policy::{AllowLocalhost, Direction, Learned, Mode, NamedPorts, PolicyObject, Settings};
use serde_json::{Value, json};

use crate::evaluate::{Other, Packet};
use crate::world::{Group, Party, Service, World};

pub use crate::random::Random;

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
        node_selector_labels: random.once_in(4),
        extended_ip_protocols: random.once_in(3),
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
    if settings.node_selector_labels {
        add_nodes(&mut parties);
    }
    let (groups, services) = (groups(), services());
    let mut world = World { settings, policies: Vec::new(), parties, learned: BTreeMap::new(), groups, services };
    for _ in 0..8 {
        add_workload(random, &mut world);
    }
    set_names(&mut world, &["10.1.2.3/32", "10.9.9.9/32"], &["10.1.2.4/32"]);
    world
}

/// Nodes that selectors of nodes tell apart; the own one has labels of both sorts.
fn add_nodes(parties: &mut BTreeMap<NumericIdentity, Party>) {
    let of_node = |role: &str| [Label::new(source::NODE, "role", role), Label::k8s(labels::CLUSTER, "here")];
    if let Some(host) = parties.get_mut(&abi::identity::HOST) {
        host.labels = host.labels.clone().with(of_node("infra"));
    }
    let remote = || Labels::new([Label::reserved("remote-node")]);
    let infra = remote().with(of_node("infra"));
    let api = remote().with(of_node("plain")).with([Label::reserved("kube-apiserver")]);
    let elsewhere = remote().with([Label::k8s(labels::CLUSTER, "there")]);
    for (labels, number) in [infra, api, elsewhere].into_iter().zip(abi::identity::LOCAL_REMOTE_NODE + 200..) {
        parties.insert(number, Party { labels, ports: NamedPorts::new() });
    }
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

/// The addresses of a name, and which others the pattern around it has.
pub(crate) fn set_names(world: &mut World, named: &[&str], others: &[&str]) {
    world.learned.insert(Learned::Name("one.example".to_owned()), prefixes(named));
    world.learned.insert(Learned::Pattern("*.example".to_owned()), prefixes(&[named, others].concat()));
}

fn groups() -> BTreeMap<String, Group> {
    let group = |labels: &[(&str, &str)], texts: &[&str]| Group {
        labels: Labels::new(labels.iter().map(|(key, value)| Label::new(source::CIDR_GROUP, *key, *value))),
        prefixes: prefixes(texts),
    };
    let all = [
        group(&[("zone", "x"), ("env", "prod")], &["10.1.2.0/24", "fd00:1::/32"]),
        group(&[("zone", "y"), ("env", "prod")], &["10.1.0.0/16"]),
        group(&[("zone", "x")], &["10.9.9.9/32", "11.0.0.0/8"]),
    ];
    all.into_iter().enumerate().map(|(at, group)| (format!("g{at}"), group)).collect()
}

fn services() -> BTreeMap<(String, String), Service> {
    let service = |kind: &str, app: Option<&str>, backends: &[&str]| Service {
        labels: Labels::new([Label::k8s("kind", kind)]),
        app: app.map(str::to_owned),
        backends: prefixes(backends),
    };
    let all = [
        ("a", "pods", service("x", Some("x"), &[])),
        ("b", "pods", service("y", Some("y"), &[])),
        ("b", "bare", service("x", None, &["10.9.9.9/32", "10.1.2.200/32"])),
    ];
    all.into_iter().map(|(namespace, name, service)| ((namespace.to_owned(), name.to_owned()), service)).collect()
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
    read(value(random, settings), settings)
}

/// The same with rules that ask for proof. Traffic is never passed on then, which the field does not support.
pub fn policy_with_proof(random: &mut Random, settings: &Settings, mode: &str) -> PolicyObject {
    let clusterwide = random.once_in(4);
    let mut value = cilium::policy(random, settings, clusterwide);
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

/// A policy as its author writes it, of one of four kinds.
pub fn value(random: &mut Random, settings: &Settings) -> Value {
    match random.below(6) {
        0 => kubernetes::network_policy(random),
        1 => kubernetes::cluster_network_policy(random, settings),
        2 if random.once_in(2) => kubernetes::cluster_network_policy(random, settings),
        2 | 3 => cilium::policy(random, settings, true),
        _ => cilium::policy(random, settings, false),
    }
}

fn cidr_rule(random: &mut Random) -> Value {
    let (cidr, except) = random.pick(EXCEPT);
    json!({ "cidr": cidr, "except": [except] })
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
    let all: Vec<NumericIdentity> = [abi::identity::HOST].into_iter().chain(world.workloads()).collect();
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
    let protocol = random.pick(&[6_u8, 6, 6, 17, 132, 1, 58, 47, 50]);
    let spec = if specs.is_empty() || random.once_in(4) { None } else { Some(random.pick(&specs)) };
    // Edges, and what lies just outside of them.
    let near = |random: &mut Random, port: u16| port.saturating_add(random.below(3) as u16).saturating_sub(1);
    match (spec, spec.map(|spec| &spec.range)) {
        (Some(spec), Some(policy::PortRange::Numbers(first, last))) => {
            let edge = random.pick(&[*first, *first, *last, first.midpoint(*last)]);
            (spec.protocol, if random.once_in(2) { edge } else { near(random, edge) })
        }
        (Some(spec), _) if !policy::protocol::WITH_PORTS.contains(&spec.protocol) => (spec.protocol, 0),
        (Some(spec), _) => (spec.protocol, random.pick(PORTS)),
        (None, _) => match protocol {
            1 | 58 => (protocol, random.pick(&[0, 1, 2, 3, 8, 128, 129, 130])),
            47 | 50 => (protocol, 0),
            _ => {
                let port = random.pick(PORTS);
                (protocol, near(random, port))
            }
        },
    }
}
