//! Which values do built-in kinds get where the user gave none?

use serde_json::{Map, Value, json};

use crate::meta::{self, default};
use crate::status::Status;
use crate::store::{Key, Transaction};

/// Adds defaults to an object of a collection.
pub fn apply(collection: &str, object: &mut Value, old: Option<&Value>) {
    match collection {
        "pods" => pod(object, old.is_none()),
        "deployments.apps" => deployment(object),
        "replicasets.apps" => replica_set(object),
        "daemonsets.apps" => daemon_set(object),
        "statefulsets.apps" => stateful_set(object),
        "jobs.batch" => job(object),
        "services" => service(object),
        "namespaces" => namespace(object, old.is_none()),
        "secrets" => secret(object),
        "networkpolicies.networking.k8s.io" => network_policy(object),
        "nodes" => node(object),
        "endpointslices.discovery.k8s.io" => endpoint_slice(object),
        "endpoints" => endpoints(object),
        "priorityclasses.scheduling.k8s.io" => default(root(object), "preemptionPolicy", "PreemptLowerPriority"),
        "events" => event(object),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => binding(object),
        crate::crd::COLLECTION => crate::crd::defaults(object),
        _ => {}
    }
}

fn root(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    match object {
        Value::Object(map) => map,
        _ => unreachable!("it was made a map above"),
    }
}

/// The maps in the list under `key`.
fn each<'a>(map: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn inner<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_object_mut)
}

fn pod(object: &mut Value, new: bool) {
    let spec = meta::child(object, "spec");
    pod_spec(spec);
    default(spec, "enableServiceLinks", true);
    let account = spec.get("serviceAccountName").and_then(Value::as_str).filter(|name| !name.is_empty());
    let account = account.or(spec.get("serviceAccount").and_then(Value::as_str)).unwrap_or("default").to_owned();
    spec.insert("serviceAccountName".into(), account.as_str().into());
    spec.insert("serviceAccount".into(), account.into());
    default(spec, "preemptionPolicy", "PreemptLowerPriority");
    default(spec, "priority", 0);
    if new {
        tolerate_unreachable_nodes(spec);
        let class = quality(spec);
        let status = meta::child(object, "status");
        default(status, "phase", "Pending");
        default(status, "qosClass", class);
    }
}

/// Pods stay five minutes on a node that is lost, unless they say otherwise.
fn tolerate_unreachable_nodes(spec: &mut Map<String, Value>) {
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Value::Array(tolerations) = list else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = tolerations.iter().any(|one| {
            let any = one["key"].as_str().unwrap_or_default().is_empty() && one["operator"] == "Exists";
            let effect = one["effect"].as_str().unwrap_or_default();
            (any || one["key"] == key) && matches!(effect, "" | "NoExecute")
        });
        if !covered {
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
}

fn quality(spec: &Map<String, Value>) -> &'static str {
    let containers = spec.get("containers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let has = |one: &Value, kind: &str| one["resources"][kind].as_object().is_some_and(|map| !map.is_empty());
    let full = |one: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = &one["resources"]["limits"][name];
            !limit.is_null() && *limit == one["resources"]["requests"][name]
        })
    };
    if !containers.iter().any(|one| has(one, "limits") || has(one, "requests")) {
        "BestEffort"
    } else if containers.iter().all(full) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn pod_spec(spec: &mut Map<String, Value>) {
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "securityContext", json!({}));
    default(spec, "schedulerName", "default-scheduler");
    let host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for key in ["initContainers", "containers"] {
        each(spec, key).for_each(|one| container(one, host));
    }
    for volume in each(spec, "volumes") {
        let sources = volume.len();
        if sources == 1 {
            volume.insert("emptyDir".into(), json!({}));
        }
        for (name, mode) in [
            ("configMap", "defaultMode"),
            ("secret", "defaultMode"),
            ("projected", "defaultMode"),
            ("downwardAPI", "defaultMode"),
        ] {
            if let Some(source) = inner(volume, name) {
                default(source, mode, 0o644);
            }
        }
        if let Some(source) = inner(volume, "hostPath") {
            default(source, "type", "");
        }
        if let Some(source) = inner(volume, "projected") {
            for one in each(source, "sources") {
                if let Some(token) = inner(one, "serviceAccountToken") {
                    default(token, "expirationSeconds", 3600);
                }
            }
        }
    }
}

fn container(container: &mut Map<String, Value>, host_network: bool) {
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let newest = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    default(container, "imagePullPolicy", if newest { "Always" } else { "IfNotPresent" });
    for port in each(container, "ports") {
        default(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            default(port, "hostPort", number);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = inner(container, key) {
            for (field, value) in
                [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                default(probe, field, value);
            }
            if let Some(get) = inner(probe, "httpGet") {
                default(get, "path", "/");
                default(get, "scheme", "HTTP");
            }
        }
    }
    for variable in each(container, "env") {
        if let Some(field) = inner(variable, "valueFrom").and_then(|from| inner(from, "fieldRef")) {
            default(field, "apiVersion", "v1");
        }
    }
}

fn template(object: &mut Value) -> &mut Map<String, Value> {
    let spec = meta::child(object, "spec");
    if let Some(pod) = inner(spec, "template").and_then(|template| inner(template, "spec")) {
        pod_spec(pod);
    }
    spec
}

fn deployment(object: &mut Value) {
    let spec = template(object);
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    default(spec, "strategy", json!({}));
    if let Some(strategy) = inner(spec, "strategy") {
        default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            default(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = inner(strategy, "rollingUpdate") {
                default(rolling, "maxUnavailable", "25%");
                default(rolling, "maxSurge", "25%");
            }
        }
    }
}

fn replica_set(object: &mut Value) {
    default(template(object), "replicas", 1);
}

fn daemon_set(object: &mut Value) {
    let spec = template(object);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "updateStrategy", json!({}));
    if let Some(strategy) = inner(spec, "updateStrategy") {
        default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            default(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = inner(strategy, "rollingUpdate") {
                default(rolling, "maxUnavailable", 1);
                default(rolling, "maxSurge", 0);
                default(rolling, "maxSurge", 0);
            }
        }
    }
}

fn stateful_set(object: &mut Value) {
    let spec = template(object);
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "podManagementPolicy", "OrderedReady");
    default(spec, "updateStrategy", json!({}));
    if let Some(strategy) = inner(spec, "updateStrategy") {
        default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            default(strategy, "rollingUpdate", json!({"partition": 0}));
        }
    }
}

/// A job's pods are found by labels that nobody else has.
fn job(object: &mut Value) {
    let (name, uid) = (meta::name(object).to_owned(), meta::text(object, "/metadata/uid").to_owned());
    let spec = template(object);
    if spec.get("completions").is_none_or(Value::is_null) && spec.get("parallelism").is_none_or(Value::is_null) {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    default(spec, "backoffLimit", 6);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    if spec.get("manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    default(spec, "selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    let Some(template) = inner(spec, "template") else { return };
    let metadata = template.entry("metadata").or_insert_with(|| json!({}));
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        if metadata["labels"][key].is_null() {
            metadata["labels"][key] = value.as_str().into();
        }
    }
}

fn service(object: &mut Value) {
    let spec = meta::child(object, "spec");
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if spec["sessionAffinity"] == "ClientIP" {
        default(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in each(spec, "ports") {
        default(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            default(port, "targetPort", number);
        }
    }
    default(root(object), "status", json!({"loadBalancer": {}}));
}

fn namespace(object: &mut Value, new: bool) {
    let name = meta::name(object).to_owned();
    let labels = meta::metadata(object).entry("labels").or_insert_with(|| json!({}));
    if let Value::Object(labels) = labels {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
    if new {
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        object["status"] = json!({"phase": "Active"});
    }
}

fn secret(object: &mut Value) {
    use base64::Engine as _;
    let map = root(object);
    default(map, "type", "Opaque");
    // What is given as text is kept as data.
    if let Some(Value::Object(texts)) = map.shift_remove("stringData") {
        let data = map.entry("data").or_insert_with(|| json!({}));
        for (key, text) in texts {
            let text = text.as_str().unwrap_or_default();
            data[key] = base64::engine::general_purpose::STANDARD.encode(text).into();
        }
    }
}

fn network_policy(object: &mut Value) {
    let spec = meta::child(object, "spec");
    default(spec, "podSelector", json!({}));
    let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    default(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            each(rule, "ports").for_each(|port| default(port, "protocol", "TCP"));
        }
    }
}

fn node(object: &mut Value) {
    let spec = meta::child(object, "spec");
    if let Some(first) = spec.get("podCIDR").cloned() {
        default(spec, "podCIDRs", json!([first]));
    }
    let status = meta::child(object, "status");
    for field in ["capacity", "allocatable"] {
        if status.get("capacity").is_some() {
            let capacity = status["capacity"].clone();
            default(status, field, capacity);
        }
    }
}

fn endpoint_slice(object: &mut Value) {
    let map = root(object);
    for port in each(map, "ports") {
        default(port, "protocol", "TCP");
        default(port, "name", "");
    }
    default(map, "endpoints", json!([]));
}

fn endpoints(object: &mut Value) {
    for subset in each(root(object), "subsets") {
        each(subset, "ports").for_each(|port| default(port, "protocol", "TCP"));
    }
}

fn event(object: &mut Value) {
    let map = root(object);
    default(map, "type", "Normal");
}

fn binding(object: &mut Value) {
    let map = root(object);
    for subject in each(map, "subjects") {
        if subject.get("kind").is_some_and(|kind| kind == "User" || kind == "Group") {
            default(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
    if let Some(role) = inner(map, "roleRef") {
        default(role, "apiGroup", "rbac.authorization.k8s.io");
    }
}

/// What a new pod needs from other objects: its account, its priority.
///
/// # Errors
/// If one of them does not exist.
pub fn admit_pod(tx: &Transaction<'_>, pod: &mut Value) -> Result<(), Status> {
    let (namespace, name) = (meta::namespace(pod).to_owned(), meta::name(pod).to_owned());
    let account = meta::text(pod, "/spec/serviceAccountName").to_owned();
    // Pods of the node itself come without an account of their own.
    let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    let found = tx.get(&Key::new("serviceaccounts", &namespace, &account));
    let Some(found) = found else {
        if mirror {
            return Ok(());
        }
        let why =
            format!("error looking up service account {namespace}/{account}: serviceaccount {account:?} not found");
        return Err(Status::forbidden("", "pods", &name, &why));
    };
    let wants = pod["spec"]["automountServiceAccountToken"].as_bool();
    let wants = wants.or(found.value["automountServiceAccountToken"].as_bool()).unwrap_or(true);
    if wants && !mirror {
        mount_token(pod);
    }
    let class = meta::text(pod, "/spec/priorityClassName").to_owned();
    let priority = match class.as_str() {
        "" => return Ok(()),
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        other => match tx.get(&Key::new("priorityclasses.scheduling.k8s.io", "", other)) {
            Some(found) => found.value["value"].as_i64().unwrap_or(0),
            None => {
                let why = format!("no PriorityClass with name {other} was found");
                return Err(Status::forbidden("", "pods", &name, &why));
            }
        },
    };
    meta::child(pod, "spec").insert("priority".into(), priority.into());
    Ok(())
}

const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Gives every container the account's token, the authority's certificate and the namespace's name as files.
fn mount_token(pod: &mut Value) {
    let spec = meta::child(pod, "spec");
    let mounted = |one: &Map<String, Value>| {
        let mounts = one.get("volumeMounts").and_then(Value::as_array).into_iter().flatten();
        mounts.into_iter().any(|mount| mount["mountPath"] == TOKEN_FOLDER)
    };
    let name = format!("kube-api-access-{}", crate::verbs::change::random_suffix());
    let mut used = false;
    for key in ["initContainers", "containers"] {
        for container in each(spec, key) {
            if mounted(container) {
                continue;
            }
            used = true;
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if let Value::Array(mounts) = mounts {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_FOLDER}));
            }
        }
    }
    if !used {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Value::Array(volumes) = volumes {
        volumes.push(json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_pod_gets_what_every_pod_has() {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "x/y"}]}});
        apply("pods", &mut pod, None);
        assert_eq!(pod["spec"]["restartPolicy"], "Always");
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        let once = pod.clone();
        apply("pods", &mut pod, Some(&once));
        assert_eq!(pod, once, "defaults do not change what has them");
    }

    #[test]
    fn text_of_a_secret_becomes_data() {
        let mut secret = json!({"stringData": {"a": "b"}});
        apply("secrets", &mut secret, None);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "Yg=="}}));
    }
}
