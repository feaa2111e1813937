//! Which pod of a stateful set comes or goes next? Each has a number for life; they come in order and go in reverse.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::action::{Action, delete, tell};
use crate::view::{Kind, View};
use crate::{pods, read, template};

const COMPONENT: &str = "statefulset-controller";
const HASH: &str = "controller-revision-hash";

pub fn plan(view: &View, now: jiff::Timestamp) -> Vec<Action> {
    let owned = view.by_controller(Kind::Pod);
    let empty = Vec::new();
    let sets = view.all(Kind::StatefulSet);
    sets.flat_map(|set| of_set(set, owned.get(read::uid(set)).unwrap_or(&empty), now)).collect()
}

fn of_set(set: &Value, owned: &[&Arc<Value>], now: jiff::Timestamp) -> Vec<Action> {
    let revision = format!("{}-{}", read::name(set), template::hash(&set["spec"]["template"]));
    let mut actions = Vec::new();
    if !read::is_deleting(set) {
        let set = Numbered { set, owned, revision: &revision, now };
        actions.extend(set.next());
    }
    actions.extend(status(set, owned, &revision, now));
    actions
}

/// A set whose pods have numbers.
struct Numbered<'a> {
    set: &'a Value,
    owned: &'a [&'a Arc<Value>],
    revision: &'a str,
    now: jiff::Timestamp,
}

impl Numbered<'_> {
    fn wanted(&self) -> std::ops::Range<i64> {
        let start = read::number(self.set, "/spec/ordinals/start", 0);
        start..start + read::number(self.set, "/spec/replicas", 1).max(0)
    }

    fn number(&self, pod: &Value) -> i64 {
        let rest = read::name(pod).strip_prefix(read::name(self.set)).and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|number| number.parse().ok()).unwrap_or(-1)
    }

    fn pod(&self, number: i64) -> Option<&Arc<Value>> {
        self.owned.iter().copied().find(|pod| self.number(pod) == number)
    }

    fn is_available(&self, pod: &Value) -> bool {
        !read::is_deleting(pod) && pods::is_available(pod, read::number(self.set, "/spec/minReadySeconds", 0), self.now)
    }

    fn next(&self) -> Vec<Action> {
        let one_by_one = self.set["spec"]["podManagementPolicy"] != "Parallel";
        let mut actions = Vec::new();
        for number in self.wanted() {
            match self.pod(number) {
                None => actions.push(Action::Create(Kind::Pod, self.make(number))),
                Some(pod) if pods::has_ended(pod) && !read::is_deleting(pod) => actions.push(delete(Kind::Pod, pod)),
                Some(pod) if one_by_one && !self.is_available(pod) => return actions,
                Some(_) => {}
            }
            if one_by_one && !actions.is_empty() {
                return actions;
            }
        }
        if actions.is_empty() {
            actions.extend(self.surplus(one_by_one));
        }
        if actions.is_empty() {
            actions.extend(self.outdated());
        }
        actions
    }

    /// Pods beyond those that are wanted, the highest number first.
    fn surplus(&self, one_by_one: bool) -> Vec<Action> {
        let mut surplus: Vec<_> = self.owned.iter().filter(|pod| !self.wanted().contains(&self.number(pod))).collect();
        surplus.sort_by_key(|pod| std::cmp::Reverse(self.number(pod)));
        let next = if one_by_one { &surplus[..surplus.len().min(1)] } else { &surplus[..] };
        next.iter().filter(|pod| !read::is_deleting(pod)).flat_map(|pod| self.end(pod)).collect()
    }

    /// The highest pod of an old template, when all others work.
    fn outdated(&self) -> Vec<Action> {
        let strategy = &self.set["spec"]["updateStrategy"];
        if strategy["type"] == "OnDelete" {
            return Vec::new();
        }
        let first = self.wanted().start.max(strategy["rollingUpdate"]["partition"].as_i64().unwrap_or(0));
        for number in (first..self.wanted().end).rev() {
            let Some(pod) = self.pod(number) else { return Vec::new() };
            if read::is_deleting(pod) {
                return Vec::new();
            }
            if read::labels(pod).and_then(|labels| labels.get(HASH)) != Some(&json!(self.revision)) {
                return self.end(pod);
            }
            if !self.is_available(pod) {
                return Vec::new();
            }
        }
        Vec::new()
    }

    fn end(&self, pod: &Value) -> Vec<Action> {
        let message = format!("delete Pod {} in StatefulSet {} successful", read::name(pod), read::name(self.set));
        vec![delete(Kind::Pod, pod), tell(COMPONENT, self.set, "SuccessfulDelete", message)]
    }

    fn make(&self, number: i64) -> Value {
        let mut pod = template::pod(self.set, &self.set["spec"]["template"]);
        let name = format!("{}-{number}", read::name(self.set));
        if let Value::Object(metadata) = &mut pod["metadata"] {
            metadata.remove("generateName");
        }
        pod["metadata"]["name"] = name.as_str().into();
        pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = name.as_str().into();
        pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = number.to_string().into();
        pod["metadata"]["labels"][HASH] = self.revision.into();
        pod["spec"]["hostname"] = name.into();
        let service = read::text(self.set, "/spec/serviceName");
        if !service.is_empty() {
            pod["spec"]["subdomain"] = service.into();
        }
        pod
    }
}

fn status(set: &Value, owned: &[&Arc<Value>], revision: &str, now: jiff::Timestamp) -> Option<Action> {
    let seconds = read::number(set, "/spec/minReadySeconds", 0);
    let active: Vec<&&Arc<Value>> = owned.iter().filter(|pod| !pods::has_ended(pod)).collect();
    let count = |holds: &dyn Fn(&Value) -> bool| active.iter().filter(|pod| holds(pod)).count();
    let has = |pod: &Value, wanted: &str| {
        read::labels(pod).and_then(|labels| labels.get(HASH)).and_then(Value::as_str) == Some(wanted)
    };
    let updated = count(&|pod| has(pod, revision));
    let all_new = updated == active.len();
    let before = read::text(set, "/status/currentRevision");
    let current = if all_new || before.is_empty() { revision } else { before };
    let mut wanted = json!({
        "observedGeneration": read::number(set, "/metadata/generation", 1), "replicas": active.len(),
        "availableReplicas": count(&|pod| pods::is_available(pod, seconds, now)),
        "currentRevision": current, "updateRevision": revision, "collisionCount": 0,
    });
    let counts = [
        ("readyReplicas", count(&pods::is_ready)),
        ("updatedReplicas", updated),
        ("currentReplicas", count(&|pod| has(pod, current))),
    ];
    for (field, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        wanted[field] = count.into();
    }
    (set.get("status") != Some(&wanted)).then(|| {
        let mut changed = set.clone();
        changed["status"] = wanted;
        Action::ReplaceStatus(Kind::StatefulSet, changed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i64, image: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": "n", "name": "db", "uid": "s"},
            "spec": {"replicas": replicas, "serviceName": "dbs", "template": {"metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"image": image}]}}}})
    }

    /// A pod that the set made, ready or not.
    fn pod(set: &Value, number: i64, ready: bool) -> Value {
        let revision = format!("db-{}", template::hash(&set["spec"]["template"]));
        let mut pod = Numbered { set, owned: &[], revision: &revision, now: jiff::Timestamp::UNIX_EPOCH }.make(number);
        pod["metadata"]["uid"] = number.to_string().into();
        pod["metadata"]["ownerReferences"] = json!([{"uid": "s", "controller": true}]);
        let ready = if ready { "True" } else { "False" };
        pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
        pod
    }

    /// `+db-1`, `-db-0`.
    fn run(set: &Value, all: &[Value]) -> Vec<String> {
        let mut view = View::default();
        view.put(Kind::StatefulSet, set.clone());
        for pod in all {
            view.put(Kind::Pod, pod.clone());
        }
        let changes = plan(&view, jiff::Timestamp::UNIX_EPOCH).into_iter().filter_map(|action| match action {
            Action::Create(_, pod) => Some(format!("+{}", read::name(&pod))),
            Action::Delete { object, .. } => Some(format!("-{}", read::name(&object))),
            _ => None,
        });
        changes.collect()
    }

    #[test]
    fn pods_come_in_order_and_go_in_reverse() {
        let three = set(3, "a");
        assert_eq!(run(&three, &[]), ["+db-0"]);
        assert_eq!(run(&three, &[pod(&three, 0, false)]), [""; 0]);
        assert_eq!(run(&three, &[pod(&three, 0, true)]), ["+db-1"]);
        let all = [pod(&three, 0, true), pod(&three, 1, true), pod(&three, 2, true)];
        assert_eq!(run(&three, &all), [""; 0]);
        assert_eq!(run(&set(1, "a"), &all), ["-db-2"]);
        assert_eq!(run(&three, &[pod(&three, 0, true), pod(&three, 2, true)]), ["+db-1"]);
    }

    #[test]
    fn parallel_ones_come_at_once() {
        let mut all = set(3, "a");
        all["spec"]["podManagementPolicy"] = "Parallel".into();
        assert_eq!(run(&all, &[]), ["+db-0", "+db-1", "+db-2"]);
    }

    #[test]
    fn another_template_replaces_from_the_highest_down_to_the_partition() {
        let (old, mut new) = (set(2, "a"), set(2, "b"));
        let pods = [pod(&old, 0, true), pod(&old, 1, true)];
        assert_eq!(run(&new, &pods), ["-db-1"]);
        assert_eq!(run(&new, &[pod(&old, 0, true), pod(&new, 1, false)]), [""; 0]);
        assert_eq!(run(&new, &[pod(&old, 0, true), pod(&new, 1, true)]), ["-db-0"]);
        new["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
        assert_eq!(run(&new, &[pod(&old, 0, true), pod(&new, 1, true)]), [""; 0]);
        new["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        assert_eq!(run(&new, &pods), [""; 0]);
    }

    #[test]
    fn pods_have_names_of_their_own() {
        let set = set(1, "a");
        let made = pod(&set, 0, true);
        assert_eq!(made["spec"]["hostname"], "db-0");
        assert_eq!(made["spec"]["subdomain"], "dbs");
        assert_eq!(made["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "db-0");
        assert_eq!(made["metadata"].get("generateName"), None);
    }
}
