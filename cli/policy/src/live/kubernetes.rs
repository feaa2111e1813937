//! What does a cluster's API say of policies, pods, nodes and services?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, TypeMeta};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::case::{Case, Endpoint, Map, NamedPort, Text};

/// Kinds of the policy engine: group, version, kind, plural.
const KINDS: [(&str, &str, &str, &str); 4] = [
    ("cilium.io", "v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies"),
    ("cilium.io", "v2", "CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies"),
    ("cilium.io", "v2", "CiliumCIDRGroup", "ciliumcidrgroups"),
    ("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies"),
];
/// Objects are read so many at a time.
const PAGE: u32 = 500;

/// The cluster as it is now, its policies included.
pub async fn read(kubeconfig: Option<&Path>) -> Result<Case> {
    let client = client(kubeconfig).await?;
    let settings = Api::<ConfigMap>::namespaced(client.clone(), "kube-system").get_opt("cilium-config").await;
    let settings = settings.context("read configmap kube-system/cilium-config")?.and_then(|map| map.data);
    let settings: BTreeMap<String, String> = settings.unwrap_or_default();
    let mut case = Case {
        config: super::config(|name| settings.get(name).map(String::as_str)),
        policies: Value::Array(policies(&client).await?),
        ..Case::default()
    };
    for namespace in list::<Namespace>(&client, "namespaces").await? {
        let name = namespace.metadata.name.unwrap_or_default();
        case.namespaces.insert(name, map(namespace.metadata.labels));
    }
    let known = endpoints(&client).await?;
    let pods = list::<Pod>(&client, "pods").await?;
    case.endpoints = pods.into_iter().filter_map(|pod| endpoint(pod, &known)).collect();
    let slices = list::<EndpointSlice>(&client, "endpointslices").await?;
    let serving = addresses(&slices, "default", "kubernetes");
    for node in list::<Node>(&client, "nodes").await? {
        let name = node.metadata.name.unwrap_or_default();
        let of_node = node.status.into_iter().flat_map(|status| status.addresses.unwrap_or_default());
        let ips: Vec<String> = of_node
            .filter(|one| one.type_ != "Hostname")
            .map(|one| one.address)
            .filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
            .collect();
        let kube_apiserver = ips.iter().any(|ip| serving.contains(ip));
        case.nodes.push(crate::case::Node {
            name,
            ips,
            labels: map(node.metadata.labels),
            kube_apiserver,
            ..Default::default()
        });
    }
    for service in list::<Service>(&client, "services").await? {
        let (name, namespace) =
            (service.metadata.name.unwrap_or_default(), service.metadata.namespace.unwrap_or_default());
        let selector = map(service.spec.and_then(|spec| spec.selector));
        let backends = addresses(&slices, &namespace, &name).into_iter().collect();
        case.services.push(crate::case::Service {
            name,
            namespace,
            labels: map(service.metadata.labels),
            selector,
            backends,
        });
    }
    Ok(case)
}

async fn client(kubeconfig: Option<&Path>) -> Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.with_context(|| format!("use {}", path.display()))?
        }
        None => Config::infer().await.context("find the Kubernetes API; --kubeconfig FILE names it")?,
    };
    Client::try_from(config).context("make a client of the Kubernetes API")
}

/// All objects of a kind in all namespaces.
async fn list<K>(client: &Client, what: &str) -> Result<Vec<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let (mut all, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let some = api.list(&page).await.with_context(|| format!("list {what}"))?;
        all.extend(some.items);
        match some.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// All objects of a kind that the cluster need not have.
async fn list_custom(client: &Client, (group, version, kind, plural): (&str, &str, &str, &str)) -> Result<Vec<Value>> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    match api.list(&ListParams::default()).await {
        Ok(found) => {
            let types = TypeMeta { api_version: resource.api_version.clone(), kind: kind.to_owned() };
            let whole = |mut object: DynamicObject| {
                object.types = Some(types.clone());
                object.metadata.managed_fields = None;
                serde_json::to_value(object)
            };
            Ok(found.items.into_iter().map(whole).collect::<serde_json::Result<Vec<Value>>>()?)
        }
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("list {plural}.{group}")),
    }
}

async fn policies(client: &Client) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for kind in KINDS {
        all.extend(list_custom(client, kind).await?);
    }
    for mut policy in list::<NetworkPolicy>(client, "networkpolicies").await? {
        policy.metadata.managed_fields = None;
        all.push(serde_json::to_value(policy)?);
    }
    for policy in &mut all {
        if let Some(object) = policy.as_object_mut() {
            object.remove("status");
        }
    }
    Ok(all)
}

/// What agents say of pods: identity and labels, by namespace and name.
async fn endpoints(client: &Client) -> Result<BTreeMap<(String, String), (u32, Vec<String>)>> {
    let kind = ("cilium.io", "v2", "CiliumEndpoint", "ciliumendpoints");
    let mut known = BTreeMap::new();
    for one in list_custom(client, kind).await? {
        let text = |path: &str| one.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let labels = one.pointer("/status/identity/labels").and_then(Value::as_array);
        let labels: Vec<String> = labels.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let number = one.pointer("/status/identity/id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        if let (Some(number), false) = (number, labels.is_empty()) {
            known.insert((text("/metadata/namespace"), text("/metadata/name")), (number, labels));
        }
    }
    Ok(known)
}

/// A pod that has a network of its own.
fn endpoint(pod: Pod, known: &BTreeMap<(String, String), (u32, Vec<String>)>) -> Option<Endpoint> {
    let (spec, status) = (pod.spec?, pod.status?);
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if spec.host_network == Some(true) || over {
        return None;
    }
    let (name, namespace) = (pod.metadata.name?, pod.metadata.namespace?);
    let ips: Vec<String> = status.pod_ips.unwrap_or_default().into_iter().map(|one| one.ip).collect();
    if ips.is_empty() {
        return None;
    }
    let containers = spec.containers.into_iter().flat_map(|container| container.ports.unwrap_or_default());
    let ports = containers.filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some(NamedPort { name: port.name?, port: number, protocol: port.protocol.unwrap_or_default() })
    });
    let (identity, raw_labels) = known.get(&(namespace.clone(), name.clone())).cloned().unzip();
    Some(Endpoint {
        ports: ports.collect(),
        labels: map(pod.metadata.labels),
        service_account: spec.service_account_name.unwrap_or_default(),
        ips,
        raw_labels: raw_labels.unwrap_or_default(),
        identity,
        name,
        namespace,
        ..Endpoint::default()
    })
}

fn addresses(slices: &[EndpointSlice], namespace: &str, service: &str) -> BTreeSet<String> {
    let of_service = |slice: &&EndpointSlice| {
        let labels = slice.metadata.labels.as_ref();
        slice.metadata.namespace.as_deref() == Some(namespace)
            && labels.and_then(|labels| labels.get("kubernetes.io/service-name")).is_some_and(|name| name == service)
    };
    let endpoints = slices.iter().filter(of_service).flat_map(|slice| slice.endpoints.clone());
    endpoints.flat_map(|endpoint| endpoint.addresses).collect()
}

fn map(labels: Option<BTreeMap<String, String>>) -> Map {
    labels.unwrap_or_default().into_iter().map(|(key, value)| (key, Text(value))).collect()
}
