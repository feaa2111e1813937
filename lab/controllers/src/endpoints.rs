//! Which addresses and ports stand behind a service? Also as the older `Endpoints`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::action::{Action, delete};
use crate::view::{Kind, View};
use crate::{pods, read};

/// The label of endpoints that this controller made, and may remove.
const MANAGED: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// A port of a service, found on a pod: name, number, protocol, application protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub number: i64,
    pub protocol: String,
    pub application: Option<String>,
}

impl Port {
    pub fn to_json(&self) -> Value {
        let mut port = json!({"name": self.name, "port": self.number, "protocol": self.protocol});
        if let Some(application) = &self.application {
            port["appProtocol"] = application.as_str().into();
        }
        port
    }
}

/// A pod behind a service.
pub struct Backend<'a> {
    pub pod: &'a Value,
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<Port>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

/// Whether this controller is responsible for the service's endpoints.
pub fn has_selector(service: &Value) -> bool {
    service["spec"]["selector"].as_object().is_some_and(|selector| !selector.is_empty())
        && service["spec"]["type"] != "ExternalName"
        && !read::is_deleting(service)
}

/// The pods behind a service.
pub fn backends<'a>(service: &Value, all: &[&'a Value]) -> Vec<Backend<'a>> {
    let selector = json!({"matchLabels": service["spec"]["selector"]});
    let unready = service["spec"]["publishNotReadyAddresses"] == true;
    let selected = all.iter().filter(|pod| read::selects(&selector, read::labels(pod)) && !pods::has_ended(pod));
    selected
        .filter_map(|pod| {
            let addresses = addresses(pod);
            let serving = pods::is_ready(pod);
            let terminating = read::is_deleting(pod);
            (!addresses.is_empty()).then(|| Backend {
                pod,
                addresses,
                ports: ports(service, pod),
                ready: unready || (serving && !terminating),
                serving,
                terminating,
            })
        })
        .collect()
}

fn addresses(pod: &Value) -> Vec<IpAddr> {
    let listed = read::list(pod, "/status/podIPs").iter().map(|one| read::text(one, "/ip"));
    let mut found: Vec<IpAddr> = listed.filter_map(|text| text.parse().ok()).collect();
    if found.is_empty() {
        found.extend(read::text(pod, "/status/podIP").parse::<IpAddr>().ok());
    }
    found
}

fn ports(service: &Value, pod: &Value) -> Vec<Port> {
    let found = read::list(service, "/spec/ports").iter().filter_map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = match &port["targetPort"] {
            Value::Number(number) => number.as_i64()?,
            Value::String(name) => named_port(pod, name, protocol)?,
            _ => port["port"].as_i64()?,
        };
        Some(Port {
            name: read::text(port, "/name").to_owned(),
            number,
            protocol: protocol.to_owned(),
            application: port["appProtocol"].as_str().map(str::to_owned),
        })
    });
    found.collect()
}

/// The number that a pod gives to a port's name.
fn named_port(pod: &Value, name: &str, protocol: &str) -> Option<i64> {
    let ports = read::list(pod, "/spec/containers").iter().flat_map(|one| read::list(one, "/ports"));
    let mut matching =
        ports.filter(|port| port["name"] == name && port["protocol"].as_str().unwrap_or("TCP") == protocol);
    matching.next().and_then(|port| port["containerPort"].as_i64())
}

/// A reference to the pod behind an address.
pub fn target(pod: &Value) -> Value {
    json!({"kind": "Pod", "namespace": read::namespace(pod), "name": read::name(pod), "uid": read::uid(pod)})
}

/// Pods by namespace, so that each service looks at its own only.
pub fn by_namespace(view: &View) -> BTreeMap<&str, Vec<&Value>> {
    let mut all: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for pod in view.all(Kind::Pod) {
        all.entry(read::namespace(pod)).or_default().push(pod);
    }
    all
}

pub fn plan(view: &View) -> Vec<Action> {
    let pods = by_namespace(view);
    let empty = Vec::new();
    let mut actions = Vec::new();
    for service in view.all(Kind::Service).filter(|service| has_selector(service)) {
        let (namespace, name) = (read::namespace(service), read::name(service));
        let wanted = endpoints(service, pods.get(namespace).unwrap_or(&empty));
        match view.get(Kind::Endpoints, namespace, name) {
            None => actions.push(Action::Create(Kind::Endpoints, wanted)),
            Some(old)
                if read::list(old, "/subsets") != read::list(&wanted, "/subsets")
                    || old["metadata"]["labels"] != wanted["metadata"]["labels"] =>
            {
                let mut changed = Value::clone(old);
                changed["subsets"] = wanted["subsets"].clone();
                changed["metadata"]["labels"] = wanted["metadata"]["labels"].clone();
                actions.push(Action::Replace(Kind::Endpoints, changed));
            }
            Some(_) => {}
        }
    }
    for old in view.all(Kind::Endpoints) {
        let ours = read::labels(old).is_some_and(|labels| labels.get(MANAGED).is_some_and(|label| label == MANAGER));
        if ours && view.get(Kind::Service, read::namespace(old), read::name(old)).is_none() {
            actions.push(delete(Kind::Endpoints, old));
        }
    }
    actions
}

fn endpoints(service: &Value, pods: &[&Value]) -> Value {
    let v6 = service["spec"]["ipFamilies"][0] == "IPv6";
    let mut subsets: BTreeMap<Vec<Port>, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for backend in backends(service, pods).iter().filter(|one| !one.terminating || one.ready) {
        let Some(address) = backend.addresses.iter().find(|address| address.is_ipv6() == v6) else { continue };
        let entry = json!({"ip": address.to_string(), "nodeName": read::text(backend.pod, "/spec/nodeName"), "targetRef": target(backend.pod)});
        let (ready, unready) = subsets.entry(backend.ports.clone()).or_default();
        if backend.ready { ready.push(entry) } else { unready.push(entry) }
    }
    let subsets: Vec<Value> = subsets
        .into_iter()
        .map(|(ports, (ready, unready))| {
            let mut subset = json!({});
            for (field, mut addresses) in [("addresses", ready), ("notReadyAddresses", unready)] {
                addresses.sort_by_key(|one| read::text(one, "/ip").to_owned());
                if !addresses.is_empty() {
                    subset[field] = addresses.into();
                }
            }
            if !ports.is_empty() {
                let shown = ports.iter().map(|port| {
                    let mut port = port.to_json();
                    if port["name"] == "" {
                        port.as_object_mut().map(|map| map.remove("name"));
                    }
                    port
                });
                subset["ports"] = shown.collect();
            }
            subset
        })
        .collect();
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(MANAGED.to_owned(), MANAGER.into());
    if service["spec"]["clusterIP"] == "None" {
        labels.insert("service.kubernetes.io/headless".to_owned(), "".into());
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"namespace": read::namespace(service), "name": read::name(service), "labels": labels},
    });
    if !subsets.is_empty() {
        object["subsets"] = subsets.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_ports_are_found_on_each_pod_and_unready_pods_are_apart() {
        let service = json!({"metadata": {"namespace": "n", "name": "s"}, "spec": {"selector": {"app": "a"},
            "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]}});
        let pod = |name: &str, ip: &str, port: i64, ready: &str| {
            json!({"metadata": {"namespace": "n", "name": name, "labels": {"app": "a"}},
                "spec": {"containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let (one, two) = (pod("one", "10.0.0.1", 8080, "True"), pod("two", "10.0.0.2", 9090, "False"));
        let found = endpoints(&service, &[&one, &two]);
        let subsets = read::list(&found, "/subsets");
        assert_eq!(subsets.len(), 2);
        assert_eq!(subsets[0]["ports"][0]["port"], 8080);
        assert_eq!(subsets[0]["addresses"][0]["ip"], "10.0.0.1");
        assert_eq!(subsets[1]["notReadyAddresses"][0]["ip"], "10.0.0.2");
    }
}
