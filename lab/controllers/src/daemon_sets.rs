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
        let limits = Limits::of(set, wanted.len(), &hash, now);
        for node in &wanted {
            let present = by_node.get(node).map_or(&[][..], Vec::as_slice);
            actions.extend(failed(set, node, present));
            if present.is_empty() {
                actions.push(Action::Create(Kind::Pod, pod_for(set, node, &hash, &tolerations)));
            }
            actions.extend(limits.too_many(present).map(|pod| delete(Kind::Pod, pod)));
        }
        for (node, present) in &by_node {
            let exists = nodes.iter().any(|one| read::name(one) == *node);
            if exists && !wanted.contains(node) {
                let leaving = present.iter().filter(|pod| pods::is_active(pod));
                actions.extend(leaving.map(|pod| delete(Kind::Pod, pod)));
            }
        }
        if set["spec"]["updateStrategy"]["type"] != "OnDelete" {
            actions.extend(match limits.surge {
                0 => limits.replace_old(&wanted, &by_node),
                _ => {
                    let beside = limits.nodes_for_new(&wanted, &by_node).into_iter();
                    beside.map(|node| Action::Create(Kind::Pod, pod_for(set, node, &hash, &tolerations))).collect()
                }
            });
        }
    }
    actions.extend(status(set, &wanted, &by_node, &hash, now));
    actions
}

fn failed(set: &Value, node: &str, present: &[&Arc<Value>]) -> Vec<Action> {
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
    actions
}

fn is_current(pod: &Value, hash: &str) -> bool {
    read::labels(pod).is_some_and(|labels| labels.get(HASH).is_some_and(|label| label == hash))
}

/// How far a rolling update may go at a time.
struct Limits<'a> {
    /// Nodes without an available pod.
    unavailable: i64,
    /// Nodes on which a new pod may run beside the old one. Then no old one is deleted before.
    surge: usize,
    /// Of the new template.
    hash: &'a str,
    min_ready: i64,
    now: jiff::Timestamp,
}

impl<'a> Limits<'a> {
    fn of(set: &Value, nodes: usize, hash: &'a str, now: jiff::Timestamp) -> Limits<'a> {
        let rolling = &set["spec"]["updateStrategy"]["rollingUpdate"];
        let total = i64::try_from(nodes).unwrap_or(i64::MAX);
        let limit = &rolling["maxUnavailable"];
        Limits {
            unavailable: if limit.is_null() { 1 } else { rolling::resolve(limit, total, true).max(1) },
            surge: usize::try_from(rolling::resolve(&rolling["maxSurge"], total, true)).unwrap_or(0),
            hash,
            min_ready: read::number(set, "/spec/minReadySeconds", 0),
            now,
        }
    }

    fn is_available(&self, pod: &Value) -> bool {
        pods::is_available(pod, self.min_ready, self.now)
    }

    /// The best new and the best old pod of a node.
    fn best<'p>(&self, present: &[&'p Arc<Value>]) -> [Option<&'p Arc<Value>>; 2] {
        [true, false].map(|new| {
            let those = present.iter().filter(|pod| pods::is_active(pod) && is_current(pod, self.hash) == new);
            those.max_by_key(|pod| pods::worth(pod)).copied()
        })
    }

    /// Pods of a node that have to go. Of two the better one stays; in a surge the old one, until it is of no use or the
    /// new one is available.
    fn too_many<'p>(&self, present: &[&'p Arc<Value>]) -> impl Iterator<Item = &'p Arc<Value>> {
        let mut stay = self.best(present);
        if let [Some(new), Some(old)] = stay {
            let old_stays = match self.surge {
                0 => pods::worth(old) > pods::worth(new),
                _ => pods::is_ready(old) && !self.is_available(new),
            };
            let new_stays = self.surge > 0 || !old_stays;
            stay = [new_stays.then_some(new), old_stays.then_some(old)];
        }
        let stays = move |pod: &Arc<Value>| stay.into_iter().flatten().any(|one| Arc::ptr_eq(one, pod));
        let active: Vec<_> = present.iter().copied().filter(|pod| pods::is_active(pod) && !stays(pod)).collect();
        active.into_iter()
    }

    /// Old pods that make room for new ones. Those that do not work go at once.
    fn replace_old(&self, wanted: &[&str], by_node: &HashMap<&str, Vec<&Arc<Value>>>) -> Vec<Action> {
        let mut missing = 0;
        let (mut broken, mut working) = (Vec::new(), Vec::new());
        for node in wanted {
            let active = by_node.get(node).into_iter().flatten().find(|pod| pods::is_active(pod));
            let available = active.is_some_and(|pod| self.is_available(pod));
            missing += i64::from(!available);
            if let Some(pod) = active.filter(|pod| !is_current(pod, self.hash)) {
                if available { working.push(*pod) } else { broken.push(*pod) }
            }
        }
        let spare = usize::try_from(self.unavailable - missing).unwrap_or(0);
        broken.into_iter().chain(working.into_iter().take(spare)).map(|pod| delete(Kind::Pod, pod)).collect()
    }

    /// Nodes that get a new pod beside the old one. Where the old one does not work it does not count.
    fn nodes_for_new<'p>(&self, wanted: &[&'p str], by_node: &HashMap<&str, Vec<&Arc<Value>>>) -> Vec<&'p str> {
        let (mut surging, mut broken, mut working) = (0, Vec::new(), Vec::new());
        for node in wanted {
            match self.best(by_node.get(node).map_or(&[][..], Vec::as_slice)) {
                [Some(_), Some(_)] => surging += 1,
                [None, Some(old)] if self.is_available(old) => working.push(*node),
                [None, Some(_)] => broken.push(*node),
                [_, None] => {}
            }
        }
        working.truncate(self.surge.saturating_sub(surging));
        [broken, working].concat()
    }
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

    fn pod(view: &mut View, name: &str, hash: &str, ready: bool) {
        let before = view.all(Kind::Pod).map(|pod| read::text(pod, "/metadata/resourceVersion").parse().unwrap_or(0));
        let (ready, version) = (if ready { "True" } else { "False" }, before.max().unwrap_or(1u32) + 1);
        view.put(
            Kind::Pod,
            json!({"metadata": {"namespace": "n", "name": name, "uid": format!("p{name}"), "resourceVersion": version.to_string(),
                "labels": {HASH: hash}, "ownerReferences": [{"uid": "ds", "controller": true}]},
            "spec": {"nodeName": &name[..1]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}),
        );
    }

    /// What becomes of pods: `-name` of each that is deleted, `+node` of each that gets one.
    fn changes(view: &View) -> Vec<String> {
        let mut changes: Vec<String> = plan(view, jiff::Timestamp::UNIX_EPOCH)
            .iter()
            .filter_map(|one| match one {
                Action::Create(Kind::Pod, pod) => Some(format!("+{}", node_of(pod))),
                Action::Delete { object, .. } => Some(format!("-{}", read::name(object))),
                _ => None,
            })
            .collect();
        changes.sort();
        changes
    }

    #[test]
    fn only_one_old_pod_is_replaced_at_a_time() {
        let mut view = view();
        for node in ["a", "b"] {
            pod(&mut view, node, "old", true);
        }
        assert_eq!(changes(&view).len(), 1);
    }

    #[test]
    fn in_a_surge_the_old_pod_goes_when_the_new_one_is_available() {
        let mut view = view();
        let mut set = Value::clone(view.all(Kind::DaemonSet).next().expect("the set of the view"));
        set["spec"]["updateStrategy"] =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}});
        set["metadata"]["resourceVersion"] = "2".into();
        let hash = template::hash(&set["spec"]["template"]);
        view.put(Kind::DaemonSet, set);
        for node in ["a-old", "b-old"] {
            pod(&mut view, node, "old", true);
        }
        let first = changes(&view);
        assert!(first == ["+a"] || first == ["+b"], "{first:?}");
        pod(&mut view, "a-new", &hash, false);
        assert_eq!(changes(&view), [""; 0], "one is on its way");
        pod(&mut view, "a-new", &hash, true);
        assert_eq!(changes(&view), ["-a-old"]);
        // An old one that does not work has nothing to lose, beyond the limit.
        pod(&mut view, "a-new", &hash, false);
        pod(&mut view, "b-old", "old", false);
        assert_eq!(changes(&view), ["+b"]);
        pod(&mut view, "b-new", &hash, false);
        assert_eq!(changes(&view), ["-b-old"]);
        pod(&mut view, "a-old", "old", false);
        assert_eq!(changes(&view), ["-a-old", "-b-old"]);
    }
}
