//! Is a node still there, and what becomes of the pods of one that is not?

use serde_json::{Value, json};

use crate::action::{Action, delete, tell};
use crate::placement::tolerates;
use crate::view::{Kind, View};
use crate::{Config, pods, read};

const COMPONENT: &str = "node-controller";
const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub fn plan(view: &View, config: &Config, now: jiff::Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    for node in view.all(Kind::Node).filter(|node| !read::is_deleting(node)) {
        let silent = silence(view, node, now) > i64::try_from(config.node_grace.as_secs()).unwrap_or(i64::MAX);
        if silent && !is_unknown(node) {
            actions.push(Action::ReplaceStatus(Kind::Node, lost(node, now)));
            actions.push(tell(
                COMPONENT,
                node,
                "NodeNotReady",
                format!("Node {} status is now: NodeNotReady", read::name(node)),
            ));
            continue;
        }
        actions.extend(taint(node, now));
    }
    actions.extend(evict(view, now));
    actions.extend(orphans(view));
    actions
}

/// Seconds since the node last gave a sign of life.
fn silence(view: &View, node: &Value, now: jiff::Timestamp) -> i64 {
    let lease = view.get(Kind::Lease, LEASES, read::name(node)).and_then(|lease| read::time(lease, "/spec/renewTime"));
    let beat = read::condition(node, "Ready").and_then(|one| read::time(one, "/lastHeartbeatTime"));
    let born = read::time(node, "/metadata/creationTimestamp");
    let last = lease.into_iter().chain(beat).chain(born).max();
    last.map_or(0, |last| now.as_second() - last.as_second())
}

fn is_unknown(node: &Value) -> bool {
    read::condition(node, "Ready").is_some_and(|one| one["status"] == "Unknown")
}

fn lost(node: &Value, now: jiff::Timestamp) -> Value {
    let mut changed = node.clone();
    let mut conditions = read::list(node, "/status/conditions").to_vec();
    if !conditions.iter().any(|one| one["type"] == "Ready") {
        conditions.push(json!({"type": "Ready"}));
    }
    for one in &mut conditions {
        one["status"] = "Unknown".into();
        one["reason"] = "NodeStatusUnknown".into();
        one["message"] = "Kubelet stopped posting node status.".into();
        one["lastTransitionTime"] = read::stamp(now).into();
        if one["lastHeartbeatTime"].is_null() {
            one["lastHeartbeatTime"] = read::stamp(now).into();
        }
    }
    changed["status"]["conditions"] = conditions.into();
    changed
}

/// Taints follow readiness.
fn taint(node: &Value, now: jiff::Timestamp) -> Option<Action> {
    let ready = read::condition(node, "Ready").map(|one| read::text(one, "/status"));
    let wanted = match ready {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let mut taints = read::list(node, "/spec/taints").to_vec();
    let before = taints.clone();
    taints.retain(|one| {
        !(one["key"] == NOT_READY || one["key"] == UNREACHABLE) || wanted.is_some_and(|wanted| one["key"] == wanted)
    });
    if let Some(key) = wanted {
        for effect in ["NoSchedule", "NoExecute"] {
            if !taints.iter().any(|one| one["key"] == key && one["effect"] == effect) {
                taints.push(json!({"key": key, "effect": effect, "timeAdded": read::stamp(now)}));
            }
        }
    }
    (taints != before).then(|| {
        let mut changed = node.clone();
        changed["spec"]["taints"] = taints.into();
        Action::Replace(Kind::Node, changed)
    })
}

/// Pods that do not bear a taint of their node, or not for longer, are deleted.
fn evict(view: &View, now: jiff::Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    for pod in view.all(Kind::Pod).filter(|pod| pods::is_active(pod)) {
        let Some(node) = view.get(Kind::Node, "", read::text(pod, "/spec/nodeName")) else { continue };
        let tolerations = read::list(pod, "/spec/tolerations");
        let driven = read::list(node, "/spec/taints").iter().filter(|one| one["effect"] == "NoExecute").any(|taint| {
            let bearing: Vec<&Value> = tolerations.iter().filter(|one| tolerates(one, taint)).collect();
            let limit = bearing.iter().filter_map(|one| one["tolerationSeconds"].as_i64()).min();
            let since = read::time(taint, "/timeAdded").unwrap_or(now);
            bearing.is_empty() || limit.is_some_and(|limit| now.as_second() - since.as_second() >= limit)
        });
        if driven {
            actions.push(delete(Kind::Pod, pod));
            let message = format!("Marking for deletion Pod {}/{}", read::namespace(pod), read::name(pod));
            actions.push(tell("taint-eviction-controller", pod, "TaintManagerEviction", message));
        }
    }
    actions
}

/// Pods of nodes that are no more: nobody else would end them.
fn orphans(view: &View) -> Vec<Action> {
    let orphaned = |pod: &&std::sync::Arc<Value>| {
        let node = read::text(pod, "/spec/nodeName");
        !node.is_empty() && view.get(Kind::Node, "", node).is_none()
    };
    let all = view.all(Kind::Pod).filter(orphaned);
    all.map(|pod| match delete(Kind::Pod, pod) {
        Action::Delete { kind, object, .. } => Action::Delete { kind, object, grace: Some(0) },
        other => other,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { pod_cidrs: Vec::new(), authority: String::new(), node_grace: std::time::Duration::from_secs(40) }
    }

    #[test]
    fn a_silent_node_is_lost_tainted_and_emptied() {
        let mut view = View::default();
        view.put(Kind::Node, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "n", "resourceVersion": "1"}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "1970-01-01T00:00:00Z"}]}}));
        view.put(Kind::Pod, json!({"metadata": {"namespace": "a", "name": "p", "uid": "p", "resourceVersion": "1"}, "spec": {"nodeName": "n",
            "tolerations": [{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]}}));
        let at = |second: i64| jiff::Timestamp::from_second(second).unwrap_or_default();
        assert_eq!(plan(&view, &config(), at(30)), []);
        let Some(Action::ReplaceStatus(_, mut node)) = plan(&view, &config(), at(50)).into_iter().next() else {
            panic!("it is lost")
        };
        assert_eq!(node["status"]["conditions"][0]["status"], "Unknown");
        node["metadata"]["resourceVersion"] = "2".into();
        view.put(Kind::Node, node);
        let Some(Action::Replace(_, mut node)) = plan(&view, &config(), at(51)).into_iter().next() else {
            panic!("it is tainted")
        };
        assert_eq!(read::list(&node, "/spec/taints").len(), 2);
        node["metadata"]["resourceVersion"] = "3".into();
        view.put(Kind::Node, node);
        assert_eq!(plan(&view, &config(), at(100)), []);
        assert!(matches!(plan(&view, &config(), at(351))[0], Action::Delete { .. }));
    }
}
