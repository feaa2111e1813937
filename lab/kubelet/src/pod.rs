//! What is done for one pod, from its arrival on the node until nothing of it is left?

use crate::cni::{self, Attachment};
use crate::container::{self, Live};
use crate::environment::{Facts, Objects};
use crate::kubelet::{Node, lock};
use crate::namespaces::{self, Kind, Namespace};
use crate::status::{self, Runtime, State};
use crate::volumes::{self, Content, Credentials};
use crate::{Error, Result, While, cgroup, files, mounts, plan};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Where pods' network namespaces are named for the plugins.
const NETNS: &str = "/run/netns";
/// How long a token is good for, and after which time there is a new one.
const TOKEN_SECONDS: i64 = 3600;
/// How often volumes are compared with their objects.
const REFRESH: Duration = Duration::from_secs(10);

/// A pod of this node, as its parts see it.
pub struct PodState {
    object: Mutex<Pod>,
    facts: Mutex<status::Facts>,
    live: Mutex<BTreeMap<String, Live>>,
    namespaces: Mutex<Vec<Namespace>>,
    changed: Notify,
    stop: watch::Sender<Option<Duration>>,
}

impl PodState {
    /// A pod that has just come.
    pub fn new(pod: Pod) -> PodState {
        let now = Timestamp::now();
        let names = pod.spec.iter().flat_map(|s| s.containers.iter().map(|c| c.name.clone()));
        let mut containers: BTreeMap<String, Runtime> =
            names.map(|name| (name, Runtime::new("ContainerCreating"))).collect();
        let inits = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
        containers.extend(inits.map(|c| (c.name.clone(), Runtime::new("PodInitializing"))));
        containers.extend(status::inherited(&pod, now));
        let start = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(now, |t| t.0);
        PodState {
            object: Mutex::new(pod),
            facts: Mutex::new(status::Facts { containers, start: Some(start), ..status::Facts::default() }),
            live: Mutex::default(),
            namespaces: Mutex::default(),
            changed: Notify::new(),
            stop: watch::Sender::new(None),
        }
    }

    /// The newest object.
    pub fn object(&self) -> Pod {
        lock(&self.object).clone()
    }

    /// Whether it has this name.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        let object = lock(&self.object);
        object.metadata.namespace.as_deref() == Some(namespace) && object.metadata.name.as_deref() == Some(name)
    }

    /// The object has changed; a deletion mark stops the pod.
    pub fn update(&self, pod: Pod) {
        if pod.metadata.deletion_timestamp.is_some() {
            let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            self.stop(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        }
        *lock(&self.object) = pod;
    }

    /// Ends the pod; a shorter time than before counts.
    pub fn stop(&self, grace: Duration) {
        self.stop.send_if_modified(|now| {
            let sooner = now.is_none_or(|before| grace < before);
            if sooner {
                *now = Some(grace);
            }
            sooner
        });
    }

    /// Tells when the pod shall end.
    pub fn stopping(&self) -> watch::Receiver<Option<Duration>> {
        self.stop.subscribe()
    }

    /// Changes what is known of a container.
    pub fn with_container(&self, name: &str, change: impl FnOnce(&mut Runtime)) {
        let mut facts = lock(&self.facts);
        change(facts.containers.entry(name.into()).or_insert_with(|| Runtime::new("ContainerCreating")));
        drop(facts);
        self.changed.notify_one();
    }

    /// What is known of a container.
    pub fn container(&self, name: &str) -> Option<Runtime> {
        lock(&self.facts).containers.get(name).cloned()
    }

    /// Changes what is known of the pod.
    pub fn with_facts(&self, change: impl FnOnce(&mut status::Facts)) {
        change(&mut lock(&self.facts));
        self.changed.notify_one();
    }

    /// The addresses of the pod.
    pub fn addresses(&self) -> Vec<String> {
        lock(&self.facts).pod_ips.clone()
    }

    /// A running container.
    pub fn live(&self, container: &str) -> Option<Live> {
        lock(&self.live).get(container).cloned()
    }

    /// Notes that a container runs or has ended.
    pub fn set_live(&self, container: &str, live: Option<Live>) {
        let mut all = lock(&self.live);
        match live {
            Some(live) => all.insert(container.into(), live),
            None => all.remove(container),
        };
    }

    /// Handles of the namespaces that its containers share; none for a pod of the host network.
    pub fn namespaces(&self) -> Result<Vec<Namespace>> {
        lock(&self.namespaces).iter().map(Namespace::share).collect()
    }
}

/// What the containers of a pod are made from.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// Objects that they refer to.
    pub objects: Objects,
    /// The pod's volumes.
    pub contents: BTreeMap<String, Content>,
    /// What they may know.
    pub facts: Facts,
}

/// Runs a pod until it is over or shall end; then removes all of it.
pub async fn run(node: Arc<Node>, state: Arc<PodState>) {
    let publisher = tokio::spawn(publish(node.clone(), state.clone()));
    let mut attached = None;
    live(&node, &state, &mut attached).await;
    tear_down(&node, &state, attached).await;
    // The last status must not come after the object's end.
    publisher.abort();
    let _ = publisher.await;
    let object = state.object();
    if object.metadata.deletion_timestamp.is_some() {
        crate::kubelet::delete(node, object).await;
    } else if state.stopping().borrow().is_none() {
        write_status(&node, &state).await;
    }
}

/// What must be undone for a pod's network.
struct Attached {
    attachment: Attachment,
    result: Option<serde_json::Value>,
}

async fn live(node: &Arc<Node>, state: &Arc<PodState>, attached: &mut Option<Attached>) {
    let mut stop = state.stopping();
    let started = async {
        sandbox(node, state, attached).await;
        prepare(node, state).await
    };
    let prepared = tokio::select! {
        biased;
        _ = stop.wait_for(Option::is_some) => return,
        prepared = started => prepared,
    };
    let prepared = Arc::new(Mutex::new(prepared));
    let refresher = tokio::spawn(refresh(node.clone(), state.clone(), prepared.clone()));
    containers(node, state, &prepared).await;
    refresher.abort();
}

/// Init containers one after the other, then all others until they are over.
async fn containers(node: &Arc<Node>, state: &Arc<PodState>, prepared: &Arc<Mutex<Prepared>>) {
    let spec = state.object().spec.unwrap_or_default();
    let policy = spec.restart_policy.clone().unwrap_or_else(|| "Always".into());
    let start = |container: &Container, policy: &str, init: bool| {
        let task = container::Task {
            node: node.clone(),
            state: state.clone(),
            prepared: prepared.clone(),
            container: container.clone(),
            policy: policy.to_string(),
            init,
        };
        tokio::spawn(task.run())
    };
    let mut beside = Vec::new();
    for init in spec.init_containers.iter().flatten() {
        if init.restart_policy.as_deref() == Some("Always") {
            beside.push(start(init, "Always", false));
            continue;
        }
        let once = if policy == "Never" { "Never" } else { "OnFailure" };
        let code = start(init, once, true).await.unwrap_or(None);
        if code != Some(0) {
            if state.stopping().borrow().is_none() {
                let message = format!("init container {:?} failed", init.name);
                state.with_facts(|f| f.finished = Some(("Failed".into(), "InitContainerFailed".into(), message)));
            }
            return;
        }
    }
    state.with_facts(|f| f.initialized = true);
    let tasks: Vec<_> = spec.containers.iter().map(|c| start(c, &policy, false)).collect();
    for task in tasks {
        let _ = task.await;
    }
    state.stop(Duration::from_secs(u64::try_from(spec.termination_grace_period_seconds.unwrap_or(30)).unwrap_or(30)));
    for task in beside {
        let _ = task.await;
    }
}

/// Namespaces and network; repeats until there are some.
async fn sandbox(node: &Arc<Node>, state: &Arc<PodState>, attached: &mut Option<Attached>) {
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

async fn release(node: &Node, state: &PodState, attached: Option<Attached>) {
    if let Some(Attached { attachment, result }) = attached {
        if let Err(error) = node.settings.plugins.del(&attachment, result.as_ref()).await {
            tracing::warn!(%error, pod = attachment.pod, "the pod's network was not undone");
        }
        remove_netns(&attachment.netns);
        let _ = std::fs::remove_file(node.attachment_file(&attachment.uid));
    }
    lock(&state.namespaces).clear();
}

/// Objects, files and volumes; repeats until all are there.
async fn prepare(node: &Node, state: &PodState) -> Prepared {
    let mut wait = Duration::from_millis(250);
    loop {
        let pod = state.object();
        match prepare_once(node, state, &pod, None).await {
            Ok(prepared) => return prepared,
            Err(error) => {
                tracing::warn!(pod = pod.metadata.name, %error, "volumes");
                node.events.warning(&pod, "FailedMount", error.to_string());
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

async fn prepare_once(node: &Node, state: &PodState, pod: &Pod, credentials: Option<Credentials>) -> Result<Prepared> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let facts = Facts { pod_ips: state.addresses(), ..node.facts.clone() };
    let objects = objects(node, pod).await?;
    let credentials = match credentials {
        Some(known) => known,
        None => self::credentials(node, pod).await?,
    };
    let contents = volumes::contents(pod, &objects, &facts, &credentials).map_err(Error::Invalid)?;
    volumes::prepare(&node.folder(&uid).join("volumes"), &contents)?;
    write_etc(node, pod, &facts, &node.folder(&uid).join("etc"))?;
    Ok(Prepared { objects, contents, facts })
}

fn write_etc(node: &Node, pod: &Pod, facts: &Facts, folder: &Path) -> Result<()> {
    let resolver = plan::resolver(pod, &node.settings.dns, &node.settings.domain);
    let resolv = match resolver {
        Some(resolver) => resolver.text(),
        None => {
            std::fs::read_to_string("/etc/resolv.conf").while_doing(|| "read the node's /etc/resolv.conf".into())?
        }
    };
    let aliases: Vec<(String, Vec<String>)> = pod
        .spec
        .iter()
        .flat_map(|s| s.host_aliases.iter().flatten())
        .map(|a| (a.ip.clone(), a.hostnames.clone().unwrap_or_default()))
        .collect();
    let addresses: Vec<_> = facts.pod_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    let hosts = files::hosts(&addresses, &plan::hostname(pod), &aliases);
    volumes::write(folder, &[("resolv.conf".into(), resolv.into_bytes()), ("hosts".into(), hosts.into_bytes())].into())
}

/// Everything of the namespace that the pod names, and its services.
async fn objects(node: &Node, pod: &Pod) -> Result<Objects> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let named = references(&serde_json::to_value(&spec).unwrap_or_default());
    let maps: Api<ConfigMap> = Api::namespaced(node.client.clone(), &namespace);
    let secrets: Api<Secret> = Api::namespaced(node.client.clone(), &namespace);
    let mut objects = Objects::default();
    for name in named.0 {
        objects.config_maps.extend(maps.get_opt(&name).await?.map(|m| (name, m)));
    }
    for name in named.1 {
        objects.secrets.extend(secrets.get_opt(&name).await?.map(|s| (name, s)));
    }
    let services: Api<Service> = Api::namespaced(node.client.clone(), &namespace);
    objects.services = services.list(&ListParams::default()).await?.items;
    if namespace != "default" {
        let default: Api<Service> = Api::namespaced(node.client.clone(), "default");
        objects.services.extend(default.get_opt("kubernetes").await?);
    }
    Ok(objects)
}

/// Names of config maps and secrets in a pod's spec, wherever they stand.
fn references(value: &serde_json::Value) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    collect(value, &mut maps, &mut secrets);
    for names in [&mut maps, &mut secrets] {
        names.sort();
        names.dedup();
    }
    (maps, secrets)
}

fn collect(value: &serde_json::Value, maps: &mut Vec<String>, secrets: &mut Vec<String>) {
    let name = |v: &serde_json::Value| {
        v.get("name").or_else(|| v.get("secretName")).and_then(|n| n.as_str()).map(String::from)
    };
    match value {
        serde_json::Value::Object(fields) => {
            for (key, inner) in fields {
                match key.as_str() {
                    "configMap" | "configMapRef" | "configMapKeyRef" => maps.extend(name(inner)),
                    "secret" | "secretRef" | "secretKeyRef" => secrets.extend(name(inner)),
                    _ => collect(inner, maps, secrets),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, maps, secrets)),
        _ => {}
    }
}

async fn credentials(node: &Node, pod: &Pod) -> Result<Credentials> {
    let spec = pod.spec.clone().unwrap_or_default();
    let projected = spec.volumes.iter().flatten().any(|v| v.projected.is_some());
    if !projected && !volumes::wants_credentials(pod) {
        return Ok(Credentials { token: String::new(), authority: node.authority.clone() });
    }
    let account = spec.service_account_name.clone().unwrap_or_else(|| "default".into());
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let api: Api<ServiceAccount> = Api::namespaced(node.client.clone(), &namespace);
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer: TokenRequest = api.create_subresource("token", &account, &PostParams::default(), &request).await?;
    let token = answer.status.map(|s| s.token).unwrap_or_default();
    Ok(Credentials { token, authority: node.authority.clone() })
}

/// Keeps volumes like their objects and tokens fresh.
async fn refresh(node: Arc<Node>, state: Arc<PodState>, prepared: Arc<Mutex<Prepared>>) {
    let mut taken = tokio::time::Instant::now();
    let mut known: Option<Credentials> = None;
    loop {
        tokio::time::sleep(REFRESH).await;
        let pod = state.object();
        if known.is_none() || taken.elapsed() > Duration::from_secs(TOKEN_SECONDS as u64 / 2) {
            known = credentials(&node, &pod).await.ok();
            taken = tokio::time::Instant::now();
        }
        let Some(credentials) = known.clone() else { continue };
        match prepare_once(&node, &state, &pod, Some(credentials)).await {
            Ok(fresh) => *lock(&prepared) = fresh,
            Err(error) => tracing::debug!(%error, pod = pod.metadata.name, "volumes not refreshed"),
        }
    }
}

async fn tear_down(node: &Node, state: &PodState, attached: Option<Attached>) {
    let uid = state.object().metadata.uid.unwrap_or_default();
    state.with_facts(|f| f.sandbox = false);
    release(node, state, attached).await;
    let group = node.settings.cgroup.join("pods").join(&uid);
    if group.exists() {
        cgroup::kill(&group);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || cgroup::remove(&group)).await {
            tracing::warn!(%error, "cgroup of a pod");
        }
    }
    let _ = std::fs::remove_dir_all(node.folder(&uid));
}

/// Writes the status whenever it differs from what was written.
async fn publish(node: Arc<Node>, state: Arc<PodState>) {
    let mut written = None;
    loop {
        let facts = lock(&state.facts).clone();
        if written.as_ref() != Some(&facts) {
            if write_status(&node, &state).await {
                written = Some(facts);
            } else {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            continue;
        }
        state.changed.notified().await;
    }
}

/// True if there is nothing more to do about it.
async fn write_status(node: &Node, state: &PodState) -> bool {
    let object = state.object();
    let facts = lock(&state.facts).clone();
    let status = status::of(&object, &facts, Timestamp::now());
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(node.client.clone(), &namespace);
    let patch = json!({"metadata": {"uid": object.metadata.uid}, "status": explicit(&status)});
    match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(updated) => {
            let mut own = lock(&state.object);
            // The watch may have brought something newer meanwhile; only the conditions' times are needed from here.
            own.status = updated.status;
            true
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
        Err(error) => {
            tracing::warn!(%error, pod = name, "status not written");
            false
        }
    }
}

/// A merge patch forgets a field only if it is null.
fn explicit(status: &k8s_openapi::api::core::v1::PodStatus) -> serde_json::Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    for field in ["podIP", "podIPs", "reason", "message"] {
        if value.get(field).is_none() {
            value[field] = serde_json::Value::Null;
        }
    }
    value
}

/// Whether any container of a pod still runs.
pub fn any_running(state: &PodState) -> bool {
    lock(&state.facts).containers.values().any(|c| matches!(c.state, State::Running(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn references_are_found_wherever_they_stand() {
        let spec = json!({
            "containers": [{
                "envFrom": [{"configMapRef": {"name": "a"}}],
                "env": [{"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
            }],
            "volumes": [{"configMap": {"name": "b"}}, {"secret": {"secretName": "t"}},
                {"projected": {"sources": [{"configMap": {"name": "a"}}]}}]
        });
        assert_eq!(references(&spec), (vec!["a".into(), "b".into()], vec!["s".into(), "t".into()]));
    }

    #[test]
    fn a_shorter_grace_counts() {
        let state = PodState::new(Pod::default());
        state.stop(Duration::from_secs(30));
        state.stop(Duration::from_secs(40));
        assert_eq!(*state.stopping().borrow(), Some(Duration::from_secs(30)));
        state.stop(Duration::ZERO);
        assert_eq!(*state.stopping().borrow(), Some(Duration::ZERO));
    }
}
