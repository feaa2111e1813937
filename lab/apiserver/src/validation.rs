//! Which rules must a built-in object keep, beyond its types?

mod names;
mod pods;

use serde_json::{Value, json};

use crate::meta;
use crate::registry::Resource;
use crate::selector::Labels;
use crate::status::FieldError;

/// Rules for names, labels, annotations.
pub fn metadata(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = meta::name(object);
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(rule) = names::rule(&resource.collection, name) {
        errors.push(FieldError::invalid("metadata.name", &json!(name), &rule));
    }
    names::labels(object.pointer("/metadata/labels"), "metadata.labels", &mut errors);
    for key in object.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten() {
        names::key(&key.0.to_lowercase(), "metadata.annotations", &mut errors);
    }
    errors
}

/// Rules for the content of built-in kinds.
pub fn content(collection: &str, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match collection {
        "pods" => pods::spec(&object["spec"], "spec", &mut errors),
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" | "statefulsets.apps" => {
            workload(object, &["Always"], &mut errors);
        }
        "jobs.batch" => job(object, &mut errors),
        "services" => service(object, &mut errors),
        "configmaps" => keys(object, &["data", "binaryData"], &mut errors),
        "secrets" => secret(object, &mut errors),
        "networkpolicies.networking.k8s.io" => network_policy(object, &mut errors),
        crate::crd::COLLECTION => errors.extend(crate::crd::check(object)),
        _ => {}
    }
    errors
}

fn job(object: &Value, errors: &mut Vec<FieldError>) {
    workload(object, &["OnFailure", "Never"], errors);
    let spec = &object["spec"];
    for field in ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
        if spec[field].as_i64().is_some_and(|number| number < 0) {
            let rule = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(format!("spec.{field}"), &spec[field], rule));
        }
    }
    if spec["completionMode"].as_str().is_some_and(|mode| mode != "NonIndexed") {
        let modes = ["NonIndexed".to_owned()];
        errors.push(FieldError::unsupported("spec.completionMode", &spec["completionMode"], &modes));
    }
}

fn workload(object: &Value, restarts: &[&str], errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    if spec["replicas"].as_i64().is_some_and(|count| count < 0) {
        errors.push(FieldError::invalid("spec.replicas", &spec["replicas"], "must be greater than or equal to 0"));
    }
    let selector = &spec["selector"];
    let empty = |name: &str| {
        selector[name].as_object().is_none_or(serde_json::Map::is_empty)
            && meta::list(selector, &format!("/{name}")).is_empty()
    };
    if empty("matchLabels") && empty("matchExpressions") {
        errors.push(FieldError::invalid("spec.selector", selector, "empty selector is invalid for deployment"));
    }
    let labels = spec.pointer("/template/metadata/labels");
    if !Labels::from_object(selector).matches_labels(labels.and_then(Value::as_object)) {
        let shown = labels.cloned().unwrap_or_else(|| json!({}));
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            &shown,
            "`selector` does not match template `labels`",
        ));
    }
    names::labels(labels, "spec.template.metadata.labels", errors);
    pods::spec(&spec["template"]["spec"], "spec.template.spec", errors);
    let policy = &spec["template"]["spec"]["restartPolicy"];
    if policy.as_str().is_some_and(|policy| !restarts.contains(&policy)) {
        let known: Vec<String> = restarts.iter().map(|one| (*one).to_owned()).collect();
        errors.push(FieldError::unsupported("spec.template.spec.restartPolicy", policy, &known));
    }
}

fn service(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let kind = spec["type"].as_str().unwrap_or_default();
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        errors.push(FieldError::unsupported("spec.type", &spec["type"], &kinds.map(str::to_owned)));
    }
    if kind == "ExternalName" && spec["externalName"].as_str().unwrap_or_default().is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    }
    let ports = meta::list(spec, "/ports");
    let headless = spec["clusterIP"] == "None";
    if ports.is_empty() && kind != "ExternalName" && !headless {
        errors.push(FieldError::required("spec.ports", ""));
    }
    let mut seen: Vec<(&Value, &Value)> = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = port["name"].as_str().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !name.is_empty() {
            if let Some(rule) = names::label_rule(name) {
                errors.push(FieldError::invalid(format!("{path}.name"), &json!(name), &rule));
            }
            if named.contains(&name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), &json!(name)));
            }
            named.push(name);
        }
        port_number(&port["port"], &format!("{path}.port"), errors);
        target_port(&port["targetPort"], &format!("{path}.targetPort"), errors);
        protocol(&port["protocol"], &format!("{path}.protocol"), errors);
        let pair = (&port["port"], &port["protocol"]);
        if seen.contains(&pair) {
            errors.push(FieldError::duplicate(path, &json!({"port": pair.0, "protocol": pair.1})));
        }
        seen.push(pair);
    }
    let labels = spec.get("selector");
    names::labels(labels, "spec.selector", errors);
}

fn port_number(port: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !port.as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
        errors.push(FieldError::invalid(path, port, "must be between 1 and 65535, inclusive"));
    }
}

fn target_port(port: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match port {
        Value::Number(_) => port_number(port, path, errors),
        Value::String(name) => {
            if let Some(rule) = names::port_name_rule(name) {
                errors.push(FieldError::invalid(path, port, &rule));
            }
        }
        _ => {}
    }
}

fn protocol(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let all = ["SCTP", "TCP", "UDP"];
    if value.as_str().is_some_and(|protocol| !all.contains(&protocol)) {
        errors.push(FieldError::unsupported(path, value, &all.map(str::to_owned)));
    }
}

fn keys(object: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    for field in fields {
        for key in object[field].as_object().into_iter().flatten().map(|(key, _)| key) {
            let right =
                key.len() <= 253 && key.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char));
            if !right || key.is_empty() || key == "." || key == ".." {
                let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
                errors.push(FieldError::invalid(format!("{field}[{key}]"), &json!(key), rule));
            }
        }
    }
}

fn secret(object: &Value, errors: &mut Vec<FieldError>) {
    use base64::Engine as _;
    keys(object, &["data"], errors);
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if base64::engine::general_purpose::STANDARD.decode(text).is_err() {
            errors.push(FieldError::invalid(format!("data[{key}]"), value, "illegal base64 data"));
        }
    }
}

fn network_policy(object: &Value, errors: &mut Vec<FieldError>) {
    for direction in ["ingress", "egress"] {
        let peers = if direction == "ingress" { "from" } else { "to" };
        for (index, rule) in meta::list(object, &format!("/spec/{direction}")).iter().enumerate() {
            let path = format!("spec.{direction}[{index}]");
            for (at, port) in meta::list(rule, "/ports").iter().enumerate() {
                let path = format!("{path}.ports[{at}]");
                protocol(&port["protocol"], &format!("{path}.protocol"), errors);
                target_port(&port["port"], &format!("{path}.port"), errors);
                let (first, last) = (port["port"].as_i64(), port["endPort"].as_i64());
                if let Some(last) = last
                    && first.is_none_or(|first| last < first)
                {
                    let rule = "must be greater than or equal to `port`, which must be a number";
                    errors.push(FieldError::invalid(format!("{path}.endPort"), &json!(last), rule));
                }
            }
            for (at, peer) in meta::list(rule, &format!("/{peers}")).iter().enumerate() {
                network_peer(peer, &format!("{path}.{peers}[{at}]"), errors);
            }
        }
    }
    for (index, kind) in meta::list(object, "/spec/policyTypes").iter().enumerate() {
        if kind != "Ingress" && kind != "Egress" {
            let allowed = ["Egress".to_owned(), "Ingress".to_owned()];
            errors.push(FieldError::unsupported(format!("spec.policyTypes[{index}]"), kind, &allowed));
        }
    }
}

fn network_peer(peer: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let block = peer.get("ipBlock").filter(|block| block.is_object());
    let selects = ["podSelector", "namespaceSelector"].iter().any(|name| peer.get(name).is_some_and(Value::is_object));
    let Some(block) = block else {
        if !selects {
            errors.push(FieldError::required(path, "must specify a peer"));
        }
        return;
    };
    if selects {
        errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
    }
    let range = block["cidr"].as_str().and_then(|text| text.parse::<ipnet::IpNet>().ok());
    let Some(range) = range else {
        let rule = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(format!("{path}.ipBlock.cidr"), &block["cidr"], rule));
        return;
    };
    for (index, except) in meta::list(block, "/except").iter().enumerate() {
        let inside = except
            .as_str()
            .and_then(|text| text.parse::<ipnet::IpNet>().ok())
            .is_some_and(|one| range.contains(&one) && one != range);
        if !inside {
            let rule = format!("must be a strict subset of `{range}`");
            errors.push(FieldError::invalid(format!("{path}.ipBlock.except[{index}]"), except, &rule));
        }
    }
}

/// Rules about what may change.
pub fn changes(resource: &Resource, old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut fixed = |pointer: &str, field: &str| {
        let (before, after) = (old.pointer(pointer), new.pointer(pointer));
        if before.is_some_and(|before| !before.is_null()) && before != after {
            let shown = after.cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(field, &shown, "field is immutable"));
        }
    };
    match resource.collection.as_str() {
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" => fixed("/spec/selector", "spec.selector"),
        "statefulsets.apps" => {
            fixed("/spec/selector", "spec.selector");
            fixed("/spec/serviceName", "spec.serviceName");
            fixed("/spec/podManagementPolicy", "spec.podManagementPolicy");
        }
        "jobs.batch" => {
            fixed("/spec/selector", "spec.selector");
            fixed("/spec/completions", "spec.completions");
            fixed("/spec/template", "spec.template");
        }
        "services" if old["spec"]["type"] != "ExternalName" && new["spec"]["type"] != "ExternalName" => {
            let given = meta::text(new, "/spec/clusterIP");
            if !given.is_empty() {
                fixed("/spec/clusterIP", "spec.clusterIPs[0]");
            }
        }
        "secrets" => fixed("/type", "type"),
        "nodes" => fixed("/spec/podCIDR", "spec.podCIDR"),
        "endpointslices.discovery.k8s.io" => fixed("/addressType", "addressType"),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            fixed("/roleRef", "roleRef")
        }
        crate::crd::COLLECTION => {
            fixed("/spec/scope", "spec.scope");
            fixed("/spec/group", "spec.group");
            fixed("/spec/names/kind", "spec.names.kind");
            fixed("/spec/names/plural", "spec.names.plural");
        }
        _ => {}
    }
    if matches!(resource.collection.as_str(), "configmaps" | "secrets") && old["immutable"] == true {
        for field in ["data", "binaryData", "immutable"] {
            if old[field] != new[field] {
                errors.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
    if resource.collection == "pods" {
        pods::changes(&old["spec"], &new["spec"], &mut errors);
    }
    errors
}
