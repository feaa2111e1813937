//! Which rules must a pod's specification keep?

use serde_json::{Value, json};

use super::names;
use crate::meta;
use crate::status::FieldError;

/// Checks a pod's specification.
pub fn spec(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let containers = meta::list(spec, "/containers");
    if containers.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let volumes = volumes(spec, path, errors);
    let mut names = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, one) in meta::list(spec, &format!("/{list}")).iter().enumerate() {
            container(one, &format!("{path}.{list}[{index}]"), &volumes, errors);
            let name = one["name"].as_str().unwrap_or_default();
            if !name.is_empty() && names.contains(&name) {
                errors.push(FieldError::duplicate(format!("{path}.{list}[{index}].name"), &json!(name)));
            }
            names.push(name);
        }
    }
    one_of(&spec["restartPolicy"], &["Always", "OnFailure", "Never"], &format!("{path}.restartPolicy"), errors);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(&spec["dnsPolicy"], &dns, &format!("{path}.dnsPolicy"), errors);
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let rule = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            &spec["terminationGracePeriodSeconds"],
            rule,
        ));
    }
    for (index, toleration) in meta::list(spec, "/tolerations").iter().enumerate() {
        let place = format!("{path}.tolerations[{index}]");
        one_of(
            &toleration["effect"],
            &["NoSchedule", "PreferNoSchedule", "NoExecute", ""],
            &format!("{place}.effect"),
            errors,
        );
        one_of(&toleration["operator"], &["Equal", "Exists", ""], &format!("{place}.operator"), errors);
    }
    names::labels(spec.get("nodeSelector"), &format!("{path}.nodeSelector"), errors);
}

fn one_of(value: &Value, allowed: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    if value.as_str().is_some_and(|text| !allowed.contains(&text)) {
        let allowed: Vec<String> = allowed.iter().filter(|one| !one.is_empty()).map(|&one| one.to_owned()).collect();
        errors.push(FieldError::unsupported(path, value, &allowed));
    }
}

fn volumes<'a>(spec: &'a Value, path: &str, errors: &mut Vec<FieldError>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (index, volume) in meta::list(spec, "/volumes").iter().enumerate() {
        let place = format!("{path}.volumes[{index}]");
        let name = volume["name"].as_str().unwrap_or_default();
        if let Some(rule) = names::label_rule(name) {
            errors.push(FieldError::invalid(format!("{place}.name"), &json!(name), &rule));
        }
        if names.contains(&name) {
            errors.push(FieldError::duplicate(format!("{place}.name"), &json!(name)));
        }
        let sources = volume.as_object().map_or(0, |map| map.keys().filter(|key| *key != "name").count());
        if sources > 1 {
            errors.push(FieldError::forbidden(place, "may not specify more than 1 volume type"));
        }
        names.push(name);
    }
    names
}

fn container(one: &Value, path: &str, volumes: &[&str], errors: &mut Vec<FieldError>) {
    let name = one["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else if let Some(rule) = names::label_rule(name) {
        errors.push(FieldError::invalid(format!("{path}.name"), &json!(name), &rule));
    }
    if one["image"].as_str().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    }
    one_of(&one["imagePullPolicy"], &["Always", "IfNotPresent", "Never"], &format!("{path}.imagePullPolicy"), errors);
    let mut named = Vec::new();
    for (index, port) in meta::list(one, "/ports").iter().enumerate() {
        let place = format!("{path}.ports[{index}]");
        super::port_number(&port["containerPort"], &format!("{place}.containerPort"), errors);
        super::protocol(&port["protocol"], &format!("{place}.protocol"), errors);
        let name = port["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            continue;
        }
        if let Some(rule) = names::port_name_rule(name) {
            errors.push(FieldError::invalid(format!("{place}.name"), &json!(name), &rule));
        }
        if named.contains(&name) {
            errors.push(FieldError::duplicate(format!("{place}.name"), &json!(name)));
        }
        named.push(name);
    }
    for (index, mount) in meta::list(one, "/volumeMounts").iter().enumerate() {
        let name = mount["name"].as_str().unwrap_or_default();
        if !volumes.contains(&name) {
            errors.push(FieldError::not_found(format!("{path}.volumeMounts[{index}].name"), &json!(name)));
        }
    }
    for (index, variable) in meta::list(one, "/env").iter().enumerate() {
        let name = variable["name"].as_str().unwrap_or_default();
        if name.is_empty() || name.contains('=') {
            let rule =
                "a valid environment variable name must consist only of printable ASCII characters other than '='";
            errors.push(FieldError::invalid(format!("{path}.env[{index}].name"), &json!(name), rule));
        }
    }
}

/// Only images, the deadline, added tolerations and a shorter grace period may change once a pod is there.
pub fn changes(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        for list in ["containers", "initContainers"] {
            for one in
                spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
            {
                one.shift_remove("image");
            }
        }
        if let Value::Object(map) = &mut spec {
            for field in [
                "activeDeadlineSeconds",
                "tolerations",
                "terminationGracePeriodSeconds",
                "schedulingGates",
                "ephemeralContainers",
            ] {
                map.shift_remove(field);
            }
        }
        spec
    };
    if fixed(old) != fixed(new) {
        let rule = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(FieldError::forbidden("spec", rule));
    }
    let after = meta::list(new, "/tolerations");
    if meta::list(old, "/tolerations").iter().any(|one| !after.contains(one)) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}
