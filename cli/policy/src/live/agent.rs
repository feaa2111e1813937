//! What does an agent know of policies and of who is there?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use agent_api::Client;
use agent_api::model;
use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::case::{AddressLabels, Case, Endpoint, NamedPort, Node};

/// The agent's endpoints, whoever else it knows of, and its policies.
pub async fn read(socket: &Path) -> Result<Case> {
    let client = Client::new(socket);
    let settings: model::DaemonConfig = client.get("/v1/config").await?;
    let given = settings.daemon_configuration_map;
    let policy: model::Policy = client.get("/v1/policy").await?;
    let rules: Vec<Value> = serde_json::from_str(&policy.policy).context("read the agent's policies")?;
    let mut case = Case {
        config: super::config(|name| given.get(name).map(String::as_str)),
        policies: Value::Array(objects(rules)),
        ..Case::default()
    };
    let identities: Vec<model::Identity> = client.get("/v1/identity").await?;
    let labels: BTreeMap<u32, Vec<String>> = identities.into_iter().map(|one| (one.id, one.labels)).collect();
    let own: Vec<model::Endpoint> = client.get("/v1/endpoint").await?;
    case.endpoints = own.into_iter().filter_map(local).collect();
    let mut names: BTreeSet<String> =
        case.endpoints.iter().map(|one| format!("{}/{}", one.namespace, one.name)).collect();
    let entries: Vec<model::IpEntry> = client.get("/v1/ip").await?;
    for entry in entries {
        let address = entry.cidr.split('/').next().unwrap_or_default().to_owned();
        let Some(of_identity) = labels.get(&entry.identity) else { continue };
        let name = format!("{}/{}", entry.metadata.namespace, entry.metadata.name);
        let is_pod = !entry.metadata.name.is_empty() && !entry.metadata.namespace.is_empty();
        if !is_pod {
            other(&mut case, &entry, of_identity);
        } else if let Some(known) =
            case.endpoints.iter_mut().find(|one| format!("{}/{}", one.namespace, one.name) == name)
        {
            if !known.ips.contains(&address) {
                known.ips.push(address);
            }
        } else if names.insert(name) {
            case.endpoints.push(Endpoint {
                name: entry.metadata.name.clone(),
                namespace: entry.metadata.namespace.clone(),
                ips: vec![address],
                raw_labels: of_identity.clone(),
                identity: Some(entry.identity),
                remote: true,
                ..Endpoint::default()
            });
        }
    }
    Ok(case)
}

/// Nodes, and what of the world has labels of its own.
fn other(case: &mut Case, entry: &model::IpEntry, labels: &[String]) {
    let has = |label: &str| labels.iter().any(|one| one == label);
    let address = entry.cidr.split('/').next().unwrap_or_default().to_owned();
    if has("reserved:host") || has("reserved:remote-node") {
        let local = has("reserved:host");
        let api = has("reserved:kube-apiserver");
        let name = if local { "local".to_owned() } else { address.clone() };
        match case.nodes.iter_mut().find(|node| node.name == name) {
            Some(node) => node.ips.push(address),
            None => case.nodes.push(Node { name, ips: vec![address], local, kube_apiserver: api, ..Node::default() }),
        }
    } else if has("reserved:kube-apiserver") {
        let labels = vec!["reserved:kube-apiserver".to_owned()];
        case.ip_labels.push(AddressLabels { prefix: entry.cidr.clone(), labels });
    }
}

fn local(endpoint: model::Endpoint) -> Option<Endpoint> {
    let status = endpoint.status;
    let identity = status.identity?;
    let (namespace, name) = status.external_identifiers.pod_name.split_once('/')?;
    let addressing = status.networking.addressing.into_iter();
    let ips = addressing.flat_map(|pair| [pair.ipv4, pair.ipv6]).filter(|ip| !ip.is_empty());
    let ports = status.named_ports.into_iter();
    let ports = ports.map(|port| NamedPort { name: port.name, port: port.port, protocol: port.protocol });
    Some(Endpoint {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ips: ips.collect(),
        ports: ports.collect(),
        raw_labels: identity.labels,
        identity: Some(identity.id),
        ..Endpoint::default()
    })
}

/// Rules are told one by one, with labels that say of which object they are: the objects again.
fn objects(rules: Vec<Value>) -> Vec<Value> {
    let mut by_object: BTreeMap<(String, String, String), Vec<Value>> = BTreeMap::new();
    for mut rule in rules {
        let labels = rule.as_object_mut().and_then(|rule| rule.remove("labels"));
        let labels = labels.as_ref().and_then(Value::as_array);
        let of = |name: &str| {
            let key = format!("io.cilium.k8s.policy.{name}");
            let found = labels.into_iter().flatten().find(|label| label["key"] == key.as_str());
            found.and_then(|label| label["value"].as_str()).unwrap_or_default().to_owned()
        };
        by_object.entry((of("derived-from"), of("namespace"), of("name"))).or_default().push(rule);
    }
    let object = |((kind, namespace, name), specs): ((String, String, String), Vec<Value>)| {
        let version = match kind.as_str() {
            "NetworkPolicy" => "networking.k8s.io/v1",
            "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
            _ => "cilium.io/v2",
        };
        let mut metadata = json!({ "name": name });
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata });
        match (specs.len(), version) {
            (1, _) => object["spec"] = specs.into_iter().next().unwrap_or_default(),
            _ => object["specs"] = Value::Array(specs),
        }
        object
    };
    by_object.into_iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_the_objects_that_they_are_of() {
        let label = |key: &str, value: &str| json!({ "key": format!("io.cilium.k8s.policy.{key}"), "value": value, "source": "k8s" });
        let rule = |name: &str| {
            let labels = [label("derived-from", "CiliumNetworkPolicy"), label("name", name), label("namespace", "a")];
            json!({ "endpointSelector": {}, "ingress": [{}], "labels": labels })
        };
        let found = objects(vec![rule("p"), rule("q"), rule("q")]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0]["metadata"], json!({ "name": "p", "namespace": "a" }));
        assert_eq!(found[0]["spec"], json!({ "endpointSelector": {}, "ingress": [{}] }));
        assert_eq!(found[1]["specs"].as_array().map(Vec::len), Some(2));
    }
}
