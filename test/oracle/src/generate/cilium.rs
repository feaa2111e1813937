//! Which policies of cilium.io are worth trying?

use policy::Settings;
use serde_json::{Value, json};

use super::{APPS, EXCEPT, NAMESPACES, PORT_NAMES, PORTS, PREFIXES};
use crate::random::Random;

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
    "remote-node",
    "health",
    "none",
    "kube-apiserver",
    "kube-apiserver",
    "kube-apiserver",
];

/// Where a rule stands.
#[derive(Clone, Copy)]
struct Section<'a> {
    settings: &'a Settings,
    ingress: bool,
    deny: bool,
    /// Its subjects are nodes.
    nodes: bool,
}

pub(super) fn policy(random: &mut Random, settings: &Settings, clusterwide: bool) -> Value {
    let name = format!("p{}", random.below(5));
    let specs: Vec<Value> = random.list(2, |random| spec(random, settings, clusterwide));
    let (kind, metadata) = match clusterwide {
        true => ("CiliumClusterwideNetworkPolicy", json!({ "name": name })),
        false => ("CiliumNetworkPolicy", json!({ "name": name, "namespace": random.pick(NAMESPACES) })),
    };
    json!({ "apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "specs": specs })
}

fn spec(random: &mut Random, settings: &Settings, clusterwide: bool) -> Value {
    let mut spec = json!({});
    let nodes = clusterwide && random.once_in(4);
    if nodes {
        spec["nodeSelector"] = random.pick(&[
            json!({}),
            json!({ "matchLabels": { "role": "plain" } }),
            json!({ "matchExpressions": [{ "key": "role", "operator": "NotIn", "values": ["infra"] }] }),
        ]);
    } else {
        spec["endpointSelector"] = selector(random, true);
    }
    let sections = ["ingress", "egress", "ingressDeny", "egressDeny"];
    let first = random.pick(&sections[..2]);
    let second = random.pick(&sections);
    for name in [first, second] {
        let (ingress, deny) = (name.starts_with("ingress"), name.ends_with("Deny"));
        let section = Section { settings, ingress, deny, nodes };
        spec[name] = random.list(3, |random| rule(random, section)).into();
    }
    if random.once_in(5) {
        spec["enableDefaultDeny"] = json!({ "ingress": random.once_in(2), "egress": random.once_in(2) });
    }
    if random.once_in(6) {
        spec["log"] = json!({ "value": random.pick(APPS) });
    }
    spec
}

fn rule(random: &mut Random, section: Section<'_>) -> Value {
    let mut rule = json!({});
    let field = |kind: &str| format!("{}{kind}", if section.ingress { "from" } else { "to" });
    match random.below(12) {
        0 => {}
        1..=4 => rule[field("Endpoints")] = random.list(2, |random| selector(random, false)).into(),
        5 | 6 => rule[field("Entities")] = random.list(2, |random| json!(random.pick(ENTITIES))).into(),
        7 => rule[field("CIDR")] = random.list(2, |random| json!(random.pick(PREFIXES))).into(),
        8 | 9 => rule[field("CIDRSet")] = random.list(2, cidr_set).into(),
        10 if section.settings.node_selector_labels => rule[field("Nodes")] = random.list(2, nodes).into(),
        10 if section.ingress => rule[field("Endpoints")] = json!([]),
        10 => rule["toServices"] = random.list(2, service).into(),
        _ if section.ingress => rule[field("CIDRSet")] = random.list(2, group).into(),
        _ => rule["toFQDNs"] = random.list(2, name).into(),
    }
    match random.below(5) {
        0 => {}
        1 => rule["icmps"] = json!([{ "fields": random.list(2, icmp) }]),
        _ => rule["toPorts"] = random.list(2, |random| port_rule(random, section)).into(),
    }
    rule
}

fn name(random: &mut Random) -> Value {
    random.pick(&[json!({ "matchName": "one.example" }), json!({ "matchPattern": "*.example" })])
}

fn nodes(random: &mut Random) -> Value {
    random.pick(&[
        json!({}),
        json!({ "matchLabels": { "role": "infra" } }),
        json!({ "matchExpressions": [{ "key": "role", "operator": "DoesNotExist" }] }),
        json!({ "matchExpressions": [{ "key": "role", "operator": "NotIn", "values": ["infra"] }] }),
    ])
}

fn service(random: &mut Random) -> Value {
    match random.below(4) {
        0 => json!({ "k8sService": { "serviceName": "pods", "namespace": random.pick(NAMESPACES) } }),
        1 => json!({ "k8sService": { "serviceName": random.pick(&["pods", "bare", "gone"]) } }),
        2 => json!({ "k8sServiceSelector": { "selector": {}, "namespace": random.pick(NAMESPACES) } }),
        _ => json!({ "k8sServiceSelector": { "selector": { "matchLabels": { "kind": random.pick(APPS) } } } }),
    }
}

fn cidr_set(random: &mut Random) -> Value {
    if random.once_in(3) { group(random) } else { super::cidr_rule(random) }
}

fn group(random: &mut Random) -> Value {
    let mut rule = match random.below(5) {
        0 | 1 => json!({ "cidrGroupRef": random.pick(&["g0", "g1", "g2", "gone"]) }),
        2 => json!({ "cidrGroupSelector": { "matchLabels": { "zone": random.pick(APPS) } } }),
        3 => json!({ "cidrGroupSelector": { "matchExpressions": [{ "key": "zone", "operator": "Exists" }] } }),
        _ => {
            let expression = json!({ "key": "zone", "operator": "NotIn", "values": [random.pick(APPS)] });
            json!({ "cidrGroupSelector": { "matchExpressions": [expression, { "key": "env", "operator": "Exists" }] } })
        }
    };
    if random.once_in(3) {
        rule["except"] = json!([random.pick(EXCEPT).1]);
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

fn icmp(random: &mut Random) -> Value {
    match random.below(4) {
        0 => json!({ "type": "EchoRequest" }),
        1 => json!({ "type": random.below(4) }),
        2 => json!({ "type": "EchoRequest", "family": "IPv6" }),
        _ => json!({ "type": 128 + random.below(3), "family": "IPv6" }),
    }
}

/// What the proxy is asked on some ports. Each kind has ports and names of ports of its own, so that two kinds never
/// meet in rules that are written alike, which would make the subject's policy fail; ranges meet all the same.
struct Asked {
    /// The field and what it says.
    fields: Vec<(&'static str, Value)>,
    ports: &'static [u16],
    names: &'static [&'static str],
    protocols: &'static [&'static str],
    has_ranges: bool,
}

const TCP: &[&str] = &["TCP"];

fn asked(random: &mut Random, section: Section<'_>) -> Asked {
    let kinds = match section.ingress {
        true => &[http, http, kafka, tls][..],
        false => &[http, http, kafka, tls, dns, listener],
    };
    random.pick(kinds)(random)
}

fn http(random: &mut Random) -> Asked {
    let rule = random.pick(&[
        json!({ "method": "GET" }),
        json!({ "method": "PUT" }),
        json!({ "path": "/a", "headers": ["X-One: two"] }),
        json!({ "host": "a.example", "headerMatches": [{ "name": "X", "value": "y", "mismatch": "LOG" }] }),
    ]);
    let mut fields = vec![("rules", json!({ "http": [rule] }))];
    if random.once_in(4) {
        fields.push(("serverNames", json!([random.pick(APPS)])));
        fields.push(("terminatingTLS", secret()));
    }
    Asked { fields, ports: &[1, 22, 79, 80, 81, 443, 1023], names: &["web"], protocols: TCP, has_ranges: true }
}

fn kafka(random: &mut Random) -> Asked {
    let rule = random.pick(&[
        json!({}),
        json!({ "topic": "a" }),
        json!({ "role": "produce", "topic": "a" }),
        json!({ "role": "consume", "clientID": "c" }),
        json!({ "apiKey": "fetch", "apiVersion": "3" }),
    ]);
    let mut fields = vec![("rules", json!({ "kafka": [rule] }))];
    if random.once_in(4) {
        fields.push(("serverNames", json!([random.pick(APPS)])));
        fields.push(("terminatingTLS", secret()));
    }
    Asked { fields, ports: &[1024, 6443, 6444, 65535], names: &["odd"], protocols: TCP, has_ranges: true }
}

/// TLS that ends at the proxy, of which nothing is read, goes with rules for what is inside.
fn tls(random: &mut Random) -> Asked {
    let mut fields = vec![("terminatingTLS", secret())];
    if random.once_in(2) {
        fields.push(("serverNames", json!([random.pick(APPS)])));
    }
    if random.once_in(3) {
        fields.push(("originatingTLS", secret()));
    }
    let ports = &[1, 80, 443, 1023, 1024, 6443, 6444, 65535];
    Asked { fields, ports, names: &["web", "odd"], protocols: TCP, has_ranges: true }
}

fn dns(random: &mut Random) -> Asked {
    let fields = vec![("rules", json!({ "dns": [name(random)] }))];
    Asked { fields, ports: &[53], names: &["dns"], protocols: &["UDP", "TCP", "ANY", "SCTP"], has_ranges: false }
}

/// Each has a place among proxies of its own, so that no two of them conflict.
fn listener(random: &mut Random) -> Asked {
    let config = |kind: &str, name: &str| json!({ "kind": kind, "name": name });
    let listener = random.pick(&[
        json!({ "envoyConfig": config("CiliumClusterwideEnvoyConfig", "c"), "name": "one", "priority": 10 }),
        json!({ "envoyConfig": config("CiliumClusterwideEnvoyConfig", "c"), "name": "two", "priority": 100 }),
        json!({ "envoyConfig": { "name": "c" }, "name": "three" }),
    ]);
    Asked { fields: vec![("listener", listener)], ports: &[8080], names: &[], protocols: TCP, has_ranges: true }
}

fn secret() -> Value {
    json!({ "secret": { "name": "s" } })
}

fn port_rule(random: &mut Random, section: Section<'_>) -> Value {
    if section.deny || section.nodes || !random.once_in(3) {
        return json!({ "ports": random.list(3, |random| plain_port(random, section)) });
    }
    let asked = asked(random, section);
    let ports: Vec<Value> = random.list(3, |random| asked_port(random, &asked));
    let mut rule = json!({ "ports": ports });
    for (field, value) in asked.fields {
        rule[field] = value;
    }
    rule
}

fn asked_port(random: &mut Random, asked: &Asked) -> Value {
    let protocol = random.pick(asked.protocols);
    if !asked.names.is_empty() && random.once_in(5) {
        return json!({ "port": random.pick(asked.names), "protocol": protocol });
    }
    numbered(random, asked.ports, protocol, asked.has_ranges)
}

fn plain_port(random: &mut Random, section: Section<'_>) -> Value {
    let protocol = random.pick(&["TCP", "TCP", "UDP", "SCTP", "ANY"]);
    match random.below(10) {
        0 | 1 => json!({ "port": random.pick(PORT_NAMES), "protocol": protocol }),
        2 => json!({ "port": "0", "protocol": protocol }),
        3 if section.settings.extended_ip_protocols => json!({ "protocol": random.pick(&["GRE", "ESP", "TCP"]) }),
        3 => json!({ "port": "0", "protocol": "GRE" }),
        _ => numbered(random, PORTS, protocol, true),
    }
}

fn numbered(random: &mut Random, ports: &[u16], protocol: &str, has_ranges: bool) -> Value {
    let first = random.pick(ports);
    let mut port = json!({ "port": first.to_string(), "protocol": protocol });
    if has_ranges && random.once_in(3) {
        port["endPort"] = json!(random.pick(PORTS));
    }
    port
}
