//! How does a pod get its namespaces and its network, and how are they given back?

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::PodState;
use crate::cni::{self, Attachment};
use crate::kubelet::{Node, lock};
use crate::namespaces::{self, Kind, Namespace};
use crate::{Error, Result, While, mounts, plan};

/// Where pods' network namespaces are named for the plugins.
const NETNS: &str = "/run/netns";

/// What must be undone for a pod's network.
pub(super) struct Attached {
    attachment: Attachment,
    result: Option<serde_json::Value>,
}

/// Namespaces and network; repeats until there are some.
pub(super) async fn sandbox(node: &Arc<Node>, state: &Arc<PodState>, attached: &mut Option<Attached>) {
    let pod = state.object();
    if plan::host_network(&pod) {
        state.with_facts(|f| {
            f.pod_ips.clone_from(&node.facts.host_ips);
            f.host_ips.clone_from(&node.facts.host_ips);
            f.sandbox = true;
        });
        return;
    }
    state.with_facts(|f| f.host_ips.clone_from(&node.facts.host_ips));
    let mut wait = Duration::from_millis(250);
    loop {
        match attach(node, state, &pod, attached).await {
            Ok(addresses) => {
                state.with_facts(|f| {
                    f.pod_ips = addresses;
                    f.sandbox = true;
                });
                return;
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                tracing::warn!(pod = pod.metadata.name, "{message}");
                node.events.warning(&pod, "FailedCreatePodSandBox", message);
                release(node, state, attached.take()).await;
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}

async fn attach(node: &Node, state: &PodState, pod: &Pod, attached: &mut Option<Attached>) -> Result<Vec<String>> {
    if cni::configured(&node.settings.plugins.configurations)?.is_none() {
        return Err(Error::Invalid("cni plugin not initialized".into()));
    }
    let id = fresh_id();
    let hostname = plan::hostname(pod);
    let kinds = [Kind::Net, Kind::Uts, Kind::Ipc];
    let (made, ()) = namespaces::create(&kinds, || {
        nix::unistd::sethostname(&hostname).while_doing(|| format!("set the host name {hostname}"))?;
        loopback_up()?;
        for (key, value) in
            [("net/ipv4/ping_group_range", "0 2147483647"), ("net/ipv4/ip_unprivileged_port_start", "0")]
        {
            // Container runtimes open these two; a kernel without them is no reason to fail.
            let _ = std::fs::write(Path::new("/proc/sys").join(key), value);
        }
        Ok(())
    })?;
    let netns = name_netns(&made[0], &id)?;
    *lock(&state.namespaces) = made;
    let attachment = Attachment {
        container_id: id,
        netns,
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
    };
    let file = node.attachment_file(&attachment.uid);
    let text = serde_json::to_vec(&attachment).map_err(|e| Error::Invalid(e.to_string()))?;
    std::fs::write(&file, text).while_doing(|| format!("write {}", file.display()))?;
    let entry = attached.insert(Attached { attachment, result: None });
    let result = node.settings.plugins.add(&entry.attachment).await?;
    let addresses: Vec<String> = cni::addresses(&result).iter().map(ToString::to_string).collect();
    entry.result = Some(result);
    if addresses.is_empty() {
        return Err(Error::Invalid("the network plugin gave no address".into()));
    }
    Ok(addresses)
}

pub(super) async fn release(node: &Node, state: &PodState, attached: Option<Attached>) {
    if let Some(Attached { attachment, result }) = attached {
        if let Err(error) = node.settings.plugins.del(&attachment, result.as_ref()).await {
            tracing::warn!(%error, pod = attachment.pod, "the pod's network was not undone");
        }
        remove_netns(&attachment.netns);
        let _ = std::fs::remove_file(node.attachment_file(&attachment.uid));
    }
    lock(&state.namespaces).clear();
}

/// A long random name.
pub fn fresh_id() -> String {
    let part = || std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    (part() + &part()).chars().filter(char::is_ascii_hexdigit).collect()
}

fn loopback_up() -> Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .while_doing(|| "open a socket".into())?;
    // SAFETY: all bytes zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    use std::os::fd::AsRawFd;
    // SAFETY: the request lives through the call and has the form that this ioctl reads.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    nix::errno::Errno::result(set).map(drop).while_doing(|| "set lo up".into())
}

/// Gives the namespace a path that plugins and agent can open.
fn name_netns(namespace: &Namespace, id: &str) -> Result<String> {
    let path = PathBuf::from(NETNS).join(format!("cni-{}", &id[..32.min(id.len())]));
    std::fs::create_dir_all(NETNS).while_doing(|| format!("create {NETNS}"))?;
    std::fs::File::create(&path).while_doing(|| format!("create {}", path.display()))?;
    mounts::bind(Path::new(&namespace.path()), &path, false)?;
    Ok(path.display().to_string())
}

/// Undoes `name_netns`.
pub fn remove_netns(path: &str) {
    let path = Path::new(path);
    if path.starts_with(NETNS) {
        let _ = mounts::detach(path);
        let _ = std::fs::remove_file(path);
    }
}
