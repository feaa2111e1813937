//! Do ports, ranges and prefixes of policies let pass exactly what they name?

use std::net::IpAddr;

use crds::Source;
use ipnet::IpNet;
use labels::Labels;
use policy::{Direction, PolicyObject, Repository, Settings};
use serde_json::json;

/// Lines: port, end of the range, protocol, prefix, exception.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    let (port, end, protocol, prefix, except) = (next(), next(), next(), next(), next());
    ranges(port, end, protocol);
    prefixes(prefix, except);
}

fn policy(spec: serde_json::Value) -> Option<PolicyObject> {
    let object = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": { "name": "p", "namespace": "default" }, "spec": spec,
    });
    PolicyObject::from_value(&object, &Source::default(), &Settings::default()).ok()
}

const SUBJECT: [&str; 2] = ["k8s:io.kubernetes.pod.namespace=default", "k8s:io.cilium.k8s.policy.cluster=default"];

fn repository(policy: PolicyObject) -> Repository {
    let mut repository = Repository::new(Settings::default());
    repository.upsert_identity(2, &Labels::reserved("world"));
    repository.upsert_identity(256, &Labels::parse(SUBJECT).unwrap());
    repository.upsert_policy(policy);
    repository
}

fn ranges(port: &str, end: &str, protocol: &str) {
    let mut one = json!({ "port": port });
    if let Ok(end) = end.parse::<i64>() {
        one["endPort"] = json!(end);
    }
    if !protocol.is_empty() {
        one["protocol"] = json!(protocol);
    }
    let Some(policy) = policy(json!({ "endpointSelector": {}, "ingress": [{ "toPorts": [{ "ports": [one] }] }] }))
    else {
        return;
    };
    // Numbers that begin with a zero, or a sign, are read in ways of their own.
    let plain = port == "0" || port.starts_with(|first: char| ('1'..='9').contains(&first));
    let Some(first) = port.parse::<u16>().ok().filter(|_| plain) else { return };
    // An end that lies before the first port is not heeded.
    let last = end.parse::<u16>().ok().filter(|last| *last > first).unwrap_or(first);
    let tables = repository(policy).subject_policy(256).unwrap();
    let edges = [0, 1, first.wrapping_sub(1), first, first.wrapping_add(1), last, last.wrapping_add(1), u16::MAX];
    for (number, name) in [(6, "TCP"), (17, "UDP"), (132, "SCTP")] {
        let of_protocol = ["", "ANY", name].contains(&protocol.to_ascii_uppercase().as_str());
        for edge in edges {
            let found = tables.verdict(2, Direction::Ingress, number, edge).verdict == abi::policy::VERDICT_ALLOW;
            let named = of_protocol && (first == 0 || (first..=last).contains(&edge));
            assert_eq!(found, named, "{name} {edge} for {port}-{end} {protocol}");
        }
    }
}

fn prefixes(prefix: &str, except: &str) {
    let mut set = json!({ "cidr": prefix });
    if !except.is_empty() {
        set["except"] = json!([except]);
    }
    let Some(policy) = policy(json!({ "endpointSelector": {}, "egress": [{ "toCIDRSet": [set] }] })) else { return };
    let parse = |text: &str| {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse::<IpNet>().ok().or_else(address).map(|prefix| prefix.trunc())
    };
    let wanted = parse(prefix).expect("what the policy takes is a prefix");
    let without = (!except.is_empty()).then(|| parse(except).expect("what the policy takes is a prefix"));
    let mut repository = repository(policy);
    for (number, own) in (16_777_216..).zip(repository.prefixes()) {
        let families = Settings::default().families;
        repository.upsert_identity(number, &identity::cidr_labels(own, families));
        let tables = repository.subject_policy(256).unwrap();
        let found = tables.verdict(number, Direction::Egress, 6, 1).verdict == abi::policy::VERDICT_ALLOW;
        let named = wanted.contains(&own) && !without.is_some_and(|part| part.contains(&own));
        assert_eq!(found, named, "{own} for {prefix} without {except}");
    }
}
