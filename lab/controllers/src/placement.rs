//! May a pod run on a node?

use serde_json::Value;

use crate::read;

/// Why a node does not take a pod, in the words of the scheduler's message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Unschedulable,
    Taint(String),
    Selector,
    Port,
    AntiAffinity,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Taint(taint) => write!(f, "node(s) had untolerated taint {{{taint}}}"),
            Self::Selector => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::Port => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Self::AntiAffinity => f.write_str("node(s) didn't match pod anti-affinity rules"),
        }
    }
}

/// Whether a toleration bears a taint.
pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let (key, effect) = (read::text(toleration, "/key"), read::text(toleration, "/effect"));
    if !effect.is_empty() && taint["effect"] != effect {
        return false;
    }
    if toleration["operator"] == "Exists" {
        return key.is_empty() || taint["key"] == key;
    }
    taint["key"] == key && read::text(taint, "/value") == read::text(toleration, "/value")
}

/// The first of the node's taints that keeps the pod away.
pub fn untolerated<'a>(tolerations: &[Value], node: &'a Value) -> Option<&'a Value> {
    read::list(node, "/spec/taints")
        .iter()
        .filter(|taint| taint["effect"] != "PreferNoSchedule")
        .find(|taint| !tolerations.iter().any(|one| tolerates(one, taint)))
}

/// Whether selector and required affinity of a pod's specification fit the node.
pub fn selects(spec: &Value, node: &Value) -> bool {
    let labels = read::labels(node);
    let has = |(key, value): (&String, &Value)| labels.is_some_and(|labels| labels.get(key) == Some(value));
    if !spec["nodeSelector"].as_object().into_iter().flatten().all(has) {
        return false;
    }
    let required = spec.pointer("/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    let Some(required) = required else { return true };
    read::list(required, "/nodeSelectorTerms").iter().any(|term| term_selects(term, node))
}

fn term_selects(term: &Value, node: &Value) -> bool {
    let (expressions, fields) = (read::list(term, "/matchExpressions"), read::list(term, "/matchFields"));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| read::labels(node).and_then(|labels| labels.get(key)).and_then(Value::as_str);
    expressions.iter().all(|one| read::expression(one, label(read::text(one, "/key"))))
        && fields
            .iter()
            .all(|one| read::text(one, "/key") == "metadata.name" && read::expression(one, Some(read::name(node))))
}

/// Ports of the node that a pod takes: protocol and number.
pub fn host_ports(pod: &Value) -> impl Iterator<Item = (&str, i64)> {
    let containers = read::list(pod, "/spec/containers").iter();
    containers.flat_map(|one| read::list(one, "/ports")).filter_map(|port| {
        let number = port["hostPort"].as_i64().filter(|number| *number > 0)?;
        Some((port["protocol"].as_str().unwrap_or("TCP"), number))
    })
}

/// Why the node does not take the pod, given the pods that it has; None if it does.
pub fn refusal(pod: &Value, node: &Value, present: &[&Value]) -> Option<Refusal> {
    let tolerations = read::list(pod, "/spec/tolerations");
    let cordon = serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    if node["spec"]["unschedulable"] == true && !tolerations.iter().any(|one| tolerates(one, &cordon)) {
        return Some(Refusal::Unschedulable);
    }
    if let Some(taint) = untolerated(tolerations, node) {
        return Some(Refusal::Taint(format!("{}: {}", read::text(taint, "/key"), read::text(taint, "/value"))));
    }
    if !selects(&pod["spec"], node) {
        return Some(Refusal::Selector);
    }
    let taken = |port: &(&str, i64)| present.iter().any(|other| host_ports(other).any(|theirs| theirs == *port));
    if host_ports(pod).any(|port| taken(&port)) {
        return Some(Refusal::Port);
    }
    repelled(pod, present).then_some(Refusal::AntiAffinity)
}

/// Required anti-affinity on the node itself; wider topologies are not looked at.
fn repelled(pod: &Value, present: &[&Value]) -> bool {
    const PATH: &str = "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    read::list(pod, PATH).iter().filter(|term| term["topologyKey"] == "kubernetes.io/hostname").any(|term| {
        let same = |other: &&&Value| read::namespace(other) == read::namespace(pod);
        present.iter().filter(same).any(|other| read::selects(&term["labelSelector"], read::labels(other)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn taints_selectors_and_ports_keep_pods_away() {
        let node = json!({"metadata": {"name": "n", "labels": {"zone": "a"}}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        let mut pod = json!({"spec": {"containers": [{"ports": [{"hostPort": 80}]}]}});
        assert_eq!(refusal(&pod, &node, &[]), Some(Refusal::Taint("k: ".into())));
        pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        assert_eq!(refusal(&pod, &node, &[]), None);
        let other = pod.clone();
        assert_eq!(refusal(&pod, &node, &[&other]), Some(Refusal::Port));
        pod["spec"]["nodeSelector"] = json!({"zone": "b"});
        assert_eq!(refusal(&pod, &node, &[]), Some(Refusal::Selector));
    }

    #[test]
    fn affinity_to_one_node_by_name() {
        let spec = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}}}});
        assert!(selects(&spec, &json!({"metadata": {"name": "n"}})));
        assert!(!selects(&spec, &json!({"metadata": {"name": "m"}})));
    }
}
