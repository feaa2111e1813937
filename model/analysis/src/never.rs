//! Does a rule, read by itself, speak of anything that can be there?

use std::collections::BTreeMap;

use labels::{Operator, Requirement, Selector};
use policy::{CidrSet, Entity, Learned, Peer, Ports, Rule, Subject};

use crate::area::Area;
use crate::language::{Found, Language, find};

/// Why a rule, or a part of it, never matches; nothing if it can.
pub fn never(rule: &Rule) -> Vec<String> {
    let mut reasons = Vec::new();
    let (Subject::Endpoints(subject) | Subject::Nodes(subject)) = &rule.subject;
    if let Some(contradiction) = contradiction(subject) {
        reasons.push(format!("it is for nobody: {contradiction}"));
    }
    let peers: Vec<Option<String>> = rule.peers.iter().map(nobody).collect();
    if !peers.is_empty() && peers.iter().all(Option::is_some) {
        let why: Vec<String> = peers.into_iter().flatten().collect();
        reasons.push(format!("its peers are nobody: {}", why.join("; ")));
    } else {
        reasons.extend(peers.into_iter().flatten().map(|why| format!("one of its peers is nobody: {why}")));
    }
    if let Ports::Some(ports) = &rule.ports {
        for asked in ports.iter().filter_map(|port| port.l7.as_ref()) {
            reasons.extend(asked.rules.iter().flat_map(|rules| rules.http.iter().flatten()).filter_map(no_request));
        }
    }
    reasons.sort();
    reasons.dedup();
    reasons
}

fn nobody(peer: &Peer) -> Option<String> {
    match peer {
        Peer::All => None,
        Peer::Labels(selector) | Peer::Sums(selector) => contradiction(selector),
        Peer::Entity { entity, .. } => (*entity == Entity::None).then(|| "the entity none".to_owned()),
        Peer::Cidr(set) => {
            let CidrSet { prefix, except } = set;
            let empty = Area::new(*prefix).without(except).is_none();
            empty.then(|| format!("the exceptions of {prefix} are all of it"))
        }
        Peer::Learned(Learned::Group(name, _)) if name.is_empty() => Some("a group without a name".to_owned()),
        Peer::Learned(_) => None,
    }
}

/// Two conditions on one label that cannot hold at once.
fn contradiction(selector: &Selector) -> Option<String> {
    let mut by_key: BTreeMap<_, Vec<&Requirement>> = BTreeMap::new();
    for one in selector.requirements() {
        by_key.entry(&one.key).or_default().push(one);
    }
    by_key.into_values().find(|all| !possible(all)).map(|all| {
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        format!("{} cannot all hold", texts.join(", "))
    })
}

/// True if some value, or none at all, fulfils all of them.
fn possible(all: &[&Requirement]) -> bool {
    let allows = |value: Option<&str>| {
        all.iter().all(|one| match (&one.operator, value) {
            (Operator::In(values), Some(value)) => values.iter().any(|known| known == value),
            (Operator::In(_) | Operator::Exists, None) | (Operator::DoesNotExist, Some(_)) => false,
            (Operator::NotIn(values), Some(value)) => !values.iter().any(|known| known == value),
            (Operator::NotIn(_) | Operator::DoesNotExist, None) | (Operator::Exists, Some(_)) => true,
        })
    };
    let named = all.iter().flat_map(|one| match &one.operator {
        Operator::In(values) | Operator::NotIn(values) => values.as_slice(),
        Operator::Exists | Operator::DoesNotExist => &[],
    });
    // A value that none of them names stands for all such.
    let other = "\u{1}";
    allows(None) || allows(Some(other)) || named.into_iter().any(|value| allows(Some(value)))
}

fn no_request(rule: &crds::HttpRule) -> Option<String> {
    let part = |pattern: &Option<String>, what: &str, wellformed: &str, hint: &str| {
        let pattern = pattern.as_ref().filter(|pattern| !pattern.is_empty())?;
        let (one, two) = (Language::of_pattern(pattern)?, Language::of_pattern(wellformed)?);
        (find(&[&one, &two], &[]) == Found::Nothing)
            .then(|| format!("no request has a {what} that matches {pattern:?}: {hint}"))
    };
    part(&rule.path, "path", "/[^\\x00-\\x20\\x7f]*|\\*", "paths begin with a slash")
        .or_else(|| part(&rule.method, "method", "[A-Z][-A-Z_]*", "methods are words in capitals, like GET"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn check(rule: serde_json::Value, expected: &str) {
        let object = json!({ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": { "name": "p" },
            "spec": { "endpointSelector": {}, "ingress": [rule] } });
        let settings = policy::Settings::default();
        let object = policy::PolicyObject::from_value(&object, &crds::Source::default(), &settings).unwrap();
        let found = never(&object.rules[0]).join("; ");
        assert!(if expected.is_empty() { found.is_empty() } else { found.contains(expected) }, "{found}");
    }

    #[test]
    fn contradictions_are_found_and_only_they() {
        let expression = |operator: &str, values: &[&str]| match values.is_empty() {
            true => json!({ "key": "app", "operator": operator }),
            false => json!({ "key": "app", "operator": operator, "values": values }),
        };
        let peer = |all: &[serde_json::Value]| json!({ "fromEndpoints": [{ "matchExpressions": all }] });
        check(peer(&[expression("In", &["a"]), expression("NotIn", &["a"])]), "cannot all hold");
        check(peer(&[expression("In", &["a", "b"]), expression("NotIn", &["a"])]), "");
        check(peer(&[expression("Exists", &[]), expression("DoesNotExist", &[])]), "cannot all hold");
        check(peer(&[expression("NotIn", &["a"]), expression("Exists", &[])]), "");
    }

    #[test]
    fn prefixes_and_requests_that_cannot_be_are_found() {
        check(
            json!({ "fromCIDRSet": [{ "cidr": "10.0.0.0/8", "except": ["10.0.0.0/9", "10.128.0.0/9"] }] }),
            "all of it",
        );
        check(json!({ "fromCIDRSet": [{ "cidr": "10.0.0.0/8", "except": ["10.0.0.0/9"] }] }), "");
        let http = |path: &str| json!({ "toPorts": [{ "ports": [{ "port": "80", "protocol": "TCP" }], "rules": { "http": [{ "path": path }] } }] });
        check(http("public"), "paths begin with a slash");
        check(http("/public"), "");
        check(http(".*"), "");
    }
}
