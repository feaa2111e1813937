//! With which settings does the API server of a lab run?

use crate::layout::Layout;
use crate::options::Options;
use crate::plan;
use anyhow::{Context, Result};
use apiserver::pki::{Authority, Credential};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// Where the authority's keys are.
pub const PKI: &str = "pki";

/// Makes the authority and the kubeconfig files of users, nodes and controllers.
pub fn prepare(layout: &Layout, options: &Options, port: u16) -> Result<()> {
    let authority = Authority::open_or_create(&layout.file(PKI))?;
    let cluster = format!("axoneme-{}", options.name);
    let write = |path: &Path, server: &str, user: &str, group: &str| -> Result<()> {
        let identity = authority.client(user, group)?;
        let text = authority.kubeconfig(&cluster, server, user, &Credential::Certificate(&identity));
        private(path, &text)
    };
    let local = format!("https://127.0.0.1:{port}");
    write(&layout.kubeconfig(), &local, "kubernetes-admin", "system:masters")?;
    let inside = format!("https://127.0.0.1:{}", plan::API_PORT);
    write(&layout.file("controllers.kubeconfig"), &inside, "system:kube-controller-manager", "system:masters")?;
    let nodes = plan::nodes(options);
    let control_plane = nodes.first().context("a lab has a node")?;
    let server = format!("https://{}:{}", control_plane.addresses[0], plan::API_PORT);
    for node in &nodes {
        let folder = layout.node(&node.name);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let user = format!("system:node:{}", node.name);
        write(&folder.join("kubelet.kubeconfig"), &server, &user, "system:nodes")?;
    }
    Ok(())
}

fn private(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("create {}", path.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

/// `lab-apiserver NAME COUNT`: descriptors 3 onwards are listening sockets.
pub fn main(args: &[String]) -> Result<()> {
    let [name, count] = args else { anyhow::bail!("a lab name and a number of sockets are expected") };
    let count: i32 = count.parse().context("number of sockets")?;
    let layout = Layout::of(name);
    let options: Options = layout.read("options.json")?;
    let listeners = (3..3 + count).map(crate::forward::inherited).collect::<Result<Vec<_>>>()?;
    let nodes = plan::nodes(&options);
    let control_plane = nodes.first().context("a lab has a node")?;
    let authority = Authority::open_or_create(&layout.file(PKI))?;
    let identity = authority.server("kube-apiserver", &plan::server_names(control_plane))?;
    let mut service_cidrs = vec!["10.96.0.0/16".parse()?];
    if options.ipv6 {
        service_cidrs.push("fd00:10:96::/112".parse()?);
    }
    let sockets: Vec<(String, std::path::PathBuf)> =
        nodes.iter().map(|n| (n.name.clone(), layout.node(&n.name).join("kubelet.sock"))).collect();
    let config = apiserver::Config {
        listeners,
        authority,
        identity,
        tokens: Vec::new(),
        store: layout.file("store.redb"),
        service_cidrs,
        node_ports: 30000..=32767,
        advertise: control_plane.addresses.iter().take(1).map(|a| SocketAddr::new(*a, plan::API_PORT)).collect(),
        version: kubelet::node::VERSION.into(),
        kubelets: Arc::new(move |node: &str| {
            let (_, path) = sockets.iter().find(|(name, _)| name == node)?;
            Some(apiserver::KubeletAddress::Unix(path.clone()))
        }),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let server = apiserver::serve(config).await?;
        wait_for_end().await?;
        server.shutdown().await;
        Ok(())
    })
}

/// Until SIGTERM or SIGINT.
pub async fn wait_for_end() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// `lab-controllers NAME`.
pub fn controllers(args: &[String]) -> Result<()> {
    let [name] = args else { anyhow::bail!("one lab name is expected") };
    let layout = Layout::of(name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = client(&layout.file("controllers.kubeconfig")).await?;
        let config = controllers::Config {
            pod_cidrs: Vec::new(),
            authority: Authority::open_or_create(&layout.file(PKI))?.identity.certificate,
            node_grace: std::time::Duration::from_secs(40),
        };
        controllers::run(client, config).await.context("controllers")
    })
}

/// A client by a kubeconfig file.
pub async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let file =
        kube::config::Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
