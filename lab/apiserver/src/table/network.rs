//! Services, endpoints, slices, policies, ingresses in tables.

use serde_json::{Value, json};

use super::{AGE, Column, NAME, age, or_none, selector};
use crate::meta;

pub fn layout(collection: &str) -> Option<&'static [Column]> {
    match collection {
        "services" => Some(&[
            NAME,
            ("Type", "string", 0),
            ("Cluster-IP", "string", 0),
            ("External-IP", "string", 0),
            ("Port(s)", "string", 0),
            AGE,
            ("Selector", "string", 1),
        ]),
        "endpoints" => Some(&[NAME, ("Endpoints", "string", 0), AGE]),
        "endpointslices.discovery.k8s.io" => {
            Some(&[NAME, ("AddressType", "string", 0), ("Ports", "string", 0), ("Endpoints", "string", 0), AGE])
        }
        "networkpolicies.networking.k8s.io" => Some(&[NAME, ("Pod-Selector", "string", 0), AGE]),
        "ingresses.networking.k8s.io" => Some(&[
            NAME,
            ("Class", "string", 0),
            ("Hosts", "string", 0),
            ("Address", "string", 0),
            ("Ports", "string", 0),
            AGE,
        ]),
        "ingressclasses.networking.k8s.io" => {
            Some(&[NAME, ("Controller", "string", 0), ("Parameters", "string", 0), AGE])
        }
        _ => None,
    }
}

pub fn cells(collection: &str, object: &Value, now: jiff::Timestamp) -> Option<Vec<Value>> {
    let (name, age) = (json!(meta::name(object)), age(object, now));
    Some(match collection {
        "services" => service(object, name, age),
        "endpoints" => vec![name, json!(endpoints(object)), age],
        "endpointslices.discovery.k8s.io" => {
            vec![name, object["addressType"].clone(), json!(slice_ports(object)), json!(slice_addresses(object)), age]
        }
        "networkpolicies.networking.k8s.io" => vec![name, json!(selector(object, "/spec/podSelector")), age],
        "ingresses.networking.k8s.io" => ingress(object, name, age),
        "ingressclasses.networking.k8s.io" => vec![
            name,
            json!(meta::text(object, "/spec/controller")),
            json!(or_none(meta::text(object, "/spec/parameters/name").to_owned())),
            age,
        ],
        _ => return None,
    })
}

fn join(values: impl Iterator<Item = String>) -> String {
    values.collect::<Vec<_>>().join(",")
}

fn service(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let kind = meta::text(object, "/spec/type");
    let ports = meta::list(object, "/spec/ports").iter().map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        match port["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{}:{node}/{protocol}", port["port"]),
            _ => format!("{}/{protocol}", port["port"]),
        }
    });
    let selector = object.pointer("/spec/selector").and_then(Value::as_object).into_iter().flatten();
    let selector = join(selector.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())));
    vec![
        name,
        json!(kind),
        json!(or_none(meta::text(object, "/spec/clusterIP").to_owned())),
        json!(external(object, kind)),
        json!(or_none(join(ports))),
        age,
        json!(or_none(selector)),
    ]
}

fn external(object: &Value, kind: &str) -> String {
    let fixed = meta::list(object, "/spec/externalIPs").iter().filter_map(Value::as_str).map(str::to_owned);
    let balanced = meta::list(object, "/status/loadBalancer/ingress")
        .iter()
        .filter_map(|one| one["ip"].as_str().or(one["hostname"].as_str()).map(str::to_owned));
    match kind {
        "ExternalName" => meta::text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let all = join(balanced.chain(fixed));
            if all.is_empty() { "<pending>".to_owned() } else { all }
        }
        _ => or_none(join(fixed)),
    }
}

/// The first three of them, and how many more there are.
fn first_three(all: &[String]) -> String {
    if all.is_empty() {
        return "<none>".to_owned();
    }
    let shown = all.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    if all.len() > 3 { format!("{shown} + {} more...", all.len() - 3) } else { shown }
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in meta::list(object, "/subsets") {
        let addresses = meta::list(subset, "/addresses").iter().filter_map(|one| one["ip"].as_str());
        let ports = meta::list(subset, "/ports");
        for address in addresses {
            if ports.is_empty() {
                all.push(address.to_owned());
            }
            let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            all.extend(ports.iter().map(|port| format!("{host}:{}", port["port"])));
        }
    }
    first_three(&all)
}

fn slice_ports(object: &Value) -> String {
    let ports = meta::list(object, "/ports");
    if ports.is_empty() {
        return "<unset>".to_owned();
    }
    let all: Vec<String> = ports
        .iter()
        .map(|port| port["port"].as_i64().map_or_else(|| "*".to_owned(), |port| port.to_string()))
        .collect();
    first_three(&all)
}

fn slice_addresses(object: &Value) -> String {
    let endpoints = meta::list(object, "/endpoints");
    if endpoints.is_empty() {
        return "<unset>".to_owned();
    }
    let all: Vec<String> = endpoints
        .iter()
        .flat_map(|one| meta::list(one, "/addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    first_three(&all)
}

fn ingress(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let class = meta::text(object, "/spec/ingressClassName");
    let hosts: Vec<String> =
        meta::list(object, "/spec/rules").iter().filter_map(|rule| rule["host"].as_str()).map(str::to_owned).collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { first_three(&hosts) };
    let tls = !meta::list(object, "/spec/tls").is_empty();
    let address = external(object, "Ingress");
    let address = if address == "<none>" { String::new() } else { address };
    vec![
        name,
        json!(or_none(class.to_owned())),
        json!(hosts),
        json!(address),
        json!(if tls { "80, 443" } else { "80" }),
        age,
    ]
}
