//! How does an empty API server become a cluster that is ready to use?

use crate::layout::Layout;
use crate::manifests;
use crate::options::{Enforcement, Options};
use crate::progress::{Line, Reporter};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::Scope;
use serde_json::Value;
use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often the state is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// `lab-bootstrap NAME`: descriptor 3 leads to `up`.
pub fn main(args: &[String]) -> Result<()> {
    let [name] = args else { bail!("one lab name is expected") };
    // SAFETY: the supervisor hands this descriptor over for this process alone.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(3) });
    let reporter = Reporter::new(stream);
    let layout = Layout::of(name);
    let options: Options = layout.read("options.json")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(bootstrap(&layout, &options, &reporter))
}

async fn bootstrap(layout: &Layout, options: &Options, reporter: &Reporter) -> Result<()> {
    let client = crate::apiserver_process::client(&layout.kubeconfig()).await?;
    let mut steps = Steps { reporter, began: Instant::now() };
    answers(&client).await?;
    steps.done("API server");
    let mut applier = Applier { client: client.clone(), known: HashMap::new() };
    for definition in crds::custom_resource_definitions() {
        applier.apply(&definition).await?;
    }
    steps.done("custom resource definitions");
    for object in manifests::objects(options)? {
        applier.apply(&object).await?;
    }
    steps.done("objects of the cluster");
    wait(&client, options, &mut steps).await?;
    for file in &options.files {
        for object in manifests::read(file)? {
            applier.apply(&object).await.with_context(|| format!("in {}", file.display()))?;
        }
        steps.done(&format!("objects of {}", file.display()));
    }
    Ok(())
}

struct Steps<'a> {
    reporter: &'a Reporter,
    began: Instant,
}

impl Steps<'_> {
    fn done(&mut self, step: &str) {
        let milliseconds = self.began.elapsed().as_millis() as u64;
        self.reporter.send(&Line::Done { step: step.into(), milliseconds });
        self.began = Instant::now();
    }
}

async fn answers(client: &kube::Client) -> Result<()> {
    let limit = Instant::now() + PATIENCE;
    loop {
        match client.apiserver_version().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > limit => return Err(error).context("the API server does not answer"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Applies objects of any kind, as `kubectl apply --server-side` does.
struct Applier {
    client: kube::Client,
    known: HashMap<(String, String), (ApiResource, Scope)>,
}

impl Applier {
    async fn apply(&mut self, object: &Value) -> Result<()> {
        let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        let (version, kind) = (word("apiVersion"), word("kind"));
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_string();
        let label = format!("{kind} {name}");
        let (resource, scope) = self.resource(&version, &kind).await.with_context(|| format!("apply {label}"))?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        let api: Api<DynamicObject> = match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        let parameters = PatchParams::apply("lab").force();
        let create = PostParams { field_manager: Some("lab".into()), ..PostParams::default() };
        let typed: DynamicObject = serde_json::from_value(object.clone()).with_context(|| format!("read {label}"))?;
        let limit = Instant::now() + Duration::from_secs(5);
        let mut exists = false;
        loop {
            // Nearly all objects are new, and making one costs the server less than merging.
            let done = match exists {
                false => api.create(&create, &typed).await,
                true => api.patch(&name, &parameters, &Patch::Apply(object)).await,
            };
            match done {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" && !exists => exists = true,
                Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                    bail!("apply {label}: {}", status.message)
                }
                Err(error) if Instant::now() > limit => return Err(error).with_context(|| format!("apply {label}")),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn resource(&mut self, version: &str, kind: &str) -> Result<(ApiResource, Scope)> {
        let key = (version.to_string(), kind.to_string());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let (group, bare) = version.split_once('/').unwrap_or(("", version));
        let gvk = GroupVersionKind::gvk(group, bare, kind);
        let limit = Instant::now() + Duration::from_secs(5);
        // A kind that a definition has just made is served a moment later.
        let (resource, capabilities) = loop {
            match kube::discovery::pinned_kind(&self.client, &gvk).await {
                Ok(found) => break found,
                Err(error) if Instant::now() > limit => return Err(error).context("no such kind is served"),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        self.known.insert(key, (resource.clone(), capabilities.scope.clone()));
        Ok((resource, capabilities.scope))
    }
}

/// Waits for what should be ready: nodes, agents, and the pods of the system unless policy cuts them off.
async fn wait(client: &kube::Client, options: &Options, steps: &mut Steps<'_>) -> Result<()> {
    let limit = Instant::now() + PATIENCE;
    until(limit, client, || registered(client, options.nodes)).await?;
    steps.done("nodes are known");
    if !options.wait {
        return Ok(());
    }
    until(limit, client, || agents(client, options.nodes)).await?;
    steps.done("agents are ready");
    until(limit, client, || nodes_ready(client)).await?;
    steps.done("nodes are ready");
    let mut deployments = vec!["cilium-operator"];
    if options.enforcement != Enforcement::Always {
        deployments.extend(["coredns", "hubble-relay"]);
    }
    for name in deployments {
        until(limit, client, || deployed(client, name)).await?;
        steps.done(&format!("{name} is ready"));
    }
    Ok(())
}

/// Asks until the answer is none: nothing is missing.
async fn until<F: Future<Output = kube::Result<Option<String>>>>(
    limit: Instant,
    client: &kube::Client,
    mut missing: impl FnMut() -> F,
) -> Result<()> {
    loop {
        let why = match missing().await {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => why,
            Err(error) => error.to_string(),
        };
        if Instant::now() > limit {
            bail!("not ready after {} s: {why}\n{}", PATIENCE.as_secs(), reasons(client).await);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn registered(client: &kube::Client, nodes: u32) -> kube::Result<Option<String>> {
    let list = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let known = list.items.len() as u32;
    Ok((known < nodes).then(|| format!("{known} of {nodes} nodes are known")))
}

async fn agents(client: &kube::Client, nodes: u32) -> kube::Result<Option<String>> {
    let set = Api::<DaemonSet>::namespaced(client.clone(), "kube-system").get("cilium").await?;
    let ready = set.status.map_or(0, |s| s.number_ready);
    Ok((ready < nodes as i32).then(|| format!("{ready} of {nodes} agents are ready")))
}

async fn nodes_ready(client: &kube::Client) -> kube::Result<Option<String>> {
    let list = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let unready = |n: &&Node| {
        let conditions = n.status.iter().flat_map(|s| s.conditions.iter().flatten());
        !conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let names: Vec<String> = list.items.iter().filter(unready).filter_map(|n| n.metadata.name.clone()).collect();
    Ok((!names.is_empty()).then(|| format!("nodes that are not ready: {}", names.join(", "))))
}

async fn deployed(client: &kube::Client, name: &str) -> kube::Result<Option<String>> {
    let deployment = Api::<Deployment>::namespaced(client.clone(), "kube-system").get(name).await?;
    let wanted = deployment.spec.and_then(|s| s.replicas).unwrap_or(1);
    let ready = deployment.status.and_then(|s| s.ready_replicas).unwrap_or(0);
    Ok((ready < wanted).then(|| format!("{ready} of {wanted} pods of {name} are ready")))
}

/// Pods that are not ready, and the newest warnings.
async fn reasons(client: &kube::Client) -> String {
    let mut lines = Vec::new();
    if let Ok(pods) = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await {
        for pod in pods.items {
            let status = pod.status.unwrap_or_default();
            let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
            if !ready {
                let waiting = status
                    .init_container_statuses
                    .iter()
                    .chain(&status.container_statuses)
                    .flatten()
                    .find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
                let name = pod.metadata.name.unwrap_or_default();
                let phase = status.phase.unwrap_or_else(|| "Pending".into());
                lines.push(format!("  pod {name}: {phase} {}", waiting.unwrap_or_default()));
            }
        }
    }
    if let Ok(mut events) = Api::<Event>::all(client.clone()).list(&ListParams::default()).await {
        events.items.retain(|e| e.type_.as_deref() == Some("Warning"));
        events.items.sort_by_key(|e| e.last_timestamp.clone().map(|t| t.0));
        for event in events.items.iter().rev().take(8) {
            let about = event.involved_object.name.clone().unwrap_or_default();
            lines.push(format!("  {about}: {}", event.message.clone().unwrap_or_default()));
        }
    }
    lines.join("\n")
}
