//! Which pods should run on this node, and who runs each of them?

use crate::cni::{Attachment, Plugins};
use crate::environment::Facts;
use crate::events::Recorder;
use crate::pod::PodState;
use crate::spawner::Spawner;
use crate::{Error, Result, While};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::task::JoinHandle;

/// What a kubelet is told when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the node.
    pub node: String,
    /// Addresses of the node, the first family first.
    pub addresses: Vec<IpAddr>,
    /// Ranges for the addresses of its pods.
    pub pod_cidrs: Vec<String>,
    /// Labels beside the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Taints: key and effect.
    pub taints: Vec<(String, String)>,
    /// How to reach the API server.
    pub kubeconfig: PathBuf,
    /// Cluster DNS, as pods get it.
    pub dns: Vec<String>,
    /// Domain of the cluster.
    pub domain: String,
    /// The socket on which the API server finds this kubelet.
    pub socket: PathBuf,
    /// A folder on a private tmpfs.
    pub runtime: PathBuf,
    /// The machine's root.
    pub lower: PathBuf,
    /// The machine's other disks.
    pub disks: Vec<PathBuf>,
    /// The node's cgroup.
    pub cgroup: PathBuf,
    /// Network plugins.
    #[serde(skip, default = "default_plugins")]
    pub plugins: Plugins,
    /// This binary.
    pub program: PathBuf,
}

fn default_plugins() -> Plugins {
    Plugins { configurations: "/run/cni/net.d".into(), binaries: "/opt/cni/bin".into() }
}

/// What all parts of the kubelet share.
pub struct Node {
    /// What it was told.
    pub settings: Settings,
    /// The cluster.
    pub client: kube::Client,
    /// Starts processes.
    pub spawner: Spawner,
    /// Tells users.
    pub events: Recorder,
    /// The authority's certificate, PEM.
    pub authority: String,
    /// What pods may know of the node.
    pub facts: Facts,
    pods: Mutex<HashMap<String, Running>>,
}

/// A pod whose object is there; also when its containers are over, since its logs can be asked for.
struct Running {
    state: Arc<PodState>,
    task: JoinHandle<()>,
    /// The object is gone.
    gone: bool,
}

/// Locks; a panic of another holder does not spread.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Node {
    /// A pod of this node.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<PodState>> {
        let pods = lock(&self.pods);
        let newest = pods.values().filter(|r| r.state.is(namespace, name) && !r.gone).map(|r| &r.state);
        newest.max_by_key(|s| s.object().metadata.creation_timestamp.clone().map(|t| t.0)).cloned()
    }

    /// Namespaces and names of the pods.
    pub fn names(&self) -> Vec<(String, String)> {
        let part = |value: Option<String>| value.unwrap_or_default();
        let object = |r: &Running| r.state.object().metadata;
        lock(&self.pods).values().map(object).map(|m| (part(m.namespace), part(m.name))).collect()
    }

    /// Folder of a pod.
    pub fn folder(&self, uid: &str) -> PathBuf {
        self.settings.runtime.join("pods").join(uid)
    }

    /// Where a pod's attachment is kept while it has one.
    pub fn attachment_file(&self, uid: &str) -> PathBuf {
        self.settings.runtime.join("attachments").join(uid)
    }
}

/// Runs until the process ends.
pub async fn run(settings: Settings) -> Result<()> {
    let (client, authority) = connect(&settings).await?;
    let capacity = crate::node::capacity();
    let facts = Facts {
        host_ips: settings.addresses.iter().map(ToString::to_string).collect(),
        pod_ips: Vec::new(),
        cpus: capacity.cpus,
        memory: capacity.memory,
    };
    for folder in ["pods", "containers", "attachments"] {
        let folder = settings.runtime.join(folder);
        std::fs::create_dir_all(&folder).while_doing(|| format!("create {}", folder.display()))?;
    }
    let node = Arc::new(Node {
        spawner: Spawner::start()?,
        events: Recorder::start(client.clone(), &settings.node),
        pods: Mutex::default(),
        settings,
        client,
        authority,
        facts,
    });
    let server = crate::server::start(node.clone())?;
    forget_earlier(&node).await;
    until_done("register the node", || crate::node::register(&node.client, &node.settings)).await;
    tokio::spawn(crate::node::stay(node.client.clone(), node.settings.clone()));
    tokio::select! {
        watched = watch(node) => watched,
        ended = server => Err(Error::Invalid(format!("the kubelet's server has ended: {ended:?}"))),
    }
}

async fn connect(settings: &Settings) -> Result<(kube::Client, String)> {
    let invalid = |e: kube::config::KubeconfigError| Error::Invalid(format!("{}: {e}", settings.kubeconfig.display()));
    let file = Kubeconfig::read_from(&settings.kubeconfig).map_err(invalid)?;
    let authority = file
        .clusters
        .iter()
        .find_map(|c| c.cluster.as_ref()?.certificate_authority_data.clone())
        .and_then(|data| {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(data).ok()
        })
        .and_then(|pem| String::from_utf8(pem).ok())
        .unwrap_or_default();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(invalid)?;
    Ok((kube::Client::try_from(config)?, authority))
}

/// Undoes the attachments of a kubelet that ran here before; its processes ended with it.
async fn forget_earlier(node: &Node) {
    let Ok(entries) = std::fs::read_dir(node.settings.runtime.join("attachments")) else { return };
    for entry in entries.flatten() {
        let Ok(text) = std::fs::read(entry.path()) else { continue };
        if let Ok(attachment) = serde_json::from_slice::<Attachment>(&text) {
            if let Err(error) = node.settings.plugins.del(&attachment, None).await {
                tracing::warn!(%error, pod = attachment.pod, "an earlier attachment was not undone");
            }
            crate::pod::remove_netns(&attachment.netns);
        }
        let _ = std::fs::remove_file(entry.path());
    }
}

/// Repeats what the API server refuses or does not answer, with growing waits.
pub async fn until_done<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = kube::Result<T>>,
{
    let mut wait = std::time::Duration::from_millis(50);
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => tracing::warn!(%error, "{what}"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(std::time::Duration::from_secs(2));
    }
}

async fn watch(node: Arc<Node>) -> Result<()> {
    let api: Api<Pod> = Api::all(node.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", node.settings.node));
    let mut events = std::pin::pin!(watcher(api, config).backoff(watcher::DefaultBackoff::default()));
    let mut listed: Vec<String> = Vec::new();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(pod))) => {
                listed.extend(pod.metadata.uid.clone());
                take(&node, pod);
            }
            Ok(Some(watcher::Event::InitDone)) => {
                let gone: Vec<String> = lock(&node.pods).keys().filter(|uid| !listed.contains(uid)).cloned().collect();
                gone.iter().for_each(|uid| removed(&node, uid));
            }
            Ok(Some(watcher::Event::Apply(pod))) => take(&node, pod),
            Ok(Some(watcher::Event::Delete(pod))) => removed(&node, &pod.metadata.uid.unwrap_or_default()),
            Ok(None) => return Err(Error::Invalid("the watch of pods has ended".into())),
            Err(error) => tracing::warn!(%error, "watch of pods"),
        }
    }
}

/// A pod is new or has changed.
fn take(node: &Arc<Node>, pod: Pod) {
    let Some(uid) = pod.metadata.uid.clone() else { return };
    let mut pods = lock(&node.pods);
    pods.retain(|_, running| !(running.gone && running.task.is_finished()));
    if let Some(running) = pods.get(&uid) {
        let marked = pod.metadata.deletion_timestamp.is_some();
        // Its own task deletes it, unless that is over, by a fault even.
        if running.state.update(pod.clone()) || marked && running.task.is_finished() {
            tokio::spawn(delete(node.clone(), pod));
        }
        return;
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        tokio::spawn(delete(node.clone(), pod));
        return;
    }
    if phase == "Succeeded" || phase == "Failed" {
        return;
    }
    let state = Arc::new(PodState::new(pod));
    let task = tokio::spawn(crate::pod::run(node.clone(), state.clone()));
    pods.insert(uid, Running { state, task, gone: false });
}

/// A pod's object is gone: nobody waits for it.
fn removed(node: &Arc<Node>, uid: &str) {
    if let Some(running) = lock(&node.pods).get_mut(uid) {
        running.gone = true;
        running.state.stop(std::time::Duration::ZERO);
        // Missing if no container ever ran.
        let _ = std::fs::remove_dir_all(crate::container::log_folder(&running.state.object()));
    }
}

/// Removes the object of a pod whose processes have ended.
pub async fn delete(node: Arc<Node>, pod: Pod) {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(node.client.clone(), &namespace);
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    until_done("remove a pod that has ended", || async {
        match api.delete(&name, &parameters).await {
            // Not there, or another one of the same name: done.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => other.map(drop),
        }
    })
    .await;
}
