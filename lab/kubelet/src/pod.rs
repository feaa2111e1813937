//! What is done for one pod, from its arrival on the node until nothing of it is left?

mod prepare;
mod publish;
mod sandbox;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{Notify, watch};

pub use prepare::Prepared;
pub use sandbox::{fresh_id, remove_netns};

use crate::container::{self, Live};
use crate::kubelet::{Node, lock};
use crate::namespaces::Namespace;
use crate::status::{self, Runtime, State};
use crate::{Result, cgroup};
use prepare::{prepare, refresh};
use publish::{publish, write_status};
use sandbox::{Attached, release, sandbox};

/// A pod of this node, as its parts see it.
pub struct PodState {
    object: Mutex<Pod>,
    facts: Mutex<status::Facts>,
    live: Mutex<BTreeMap<String, Live>>,
    namespaces: Mutex<Vec<Namespace>>,
    changed: Notify,
    /// Read and written under the object's lock.
    over: AtomicBool,
    stop: watch::Sender<Option<Duration>>,
}

impl PodState {
    /// A pod that has just come.
    pub fn new(pod: Pod) -> PodState {
        let now = Timestamp::now();
        let names = pod.spec.iter().flat_map(|s| s.containers.iter().map(|c| c.name.clone()));
        let mut containers: BTreeMap<String, Runtime> =
            names.map(|name| (name, Runtime::new("ContainerCreating"))).collect();
        let inits = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
        containers.extend(inits.map(|c| (c.name.clone(), Runtime::new("PodInitializing"))));
        containers.extend(status::inherited(&pod, now));
        let start = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(now, |t| t.0);
        PodState {
            object: Mutex::new(pod),
            facts: Mutex::new(status::Facts { containers, start: Some(start), ..status::Facts::default() }),
            live: Mutex::default(),
            namespaces: Mutex::default(),
            changed: Notify::new(),
            over: AtomicBool::new(false),
            stop: watch::Sender::new(None),
        }
    }

    /// The newest object.
    pub fn object(&self) -> Pod {
        lock(&self.object).clone()
    }

    /// Whether it has this name.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        let object = lock(&self.object);
        object.metadata.namespace.as_deref() == Some(namespace) && object.metadata.name.as_deref() == Some(name)
    }

    /// The object has changed; a deletion mark stops the pod. True if it is marked and nobody here will remove it.
    pub fn update(&self, pod: Pod) -> bool {
        let marked = pod.metadata.deletion_timestamp.is_some();
        if pod.metadata.deletion_timestamp.is_some() {
            let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            self.stop(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        }
        let mut object = lock(&self.object);
        *object = pod;
        marked && self.over.load(Ordering::Relaxed)
    }

    /// Ends what is done here for the pod, unless its object is marked for deletion.
    fn finish(&self) -> bool {
        let object = lock(&self.object);
        let unmarked = object.metadata.deletion_timestamp.is_none();
        self.over.store(unmarked, Ordering::Relaxed);
        unmarked
    }

    /// Ends the pod; a shorter time than before counts.
    pub fn stop(&self, grace: Duration) {
        self.stop.send_if_modified(|now| {
            let sooner = now.is_none_or(|before| grace < before);
            if sooner {
                *now = Some(grace);
            }
            sooner
        });
    }

    /// Tells when the pod shall end.
    pub fn stopping(&self) -> watch::Receiver<Option<Duration>> {
        self.stop.subscribe()
    }

    /// Changes what is known of a container.
    pub fn with_container(&self, name: &str, change: impl FnOnce(&mut Runtime)) {
        let mut facts = lock(&self.facts);
        change(facts.containers.entry(name.into()).or_insert_with(|| Runtime::new("ContainerCreating")));
        drop(facts);
        self.changed.notify_one();
    }

    /// What is known of a container.
    pub fn container(&self, name: &str) -> Option<Runtime> {
        lock(&self.facts).containers.get(name).cloned()
    }

    /// Changes what is known of the pod.
    pub fn with_facts(&self, change: impl FnOnce(&mut status::Facts)) {
        change(&mut lock(&self.facts));
        self.changed.notify_one();
    }

    /// The addresses of the pod.
    pub fn addresses(&self) -> Vec<String> {
        lock(&self.facts).pod_ips.clone()
    }

    /// A running container.
    pub fn live(&self, container: &str) -> Option<Live> {
        lock(&self.live).get(container).cloned()
    }

    /// Notes that a container runs or has ended.
    pub fn set_live(&self, container: &str, live: Option<Live>) {
        let mut all = lock(&self.live);
        match live {
            Some(live) => all.insert(container.into(), live),
            None => all.remove(container),
        };
    }

    /// Handles of the namespaces that its containers share; none for a pod of the host network.
    pub fn namespaces(&self) -> Result<Vec<Namespace>> {
        lock(&self.namespaces).iter().map(Namespace::share).collect()
    }
}

/// Runs a pod until it is over or shall end; then removes all of it.
pub async fn run(node: Arc<Node>, state: Arc<PodState>) {
    let publisher = tokio::spawn(publish(node.clone(), state.clone()));
    let mut attached = None;
    live(&node, &state, &mut attached).await;
    tear_down(&node, &state, attached).await;
    // The last status must not come after the object's end.
    publisher.abort();
    let _ = publisher.await;
    // How the pod ended may not be written yet. One that is gone from the cluster takes it without a word.
    while state.object().metadata.deletion_timestamp.is_none() && !write_status(&node, &state).await {
        tokio::time::sleep(publish::AGAIN).await;
    }
    if !state.finish() {
        crate::kubelet::delete(node, state.object()).await;
    }
}

async fn live(node: &Arc<Node>, state: &Arc<PodState>, attached: &mut Option<Attached>) {
    let mut stop = state.stopping();
    let started = async {
        sandbox(node, state, attached).await;
        prepare(node, state).await
    };
    let prepared = tokio::select! {
        biased;
        _ = stop.wait_for(Option::is_some) => return,
        prepared = started => prepared,
    };
    let prepared = Arc::new(Mutex::new(prepared));
    let refresher = tokio::spawn(refresh(node.clone(), state.clone(), prepared.clone()));
    containers(node, state, &prepared).await;
    refresher.abort();
}

/// Init containers one after the other, then all others until they are over.
async fn containers(node: &Arc<Node>, state: &Arc<PodState>, prepared: &Arc<Mutex<Prepared>>) {
    let spec = state.object().spec.unwrap_or_default();
    let policy = spec.restart_policy.clone().unwrap_or_else(|| "Always".into());
    let start = |container: &Container, policy: &str, init: bool| {
        let task = container::Task {
            node: node.clone(),
            state: state.clone(),
            prepared: prepared.clone(),
            container: container.clone(),
            policy: policy.to_string(),
            init,
        };
        tokio::spawn(task.run())
    };
    let mut beside = Vec::new();
    for init in spec.init_containers.iter().flatten() {
        if init.restart_policy.as_deref() == Some("Always") {
            beside.push(start(init, "Always", false));
            continue;
        }
        let once = if policy == "Never" { "Never" } else { "OnFailure" };
        let code = start(init, once, true).await.unwrap_or(None);
        if code != Some(0) {
            if state.stopping().borrow().is_none() {
                let message = format!("init container {:?} failed", init.name);
                state.with_facts(|f| f.finished = Some(("Failed".into(), "InitContainerFailed".into(), message)));
            }
            return;
        }
    }
    state.with_facts(|f| f.initialized = true);
    let tasks: Vec<_> = spec.containers.iter().map(|c| start(c, &policy, false)).collect();
    for task in tasks {
        let _ = task.await;
    }
    state.stop(Duration::from_secs(u64::try_from(spec.termination_grace_period_seconds.unwrap_or(30)).unwrap_or(30)));
    for task in beside {
        let _ = task.await;
    }
}

async fn tear_down(node: &Node, state: &PodState, attached: Option<Attached>) {
    let uid = state.object().metadata.uid.unwrap_or_default();
    state.with_facts(|f| f.sandbox = false);
    release(node, state, attached).await;
    let group = node.settings.cgroup.join("pods").join(&uid);
    if group.exists() {
        cgroup::kill(&group);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || cgroup::remove(&group)).await {
            tracing::warn!(%error, "cgroup of a pod");
        }
    }
    let _ = std::fs::remove_dir_all(node.folder(&uid));
}

/// Whether any container of a pod still runs.
pub fn any_running(state: &PodState) -> bool {
    lock(&state.facts).containers.values().any(|c| matches!(c.state, State::Running(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_grace_counts() {
        let state = PodState::new(Pod::default());
        state.stop(Duration::from_secs(30));
        state.stop(Duration::from_secs(40));
        assert_eq!(*state.stopping().borrow(), Some(Duration::from_secs(30)));
        state.stop(Duration::ZERO);
        assert_eq!(*state.stopping().borrow(), Some(Duration::ZERO));
    }

    #[test]
    fn a_mark_for_deletion_is_always_somebodys() {
        let mut marked = Pod::default();
        marked.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        let early = PodState::new(Pod::default());
        assert!(!early.update(marked.clone()), "its own task still looks");
        assert!(!early.finish(), "and sees the mark");
        let late = PodState::new(Pod::default());
        assert!(late.finish());
        assert!(late.update(marked), "nobody looks any more");
    }
}
