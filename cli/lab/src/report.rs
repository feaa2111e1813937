//! What is in a cluster, as a user wants to see it at a glance?

use anyhow::{Context, Result, bail};
use cluster::layout::{Layout, Ports};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

/// Prints nodes and pods.
pub fn status(layout: &Layout, as_json: bool) -> Result<()> {
    layout.expect_up()?;
    let (nodes, pods) = asked(layout, async |client| {
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
        let pods = Api::<Pod>::all(client).list(&ListParams::default()).await?;
        Ok((nodes.items, pods.items))
    })?;
    let ports: Ports = layout.read("ports.json")?;
    let nodes: Vec<Value> = nodes.iter().map(node).collect();
    let pods: Vec<Value> = pods.iter().map(pod).collect();
    if as_json {
        let all = json!({
            "name": layout.name, "kubeconfig": layout.kubeconfig(), "ports": ports, "nodes": nodes, "pods": pods
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!("lab {}: API server 127.0.0.1:{}, Hubble 127.0.0.1:{}", layout.name, ports.api, ports.hubble);
    table(&nodes, &["name", "ready", "address"]);
    table(&pods, &["namespace", "name", "phase", "ready", "address", "node"]);
    Ok(())
}

fn node(node: &Node) -> Value {
    let status = node.status.clone().unwrap_or_default();
    let address = status.addresses.iter().flatten().find(|a| a.type_ == "InternalIP").map(|a| a.address.clone());
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    json!({"name": node.metadata.name, "ready": ready, "address": address})
}

fn pod(pod: &Pod) -> Value {
    let status = pod.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    json!({
        "namespace": pod.metadata.namespace, "name": pod.metadata.name, "phase": status.phase, "ready": ready,
        "address": status.pod_ip, "node": pod.spec.as_ref().and_then(|s| s.node_name.clone()),
    })
}

fn table(rows: &[Value], columns: &[&str]) {
    let cell = |row: &Value, column: &str| match &row[column] {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    let width = |column: &str| rows.iter().map(|r| cell(r, column).len()).max().unwrap_or(0).max(column.len());
    let line = |cells: Vec<String>| {
        let padded: Vec<String> =
            cells.iter().zip(columns).map(|(text, column)| format!("{text:<width$}", width = width(column))).collect();
        println!("{}", padded.join("   ").trim_end());
    };
    line(columns.iter().map(|c| c.to_uppercase()).collect());
    rows.iter().for_each(|row| line(columns.iter().map(|c| cell(row, c)).collect()));
}

/// The namespace and full name of the one pod with this name or this beginning of it.
pub fn find_pod(layout: &Layout, namespace: Option<&str>, wanted: &str) -> Result<(String, String)> {
    layout.expect_up()?;
    let pods = asked(layout, async |client| {
        let api: Api<Pod> = match namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        Ok(api.list(&ListParams::default()).await?.items)
    })?;
    let names: Vec<(String, String)> =
        pods.into_iter().filter_map(|p| Some((p.metadata.namespace?, p.metadata.name?))).collect();
    choose(&names, wanted)
}

fn choose(names: &[(String, String)], wanted: &str) -> Result<(String, String)> {
    let exact: Vec<_> = names.iter().filter(|(_, name)| name == wanted).collect();
    let found = if exact.is_empty() { names.iter().filter(|(_, n)| n.starts_with(wanted)).collect() } else { exact };
    match found[..] {
        [one] => Ok(one.clone()),
        [] => bail!("no pod is named {wanted:?}"),
        _ => {
            let all: Vec<String> = found.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
            bail!("{wanted:?} may be any of: {}", all.join(", "))
        }
    }
}

fn asked<T>(layout: &Layout, question: impl AsyncFnOnce(kube::Client) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = cluster::apiserver_process::client(&layout.kubeconfig()).await?;
        question(client).await.context("ask the API server")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pods_are_found_by_name_or_beginning() {
        let names =
            [("default", "web-1"), ("shop", "web-2"), ("shop", "db")].map(|(a, b)| (a.to_string(), b.to_string()));
        assert_eq!(choose(&names, "web-1").unwrap().0, "default");
        assert_eq!(choose(&names, "d").unwrap().1, "db");
        assert!(choose(&names, "web").unwrap_err().to_string().contains("default/web-1, shop/web-2"));
        assert!(choose(&names, "x").is_err());
    }
}
