//! Which replica sets does a deployment need, and with how many pods each?

use std::sync::Arc;

use serde_json::{Value, json};

use crate::action::{Action, delete, tell};
use crate::rolling::{self, Set};
use crate::view::{Kind, View};
use crate::{pods, read, template};

const COMPONENT: &str = "deployment-controller";
const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const LARGEST: &str = "deployment.kubernetes.io/max-replicas";

pub fn plan(view: &View, now: jiff::Timestamp) -> Vec<Action> {
    let owned = view.by_controller(Kind::ReplicaSet);
    let by_set = view.by_controller(Kind::Pod);
    let empty = Vec::new();
    let mut actions = Vec::new();
    for deployment in view.all(Kind::Deployment).filter(|one| !read::is_deleting(one)) {
        let sets = owned.get(read::uid(deployment)).unwrap_or(&empty);
        let living =
            |set: &Value| by_set.get(read::uid(set)).is_some_and(|all| all.iter().any(|pod| !pods::has_ended(pod)));
        let rollout = Rollout::new(deployment, sets);
        actions.extend(rollout.plan(&living, now));
    }
    actions
}

/// A deployment and its sets.
struct Rollout<'a> {
    deployment: &'a Value,
    new: Option<&'a Arc<Value>>,
    /// From the oldest to the youngest.
    old: Vec<&'a Arc<Value>>,
}

fn replicas(set: &Value) -> i64 {
    read::number(set, "/spec/replicas", 0)
}

fn count(set: &Value) -> Set {
    Set { wanted: replicas(set), available: read::number(set, "/status/availableReplicas", 0) }
}

fn revision(object: &Value) -> i64 {
    read::annotation(object, REVISION).parse().unwrap_or(0)
}

fn annotate(object: &mut Value, key: &str, text: String) {
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"][key] = text.into();
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Value, sets: &[&'a Arc<Value>]) -> Self {
        let wanted = &deployment["spec"]["template"];
        let mut sets: Vec<&Arc<Value>> = sets.to_vec();
        sets.sort_by_key(|set| {
            (revision(set), read::text(set, "/metadata/creationTimestamp").to_owned(), read::name(set).to_owned())
        });
        let new = sets.iter().copied().find(|set| template::equal(&set["spec"]["template"], wanted, HASH));
        sets.retain(|set| new.is_none_or(|new| read::uid(new) != read::uid(set)));
        Self { deployment, new, old: sets }
    }

    fn desired(&self) -> i64 {
        read::number(self.deployment, "/spec/replicas", 1)
    }

    fn plan(&self, living: &dyn Fn(&Value) -> bool, now: jiff::Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let paused = self.deployment["spec"]["paused"] == true;
        match self.new {
            None if !paused => {
                if let Some(create) = self.create(living) {
                    actions.extend(create);
                }
            }
            _ => actions.extend(self.scale(paused, living)),
        }
        actions.extend(self.forget_history());
        actions.extend(self.revise(paused));
        if actions.is_empty() || self.new.is_some() {
            actions.extend(self.status(now));
        }
        actions
    }

    fn latest(&self) -> i64 {
        self.old.iter().map(|set| revision(set)).max().unwrap_or(0)
    }

    /// A set for the template as it is now.
    fn create(&self, living: &dyn Fn(&Value) -> bool) -> Option<Vec<Action>> {
        if self.is_recreate() && self.old.iter().any(|set| replicas(set) > 0 || living(set)) {
            return Some(self.scale(false, living));
        }
        let deployment = self.deployment;
        let hash = template::hash(&deployment["spec"]["template"]);
        let mut pod = deployment["spec"]["template"].clone();
        pod["metadata"]["labels"][HASH] = hash.as_str().into();
        let mut selector = deployment["spec"]["selector"].clone();
        if !selector["matchLabels"].is_object() {
            selector["matchLabels"] = json!({});
        }
        selector["matchLabels"][HASH] = hash.as_str().into();
        let wanted = self.first_size();
        let name = format!("{}-{hash}", read::name(deployment));
        let mut set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": read::namespace(deployment), "labels": pod["metadata"]["labels"],
                "ownerReferences": [read::owner_reference(deployment)],
            },
            "spec": {
                "replicas": wanted, "selector": selector, "template": pod,
                "minReadySeconds": read::number(deployment, "/spec/minReadySeconds", 0),
            },
        });
        self.copy_annotations(&mut set, self.latest() + 1);
        let told = tell(
            COMPONENT,
            deployment,
            "ScalingReplicaSet",
            format!("Scaled up replica set {name} from 0 to {wanted}"),
        );
        Some(vec![Action::Create(Kind::ReplicaSet, set), told])
    }

    fn is_recreate(&self) -> bool {
        self.deployment["spec"]["strategy"]["type"] == "Recreate"
    }

    fn limits(&self) -> rolling::Limits {
        rolling::limits(&self.deployment["spec"]["strategy"], self.desired())
    }

    fn first_size(&self) -> i64 {
        if self.is_recreate() {
            return self.desired();
        }
        let old: Vec<Set> = self.old.iter().map(|set| count(set)).collect();
        rolling::step(self.limits(), Set { wanted: 0, available: 0 }, &old).0
    }

    fn copy_annotations(&self, set: &mut Value, revision: i64) {
        let own = self.deployment["metadata"]["annotations"].as_object();
        let skipped = ["kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, LARGEST];
        for (key, value) in own.into_iter().flatten().filter(|(key, _)| !skipped.contains(&key.as_str())) {
            annotate(set, key, value.as_str().unwrap_or_default().to_owned());
        }
        annotate(set, REVISION, revision.to_string());
        annotate(set, DESIRED, self.desired().to_string());
        annotate(set, LARGEST, (self.desired() + self.limits().surge).to_string());
    }

    /// Sets whose number of pods has to change.
    fn scale(&self, paused: bool, living: &dyn Fn(&Value) -> bool) -> Vec<Action> {
        let mut actions = Vec::new();
        let old: Vec<Set> = self.old.iter().map(|set| count(set)).collect();
        let active = self.old.iter().filter(|set| replicas(set) > 0).count();
        let Some(new) = self.new else {
            // Recreate: first the old pods go.
            if !paused {
                self.old.iter().for_each(|set| actions.extend(self.resize(set, 0)));
            }
            return actions;
        };
        if paused {
            // Nothing is rolled out, but the one set that runs follows the wanted number.
            let only = if replicas(new) > 0 || active == 0 { new } else { self.old[self.old.len() - 1] };
            if active + usize::from(replicas(new) > 0) <= 1 {
                actions.extend(self.resize(only, self.desired()));
            }
            return actions;
        }
        if self.is_recreate() {
            self.old.iter().for_each(|set| actions.extend(self.resize(set, 0)));
            if !self.old.iter().any(|set| living(set)) && active == 0 {
                actions.extend(self.resize(new, self.desired()));
            }
            return actions;
        }
        let (wanted, shrunk) = rolling::step(self.limits(), count(new), &old);
        actions.extend(self.resize(new, wanted));
        for (set, wanted) in self.old.iter().zip(shrunk) {
            actions.extend(self.resize(set, wanted));
        }
        actions
    }

    fn resize(&self, set: &Value, wanted: i64) -> Vec<Action> {
        let now = replicas(set);
        if now == wanted {
            return Vec::new();
        }
        let mut changed = set.clone();
        changed["spec"]["replicas"] = wanted.into();
        annotate(&mut changed, DESIRED, self.desired().to_string());
        annotate(&mut changed, LARGEST, (self.desired() + self.limits().surge).to_string());
        let direction = if wanted > now { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {now} to {wanted}", read::name(set));
        vec![Action::Replace(Kind::ReplicaSet, changed), tell(COMPONENT, self.deployment, "ScalingReplicaSet", message)]
    }

    /// Old sets without pods are kept only so far back.
    fn forget_history(&self) -> Vec<Action> {
        let kept = usize::try_from(read::number(self.deployment, "/spec/revisionHistoryLimit", 10)).unwrap_or(0);
        let idle: Vec<_> = self
            .old
            .iter()
            .filter(|set| {
                replicas(set) == 0 && read::number(set, "/status/replicas", 0) == 0 && !read::is_deleting(set)
            })
            .collect();
        idle.iter().take(idle.len().saturating_sub(kept)).map(|set| delete(Kind::ReplicaSet, set)).collect()
    }

    /// The current set has the highest revision, and the deployment shows it.
    fn revise(&self, paused: bool) -> Vec<Action> {
        let Some(new) = self.new.filter(|_| !paused) else { return Vec::new() };
        let wanted = revision(new).max(self.latest() + 1);
        let mut actions = Vec::new();
        if revision(new) < wanted && replicas(new) > 0 {
            let mut changed = Value::clone(new);
            annotate(&mut changed, REVISION, wanted.to_string());
            actions.push(Action::Replace(Kind::ReplicaSet, changed));
        }
        if revision(self.deployment) != wanted && revision(new) == wanted {
            let mut changed = self.deployment.clone();
            annotate(&mut changed, REVISION, wanted.to_string());
            actions.push(Action::Replace(Kind::Deployment, changed));
        }
        actions
    }

    fn status(&self, now: jiff::Timestamp) -> Option<Action> {
        let all = || self.old.iter().copied().chain(self.new);
        let sum = |field: &str| all().map(|set| read::number(set, &format!("/status/{field}"), 0)).sum::<i64>();
        let of_new = |field: &str| self.new.map_or(0, |new| read::number(new, &format!("/status/{field}"), 0));
        let (total, available) = (sum("replicas"), sum("availableReplicas"));
        let wanted_total: i64 = all().map(|set| replicas(set)).sum();
        let mut status = json!({"observedGeneration": read::number(self.deployment, "/metadata/generation", 1)});
        for (field, value) in [
            ("replicas", total),
            ("updatedReplicas", of_new("replicas")),
            ("readyReplicas", sum("readyReplicas")),
            ("availableReplicas", available),
            ("unavailableReplicas", (wanted_total - available).max(0)),
        ] {
            if value > 0 {
                status[field] = value.into();
            }
        }
        status["conditions"] = self.conditions(total, available, of_new("replicas"), now).into();
        (self.deployment.get("status") != Some(&status)).then(|| {
            let mut changed = self.deployment.clone();
            changed["status"] = status;
            Action::ReplaceStatus(Kind::Deployment, changed)
        })
    }

    fn conditions(&self, total: i64, available: i64, updated: i64, now: jiff::Timestamp) -> Vec<Value> {
        let desired = self.desired();
        let enough = available >= desired - self.limits().unavailable;
        let availability = if enough {
            ("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.".to_owned())
        } else {
            (
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.".to_owned(),
            )
        };
        let complete = updated == desired && total == desired && available == desired;
        let name = self.new.map(|new| read::name(new)).unwrap_or_default();
        let progress = if complete {
            (
                "Progressing",
                "True",
                "NewReplicaSetAvailable",
                format!("ReplicaSet {name:?} has successfully progressed."),
            )
        } else if self.is_late(total, available, updated, now) {
            (
                "Progressing",
                "False",
                "ProgressDeadlineExceeded",
                format!("ReplicaSet {name:?} has timed out progressing."),
            )
        } else {
            ("Progressing", "True", "ReplicaSetUpdated", format!("ReplicaSet {name:?} is progressing."))
        };
        [availability, progress].into_iter().map(|one| self.condition(one, (total, available, updated), now)).collect()
    }

    /// Counts as they were written last.
    fn counts_before(&self) -> (i64, i64, i64) {
        let field = |name: &str| read::number(self.deployment, &format!("/status/{name}"), 0);
        (field("replicas"), field("availableReplicas"), field("updatedReplicas"))
    }

    fn is_late(&self, total: i64, available: i64, updated: i64, now: jiff::Timestamp) -> bool {
        let Some(before) = read::condition(self.deployment, "Progressing") else { return false };
        if before["reason"] == "ProgressDeadlineExceeded" {
            return self.counts_before() == (total, available, updated) && self.is_observed();
        }
        let deadline = read::number(self.deployment, "/spec/progressDeadlineSeconds", 600);
        let moved = self.counts_before() != (total, available, updated) || !self.is_observed();
        let since = read::time(before, "/lastUpdateTime").unwrap_or(now);
        before["reason"] != "NewReplicaSetAvailable" && !moved && now.as_second() - since.as_second() > deadline
    }

    fn is_observed(&self) -> bool {
        read::number(self.deployment, "/status/observedGeneration", 0)
            == read::number(self.deployment, "/metadata/generation", 0)
    }

    fn condition(
        &self,
        (kind, status, reason, message): (&str, &str, &str, String),
        counts: (i64, i64, i64),
        now: jiff::Timestamp,
    ) -> Value {
        let before = read::condition(self.deployment, kind);
        let now = read::stamp(now);
        let same = |field: &str, text: &str| before.is_some_and(|before| before[field] == *text);
        let moved = kind == "Progressing" && self.counts_before() != counts;
        let updated = if same("status", status) && same("reason", reason) && same("message", &message) && !moved {
            before.map(|before| read::text(before, "/lastUpdateTime")).unwrap_or(&now)
        } else {
            &now
        };
        let changed = if same("status", status) {
            before.map(|before| read::text(before, "/lastTransitionTime")).unwrap_or(&now)
        } else {
            &now
        };
        json!({
            "type": kind, "status": status, "reason": reason, "message": message, "lastUpdateTime": updated,
            "lastTransitionTime": changed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(image: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "n", "name": "web", "uid": "d", "generation": 1, "resourceVersion": "1"},
            "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
    }

    /// Carries actions on sets out, until nothing is left to do; pods become available at once.
    fn settle(view: &mut View, version: &mut u64) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..50 {
            let actions = plan(view, jiff::Timestamp::UNIX_EPOCH);
            if actions.is_empty() {
                return told;
            }
            for action in actions {
                *version += 1;
                match action {
                    Action::Create(kind, mut object)
                    | Action::Replace(kind, mut object)
                    | Action::ReplaceStatus(kind, mut object) => {
                        object["metadata"]["resourceVersion"] = version.to_string().into();
                        if read::uid(&object).is_empty() {
                            object["metadata"]["uid"] = format!("u{version}").into();
                        }
                        if kind == Kind::ReplicaSet {
                            let count = replicas(&object);
                            object["status"] =
                                json!({"replicas": count, "availableReplicas": count, "readyReplicas": count});
                        }
                        view.put(kind, object);
                    }
                    Action::Tell(news) => told.push(news.message),
                    Action::Delete { kind, object, .. } => drop(view.remove(kind, &object)),
                    Action::Bind { .. } => {}
                }
            }
        }
        panic!("it does not settle: {:?}", plan(view, jiff::Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn a_new_template_replaces_the_old_pods_step_by_step_and_can_be_undone() {
        let (mut view, mut version) = (View::default(), 10);
        view.put(Kind::Deployment, deployment("1"));
        let told = settle(&mut view, &mut version);
        assert_eq!(told.len(), 1, "{told:?}");
        let change = |view: &mut View, version: &mut u64, image: &str| {
            let mut changed = view.get(Kind::Deployment, "n", "web").map(|one| Value::clone(one)).unwrap_or_default();
            changed["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
            *version += 1;
            changed["metadata"]["resourceVersion"] = version.to_string().into();
            view.put(Kind::Deployment, changed);
        };
        change(&mut view, &mut version, "2");
        let told = settle(&mut view, &mut version);
        assert!(told.len() >= 8, "one pod at a time: {told:?}");
        let counts: Vec<i64> = view.all(Kind::ReplicaSet).map(|set| replicas(set)).collect();
        assert_eq!(counts.iter().sum::<i64>(), 4);
        assert_eq!(counts.len(), 2);
        change(&mut view, &mut version, "1");
        settle(&mut view, &mut version);
        assert_eq!(view.all(Kind::ReplicaSet).count(), 2, "the old set is used again");
        let deployment = view.get(Kind::Deployment, "n", "web").map(|one| revision(one));
        assert_eq!(deployment, Some(3));
    }
}
