//! Which policies of Kubernetes' own kinds are worth trying?

use policy::Settings;
use serde_json::{Value, json};

use super::{APPS, NAMESPACES, PORT_NAMES, PORTS, PREFIXES};
use crate::random::Random;

pub(super) fn cluster_network_policy(random: &mut Random, settings: &Settings) -> Value {
    let mut spec = json!({
        "tier": random.pick(&["Admin", "Admin", "Baseline"]),
        "priority": random.below(3),
        "subject": if random.once_in(2) { json!({ "namespaces": {} }) } else { json!({ "pods": namespaced_pod(random) }) },
    });
    for section in ["ingress", "egress"] {
        if random.once_in(2) {
            spec[section] = random.list(3, |random| cluster_rule(random, settings, section)).into();
        }
    }
    let metadata = json!({ "name": format!("c{}", random.below(3)) });
    json!({ "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": metadata, "spec": spec })
}

fn cluster_rule(random: &mut Random, settings: &Settings, section: &str) -> Value {
    let egress = section == "egress";
    let action = random.pick(&["Accept", "Deny", "Pass", "Pass"]);
    let mut rule = json!({ "action": action });
    if !random.once_in(4) {
        let peers = random.list(2, |random| match random.below(if egress { 6 } else { 3 }) {
            0 => json!({ "namespaces": { "matchLabels": { "team": random.pick(APPS) } } }),
            1 => json!({ "pods": namespaced_pod(random) }),
            2 => json!({ "namespaces": {} }),
            3 if settings.node_selector_labels => json!({ "nodes": node_selector(random) }),
            4 if action == "Accept" => json!({ "domainNames": [random.pick(&["one.example", "*.example"])] }),
            _ => json!({ "networks": random.list(2, |random| json!(random.pick(PREFIXES))) }),
        });
        rule[if egress { "to" } else { "from" }] = peers.into();
    }
    if random.once_in(2) {
        rule["protocols"] = random.list(2, cluster_protocol).into();
    }
    rule
}

fn node_selector(random: &mut Random) -> Value {
    random.pick(&[
        json!({}),
        json!({ "matchLabels": { "role": "infra" } }),
        json!({ "matchLabels": { "role": "plain" } }),
    ])
}

fn namespaced_pod(random: &mut Random) -> Value {
    let namespaces =
        if random.once_in(2) { json!({}) } else { json!({ "matchLabels": { "team": random.pick(APPS) } }) };
    json!({ "namespaceSelector": namespaces, "podSelector": plain_selector(random) })
}

fn cluster_protocol(random: &mut Random) -> Value {
    let (one, two) = (random.pick(PORTS), random.pick(PORTS));
    match random.below(7) {
        0 => json!({ "tcp": {} }),
        5 => json!({ "sctp": {} }),
        6 => json!({ "sctp": { "destinationPort": { "number": one } } }),
        1 => json!({ "destinationNamedPort": random.pick(PORT_NAMES) }),
        2 => json!({ "udp": { "destinationPort": { "number": one } } }),
        3 => json!({ "tcp": { "destinationPort": { "range": { "start": one.min(two), "end": one.max(two) } } } }),
        _ => json!({ "tcp": { "destinationPort": { "number": one } } }),
    }
}

pub(super) fn network_policy(random: &mut Random) -> Value {
    let mut spec = json!({ "podSelector": plain_selector(random) });
    if random.once_in(2) {
        spec["ingress"] = random.list(2, |random| k8s_rule(random, "from")).into();
    }
    if random.once_in(2) {
        spec["egress"] = random.list(2, |random| k8s_rule(random, "to")).into();
    }
    if !random.once_in(4) {
        spec["policyTypes"] = random.pick(&[json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    }
    let metadata = json!({ "name": format!("k{}", random.below(3)), "namespace": random.pick(NAMESPACES) });
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec })
}

fn plain_selector(random: &mut Random) -> Value {
    match random.below(6) {
        0 | 1 => json!({}),
        2 => json!({ "matchExpressions": [{ "key": "tier", "operator": random.pick(&["Exists", "DoesNotExist"]) }] }),
        3 => json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": [random.pick(APPS)] }] }),
        _ => json!({ "matchLabels": { "app": random.pick(APPS) } }),
    }
}

fn k8s_rule(random: &mut Random, peers: &str) -> Value {
    let mut rule = json!({});
    match random.below(8) {
        0 => {}
        1 => rule[peers] = json!([]),
        _ => rule[peers] = random.list(2, k8s_peer).into(),
    }
    if random.once_in(2) {
        let first = random.pick(PORTS);
        rule["ports"] = random.pick(&[
            json!([{ "port": first }]),
            json!([{ "port": first, "endPort": 65535, "protocol": "UDP" }]),
            json!([{ "port": "web" }]),
            json!([{ "protocol": "TCP" }]),
            json!([{ "port": first, "protocol": "SCTP" }, { "port": "dns", "protocol": "UDP" }]),
        ]);
    }
    rule
}

fn k8s_peer(random: &mut Random) -> Value {
    match random.below(4) {
        0 => json!({ "podSelector": plain_selector(random) }),
        1 => json!({ "namespaceSelector": {}, "podSelector": plain_selector(random) }),
        2 => json!({ "namespaceSelector": { "matchLabels": { "team": random.pick(APPS) } } }),
        _ => json!({ "ipBlock": super::cidr_rule(random) }),
    }
}
