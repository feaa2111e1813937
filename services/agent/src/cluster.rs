//! How does the agent write to the cluster's API?

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use abi::identity::Identity;
use k8s_openapi::api::core::v1 as k8s;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Config, ResourceExt};
use labels::Labels;
use serde_json::json;
use tokio::sync::mpsc;

use crate::allocation::IdentityApi;
use crate::config::Settings;
use crate::objects::Key;
use crate::ops::{Op, PolicyKey, PolicyKind};

/// The operator writes here since when nobody uses an identity.
pub const UNUSED_SINCE: &str = "io.cilium.heartbeat";

/// Why the API could not be reached or refused.
pub type Error = kube::Error;

/// A client by kubeconfig or by the pod's service account.
pub async fn client(settings: &Settings) -> Result<Client, String> {
    let config = match &settings.kubeconfig {
        Some(path) => {
            let file =
                kube::config::Kubeconfig::read_from(path).map_err(|e| format!("read {}: {e}", path.display()))?;
            let options = kube::config::KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(|e| format!("use {}: {e}", path.display()))?
        }
        None => Config::infer().await.map_err(|e| format!("find the Kubernetes API: {e}"))?,
    };
    Client::try_from(config).map_err(|e| format!("make a client of the Kubernetes API: {e}"))
}

/// What to log of an error: the server's own words, if it was the server that refused.
pub fn brief(error: &Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

fn code(error: &Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// The cluster's API.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl IdentityApi for Cluster {
    type Error = Error;

    async fn create(&self, number: Identity, labels: &Labels) -> Result<bool, Error> {
        let api: Api<crds::CiliumIdentity> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &crds::CiliumIdentity::new(number, labels)).await {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn read(&self, number: Identity) -> Result<Option<Labels>, Error> {
        let api: Api<crds::CiliumIdentity> = Api::all(self.client.clone());
        Ok(api.get_opt(&number.to_string()).await?.map(|identity| identity.labels()))
    }

    async fn keep(&self, number: Identity) -> Result<bool, Error> {
        let api: Api<crds::CiliumIdentity> = Api::all(self.client.clone());
        let Some(identity) = api.get_opt(&number.to_string()).await? else { return Ok(false) };
        if !identity.annotations().contains_key(UNUSED_SINCE) {
            return Ok(true);
        }
        // The write also changes the version on which the operator's removal is conditional.
        let patch = json!({ "metadata": { "annotations": { UNUSED_SINCE: null } } });
        match api.patch(&number.to_string(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Cluster {
    /// With this client.
    pub fn new(client: Client) -> Self {
        Cluster { client }
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A node.
    pub async fn node(&self, name: &str) -> Result<Option<k8s::Node>, Error> {
        Api::<k8s::Node>::all(self.client.clone()).get_opt(name).await
    }

    /// A pod.
    pub async fn pod(&self, key: &Key) -> Result<Option<k8s::Pod>, Error> {
        Api::<k8s::Pod>::namespaced(self.client.clone(), &key.0).get_opt(&key.1).await
    }

    /// A namespace.
    pub async fn namespace(&self, name: &str) -> Result<Option<k8s::Namespace>, Error> {
        Api::<k8s::Namespace>::all(self.client.clone()).get_opt(name).await
    }

    /// Version of the API server.
    pub async fn version(&self) -> Result<String, Error> {
        let version = self.client.apiserver_version().await?;
        Ok(format!("{}.{} ({}) [{}]", version.major, version.minor, version.git_version, version.platform))
    }

    /// Writes the own CiliumNode.
    pub async fn publish_node(&self, node: &crds::CiliumNode) -> Result<(), Error> {
        let api: Api<crds::CiliumNode> = Api::all(self.client.clone());
        create_or_merge(&api, node).await
    }

    async fn publish(&self, key: &Key, endpoint: &crds::CiliumEndpoint) -> Result<(), Error> {
        let api: Api<crds::CiliumEndpoint> = Api::namespaced(self.client.clone(), &key.0);
        create_or_merge(&api, endpoint).await
    }

    /// Removes a CiliumEndpoint, unless it is by now that of another pod of the same name.
    async fn unpublish(&self, key: &Key, addresses: &[String]) -> Result<(), Error> {
        let api: Api<crds::CiliumEndpoint> = Api::namespaced(self.client.clone(), &key.0);
        let Some(found) = api.get_opt(&key.1).await? else { return Ok(()) };
        let networking = found.status.as_ref().and_then(|s| s.networking.clone()).unwrap_or_default();
        let same =
            networking.addressing.iter().flat_map(|a| [&a.ipv4, &a.ipv6]).flatten().any(|a| addresses.contains(a));
        if !same {
            return Ok(());
        }
        let preconditions = Preconditions { uid: found.uid(), resource_version: None };
        match api.delete(&key.1, &DeleteParams::default().preconditions(preconditions)).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(code(&error), 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn policy_status(&self, key: &PolicyKey, problems: &[String]) -> Result<(), Error> {
        match key.kind {
            PolicyKind::Cilium => {
                let api: Api<crds::CiliumNetworkPolicy> = Api::namespaced(self.client.clone(), &key.namespace);
                let found = api.get_opt(&key.name).await?;
                let status = found.map(|object| object.status.unwrap_or_default());
                patch_condition(&api, &key.name, status, problems).await
            }
            PolicyKind::CiliumClusterwide => {
                let api: Api<crds::CiliumClusterwideNetworkPolicy> = Api::all(self.client.clone());
                let found = api.get_opt(&key.name).await?;
                let status = found.map(|object| object.status.unwrap_or_default());
                patch_condition(&api, &key.name, status, problems).await
            }
            PolicyKind::Kubernetes | PolicyKind::KubernetesCluster => Ok(()),
        }
    }
}

async fn create_or_merge<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(object)).await {
        Ok(_) => Ok(()),
        Err(error) if code(&error) == 404 => match api.create(&PostParams::default(), object).await {
            Ok(_) => Ok(()),
            // Somebody was quicker; the next try merges.
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Writes the condition `Valid`, unless it says the same already.
async fn patch_condition<K>(
    api: &Api<K>,
    name: &str,
    status: Option<crds::NetworkPolicyStatus>,
    problems: &[String],
) -> Result<(), Error>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let Some(status) = status else { return Ok(()) };
    let valid = problems.is_empty();
    let message = if valid { "Policy validation succeeded".to_owned() } else { problems.join("; ") };
    let wanted = if valid { "True" } else { "False" };
    let same = |c: &crds::Condition| {
        c.condition_type == "Valid" && c.status == wanted && c.message.as_deref() == Some(message.as_str())
    };
    if status.conditions.iter().any(same) {
        return Ok(());
    }
    let mut conditions: Vec<crds::Condition> =
        status.conditions.into_iter().filter(|c| c.condition_type != "Valid").collect();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    conditions.push(crds::Condition {
        condition_type: "Valid".into(),
        status: wanted.into(),
        last_transition_time: Some(now),
        message: Some(message),
        ..crds::Condition::default()
    });
    let patch = json!({ "status": { "conditions": conditions } });
    match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(error) if code(&error) == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Endpoint(Key),
    Policy(PolicyKey),
}

/// Writes what the core publishes, the last word for each object only, and tries until it is said.
pub async fn writer(cluster: Cluster, mut ops: mpsc::UnboundedReceiver<Op>) {
    let mut pending: BTreeMap<Target, Op> = BTreeMap::new();
    let mut order: VecDeque<Target> = VecDeque::new();
    let mut pause = Duration::from_millis(100);
    loop {
        if order.is_empty() {
            let Some(op) = ops.recv().await else { return };
            enqueue(op, &mut pending, &mut order);
        }
        while let Ok(op) = ops.try_recv() {
            enqueue(op, &mut pending, &mut order);
        }
        let Some(target) = order.pop_front() else { continue };
        let Some(op) = pending.remove(&target) else { continue };
        match write(&cluster, &op).await {
            Ok(()) => pause = Duration::from_millis(100),
            Err(error) => {
                tracing::warn!(?target, error = brief(&error), "write to the cluster failed, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
                // A later word on the same object replaces this one.
                if !pending.contains_key(&target) {
                    pending.insert(target.clone(), op);
                    order.push_back(target);
                }
            }
        }
    }
}

fn enqueue(op: Op, pending: &mut BTreeMap<Target, Op>, order: &mut VecDeque<Target>) {
    let target = match &op {
        Op::Publish(key, _) | Op::Unpublish(key, _) => Target::Endpoint(key.clone()),
        Op::PolicyStatus(key, _) => Target::Policy(key.clone()),
        _ => return,
    };
    if pending.insert(target.clone(), op).is_none() {
        order.push_back(target);
    }
}

async fn write(cluster: &Cluster, op: &Op) -> Result<(), Error> {
    match op {
        Op::Publish(key, endpoint) => cluster.publish(key, endpoint).await,
        Op::Unpublish(key, addresses) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            cluster.unpublish(key, &addresses).await
        }
        Op::PolicyStatus(key, problems) => cluster.policy_status(key, problems).await,
        _ => Ok(()),
    }
}
