//! What does a node's file system look like, and how is it made?

use crate::layout::Layout;
use anyhow::{Context, Result};
use kubelet::mounts::{self, bind, place, propagation, virtual_fs};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Where a node has what only its kubelet uses.
pub const RUNTIME: &str = "/run/axoneme";

/// What a node's file system is made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// Name of the lab.
    pub lab: String,
    /// Name of the node.
    pub node: String,
    /// The node's cgroup.
    pub cgroup: PathBuf,
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`.
    pub resolv: String,
    /// Other disks of the machine.
    pub disks: Vec<PathBuf>,
}

/// `lab-node FILE`: makes the namespaces and mounts of a node, says `ok`, and waits until its input ends (meanwhile the
/// supervisor takes hold of the namespaces).
pub fn main(args: &[String]) -> Result<()> {
    let [file] = args else { anyhow::bail!("one file name is expected") };
    let text = fs::read(file).with_context(|| format!("read {file}"))?;
    let setup: Setup = serde_json::from_slice(&text).with_context(|| format!("read {file}"))?;
    kubelet::cgroup::join(&setup.cgroup, std::process::id())?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP)
        .context("make a node's namespaces")?;
    nix::unistd::sethostname(&setup.node).context("set the node's name")?;
    mount_all(&setup)?;
    let mut out = std::io::stdout();
    out.write_all(b"ok\n").and_then(|()| out.flush()).context("report")?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("wait")?;
    Ok(())
}

fn mount_all(setup: &Setup) -> Result<()> {
    let layout = Layout::of(&setup.lab);
    propagation(Path::new("/"), MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
    let scratch = layout.file("node");
    virtual_fs("tmpfs", &scratch, MsFlags::MS_NOSUID, Some("mode=755"))?;
    let root = mounts::overlay(Path::new("/"), &scratch)?;
    for disk in &setup.disks {
        let at = place(&root, disk, true)?;
        bind(disk, &at, false)?;
        mounts::read_only(&at)?;
    }
    kernel(&root)?;
    files(&root, setup)?;
    runtime(&root, &layout, &setup.node)?;
    mounts::pivot(&root)?;
    // Volumes with mount propagation need shared mounts, as on any node; the kubelet's own stay private.
    propagation(Path::new("/"), MsFlags::MS_SHARED | MsFlags::MS_REC)?;
    propagation(Path::new(RUNTIME), MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
    Ok(())
}

fn kernel(root: &Path) -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    virtual_fs("proc", &place(root, Path::new("/proc"), true)?, safe, None)?;
    virtual_fs("sysfs", &place(root, Path::new("/sys"), true)?, safe, None)?;
    virtual_fs("cgroup2", &root.join("sys/fs/cgroup"), safe, None)?;
    virtual_fs("bpf", &root.join("sys/fs/bpf"), MsFlags::empty(), None)?;
    bind(Path::new("/dev"), &place(root, Path::new("/dev"), true)?, true)?;
    virtual_fs("tmpfs", &place(root, Path::new("/run"), true)?, MsFlags::MS_NOSUID, Some("mode=755"))?;
    Ok(())
}

fn files(root: &Path, setup: &Setup) -> Result<()> {
    let folder = root.join("run/node");
    fs::create_dir_all(&folder)?;
    for (name, text) in [("hosts", &setup.hosts), ("resolv.conf", &setup.resolv), ("hostname", &setup.node)] {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        bind(&file, &place(root, &Path::new("/etc").join(name), false)?, false)?;
    }
    for folder in ["run/cni/net.d", "run/netns", "run/cilium", "opt/cni/bin", "var/log/pods"] {
        let folder = place(root, &Path::new("/").join(folder), true)?;
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    Ok(())
}

fn runtime(root: &Path, layout: &Layout, node: &str) -> Result<()> {
    let runtime = root.join("run/axoneme");
    fs::create_dir_all(&runtime)?;
    virtual_fs("tmpfs", &runtime, MsFlags::MS_NOSUID, Some("mode=755"))?;
    for (source, name) in [(PathBuf::from("/"), "host"), (layout.commands(), "bin"), (layout.node(node), "lab")] {
        let at = runtime.join(name);
        fs::create_dir_all(&at)?;
        bind(&source, &at, false)?;
    }
    Ok(())
}
