//! Which variables does a container start with?

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};
use std::collections::BTreeMap;

/// The objects of a pod's namespace that its containers may refer to.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Services of the namespace, and `default/kubernetes`.
    pub services: Vec<Service>,
}

/// What is known of the pod beside its object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of the node.
    pub host_ips: Vec<String>,
    /// Addresses of the pod.
    pub pod_ips: Vec<String>,
    /// Processors of the node.
    pub cpus: u64,
    /// Bytes of memory of the node.
    pub memory: u64,
}

/// All variables, in order; a later one may use earlier ones as `$(NAME)`.
pub fn environment(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    facts: &Facts,
) -> Result<Vec<(String, String)>, String> {
    let mut all: Vec<(String, String)> = vec![
        ("PATH".into(), crate::catalogue::PATH.into()),
        ("HOSTNAME".into(), pod.metadata.name.clone().unwrap_or_default()),
        ("HOME".into(), "/root".into()),
    ];
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    for service in &objects.services {
        let api = service.metadata.name.as_deref() == Some("kubernetes")
            && service.metadata.namespace.as_deref() == Some("default");
        if links || api {
            all.extend(service_variables(service));
        }
    }
    all.extend(from_objects(container, objects)?);
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(variable, pod, container, objects, facts)? {
            let value = expand(&value, &all);
            set(&mut all, &variable.name, value);
        }
    }
    Ok(all)
}

fn set(all: &mut Vec<(String, String)>, name: &str, value: String) {
    match all.iter_mut().find(|(known, _)| known == name) {
        Some(entry) => entry.1 = value,
        None => all.push((name.to_string(), value)),
    }
}

/// Replaces `$(NAME)` by values and `$$` by `$`; unknown names stay as they are.
pub fn expand(text: &str, known: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let reference = after.strip_prefix("$(").and_then(|r| r.split_once(')'));
        if let Some(more) = after.strip_prefix("$$") {
            out.push('$');
            rest = more;
        } else if let Some((name, more)) = reference {
            match known.iter().find(|(k, _)| k == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = more;
        } else {
            out.push('$');
            rest = &after[1..];
        }
    }
    out.push_str(rest);
    out
}

fn from_objects(container: &Container, objects: &Objects) -> Result<Vec<(String, String)>, String> {
    let mut all = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match objects.config_maps.get(&reference.name) {
                Some(map) => all.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone()))),
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap {:?} not found", reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match objects.secrets.get(&reference.name) {
                Some(secret) => all.extend(
                    secret
                        .data
                        .iter()
                        .flatten()
                        .map(|(k, v)| (format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())),
                ),
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret {:?} not found", reference.name)),
            }
        }
    }
    Ok(all)
}

fn value(
    variable: &EnvVar,
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    facts: &Facts,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else { return Ok(Some(variable.value.clone().unwrap_or_default())) };
    if let Some(field) = &from.field_ref {
        return self::field(&field.field_path, pod, facts).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return Ok(Some(self::resource(&resource.resource, container, facts)));
    }
    if let Some(key) = &from.config_map_key_ref {
        let found = objects.config_maps.get(&key.name).and_then(|m| m.data.as_ref()?.get(&key.key).cloned());
        return found_or(found, key.optional, || format!("key {:?} of configmap {:?} not found", key.key, key.name));
    }
    if let Some(key) = &from.secret_key_ref {
        let found = objects.secrets.get(&key.name).and_then(|s| s.data.as_ref()?.get(&key.key));
        let found = found.map(|v| String::from_utf8_lossy(&v.0).into_owned());
        return found_or(found, key.optional, || format!("key {:?} of secret {:?} not found", key.key, key.name));
    }
    Err(format!("variable {:?} has an unknown source", variable.name))
}

fn found_or(
    found: Option<String>,
    optional: Option<bool>,
    missing: impl FnOnce() -> String,
) -> Result<Option<String>, String> {
    match found {
        None if optional != Some(true) => Err(missing()),
        found => Ok(found),
    }
}

/// The downward API.
pub fn field(path: &str, pod: &Pod, facts: &Facts) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    let value = match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()),
        "status.hostIP" => Some(first(&facts.host_ips)),
        "status.hostIPs" => Some(facts.host_ips.join(",")),
        "status.podIP" => Some(first(&facts.pod_ips)),
        "status.podIPs" => Some(facts.pod_ips.join(",")),
        "metadata.labels" => Some(listed(pod.metadata.labels.as_ref())),
        "metadata.annotations" => Some(listed(pod.metadata.annotations.as_ref())),
        other => keyed(other, pod).ok_or_else(|| format!("field path {other:?} is not supported"))?,
    };
    Ok(value.unwrap_or_default())
}

/// `metadata.labels['KEY']`; the outer option says whether the path is understood.
fn keyed(path: &str, pod: &Pod) -> Option<Option<String>> {
    let (map, rest) = path.split_once("['")?;
    let key = rest.strip_suffix("']")?;
    let map = match map {
        "metadata.labels" => pod.metadata.labels.as_ref(),
        "metadata.annotations" => pod.metadata.annotations.as_ref(),
        _ => return None,
    };
    Some(map.and_then(|m| m.get(key).cloned()))
}

fn listed(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n")
}

fn resource(name: &str, container: &Container, facts: &Facts) -> String {
    let (kind, what) = name.split_once('.').unwrap_or(("limits", name));
    let resources = container.resources.as_ref();
    let map = match kind {
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => resources.and_then(|r| r.limits.as_ref()),
    };
    match (map.and_then(|m| m.get(what)), what) {
        (Some(quantity), _) => quantity.0.clone(),
        (None, "cpu") => facts.cpus.to_string(),
        (None, "memory") => facts.memory.to_string(),
        (None, _) => "0".into(),
    }
}

/// The variables by which a container finds a service.
fn service_variables(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return Vec::new() };
    let name = service.metadata.name.clone().unwrap_or_default().to_uppercase().replace('-', "_");
    let Some(first) = spec.ports.iter().flatten().next() else { return Vec::new() };
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
    let mut all = vec![
        (format!("{name}_SERVICE_HOST"), ip.to_string()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
        (format!("{name}_PORT"), format!("tcp://{host}:{}", first.port)),
    ];
    for port in spec.ports.iter().flatten() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if let Some(port_name) = &port.name {
            let port_name = port_name.to_uppercase().replace('-', "_");
            all.push((format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string()));
        }
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        all.push((prefix.clone(), format!("{}://{host}:{}", protocol.to_lowercase(), port.port)));
        all.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        all.push((format!("{prefix}_PORT"), port.port.to_string()));
        all.push((format!("{prefix}_ADDR"), ip.to_string()));
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn get<'a>(all: &'a [(String, String)], name: &str) -> Option<&'a str> {
        all.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    #[test]
    fn references_are_expanded_and_dollars_escaped() {
        let known = vec![("A".to_string(), "1".to_string())];
        assert_eq!(expand("$(A)-$(B)-$$(A)-$A-$", &known), "1-$(B)-$(A)-$A-$");
    }

    #[test]
    fn variables_come_from_fields_maps_services_and_each_other() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x"}},
            "spec": {"nodeName": "w1", "containers": []}
        }))
        .unwrap();
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "M_"}],
            "env": [
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "BOTH", "value": "$(NODE)/$(APP)"},
                {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}
            ]
        }))
        .unwrap();
        let mut objects = Objects::default();
        objects.config_maps.insert("m".into(), serde_json::from_value(json!({"data": {"k": "v"}})).unwrap());
        objects.services = vec![
            serde_json::from_value(json!({
                "metadata": {"name": "my-db", "namespace": "n"},
                "spec": {"clusterIP": "10.96.1.1", "ports": [{"port": 80, "name": "http"}]}
            }))
            .unwrap(),
        ];
        let facts = Facts { pod_ips: vec!["10.244.1.2".into()], ..Facts::default() };
        let all = environment(&pod, &container, &objects, &facts).unwrap();
        assert_eq!(get(&all, "M_k"), Some("v"));
        assert_eq!(get(&all, "BOTH"), Some("w1/x"));
        assert_eq!(get(&all, "IP"), Some("10.244.1.2"));
        assert_eq!(get(&all, "GONE"), None);
        assert_eq!(get(&all, "MY_DB_SERVICE_HOST"), Some("10.96.1.1"));
        assert_eq!(get(&all, "MY_DB_SERVICE_PORT_HTTP"), Some("80"));
        assert_eq!(get(&all, "MY_DB_PORT_80_TCP_ADDR"), Some("10.96.1.1"));
    }

    #[test]
    fn a_missing_map_is_named() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]})).unwrap();
        let error = environment(&Pod::default(), &container, &Objects::default(), &Facts::default()).unwrap_err();
        assert_eq!(error, "configmap \"m\" not found");
    }
}
