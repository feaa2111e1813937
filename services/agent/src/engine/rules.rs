//! How does a policy object look as the list of rules that `cilium-dbg policy get` prints?

use serde_json::{Map, Value, json};

use crate::ops::{PolicyKey, PolicyKind};

const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";
/// Sources of labels that a selector's key may begin with.
const SOURCES: [&str; 5] = ["any:", "k8s:", "reserved:", "cidr:", "cidrgroup:"];

/// The rules of an object: its `spec` and each of its `specs`, with the labels that say where they come from.
pub fn of(key: &PolicyKey, object: &Value) -> Vec<Value> {
    let specs = object["specs"].as_array().into_iter().flatten();
    let all = object.get("spec").filter(|spec| spec.is_object()).into_iter().chain(specs);
    all.map(|spec| rule(key, object, spec)).collect()
}

fn rule(key: &PolicyKey, object: &Value, spec: &Value) -> Value {
    let mut rule = spec.clone();
    if matches!(key.kind, PolicyKind::Cilium | PolicyKind::CiliumClusterwide) {
        complete(&mut rule, &key.namespace);
    }
    if let Value::Object(fields) = &mut rule {
        let own = fields.get("labels").and_then(Value::as_array).cloned().unwrap_or_default();
        fields.insert("labels".into(), own.into_iter().chain(origin(key, object)).collect());
    }
    rule
}

/// Where a rule comes from, as labels.
fn origin(key: &PolicyKey, object: &Value) -> Vec<Value> {
    let kind = match key.kind {
        PolicyKind::Cilium => "CiliumNetworkPolicy",
        PolicyKind::CiliumClusterwide => "CiliumClusterwideNetworkPolicy",
        PolicyKind::Kubernetes => "NetworkPolicy",
        PolicyKind::KubernetesCluster => "ClusterNetworkPolicy",
    };
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    let all = [("derived-from", kind), ("name", &key.name), ("namespace", &key.namespace), ("uid", uid)];
    let label = |(name, value): (&str, &str)| json!({"key": format!("io.cilium.k8s.policy.{name}"), "value": value, "source": "k8s"});
    all.into_iter().filter(|(_, value)| !value.is_empty()).map(label).collect()
}

/// Writes out what selectors leave to be understood: the source of a label, and the policy's own namespace.
fn complete(rule: &mut Value, namespace: &str) {
    for name in ["endpointSelector", "nodeSelector"] {
        if let Some(selector) = rule.get_mut(name) {
            complete_selector(selector, if name == "endpointSelector" { namespace } else { "" });
        }
    }
    for direction in ["ingress", "ingressDeny", "egress", "egressDeny"] {
        for entry in rule.get_mut(direction).and_then(Value::as_array_mut).into_iter().flatten() {
            for peers in ["fromEndpoints", "toEndpoints"] {
                let peers = entry.get_mut(peers).and_then(Value::as_array_mut).into_iter().flatten();
                peers.for_each(|selector| complete_selector(selector, namespace));
            }
        }
    }
}

fn complete_selector(selector: &mut Value, namespace: &str) {
    if let Some(Value::Object(labels)) = selector.get_mut("matchLabels") {
        let given = std::mem::take(labels);
        labels.extend(given.into_iter().map(|(key, value)| (with_source(&key), value)));
    }
    for expression in selector.get_mut("matchExpressions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(Value::String(key)) = expression.get_mut("key") {
            *key = with_source(key);
        }
    }
    if !namespace.is_empty() && !names_namespace(selector) {
        let Value::Object(fields) = selector else { return };
        let labels = fields.entry("matchLabels").or_insert_with(|| Value::Object(Map::new()));
        labels[NAMESPACE] = namespace.into();
    }
}

fn with_source(key: &str) -> String {
    if SOURCES.iter().any(|source| key.starts_with(source)) { key.to_owned() } else { format!("any:{key}") }
}

/// Such a selector says itself whose endpoints it means.
fn names_namespace(selector: &Value) -> bool {
    let labels = selector["matchLabels"].as_object().into_iter().flat_map(Map::keys).map(String::as_str);
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let mut keys = labels.chain(expressions.filter_map(|one| one["key"].as_str()));
    keys.any(|key| {
        let bare = key.split_once(':').map_or(key, |(_, rest)| rest);
        bare == "io.kubernetes.pod.namespace"
            || bare.starts_with("io.cilium.k8s.namespace.labels.")
            || key.starts_with("reserved:")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: PolicyKind, namespace: &str) -> PolicyKey {
        PolicyKey { kind, namespace: namespace.into(), name: "p".into() }
    }

    #[test]
    fn selectors_say_source_and_namespace_and_rules_their_origin() {
        let object = json!({"metadata": {"uid": "u"}, "spec": {
            "endpointSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"fromEndpoints": [{}, {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "b"}},
                {"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}],
        }});
        let rules = of(&key(PolicyKind::Cilium, "a"), &object);
        let wanted = json!([{
            "endpointSelector": {"matchLabels": {"any:app": "web", "k8s:io.kubernetes.pod.namespace": "a"}},
            "ingress": [{"fromEndpoints": [
                {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "a"}},
                {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "b"}},
                {"matchExpressions": [{"key": "any:x", "operator": "Exists"}], "matchLabels": {"k8s:io.kubernetes.pod.namespace": "a"}},
            ]}],
            "labels": [
                {"key": "io.cilium.k8s.policy.derived-from", "value": "CiliumNetworkPolicy", "source": "k8s"},
                {"key": "io.cilium.k8s.policy.name", "value": "p", "source": "k8s"},
                {"key": "io.cilium.k8s.policy.namespace", "value": "a", "source": "k8s"},
                {"key": "io.cilium.k8s.policy.uid", "value": "u", "source": "k8s"},
            ],
        }]);
        assert_eq!(Value::Array(rules), wanted);
    }

    #[test]
    fn clusterwide_ones_have_no_namespace_and_several_specs_are_several_rules() {
        let object = json!({"specs": [{"nodeSelector": {}}, {"endpointSelector": {}, "labels": [{"key": "mine"}]}]});
        let rules = of(&key(PolicyKind::CiliumClusterwide, ""), &object);
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0]["nodeSelector"], json!({}));
        assert_eq!(rules[1]["labels"][0], json!({"key": "mine"}));
        assert_eq!(rules[1]["endpointSelector"], json!({}));
        let network = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}});
        assert_eq!(of(&key(PolicyKind::Kubernetes, "a"), &network)[0]["podSelector"], json!({}));
    }
}
