//! What does the cluster know of this node, and how does it stay known?

use crate::kubelet::Settings;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

/// The version that nodes say they have.
pub const VERSION: &str = "v1.34.0";
/// How often the lease is renewed.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long it is good for.
const LEASE_SECONDS: i32 = 40;

/// What the machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Processors.
    pub cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
}

/// Reads what the machine has.
pub fn capacity() -> Capacity {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes =
        info.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse::<u64>().ok());
    Capacity { cpus, memory: kibibytes.unwrap_or(0) * 1024 }
}

/// Makes the node known, with its labels and taints; an existing one keeps what others wrote.
pub async fn register(client: &kube::Client, settings: &Settings) -> kube::Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let name = &settings.node;
    let mut labels = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch(),
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch(),
    });
    for (key, value) in &settings.labels {
        labels[key] = json!(value);
    }
    let taints: Vec<Value> = settings.taints.iter().map(|(k, e)| json!({"key": k, "effect": e})).collect();
    let mut spec = json!({"podCIDR": settings.pod_cidrs.first(), "podCIDRs": settings.pod_cidrs});
    if !taints.is_empty() {
        spec["taints"] = json!(taints);
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {"node.alpha.kubernetes.io/ttl": "0"}
        },
        "spec": spec,
    });
    let node: Node = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = json!({"metadata": {"labels": labels}});
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The node's status; `ready` is why it is not, if it is not.
pub fn status(
    settings: &Settings,
    capacity: &Capacity,
    ready: &Result<(), String>,
    old: &Node,
    now: Timestamp,
) -> Value {
    let mut addresses: Vec<Value> =
        settings.addresses.iter().map(|a| json!({"type": "InternalIP", "address": a.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": settings.node}));
    let amounts = json!({
        "cpu": capacity.cpus.to_string(),
        "memory": format!("{}Ki", capacity.memory / 1024),
        "pods": "110",
        "ephemeral-storage": "10485760Ki",
    });
    let conditions: Vec<Value> = conditions(ready)
        .into_iter()
        .map(|(kind, state, reason, message)| {
            let before = old.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == kind);
            let since = before.filter(|c| c.status == state).and_then(|c| c.last_transition_time.as_ref());
            json!({
                "type": kind, "status": state, "reason": reason, "message": message,
                "lastHeartbeatTime": seconds(now), "lastTransitionTime": seconds(since.map_or(now, |t| t.0)),
            })
        })
        .collect();
    json!({
        "addresses": addresses,
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": conditions,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "architecture": arch(), "operatingSystem": "linux", "kubeletVersion": VERSION,
            "kubeProxyVersion": "", "containerRuntimeVersion": concat!("axoneme://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": kernel(), "osImage": os(), "machineID": "", "systemUUID": "", "bootID": boot(),
        },
    })
}

/// Times in the API have no fraction.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn conditions(ready: &Result<(), String>) -> Vec<(&'static str, &'static str, &'static str, String)> {
    let fine = |kind, reason, message: &str| (kind, "False", reason, message.to_string());
    let readiness = match ready {
        Ok(()) => ("Ready", "True", "KubeletReady", "kubelet is posting ready status".to_string()),
        Err(why) => (
            "Ready",
            "False",
            "KubeletNotReady",
            format!(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: {why}"
            ),
        ),
    };
    vec![
        fine("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        fine("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        fine("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        readiness,
    ]
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string()
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

fn os() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_string())
}

/// Keeps the node's status and lease fresh; never returns.
pub async fn stay(client: kube::Client, settings: Settings) {
    let capacity = capacity();
    let mut last: Option<Result<(), String>> = None;
    let mut beats = 0u64;
    loop {
        let ready = network_ready(&settings);
        // The status is written when readiness changes and every five minutes; the lease in between.
        if last.as_ref() != Some(&ready) || beats.is_multiple_of(1500) {
            match write_status(&client, &settings, &capacity, &ready).await {
                Ok(()) => last = Some(ready),
                Err(error) => tracing::warn!(%error, "node status not written"),
            }
        }
        if beats.is_multiple_of(5 * HEARTBEAT.as_secs())
            && let Err(error) = renew(&client, &settings.node).await
        {
            tracing::warn!(%error, "node lease not renewed");
        }
        beats += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn network_ready(settings: &Settings) -> Result<(), String> {
    match crate::cni::configured(&settings.plugins.configurations) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("cni plugin not initialized".into()),
        Err(error) => Err(error.to_string()),
    }
}

async fn write_status(
    client: &kube::Client,
    settings: &Settings,
    capacity: &Capacity,
    ready: &Result<(), String>,
) -> kube::Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let old = match api.get_opt(&settings.node).await? {
        Some(old) => old,
        None => {
            register(client, settings).await?;
            Node::default()
        }
    };
    let status = status(settings, capacity, ready, &old, Timestamp::now());
    let patch = json!({"status": status});
    api.patch_status(&settings.node, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

async fn renew(client: &kube::Client, node: &str) -> kube::Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"renewTime": now}});
    match api.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    let lease = Lease {
        metadata: ObjectMeta { name: Some(node.into()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.into()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}
