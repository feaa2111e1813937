//! The operator: registers the CRDs, removes identities, endpoints and nodes that nobody uses, copies Secrets for agents.

pub mod secrets;
pub mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::{Client, Config, ResourceExt};
use serde_json::json;

use sweep::{Action, Key, Seen, UNUSED_SINCE};

/// What the operator was told to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kubeconfig, if not by the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// ClusterNetworkPolicy objects count.
    pub cluster_network_policy: bool,
    /// How often identities are looked through.
    pub identity_interval: Duration,
    /// How long an identity rests unused before it is removed.
    pub identity_timeout: SignedDuration,
    /// How often endpoints are looked through.
    pub endpoint_interval: Duration,
    /// How often nodes are looked through.
    pub node_interval: Duration,
    /// Where Secrets that policies name are copied to, if they are.
    pub secrets_namespace: Option<String>,
}

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting makes no sense.
    #[error("setting {name}: {value:?} is not a duration such as 15m or 30s")]
    Duration {
        /// Its name.
        name: String,
        /// As it was given.
        value: String,
    },
    /// An argument that is no setting.
    #[error("{0:?} is no argument: settings look like --name=value")]
    Argument(String),
    /// The API cannot be found.
    #[error("find the Kubernetes API: {0}")]
    Configuration(String),
    /// The API failed.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// A definition cannot be written as JSON.
    #[error("definition of a kind: {0}")]
    Definition(#[from] serde_json::Error),
    /// The system refused something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The command `cilium-operator`.
pub fn main_with<I: IntoIterator<Item = String>>(arguments: I) -> ExitCode {
    let result = parse(arguments.into_iter().collect::<Vec<_>>().as_slice()).and_then(|settings| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(settings))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cilium-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Flags, over the folder that `--config-dir` names. Settings of other commands share the folder and are left alone.
fn parse(arguments: &[String]) -> Result<Settings, Error> {
    let mut flags = BTreeMap::new();
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        let flag = argument.strip_prefix("--").ok_or_else(|| Error::Argument(argument.clone()))?;
        match flag.split_once('=') {
            Some((name, value)) => flags.insert(name.to_owned(), value.to_owned()),
            None => {
                let value = rest.next_if(|next| !next.starts_with("--")).cloned();
                flags.insert(flag.to_owned(), value.unwrap_or_else(|| "true".into()))
            }
        };
    }
    let folder = flags.get("config-dir").cloned();
    let get = |name: &str| {
        let file = folder.as_ref().and_then(|folder| std::fs::read_to_string(Path::new(folder).join(name)).ok());
        flags.get(name).cloned().or(file).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let seconds = |name: &str, default: &str| {
        let value = get(name).unwrap_or_else(|| default.into());
        duration(&value).ok_or(Error::Duration { name: name.into(), value })
    };
    let timeout = seconds("identity-heartbeat-timeout", "30m0s")?;
    let copies = get("enable-policy-secrets-sync").is_some_and(|value| value == "true");
    Ok(Settings {
        kubeconfig: get("k8s-kubeconfig-path").map(Into::into),
        cluster_network_policy: get("enable-k8s-cluster-network-policy").is_some_and(|value| value == "true"),
        identity_interval: seconds("identity-gc-interval", "15m0s")?,
        identity_timeout: SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX),
        endpoint_interval: seconds("cilium-endpoint-gc-interval", "5m0s")?,
        node_interval: seconds("nodes-gc-interval", "5m0s")?,
        secrets_namespace: copies.then(|| get("policy-secrets-namespace").unwrap_or_else(|| "cilium-secrets".into())),
    })
}

/// `1h2m3s`, `90s`, `100ms`; `0` switches off.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest == "0" {
        return Some(total);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += match &rest[..unit] {
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

async fn connect(settings: &Settings) -> Result<Client, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Configuration(e.to_string());
    let config = match &settings.kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path).map_err(|e| failed(&e))?;
            Config::from_custom_kubeconfig(file, &Default::default()).await.map_err(|e| failed(&e))?
        }
        None => Config::infer().await.map_err(|e| failed(&e))?,
    };
    Ok(Client::try_from(config)?)
}

/// Runs until it is told to stop.
pub async fn run(settings: Settings) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let client = connect(&settings).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let work = async {
        while let Err(error) = register(&client, settings.cluster_network_policy).await {
            tracing::warn!(%error, "kinds cannot be registered, trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tracing::info!("kinds are registered");
        tokio::join!(
            repeat("identities", settings.identity_interval, || sweep_identities(&client, settings.identity_timeout)),
            repeat("endpoints", settings.endpoint_interval, || sweep_endpoints(&client)),
            repeat("nodes", settings.node_interval, || sweep_nodes(&client)),
            async {
                if let Some(namespace) = &settings.secrets_namespace {
                    secrets::keep(&client, namespace).await;
                }
            },
        );
    };
    tokio::select! {
        () = work => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn repeat<F: Future<Output = Result<(), Error>>>(what: &str, every: Duration, work: impl Fn() -> F) {
    if every.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = work().await {
            tracing::warn!(what, %error, "sweep failed, nothing is removed");
        }
    }
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// A conflict or an absence means that somebody was quicker.
fn settled<T>(result: Result<T, kube::Error>) -> Result<(), Error> {
    match result {
        Err(error) if !matches!(code(&error), 404 | 409) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Registers every kind, or brings it up to date; the kind of others only where it is not known.
pub async fn register(client: &Client, cluster_network_policy: bool) -> Result<(), Error> {
    let resource = ApiResource::erase::<CustomResourceDefinition>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    for definition in crds::custom_resource_definitions() {
        let object: DynamicObject = serde_json::from_value(serde_json::to_value(&definition)?)?;
        let name = object.name_any();
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(error) if code(&error) == 409 => {
                api.patch(&name, &PatchParams::default(), &Patch::Merge(&object)).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if cluster_network_policy {
        let object: DynamicObject = serde_json::from_value(crds::cluster_network_policy_definition())?;
        settled(api.create(&PostParams::default(), &object).await)?;
    }
    Ok(())
}

async fn sweep_identities(client: &Client, timeout: SignedDuration) -> Result<(), Error> {
    let api: Api<crds::CiliumIdentity> = Api::all(client.clone());
    let listed = api.list(&ListParams::default()).await?;
    let seen: Vec<Seen> = listed.items.iter().map(seen).collect();
    let endpoints: Api<crds::CiliumEndpoint> = Api::all(client.clone());
    let endpoints = endpoints.list(&ListParams::default()).await?;
    let used = endpoints.items.iter().filter_map(|e| e.status.as_ref()?.identity.as_ref()?.id);
    let used: BTreeSet<String> = used.map(|id| id.to_string()).collect();
    for action in sweep::identities(&seen, &used, Timestamp::now(), timeout) {
        match action {
            Action::Mark(name) => mark(&api, &name, json!(Timestamp::now().to_string())).await?,
            Action::Unmark(name) => mark(&api, &name, json!(null)).await?,
            Action::Delete { name, uid, version } => {
                let preconditions = Preconditions { uid: Some(uid), resource_version: Some(version) };
                tracing::info!(identity = name, "nobody uses it any more, removed");
                settled(api.delete(&name, &DeleteParams::default().preconditions(preconditions)).await)?;
            }
        }
    }
    Ok(())
}

fn seen(identity: &crds::CiliumIdentity) -> Seen {
    Seen {
        name: identity.name_any(),
        uid: identity.uid().unwrap_or_default(),
        version: identity.resource_version().unwrap_or_default(),
        unused_since: identity.annotations().get(UNUSED_SINCE).cloned(),
    }
}

async fn mark(api: &Api<crds::CiliumIdentity>, name: &str, value: serde_json::Value) -> Result<(), Error> {
    let patch = json!({ "metadata": { "annotations": { UNUSED_SINCE: value } } });
    settled(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)
}

async fn sweep_endpoints(client: &Client) -> Result<(), Error> {
    let endpoints = Api::<crds::CiliumEndpoint>::all(client.clone()).list(&ListParams::default()).await?;
    let pods = Api::<k8s::Pod>::all(client.clone()).list(&ListParams::default()).await?;
    let key = |namespace: Option<String>, name: String| (namespace.unwrap_or_default(), name);
    let ended = |pod: &k8s::Pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let pods: BTreeMap<Key, bool> = pods.items.iter().map(|p| (key(p.namespace(), p.name_any()), !ended(p))).collect();
    let uids: BTreeMap<Key, Option<String>> =
        endpoints.items.iter().map(|e| (key(e.namespace(), e.name_any()), e.uid())).collect();
    let keys: Vec<Key> = uids.keys().cloned().collect();
    for gone in sweep::endpoints(&keys, &pods) {
        let api: Api<crds::CiliumEndpoint> = Api::namespaced(client.clone(), &gone.0);
        let preconditions = Preconditions { uid: uids.get(&gone).cloned().flatten(), resource_version: None };
        settled(api.delete(&gone.1, &DeleteParams::default().preconditions(preconditions)).await)?;
    }
    Ok(())
}

async fn sweep_nodes(client: &Client) -> Result<(), Error> {
    let api: Api<crds::CiliumNode> = Api::all(client.clone());
    let agent_nodes: Vec<String> = api.list(&ListParams::default()).await?.items.iter().map(|n| n.name_any()).collect();
    let nodes = Api::<k8s::Node>::all(client.clone()).list(&ListParams::default()).await?;
    let nodes: BTreeSet<String> = nodes.items.iter().map(|n| n.name_any()).collect();
    for name in sweep::nodes(&agent_nodes, &nodes) {
        settled(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_from_flags_over_the_folder() {
        let folder = std::env::temp_dir().join(format!("operator-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("identity-gc-interval"), "1h2m3s\n").unwrap();
        std::fs::write(folder.join("nodes-gc-interval"), "0").unwrap();
        let arguments =
            [format!("--config-dir={}", folder.display()), "--identity-heartbeat-timeout".into(), "90s".into()];
        let settings = parse(&arguments).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(settings.identity_interval.as_secs(), 3723);
        assert_eq!(settings.identity_timeout.as_secs(), 90);
        assert!(settings.node_interval.is_zero());
        let error = parse(&["--identity-gc-interval=soon".into()]).unwrap_err();
        assert_eq!(error.to_string(), "setting identity-gc-interval: \"soon\" is not a duration such as 15m or 30s");
    }
}
