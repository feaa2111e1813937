//! What makes up a node: namespaces, cgroup, files, and what its kubelet is told?

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use kubelet::namespaces::{Kind, Namespace};
use kubelet::{cgroup, mounts};

use super::service::enter_network;
use crate::layout::Layout;
use crate::node::{RUNTIME, Setup};
use crate::options::Options;
use crate::plan::{self, Node};

/// A node with its namespaces.
pub(super) struct Place {
    pub(super) node: Node,
    pub(super) network: netlink::Namespace,
    pub(super) others: Vec<Namespace>,
    pub(super) cgroup: PathBuf,
}

/// Makes the namespaces of all nodes, several at a time.
pub(super) fn places(
    layout: &Layout,
    cgroup: &Path,
    plan: Vec<Node>,
    networks: Vec<netlink::Namespace>,
) -> Result<Vec<Place>> {
    let info = fs::read_to_string("/proc/self/mountinfo").context("read the machine's mounts")?;
    let disks = mounts::disks(&info);
    let hosts = hosts(&plan);
    let started = plan
        .into_iter()
        .zip(networks)
        .map(|(node, network)| {
            let group = cgroup.join(&node.name);
            cgroup::create(&group)?;
            cgroup::create(&group.join("kubelet"))?;
            let folder = layout.node(&node.name);
            fs::create_dir_all(&folder)?;
            let setup = Setup {
                lab: layout.name.clone(),
                node: node.name.clone(),
                cgroup: group.clone(),
                hosts: hosts.clone(),
                resolv: resolv(),
                disks: disks.clone(),
            };
            let child = begin(&folder, &setup, &network)?;
            Ok((Place { node, network, others: Vec::new(), cgroup: group }, child))
        })
        .collect::<Result<Vec<_>>>()?;
    started.into_iter().map(|(place, child)| finish(place, child)).collect()
}

fn begin(folder: &Path, setup: &Setup, network: &netlink::Namespace) -> Result<std::process::Child> {
    let file = folder.join("setup.json");
    fs::write(&file, serde_json::to_vec(setup)?).with_context(|| format!("write {}", file.display()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("axoneme").arg("lab-node").arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let network = network.clone();
    // SAFETY: between fork and exec only system calls are made, on values that were allocated before.
    unsafe { command.pre_exec(move || enter_network(&network)) };
    command.spawn().with_context(|| format!("start the setup of {}", setup.node))
}

fn finish(mut place: Place, mut child: std::process::Child) -> Result<Place> {
    let mut said = [0u8; 3];
    let answer = child.stdout.take().context("output is piped")?.read_exact(&mut said);
    if answer.is_err() || &said != b"ok\n" {
        bail!("the setup of {} failed: {}", place.node.name, child.wait()?);
    }
    let kinds = [Kind::Uts, Kind::Cgroup, Kind::Mount];
    place.others = kinds.iter().map(|k| Namespace::of(child.id(), *k)).collect::<Result<_, _>>()?;
    drop(child.stdin.take());
    child.wait()?;
    Ok(place)
}

fn hosts(plan: &[Node]) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for node in plan {
        for address in &node.addresses {
            text.push_str(&format!("{address}\t{}\n", node.name));
        }
    }
    text
}

fn resolv() -> String {
    format!("nameserver {}\n", plan::WORLD)
}

pub(super) fn settings(place: &Place, options: &Options) -> Result<kubelet::Settings> {
    let info = fs::read_to_string("/proc/self/mountinfo").context("read the machine's mounts")?;
    let runtime = Path::new(RUNTIME);
    let Node { name, addresses, pod_cidrs, labels, taints } = place.node.clone();
    Ok(kubelet::Settings {
        node: name,
        addresses,
        pod_cidrs,
        labels,
        taints,
        kubeconfig: runtime.join("lab/kubelet.kubeconfig"),
        dns: vec![plan::DNS.into()],
        domain: plan::DOMAIN.into(),
        socket: runtime.join("lab/kubelet.sock"),
        runtime: runtime.into(),
        lower: runtime.join("host"),
        disks: mounts::disks(&info),
        cgroup: "/sys/fs/cgroup".into(),
        plugins: kubelet::cni::Plugins { configurations: "/run/cni/net.d".into(), binaries: "/opt/cni/bin".into() },
        program: options.program.clone(),
    })
}
