//! What must be there before a pod's containers start, and how is it kept as its objects are?

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};

use super::PodState;
use crate::environment::{Facts, Objects};
use crate::kubelet::{Node, lock};
use crate::volumes::{self, Content, Credentials};
use crate::{Error, Result, While, files, plan};

/// How long a token is good for, and after which time there is a new one.
const TOKEN_SECONDS: i64 = 3600;

/// How often volumes are compared with their objects.
const REFRESH: Duration = Duration::from_secs(10);

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

/// Objects, files and volumes; repeats until all are there.
pub(super) async fn prepare(node: &Node, state: &PodState) -> Prepared {
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
pub(super) async fn refresh(node: Arc<Node>, state: Arc<PodState>, prepared: Arc<Mutex<Prepared>>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
}
