//! Which pods does a replica set lack, which has it too many?

use std::sync::Arc;

use serde_json::{Value, json};

use crate::action::{Action, delete, tell};
use crate::view::{Kind, View};
use crate::{pods, read, template};

const COMPONENT: &str = "replicaset-controller";
/// Pods that one pass makes at most for a set.
const BURST: usize = 500;

pub fn plan(view: &View, now: jiff::Timestamp) -> Vec<Action> {
    let owned = view.by_controller(Kind::Pod);
    let empty = Vec::new();
    let sets = view.all(Kind::ReplicaSet);
    sets.flat_map(|set| of_set(set, owned.get(read::uid(set)).unwrap_or(&empty), now)).collect()
}

fn of_set(set: &Value, owned: &[&Arc<Value>], now: jiff::Timestamp) -> Vec<Action> {
    let active: Vec<&Arc<Value>> = owned.iter().copied().filter(|pod| pods::is_active(pod)).collect();
    let wanted = usize::try_from(read::number(set, "/spec/replicas", 1)).unwrap_or(0);
    let mut actions = Vec::new();
    if !read::is_deleting(set) {
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST);
            let pod = template::pod(set, &set["spec"]["template"]);
            actions.extend((0..missing).map(|_| Action::Create(Kind::Pod, pod.clone())));
        }
        if active.len() > wanted {
            let mut ranked = active.clone();
            ranked.sort_by_cached_key(|pod| pods::worth(pod));
            for pod in &ranked[..active.len() - wanted] {
                actions.push(delete(Kind::Pod, pod));
                actions.push(tell(COMPONENT, set, "SuccessfulDelete", format!("Deleted pod: {}", read::name(pod))));
            }
        }
    }
    actions.extend(status(set, &active, now));
    actions
}

fn status(set: &Value, active: &[&Arc<Value>], now: jiff::Timestamp) -> Option<Action> {
    let seconds = read::number(set, "/spec/minReadySeconds", 0);
    let count = |holds: &dyn Fn(&Value) -> bool| active.iter().filter(|pod| holds(pod)).count();
    let labels = set.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
    let full = |pod: &Value| {
        labels
            .into_iter()
            .flatten()
            .all(|(key, value)| read::labels(pod).is_some_and(|labels| labels.get(key) == Some(value)))
    };
    let mut wanted = json!({
        "replicas": active.len(), "observedGeneration": read::number(set, "/metadata/generation", 1),
    });
    let counts = [
        ("fullyLabeledReplicas", count(&full)),
        ("readyReplicas", count(&pods::is_ready)),
        ("availableReplicas", count(&|pod| pods::is_available(pod, seconds, now))),
    ];
    for (field, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        wanted[field] = count.into();
    }
    if let Some(conditions) = set.pointer("/status/conditions") {
        wanted["conditions"] = conditions.clone();
    }
    (set.get("status") != Some(&wanted)).then(|| {
        let mut changed = set.clone();
        changed["status"] = wanted;
        Action::ReplaceStatus(Kind::ReplicaSet, changed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i64) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"namespace": "n", "name": "web-1", "uid": "rs"},
            "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}})
    }

    fn pod(name: &str, ready: bool) -> Value {
        json!({"metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": "1",
                "ownerReferences": [{"uid": "rs", "controller": true}]}, "spec": {"nodeName": "x"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    fn run(replicas: i64, all: &[Value]) -> Vec<Action> {
        let mut view = View::default();
        view.put(Kind::ReplicaSet, set(replicas));
        for pod in all {
            view.put(Kind::Pod, pod.clone());
        }
        plan(&view, jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn missing_pods_are_made_under_the_sets_name() {
        let actions = run(2, &[]);
        let made: Vec<&Value> =
            actions.iter().filter_map(|one| if let Action::Create(_, pod) = one { Some(pod) } else { None }).collect();
        assert_eq!(made.len(), 2);
        assert_eq!(made[0]["metadata"]["generateName"], "web-1-");
        assert_eq!(made[0]["metadata"]["labels"]["app"], "web");
    }

    #[test]
    fn of_too_many_the_one_that_is_not_ready_goes() {
        let actions = run(1, &[pod("a", true), pod("b", false)]);
        let gone: Vec<&str> = actions
            .iter()
            .filter_map(|one| if let Action::Delete { object, .. } = one { Some(read::name(object)) } else { None })
            .collect();
        assert_eq!(gone, ["b"]);
    }
}
