//! Which nodes lack a daemon set's pod, and which pods are of an old template?

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::action::{Action, delete, tell};
use crate::placement::{selects, untolerated};
use crate::view::{Kind, View};
use crate::{pods, read, rolling, template};

const COMPONENT: &str = "daemonset-controller";
const HASH: &str = "controller-revision-hash";

pub fn plan(view: &View, now: jiff::Timestamp) -> Vec<Action> {
    let owned = view.by_controller(Kind::Pod);
    let nodes: Vec<&Arc<Value>> = view.all(Kind::Node).collect();
    let empty = Vec::new();
    let sets = view.all(Kind::DaemonSet);
    sets.flat_map(|set| of_set(set, &nodes, owned.get(read::uid(set)).unwrap_or(&empty), now)).collect()
}

/// Daemon pods stay where others have to leave.
fn tolerations(set: &Value) -> Vec<Value> {
    let mut all = read::list(set, "/spec/template/spec/tolerations").to_vec();
    let mut add = |key: &str, effect: &str| {
        let toleration = json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect});
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    };
    add("not-ready", "NoExecute");
    add("unreachable", "NoExecute");
    for key in ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"] {
        add(key, "NoSchedule");
    }
    if set.pointer("/spec/template/spec/hostNetwork") == Some(&json!(true)) {
        add("network-unavailable", "NoSchedule");
    }
    all
}

/// The node that a daemon's pod is for, also before it is bound.
fn node_of(pod: &Value) -> &str {
    let bound = read::text(pod, "/spec/nodeName");
    if !bound.is_empty() {
        return bound;
    }
    const TERMS: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let fields = read::list(pod, TERMS).iter().flat_map(|term| read::list(term, "/matchFields"));
    let names = fields.filter(|one| one["key"] == "metadata.name").flat_map(|one| read::list(one, "/values"));
    names.filter_map(Value::as_str).next().unwrap_or_default()
}

fn pod_for(set: &Value, node: &str, hash: &str, tolerations: &[Value]) -> Value {
    let mut pod = template::pod(set, &set["spec"]["template"]);
    pod["metadata"]["labels"][HASH] = hash.into();
    pod["metadata"]["labels"]["pod-template-generation"] =
        read::number(set, "/metadata/generation", 1).to_string().into();
    pod["spec"]["tolerations"] = tolerations.into();
    let name = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [{"matchFields": [name]}]});
    pod
}

fn of_set(set: &Value, nodes: &[&Arc<Value>], owned: &[&Arc<Value>], now: jiff::Timestamp) -> Vec<Action> {
    let tolerations = tolerations(set);
    let hash = template::hash(&set["spec"]["template"]);
    let spec = &set["spec"]["template"]["spec"];
    let fits = |node: &Value| selects(spec, node) && untolerated(&tolerations, node).is_none();
    let mut by_node: HashMap<&str, Vec<&Arc<Value>>> = HashMap::new();
    for pod in owned {
        by_node.entry(node_of(pod)).or_default().push(pod);
    }
    let wanted: Vec<&str> = nodes.iter().filter(|node| fits(node)).map(|node| read::name(node)).collect();
    let mut actions = Vec::new();
    if !read::is_deleting(set) {
        for node in &wanted {
            let present = by_node.get(node).map_or(&[][..], Vec::as_slice);
            actions.extend(on_node(set, node, present, &hash, &tolerations));
        }
        for (node, present) in &by_node {
            let exists = nodes.iter().any(|one| read::name(one) == *node);
            if exists && !wanted.contains(node) {
                let leaving = present.iter().filter(|pod| pods::is_active(pod));
                actions.extend(leaving.map(|pod| delete(Kind::Pod, pod)));
            }
        }
        actions.extend(replace_old(set, &wanted, &by_node, &hash, now));
    }
    actions.extend(status(set, &wanted, &by_node, &hash, now));
    actions
}

fn on_node(set: &Value, node: &str, present: &[&Arc<Value>], hash: &str, tolerations: &[Value]) -> Vec<Action> {
    let mut actions = Vec::new();
    for pod in present.iter().filter(|pod| pods::has_ended(pod) && !read::is_deleting(pod)) {
        actions.push(delete(Kind::Pod, pod));
        actions.push(tell(
            COMPONENT,
            set,
            "FailedDaemonPod",
            format!("Found failed daemon pod {} on node {node}, will try to kill it", read::name(pod)),
        ));
    }
    let mut active: Vec<_> = present.iter().filter(|pod| pods::is_active(pod)).collect();
    if present.is_empty() {
        actions.push(Action::Create(Kind::Pod, pod_for(set, node, hash, tolerations)));
    }
    // Of two, the better one stays.
    active.sort_by_cached_key(|pod| std::cmp::Reverse(pods::worth(pod)));
    actions.extend(active.iter().skip(1).map(|pod| delete(Kind::Pod, pod)));
    actions
}

fn is_current(pod: &Value, hash: &str) -> bool {
    read::labels(pod).is_some_and(|labels| labels.get(HASH).is_some_and(|label| label == hash))
}

fn replace_old(
    set: &Value,
    wanted: &[&str],
    by_node: &HashMap<&str, Vec<&Arc<Value>>>,
    hash: &str,
    now: jiff::Timestamp,
) -> Vec<Action> {
    if set["spec"]["updateStrategy"]["type"] == "OnDelete" {
        return Vec::new();
    }
    let seconds = read::number(set, "/spec/minReadySeconds", 0);
    let total = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
    let limit = &set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
    let most = if limit.is_null() { 1 } else { rolling::resolve(limit, total, true).max(1) };
    let mut missing = 0;
    let (mut broken, mut working) = (Vec::new(), Vec::new());
    for node in wanted {
        let active = by_node.get(node).into_iter().flatten().find(|pod| pods::is_active(pod));
        let available = active.is_some_and(|pod| pods::is_available(pod, seconds, now));
        missing += i64::from(!available);
        if let Some(pod) = active.filter(|pod| !is_current(pod, hash)) {
            if available { working.push(*pod) } else { broken.push(*pod) }
        }
    }
    let spare = usize::try_from(most - missing).unwrap_or(0);
    broken.into_iter().chain(working.into_iter().take(spare)).map(|pod| delete(Kind::Pod, pod)).collect()
}

fn status(
    set: &Value,
    wanted: &[&str],
    by_node: &HashMap<&str, Vec<&Arc<Value>>>,
    hash: &str,
    now: jiff::Timestamp,
) -> Option<Action> {
    let seconds = read::number(set, "/spec/minReadySeconds", 0);
    let on = |node: &str| by_node.get(node).into_iter().flatten().find(|pod| !read::is_deleting(pod));
    let count =
        |holds: &dyn Fn(&Value) -> bool| wanted.iter().filter_map(|node| on(node)).filter(|pod| holds(pod)).count();
    let available = count(&|pod| pods::is_available(pod, seconds, now));
    let misplaced = by_node
        .iter()
        .filter(|(node, present)| !wanted.contains(node) && present.iter().any(|pod| pods::is_active(pod)))
        .count();
    let mut new = json!({
        "currentNumberScheduled": count(&|_| true), "numberMisscheduled": misplaced,
        "desiredNumberScheduled": wanted.len(), "numberReady": count(&pods::is_ready),
        "observedGeneration": read::number(set, "/metadata/generation", 1),
    });
    for (field, value) in [
        ("updatedNumberScheduled", count(&|pod| is_current(pod, hash))),
        ("numberAvailable", available),
        ("numberUnavailable", wanted.len() - available),
    ] {
        if value > 0 {
            new[field] = value.into();
        }
    }
    (set.get("status") != Some(&new)).then(|| {
        let mut changed = set.clone();
        changed["status"] = new;
        Action::ReplaceStatus(Kind::DaemonSet, changed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let mut view = View::default();
        for name in ["a", "b"] {
            view.put(
                Kind::Node,
                json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"},
                "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}}),
            );
        }
        view.put(Kind::DaemonSet, json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"namespace": "n", "name": "agent", "uid": "ds", "generation": 1, "resourceVersion": "1"},
            "spec": {"template": {"metadata": {"labels": {"k8s-app": "agent"}}, "spec": {"hostNetwork": true, "containers": []}}}}));
        view
    }

    #[test]
    fn each_node_gets_one_pod_even_if_it_is_not_ready() {
        let actions = plan(&view(), jiff::Timestamp::UNIX_EPOCH);
        let nodes: Vec<String> = actions
            .iter()
            .filter_map(
                |one| if let Action::Create(Kind::Pod, pod) = one { Some(node_of(pod).to_owned()) } else { None },
            )
            .collect();
        assert_eq!(nodes, ["a", "b"]);
    }

    #[test]
    fn only_one_old_pod_is_replaced_at_a_time() {
        let mut view = view();
        for node in ["a", "b"] {
            view.put(
                Kind::Pod,
                json!({"metadata": {"namespace": "n", "name": node, "uid": format!("p{node}"), "resourceVersion": "2",
                    "labels": {HASH: "old"}, "ownerReferences": [{"uid": "ds", "controller": true}]},
                "spec": {"nodeName": node},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
            );
        }
        let actions = plan(&view, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(actions.iter().filter(|one| matches!(one, Action::Delete { .. })).count(), 1);
    }
}
