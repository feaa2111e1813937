//! Which objects does a fresh cluster have?

use crate::options::Options;
use crate::plan;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// Objects with places for what differs between labs.
const TEMPLATE: &str = include_str!("manifests.yaml");

/// Everything that a fresh cluster gets, in the order of application.
pub fn objects(options: &Options) -> Result<Vec<Value>> {
    let nodes = plan::nodes(options);
    let control_plane = nodes.first().context("a lab has a node")?;
    let text = TEMPLATE
        .replace("@API_HOST@", &control_plane.addresses[0].to_string())
        .replace("@API_PORT@", &plan::API_PORT.to_string())
        .replace("@CLUSTER@", &options.cluster_name)
        .replace("@LOG@", &options.log);
    let mut all = vec![agent_config(options)];
    all.extend(documents(&text)?);
    if options.nodes == 1 {
        // One node needs one resolver only.
        all.iter_mut().filter(|o| o["metadata"]["name"] == "coredns" && o["kind"] == "Deployment").for_each(|o| {
            o["spec"]["replicas"] = json!(1);
        });
    }
    Ok(all)
}

/// The objects of a file.
pub fn read(file: &std::path::Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    documents(&text).with_context(|| format!("in {}", file.display()))
}

/// The documents of a YAML text; empty ones are skipped, lists are opened.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for document in serde_saphyr::from_multiple::<Value>(text).context("read YAML")? {
        match document {
            Value::Null => {}
            Value::Object(ref fields) if fields.get("kind").is_some_and(|k| k == "List") => {
                all.extend(fields.get("items").and_then(Value::as_array).cloned().unwrap_or_default());
            }
            other => all.push(other),
        }
    }
    Ok(all)
}

fn agent_config(options: &Options) -> Value {
    let mut data = Map::new();
    let fixed = [
        ("agent-health-port", "9879"),
        ("auto-direct-node-routes", "false"),
        ("bpf-root", "/sys/fs/bpf"),
        ("cgroup-root", "/run/cilium/cgroupv2"),
        ("cilium-endpoint-gc-interval", "5m0s"),
        ("clean-cilium-bpf-state", "false"),
        ("clean-cilium-state", "false"),
        ("cluster-id", "0"),
        ("cni-exclusive", "true"),
        ("cni-log-file", "/var/run/cilium/cilium-cni.log"),
        ("custom-cni-conf", "false"),
        ("datapath-mode", "veth"),
        ("debug", "false"),
        ("enable-bpf-masquerade", "true"),
        ("enable-endpoint-health-checking", "true"),
        ("enable-health-checking", "true"),
        ("enable-hubble", "true"),
        ("enable-ipv4", "true"),
        ("enable-ipv4-masquerade", "true"),
        ("enable-ipv6-masquerade", "true"),
        ("enable-k8s-cluster-network-policy", "true"),
        ("enable-k8s-networkpolicy", "true"),
        ("enable-l7-proxy", "true"),
        ("enable-policy-secrets-sync", "true"),
        ("hubble-disable-tls", "true"),
        ("hubble-listen-address", ":4244"),
        ("hubble-socket-path", "/var/run/cilium/hubble.sock"),
        ("identity-allocation-mode", "crd"),
        ("identity-gc-interval", "15m0s"),
        ("identity-heartbeat-timeout", "30m0s"),
        ("ipam", "kubernetes"),
        ("k8s-require-ipv4-pod-cidr", "true"),
        ("kube-proxy-replacement", "true"),
        ("monitor-aggregation", "medium"),
        ("monitor-aggregation-flags", "all"),
        ("monitor-aggregation-interval", "5s"),
        ("operator-api-serve-addr", "127.0.0.1:9234"),
        ("policy-secrets-namespace", "cilium-secrets"),
        ("policy-secrets-only-from-secrets-namespace", "true"),
        ("routing-mode", "tunnel"),
        ("tunnel-port", "8472"),
        ("tunnel-protocol", "vxlan"),
        ("write-cni-conf-when-ready", "/host/etc/cni/net.d/05-cilium.conflist"),
    ];
    data.extend(fixed.map(|(key, value)| (key.to_string(), json!(value))));
    data.insert("cluster-name".into(), json!(options.cluster_name));
    data.insert("enable-ipv6".into(), json!(options.ipv6.to_string()));
    data.insert("enable-policy".into(), json!(options.enforcement.word()));
    data.extend(options.config.iter().map(|(key, value)| (key.clone(), json!(value))));
    data.sort_keys();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cilium-config", "namespace": "kube-system"},
        "data": data,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::options::Enforcement;

    fn options() -> Options {
        Options {
            name: "lab".into(),
            nodes: 3,
            ipv6: true,
            enforcement: Enforcement::Always,
            cluster_name: "kind-kind".into(),
            config: vec![("monitor-aggregation".into(), "none".into())],
            files: Vec::new(),
            world: None,
            wait: true,
            program: "/x".into(),
            log: "info".into(),
        }
    }

    #[test]
    fn every_object_is_named_and_nothing_is_left_open() {
        let objects = objects(&options()).unwrap();
        for object in &objects {
            assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{object}");
            assert!(object["metadata"]["name"].is_string(), "{object}");
            assert!(!object.to_string().contains('@'), "{object}");
        }
        let config = &objects[0]["data"];
        assert_eq!(config["enable-policy"], "always");
        assert_eq!(config["cluster-name"], "kind-kind");
        assert_eq!(config["enable-ipv6"], "true");
        assert_eq!(config["monitor-aggregation"], "none");
    }

    #[test]
    fn the_agent_has_the_stock_init_containers() {
        let objects = objects(&options()).unwrap();
        let agent = objects.iter().find(|o| o["kind"] == "DaemonSet").unwrap();
        let names: Vec<&str> = agent["spec"]["template"]["spec"]["initContainers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "config",
                "mount-cgroup",
                "apply-sysctl-overwrites",
                "mount-bpf-fs",
                "clean-cilium-state",
                "install-cni-binaries"
            ]
        );
    }

    #[test]
    fn documents_are_separated_and_lists_opened() {
        let text = "a: 1\n---\n---\nkind: List\nitems: [{b: 2}, {c: 3}]\n";
        assert_eq!(documents(text).unwrap(), [json!({"a": 1}), json!({"b": 2}), json!({"c": 3})]);
        assert!(documents("a: [1").is_err());
    }
}
