//! Which process, in which file system, does a container of a pod become?

use crate::catalogue;
use crate::environment::{self, Facts, Objects, expand};
use crate::files::Resolver;
use crate::init::Program;
use crate::root::{Bind, Propagation, Root};
use crate::volumes::{self, Content};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a container cannot be made, as its state says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The image is unknown.
    Image(String),
    /// Something that it refers to is missing or wrong.
    Configuration(String),
}

/// Where things are on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The machine's root, below every container's.
    pub lower: PathBuf,
    /// The machine's other disks.
    pub disks: Vec<PathBuf>,
    /// The folder with the lab's commands.
    pub commands: PathBuf,
    /// The pod's volumes.
    pub volumes: PathBuf,
    /// The pod's `/etc` files.
    pub etc: PathBuf,
    /// Where the container may write.
    pub scratch: PathBuf,
}

/// What a container is made from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// Itself.
    pub container: &'a Container,
    /// What it may refer to.
    pub objects: &'a Objects,
    /// What is known of node and pod.
    pub facts: &'a Facts,
    /// The pod's volumes.
    pub contents: &'a BTreeMap<String, Content>,
}

/// The process plan of a container.
pub fn program(source: &Source, places: &Places) -> Result<Program, Refusal> {
    let Source { pod, container, .. } = *source;
    let env = environment::environment(pod, container, source.objects, source.facts).map_err(Refusal::Configuration)?;
    let expanded =
        |words: &Option<Vec<String>>| -> Vec<String> { words.iter().flatten().map(|w| expand(w, &env)).collect() };
    let image = container.image.as_deref().unwrap_or_default();
    let argv =
        catalogue::argv(image, &expanded(&container.command), &expanded(&container.args)).map_err(Refusal::Image)?;
    let mut binds = base_binds(pod, places);
    let credentials = volumes::wants_credentials(pod);
    binds.extend(
        volumes::binds(container, source.contents, &places.volumes, credentials, &env)
            .map_err(Refusal::Configuration)?,
    );
    Ok(Program {
        root: Root {
            lower: places.lower.clone(),
            scratch: places.scratch.clone(),
            disks: places.disks.clone(),
            binds,
            own_network: !host_network(pod),
        },
        argv,
        env,
        directory: container.working_dir.clone().unwrap_or_else(|| "/".into()).into(),
        user: user(pod, container),
    })
}

/// Whether the pod shares the node's network.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
}

fn base_binds(pod: &Pod, places: &Places) -> Vec<Bind> {
    let bind = |source: PathBuf, target: &str, read_only: bool| Bind {
        source,
        target: target.into(),
        read_only,
        propagation: Propagation::None,
    };
    let mut binds = vec![
        bind(places.commands.clone(), catalogue::COMMANDS, true),
        bind(places.etc.join("resolv.conf"), "/etc/resolv.conf", false),
    ];
    if !host_network(pod) {
        binds.push(bind(places.etc.join("hosts"), "/etc/hosts", false));
    }
    binds
}

fn user(pod: &Pod, container: &Container) -> Option<(u32, u32)> {
    let own = container.security_context.as_ref();
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let user = own.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user))?;
    let group = own.and_then(|c| c.run_as_group).or(of_pod.and_then(|c| c.run_as_group)).unwrap_or(0);
    Some((u32::try_from(user).ok()?, u32::try_from(group).ok()?))
}

/// How a pod resolves names; none means: as the node.
pub fn resolver(pod: &Pod, servers: &[String], domain: &str) -> Option<Resolver> {
    let spec = pod.spec.clone().unwrap_or_default();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| "default".into());
    let first = servers.first().cloned().unwrap_or_default();
    let mut base = match policy {
        "None" => Resolver::default(),
        "Default" => return None,
        "ClusterFirst" if host_network(pod) => return None,
        _ => Resolver::of_cluster(&first, &namespace, domain),
    };
    if policy != "None" {
        base.servers = servers.to_vec();
    }
    let config = spec.dns_config.unwrap_or_default();
    let options: Vec<(String, Option<String>)> =
        config.options.iter().flatten().map(|o| (o.name.clone().unwrap_or_default(), o.value.clone())).collect();
    Some(base.with(&config.nameservers.unwrap_or_default(), &config.searches.unwrap_or_default(), &options))
}

/// The name that the pod's processes see as the machine's.
pub fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|s| s.hostname.clone());
    let mut name = given.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_string()
}

/// A cgroup of the node for one container of a pod.
pub fn cgroup(root: &Path, uid: &str, container: &str) -> PathBuf {
    root.join("pods").join(uid).join(container)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn places() -> Places {
        Places {
            lower: "/host".into(),
            disks: Vec::new(),
            commands: "/cmd".into(),
            volumes: "/v".into(),
            etc: "/etc-of-pod".into(),
            scratch: "/s".into(),
        }
    }

    fn plan(spec: serde_json::Value) -> Result<Program, Refusal> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap();
        let (objects, facts) = (Objects::default(), Facts::default());
        let contents = volumes::contents(&pod, &objects, &facts, &volumes::Credentials::default()).unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        program(&Source { pod: &pod, container, objects: &objects, facts: &facts, contents: &contents }, &places())
    }

    #[test]
    fn a_spec_becomes_a_process() {
        let program = plan(json!({
            "securityContext": {"runAsUser": 1000},
            "volumes": [{"name": "bpf", "hostPath": {"path": "/sys/fs/bpf"}}],
            "containers": [{
                "name": "c", "image": "x", "command": ["run", "$(WHO)"], "workingDir": "/srv",
                "env": [{"name": "WHO", "value": "me"}],
                "volumeMounts": [{"name": "bpf", "mountPath": "/sys/fs/bpf", "mountPropagation": "Bidirectional"}]
            }]
        }))
        .unwrap();
        assert_eq!(program.argv, ["run", "me"]);
        assert_eq!(program.user, Some((1000, 0)));
        assert_eq!(program.directory, Path::new("/srv"));
        assert!(program.root.own_network);
        let targets: Vec<String> = program.root.binds.iter().map(|b| b.target.display().to_string()).collect();
        assert_eq!(
            targets,
            ["/run/axoneme/bin", "/etc/resolv.conf", "/etc/hosts", "/sys/fs/bpf", volumes::CREDENTIALS]
        );
    }

    #[test]
    fn unknown_images_are_refused_by_name() {
        let refusal = plan(json!({"containers": [{"name": "c", "image": "example.org/nothing:1"}]})).unwrap_err();
        let Refusal::Image(message) = refusal else { panic!("{refusal:?}") };
        assert!(message.contains("example.org/nothing:1") && message.contains("coredns"), "{message}");
    }

    #[test]
    fn names_resolve_by_policy() {
        let servers = vec!["10.96.0.10".to_string()];
        let with = |spec: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "n"}, "spec": spec})).unwrap();
            resolver(&pod, &servers, "cluster.local").map(|r| r.text())
        };
        assert!(with(json!({"containers": []})).unwrap().contains("n.svc.cluster.local"));
        assert_eq!(with(json!({"containers": [], "hostNetwork": true})), None);
        assert!(with(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})).is_some());
        let own = with(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"]}}));
        assert_eq!(own.unwrap(), "nameserver 9.9.9.9\n");
    }
}
