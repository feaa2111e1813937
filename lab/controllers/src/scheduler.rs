//! Which node does a waiting pod get?

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::action::{Action, tell, warn};
use crate::placement::{Refusal, refusal};
use crate::view::{Kind, View};
use crate::{pods, read};

const COMPONENT: &str = "default-scheduler";

pub fn plan(view: &View, now: jiff::Timestamp) -> Vec<Action> {
    let mut by_node: HashMap<&str, Vec<&Value>> = HashMap::new();
    let mut waiting: Vec<&Arc<Value>> = Vec::new();
    for pod in view.all(Kind::Pod) {
        let node = read::text(pod, "/spec/nodeName");
        if !node.is_empty() && !pods::has_ended(pod) {
            by_node.entry(node).or_default().push(pod);
        } else if node.is_empty() && is_ours(pod) {
            waiting.push(pod);
        }
    }
    waiting.sort_by_key(|pod| {
        (-read::number(pod, "/spec/priority", 0), read::text(pod, "/metadata/creationTimestamp").to_owned())
    });
    let nodes: Vec<&Arc<Value>> = view.all(Kind::Node).filter(|node| !read::is_deleting(node)).collect();
    let mut actions = Vec::new();
    for pod in waiting {
        match choose(pod, &nodes, &by_node) {
            Ok(node) => {
                by_node.entry(node).or_default().push(pod);
                let message = format!("Successfully assigned {}/{} to {node}", read::namespace(pod), read::name(pod));
                actions.push(Action::Bind { pod: Value::clone(pod), node: node.to_owned() });
                actions.push(tell(COMPONENT, pod, "Scheduled", message));
            }
            Err(message) => actions.extend(unschedulable(pod, message, now)),
        }
    }
    actions
}

fn is_ours(pod: &Value) -> bool {
    let scheduler = read::text(pod, "/spec/schedulerName");
    !read::is_deleting(pod)
        && !pods::has_ended(pod)
        && matches!(scheduler, "" | "default-scheduler")
        && read::list(pod, "/spec/schedulingGates").is_empty()
}

/// The fitting node with the fewest pods of the same controller, then the fewest pods.
fn choose<'a>(pod: &Value, nodes: &[&'a Arc<Value>], by_node: &HashMap<&str, Vec<&Value>>) -> Result<&'a str, String> {
    let empty = Vec::new();
    let mut refusals: BTreeMap<Refusal, usize> = BTreeMap::new();
    let mut best: Option<((usize, usize, &str), &str)> = None;
    let owner = read::controller(pod);
    for node in nodes {
        let name = read::name(node);
        let present = by_node.get(name).unwrap_or(&empty);
        if let Some(why) = refusal(pod, node, present) {
            *refusals.entry(why).or_default() += 1;
            continue;
        }
        let siblings = present.iter().filter(|other| owner.is_some() && read::controller(other) == owner).count();
        let rank = (siblings, present.len(), name);
        if best.is_none_or(|(least, _)| rank < least) {
            best = Some((rank, name));
        }
    }
    best.map(|(_, name)| name).ok_or_else(|| {
        let reasons: Vec<String> = refusals.iter().map(|(why, count)| format!("{count} {why}")).collect();
        if nodes.is_empty() {
            return "no nodes available to schedule pods".to_owned();
        }
        format!("0/{} nodes are available: {}.", nodes.len(), reasons.join(", "))
    })
}

fn unschedulable(pod: &Value, message: String, now: jiff::Timestamp) -> Vec<Action> {
    let before = read::condition(pod, "PodScheduled");
    if before.is_some_and(|one| one["status"] == "False" && one["message"] == message) {
        return Vec::new();
    }
    let since = before.filter(|one| one["status"] == "False").map(|one| one["lastTransitionTime"].clone());
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": since.unwrap_or_else(|| json!(read::stamp(now))),
    });
    let mut changed = pod.clone();
    let mut conditions = read::list(pod, "/status/conditions").to_vec();
    conditions.retain(|one| one["type"] != "PodScheduled");
    conditions.push(condition);
    changed["status"]["conditions"] = conditions.into();
    vec![Action::ReplaceStatus(Kind::Pod, changed), warn(COMPONENT, pod, "FailedScheduling", message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(nodes: usize, waiting: usize) -> View {
        let mut view = View::default();
        for index in 0..nodes {
            let name = format!("node{index}");
            view.put(Kind::Node, json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": {}}));
        }
        for index in 0..waiting {
            let name = format!("pod{index}");
            view.put(Kind::Pod, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": name, "uid": name,
                "resourceVersion": "1", "ownerReferences": [{"uid": "rs", "controller": true}]}, "spec": {"containers": []}}));
        }
        view
    }

    #[test]
    fn pods_spread_over_nodes() {
        let actions = plan(&view(3, 9), jiff::Timestamp::UNIX_EPOCH);
        let mut counts: HashMap<String, usize> = HashMap::new();
        for action in actions {
            if let Action::Bind { node, .. } = action {
                *counts.entry(node).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 3);
        assert!(counts.values().all(|count| *count == 3));
    }

    #[test]
    fn a_pod_that_fits_nowhere_says_why_once() {
        let mut view = view(2, 1);
        for index in 0..2 {
            let name = format!("node{index}");
            view.put(
                Kind::Node,
                json!({"metadata": {"name": name, "uid": name, "resourceVersion": "2"},
                "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
            );
        }
        let actions = plan(&view, jiff::Timestamp::UNIX_EPOCH);
        let Action::ReplaceStatus(_, mut pod) = actions[0].clone() else { panic!("{actions:?}") };
        assert_eq!(
            pod["status"]["conditions"][0]["message"],
            "0/2 nodes are available: 2 node(s) had untolerated taint {k: v}."
        );
        pod["metadata"]["resourceVersion"] = "2".into();
        view.put(Kind::Pod, pod);
        assert_eq!(plan(&view, jiff::Timestamp::UNIX_EPOCH), []);
    }
}
