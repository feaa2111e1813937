//! Nodes, namespaces, configuration, accounts, events, definitions, roles in tables.

use serde_json::{Value, json};

use super::{AGE, Column, NAME, age, or_none, since};
use crate::meta;

pub fn layout(collection: &str) -> Option<&'static [Column]> {
    match collection {
        "nodes" => Some(&[
            NAME,
            ("Status", "string", 0),
            ("Roles", "string", 0),
            AGE,
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
            ("External-IP", "string", 1),
            ("OS-Image", "string", 1),
            ("Kernel-Version", "string", 1),
            ("Container-Runtime", "string", 1),
        ]),
        "namespaces" => Some(&[NAME, ("Status", "string", 0), AGE]),
        "configmaps" => Some(&[NAME, ("Data", "integer", 0), AGE]),
        "secrets" => Some(&[NAME, ("Type", "string", 0), ("Data", "integer", 0), AGE]),
        "serviceaccounts" => Some(&[NAME, ("Secrets", "integer", 0), AGE]),
        "events" => Some(&[
            ("Last Seen", "string", 0),
            ("Type", "string", 0),
            ("Reason", "string", 0),
            ("Object", "string", 0),
            ("Subobject", "string", 1),
            ("Source", "string", 1),
            ("Message", "string", 0),
            ("First Seen", "string", 1),
            ("Count", "string", 1),
            ("Name", "string", 1),
        ]),
        "leases.coordination.k8s.io" => Some(&[NAME, ("Holder", "string", 0), AGE]),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => Some(&[
            NAME,
            ("Role", "string", 0),
            AGE,
            ("Users", "string", 1),
            ("Groups", "string", 1),
            ("ServiceAccounts", "string", 1),
        ]),
        "priorityclasses.scheduling.k8s.io" => Some(&[
            NAME,
            ("Value", "integer", 0),
            ("Global-Default", "boolean", 0),
            AGE,
            ("PreemptionPolicy", "string", 0),
        ]),
        _ => None,
    }
}

pub fn cells(collection: &str, object: &Value, now: jiff::Timestamp) -> Option<Vec<Value>> {
    let (name, age) = (json!(meta::name(object)), age(object, now));
    let count = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
    Some(match collection {
        "nodes" => node(object, name, age),
        "namespaces" => vec![name, json!(meta::text(object, "/status/phase")), age],
        "configmaps" => vec![name, json!(count("data") + count("binaryData")), age],
        "secrets" => vec![name, json!(meta::text(object, "/type")), json!(count("data")), age],
        "serviceaccounts" => vec![name, json!(meta::list(object, "/secrets").len()), age],
        "events" => event(object, now),
        "leases.coordination.k8s.io" => vec![name, json!(meta::text(object, "/spec/holderIdentity")), age],
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            binding(object, name, age)
        }
        "priorityclasses.scheduling.k8s.io" => {
            let default = object["globalDefault"].as_bool().unwrap_or(false);
            vec![
                name,
                object["value"].clone(),
                json!(default),
                age,
                json!(object["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority")),
            ]
        }
        _ => return None,
    })
}

fn node(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ready = meta::list(object, "/status/conditions").iter().find(|one| one["type"] == "Ready");
    let mut status = match ready.map(|one| one["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = meta::list(object, "/status/addresses").iter().find(|one| one["type"] == kind);
        json!(or_none(found.map(|one| meta::text(one, "/address").to_owned()).unwrap_or_default()))
    };
    let info = |field: &str| meta::text(object, &format!("/status/nodeInfo/{field}")).to_owned();
    let or_unknown = |text: String| json!(if text.is_empty() { "<unknown>".to_owned() } else { text });
    vec![
        name,
        json!(status),
        json!(or_none(roles(object))),
        age,
        json!(info("kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        or_unknown(info("osImage")),
        or_unknown(info("kernelVersion")),
        or_unknown(info("containerRuntimeVersion")),
    ]
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<&str> = meta::labels(object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == "kubernetes.io/role"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles.join(",")
}

fn event(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let text = |pointer: &str| meta::text(object, pointer);
    let first_of = |pointers: &[&str]| {
        pointers.iter().map(|one| text(one)).find(|found| !found.is_empty()).unwrap_or_default().to_owned()
    };
    let seen = |pointers: &[&str]| json!(since(&first_of(pointers), now));
    let kind = text("/involvedObject/kind").to_lowercase();
    let object_name = format!("{kind}/{}", text("/involvedObject/name"));
    let source = first_of(&["/source/component", "/reportingComponent"]);
    let host = text("/source/host");
    let source = if host.is_empty() { source } else { format!("{source}, {host}") };
    let series = object.pointer("/series/count").or(object.get("count")).and_then(Value::as_i64).unwrap_or(1);
    vec![
        seen(&["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]),
        json!(text("/type")),
        json!(text("/reason")),
        json!(object_name),
        json!(text("/involvedObject/fieldPath")),
        json!(source),
        json!(text("/message").trim()),
        seen(&["/firstTimestamp", "/eventTime", "/metadata/creationTimestamp"]),
        json!(series.to_string()),
        json!(meta::name(object)),
    ]
}

fn binding(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let subjects = |kind: &str| {
        let all = meta::list(object, "/subjects").iter().filter(|one| one["kind"] == kind);
        let shown = all.map(|one| match (kind, one["namespace"].as_str()) {
            ("ServiceAccount", Some(namespace)) => format!("{namespace}/{}", meta::text(one, "/name")),
            _ => meta::text(one, "/name").to_owned(),
        });
        json!(shown.collect::<Vec<_>>().join(", "))
    };
    let role = format!("{}/{}", meta::text(object, "/roleRef/kind"), meta::text(object, "/roleRef/name"));
    vec![name, json!(role), age, subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}
