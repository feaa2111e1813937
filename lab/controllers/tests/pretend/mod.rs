//! A cluster without machines: the API server, the controllers, and nodes whose kubelets only say that pods run.

mod streams;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::json;

/// A running cluster.
pub struct Cluster {
    pub client: Client,
    pub kubeconfig: std::path::PathBuf,
    server: apiserver::Handle,
    tasks: tokio::task::JoinSet<()>,
}

impl Cluster {
    /// Starts a cluster with `nodes` nodes that keeps its files in `folder`.
    pub async fn start(folder: &Path, address: &str, nodes: usize) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let authority = apiserver::pki::Authority::open_or_create(folder).expect("keys");
        let admin = authority.client("kubernetes-admin", "system:masters").expect("a certificate");
        let text = authority.kubeconfig(
            "pretend",
            &format!("https://{address}"),
            "kubernetes-admin",
            &apiserver::pki::Credential::Certificate(&admin),
        );
        let kubeconfig = folder.join("kubeconfig");
        std::fs::write(&kubeconfig, &text).expect("a kubeconfig");
        let mut tasks = tokio::task::JoinSet::new();
        let kubelets = streams::serve(&mut tasks).await;
        let certificate = authority.identity.certificate.clone();
        let config = apiserver::Config {
            identity: authority.server("kube-apiserver", &["127.0.0.1".to_owned()]).expect("a certificate"),
            listeners: vec![listener],
            authority,
            tokens: Vec::new(),
            store: folder.join("store"),
            service_cidrs: vec!["10.96.0.0/16".parse().expect("a range"), "fd00:10:96::/112".parse().expect("a range")],
            node_ports: 30000..=32767,
            advertise: vec![SocketAddr::from(([172, 18, 0, 2], 6443))],
            version: "v1.34.0".to_owned(),
            kubelets: Arc::new(move |_: &str| Some(apiserver::KubeletAddress::Tcp(kubelets))),
        };
        let server = apiserver::serve(config).await.expect("a server");
        let file = kube::config::Kubeconfig::from_yaml(&text).expect("it is YAML");
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await.expect("a kubeconfig");
        let client = Client::try_from(config).expect("a client");
        let controllers = controllers::Config {
            pod_cidrs: vec![("10.244.0.0/16".parse().expect("a range"), 24)],
            authority: certificate,
            node_grace: Duration::from_secs(40),
        };
        let run = controllers::run(client.clone(), controllers);
        tasks.spawn(async move { run.await.expect("controllers do not end") });
        for index in 0..nodes {
            let name = match index {
                0 => "pretend-control-plane".to_owned(),
                1 => "pretend-worker".to_owned(),
                more => format!("pretend-worker{more}"),
            };
            tasks.spawn(kubelet(client.clone(), name, index));
        }
        Self { client, kubeconfig, server, tasks }
    }

    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.server.shutdown().await;
    }
}

async fn kubelet(client: Client, name: String, index: usize) {
    let nodes: Api<Node> = Api::all(client.clone());
    let now = jiff::Timestamp::now().to_string();
    let role = if index == 0 { json!({"node-role.kubernetes.io/control-plane": ""}) } else { json!({}) };
    let node = json!({
        "metadata": {"name": name, "labels": role},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now, "reason": "KubeletReady"}],
            "addresses": [{"type": "InternalIP", "address": format!("172.18.0.{}", index + 2)}],
            "nodeInfo": {"kubeletVersion": "v1.34.0", "osImage": "pretend", "kernelVersion": "6.1", "containerRuntimeVersion": "pretend://1",
                "architecture": "amd64", "bootID": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "linux", "systemUUID": ""},
        },
    });
    let _ = nodes.create(&PostParams::default(), &serde_json::from_value(node).expect("a node")).await;
    tokio::select! {
        () = beat(&client, &name) => {}
        () = run_pods(&client, &name, index) => {}
    }
}

/// Renews the node's lease.
async fn beat(client: &Client, name: &str) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    loop {
        let now = jiff::Timestamp::now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()},
        });
        let _ = leases.patch(name, &PatchParams::apply("kubelet").force(), &Patch::Apply(&lease)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

async fn run_pods(client: &Client, name: &str, index: usize) {
    let pods: Api<Pod> = Api::all(client.clone());
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={name}"));
    let mut stream = watcher(pods, mine).default_backoff().applied_objects().boxed();
    let mut next = 2;
    while let Some(event) = stream.next().await {
        let Ok(pod) = event else { continue };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api.delete(&pod_name, &DeleteParams::default().grace_period(0)).await;
            continue;
        }
        if pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).is_some() {
            continue;
        }
        let now = jiff::Timestamp::now().to_string();
        let spec = pod.spec.expect("a pod has a specification");
        let statuses: Vec<_> = spec
            .containers
            .iter()
            .map(|one| json!({"name": one.name, "image": one.image, "imageID": "", "ready": true, "restartCount": 0, "started": true,
                "state": {"running": {"startedAt": now}}}))
            .collect();
        let ip = format!("10.244.{index}.{next}");
        next += 1;
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let status = json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now, "containerStatuses": statuses,
            "conditions": [condition("Ready"), condition("ContainersReady"), condition("Initialized")],
        }});
        let _ = api.patch_status(&pod_name, &PatchParams::default(), &Patch::Strategic(&status)).await;
    }
}
