//! What do the agent's init containers do?

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use nix::mount::MsFlags;
use std::fs;
use std::path::{Path, PathBuf};

/// `lab-step NAME`.
pub fn main(args: &[String]) -> Result<()> {
    let [step] = args else { bail!("one step is expected") };
    match step.as_str() {
        "config" => config(Path::new("/tmp/cilium/config-map")),
        "mount-cgroup" => mounted("cgroup2", Path::new("/run/cilium/cgroupv2")),
        "apply-sysctl-overwrites" => sysctls(Path::new("/proc/sys")),
        "mount-bpf-fs" => mounted("bpf", Path::new("/sys/fs/bpf")),
        "clean-cilium-state" => clean(),
        "install-cni-binaries" => install(Path::new("/host/opt/cni/bin")),
        other => bail!("no step is named {other:?}"),
    }
}

/// Writes the agent's configuration as one file for each key.
fn config(folder: &Path) -> Result<()> {
    let namespace = std::env::var("CILIUM_K8S_NAMESPACE").unwrap_or_else(|_| "kube-system".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let map = runtime.block_on(async {
        let client = kube::Client::try_default().await.context("find the API server")?;
        let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
        api.get("cilium-config").await.context("read the ConfigMap cilium-config")
    })?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    for (key, value) in map.data.unwrap_or_default() {
        fs::write(folder.join(&key), value).with_context(|| format!("write setting {key}"))?;
    }
    Ok(())
}

/// Mounts a file system of the kernel unless it is there.
fn mounted(kind: &str, target: &Path) -> Result<()> {
    let info = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    if is_mounted(&info, kind, target) {
        return Ok(());
    }
    fs::create_dir_all(target).with_context(|| format!("create {}", target.display()))?;
    kubelet::mounts::virtual_fs(kind, target, MsFlags::empty(), None)?;
    Ok(())
}

fn is_mounted(info: &str, kind: &str, target: &Path) -> bool {
    // The last mount on a place is the one that is seen.
    let last = info.lines().rev().find(|l| l.split(' ').nth(4).map(Path::new) == Some(target));
    last.and_then(|l| l.split_once(" - ")).is_some_and(|(_, rest)| rest.split(' ').next() == Some(kind))
}

/// Settings without which the kernel drops packets that the agent's programs deliver.
fn sysctls(root: &Path) -> Result<()> {
    for name in ["net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter"] {
        let path = root.join(name);
        fs::write(&path, "0").with_context(|| format!("write 0 to {}", path.display()))?;
    }
    Ok(())
}

/// Removes pinned maps, or all state, if the cluster's configuration says so.
fn clean() -> Result<()> {
    let wanted = |name: &str| std::env::var(name).is_ok_and(|v| v == "true");
    let all = wanted("CILIUM_ALL_STATE");
    let mut folders: Vec<PathBuf> = Vec::new();
    if all || wanted("CILIUM_BPF_STATE") {
        folders.extend(["/sys/fs/bpf/tc", "/sys/fs/bpf/cilium"].map(PathBuf::from));
    }
    if all {
        folders.push("/var/run/cilium/state".into());
    }
    for folder in folders.iter().filter(|f| f.exists()) {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

/// Puts the plugin where the kubelet looks for it; a half-made one is never seen.
fn install(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let (fresh, plugin) = (folder.join(".cilium-cni.new"), folder.join("cilium-cni"));
    let _ = fs::remove_file(&fresh);
    let source = Path::new(kubelet::catalogue::COMMANDS).join("cilium-cni");
    std::os::unix::fs::symlink(&source, &fresh).with_context(|| format!("link {}", fresh.display()))?;
    fs::rename(&fresh, &plugin).with_context(|| format!("install {}", plugin.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_on_a_place_counts() {
        let info =
            "1 0 0:1 / /run/cilium/cgroupv2 rw - tmpfs tmpfs rw\n2 1 0:2 / /run/cilium/cgroupv2 rw - cgroup2 none rw\n";
        assert!(is_mounted(info, "cgroup2", Path::new("/run/cilium/cgroupv2")));
        assert!(!is_mounted(info, "tmpfs", Path::new("/run/cilium/cgroupv2")));
        assert!(!is_mounted(info, "cgroup2", Path::new("/run/cilium")));
    }
}
