//! What does the server keep by itself: first objects, the end of namespaces, old events?

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Api;
use crate::services::Allocation;
use crate::store::Key;
use crate::verbs::change::key_of;
use crate::verbs::remove::{self, Options};
use crate::{Config, gc, meta};

const EVENTS_KEPT: i64 = 3600;

/// Objects that every cluster has: where, what, and whether they are written anew at each start.
pub fn bootstrap_objects(config: &Config, allocation: &Allocation) -> Vec<(Key, Value, bool)> {
    let namespace = |name: &str| {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        (Key::new("namespaces", "", name), object, false)
    };
    let mut objects: Vec<_> = ["default", "kube-system", "kube-public", "kube-node-lease"].map(namespace).into();
    objects.extend(kubernetes_service(config, allocation));
    objects.extend(roles());
    objects
}

fn kubernetes_service(config: &Config, allocation: &Allocation) -> Vec<(Key, Value, bool)> {
    let addresses: Vec<String> = allocation.first_addresses().iter().map(ToString::to_string).collect();
    let family = if addresses.iter().any(|text| text.contains(':')) { "IPv6" } else { "IPv4" };
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let Some(port) = config.advertise.first().map(std::net::SocketAddr::port) else { return Vec::new() };
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"labels": labels},
        "spec": {
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "clusterIP": addresses[0], "clusterIPs": addresses, "ipFamilies": [family], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
        "status": {"loadBalancer": {}},
    });
    let ips = config.advertise.iter().map(std::net::SocketAddr::ip).filter(|ip| ip.is_ipv4() == (family == "IPv4"));
    let ips: Vec<String> = ips.map(|ip| ip.to_string()).collect();
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ips, "conditions": {"ready": true}}],
    });
    let at = |collection: &str| Key::new(collection, "default", "kubernetes");
    vec![
        (at("services"), service, true),
        (at("endpoints"), endpoints, true),
        (at("endpointslices.discovery.k8s.io"), slice, true),
    ]
}

fn roles() -> Vec<(Key, Value, bool)> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let role = |name: &str, rules: Value| {
        let object =
            json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": {}, "rules": rules});
        (Key::new(&format!("clusterroles.{GROUP}"), "", name), object, false)
    };
    let all = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let read = json!(["get", "list", "watch"]);
    let write = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
    let visible = json!([
        "bindings",
        "configmaps",
        "endpoints",
        "events",
        "namespaces",
        "pods",
        "pods/log",
        "pods/status",
        "serviceaccounts",
        "services",
        "services/status"
    ]);
    let in_group = |groups: Value, resources: Value, verbs: &Value| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let groups = json!(["apps", "networking.k8s.io", "policy", "discovery.k8s.io"]);
    let edit = json!([
        in_group(json!([""]), visible.clone(), &read),
        in_group(
            json!([""]),
            json!([
                "configmaps",
                "endpoints",
                "pods",
                "pods/attach",
                "pods/exec",
                "pods/portforward",
                "secrets",
                "serviceaccounts",
                "services",
                "pods/eviction"
            ]),
            &write
        ),
        in_group(groups.clone(), json!(["*"]), &write),
    ]);
    let binding = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": {},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": "system:masters"}],
    });
    vec![
        role("cluster-admin", all),
        role("view", json!([in_group(json!([""]), visible, &read), in_group(groups, json!(["*"]), &read)])),
        role("edit", edit.clone()),
        role("admin", {
            let mut rules = edit;
            if let Value::Array(rules) = &mut rules {
                rules.push(in_group(json!([GROUP]), json!(["roles", "rolebindings"]), &write));
            }
            rules
        }),
        (Key::new(&format!("clusterrolebindings.{GROUP}"), "", "cluster-admin"), binding, false),
    ]
}

/// Runs until the server stops.
pub async fn run(api: Arc<Api>) {
    let mut changed = api.store.subscribe("namespaces");
    let mut pods = api.store.subscribe("pods");
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    loop {
        let ending = end_namespaces(&api).await;
        tokio::select! {
            () = api.stop.cancelled() => return,
            _ = changed.changed() => {}
            _ = pods.changed(), if ending => {}
            () = tokio::time::sleep(Duration::from_millis(250)), if ending => {}
            _ = minute.tick() => forget_events(&api).await,
        }
    }
}

/// Empties namespaces that are to go; true if one still has content.
async fn end_namespaces(api: &Arc<Api>) -> bool {
    let (namespaces, _) = api.store.list("namespaces", None);
    let mut left = false;
    for namespace in namespaces.iter().filter(|one| meta::is_deleting(&one.value)) {
        let name = meta::name(&namespace.value);
        if !meta::list(&namespace.value, "/spec/finalizers").is_empty() && empty(api, name).await {
            gc::change(api, &Key::new("namespaces", "", name), |object| {
                meta::child(object, "spec").insert("finalizers".into(), json!([]));
            })
            .await;
        } else {
            left = true;
        }
    }
    left
}

/// Rules about traffic, which must outlive the pods that they protect.
fn is_policy(collection: &str) -> bool {
    collection.contains("networkpolic")
}

/// In which of three steps a namespace's objects go.
fn step_of(collection: &str) -> u8 {
    match collection {
        "pods" | "deployments.apps" | "replicasets.apps" | "daemonsets.apps" | "statefulsets.apps" | "jobs.batch" => 0,
        // What a pod's end still needs: its account, its configuration, its endpoint, and who may reach it.
        other if is_policy(other) => 2,
        _ => 1,
    }
}

/// Deletes a namespace's content in three steps: what makes pods and pods, everything else, then policies. True if done.
async fn empty(api: &Arc<Api>, namespace: &str) -> bool {
    let collections: Vec<_> =
        api.registry.load().collections().filter(|resource| resource.namespaced).cloned().collect();
    for current in 0..3 {
        let mut remaining = 0;
        for resource in collections.iter().filter(|resource| step_of(&resource.collection) == current) {
            for object in api.store.list(&resource.collection, Some(namespace)).0 {
                let key = key_of(resource, &object.value);
                let gone = api
                    .store
                    .transact(|tx| {
                        let Some(old) = tx.get(&key) else { return Ok(true) };
                        if meta::is_deleting(&old.value) {
                            return Ok(false);
                        }
                        let left = remove::remove(resource, tx, &old, &Options::default(), jiff::Timestamp::now())?;
                        Ok(matches!(left, remove::Left::Nothing(_)))
                    })
                    .await;
                remaining += usize::from(gone != Ok(true));
            }
        }
        if remaining > 0 {
            return false;
        }
    }
    true
}

/// Events are told for an hour.
async fn forget_events(api: &Api) {
    let oldest = jiff::Timestamp::now().as_second() - EVENTS_KEPT;
    let (events, _) = api.store.list("events", None);
    let old: Vec<Key> = events
        .iter()
        .filter(|event| {
            let last = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
            let last = last.iter().map(|pointer| meta::text(&event.value, pointer)).find(|text| !text.is_empty());
            last.and_then(|text| text.parse::<jiff::Timestamp>().ok()).is_some_and(|time| time.as_second() < oldest)
        })
        .map(|event| Key::new("events", meta::namespace(&event.value), meta::name(&event.value)))
        .collect();
    if old.is_empty() {
        return;
    }
    let result = api
        .store
        .transact(|tx| {
            for key in &old {
                tx.delete(key);
            }
            Ok(())
        })
        .await;
    if let Err(status) = result {
        tracing::warn!(reason = %status, "old events stay");
    }
}

#[cfg(test)]
mod tests {
    use super::step_of;

    #[test]
    fn a18_policies_go_after_the_pods_that_they_protect() {
        for policies in ["networkpolicies.networking.k8s.io", "ciliumnetworkpolicies.cilium.io"] {
            for protected in ["pods", "deployments.apps", "services", "ciliumendpoints.cilium.io"] {
                assert!(step_of(protected) < step_of(policies), "{protected} and {policies}");
            }
        }
        // Whoever makes pods anew goes with them.
        assert_eq!(step_of("deployments.apps"), step_of("pods"));
    }
}
