//! Which endpoint slices does a service need?

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::action::{Action, delete};
use crate::endpoints::{Port, backends, by_namespace, has_selector, target};
use crate::view::{Kind, View};
use crate::{read, template};

const MANAGED: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE: &str = "kubernetes.io/service-name";
/// Endpoints in one slice.
const MOST: usize = 100;

pub fn plan(view: &View) -> Vec<Action> {
    let pods = by_namespace(view);
    let mut present: BTreeMap<(&str, &str), Vec<&Value>> = BTreeMap::new();
    for slice in view.all(Kind::EndpointSlice) {
        let label = |key: &str| read::labels(slice).and_then(|labels| labels.get(key)).and_then(Value::as_str);
        if label(MANAGED) == Some(MANAGER) && !read::is_deleting(slice) {
            present.entry((read::namespace(slice), label(SERVICE).unwrap_or_default())).or_default().push(slice);
        }
    }
    let empty = Vec::new();
    let mut actions = Vec::new();
    for service in view.all(Kind::Service).filter(|service| has_selector(service)) {
        let namespace = read::namespace(service);
        let wanted = slices(service, pods.get(namespace).unwrap_or(&empty));
        let old = present.remove(&(namespace, read::name(service))).unwrap_or_default();
        actions.extend(difference(wanted, &old));
    }
    // Slices of services that are gone, or have no selector any more.
    actions.extend(present.values().flatten().map(|slice| delete(Kind::EndpointSlice, slice)));
    actions
}

fn difference(wanted: Vec<Value>, old: &[&Value]) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut rest: Vec<&Value> = old.to_vec();
    for slice in wanted {
        let place = rest.iter().position(|one| read::name(one) == read::name(&slice));
        let Some(place) = place else {
            actions.push(Action::Create(Kind::EndpointSlice, slice));
            continue;
        };
        let old = rest.swap_remove(place);
        let same = ["endpoints", "ports"].iter().all(|field| old[field] == slice[field])
            && old["metadata"]["labels"] == slice["metadata"]["labels"];
        if !same {
            let mut changed = old.clone();
            changed["endpoints"] = slice["endpoints"].clone();
            changed["ports"] = slice["ports"].clone();
            changed["metadata"]["labels"] = slice["metadata"]["labels"].clone();
            actions.push(Action::Replace(Kind::EndpointSlice, changed));
        }
    }
    actions.extend(rest.into_iter().map(|slice| delete(Kind::EndpointSlice, slice)));
    actions
}

fn slices(service: &Value, pods: &[&Value]) -> Vec<Value> {
    let families = read::list(service, "/spec/ipFamilies").iter().filter_map(Value::as_str);
    let backends = backends(service, pods);
    let mut all = Vec::new();
    for family in families {
        let mut groups: BTreeMap<Vec<Port>, Vec<Value>> = BTreeMap::new();
        for backend in &backends {
            let Some(address) = backend.addresses.iter().find(|address| address.is_ipv6() == (family == "IPv6")) else {
                continue;
            };
            let mut endpoint = json!({
                "addresses": [address.to_string()],
                "conditions": {"ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating},
                "targetRef": target(backend.pod),
            });
            let hostname = read::text(backend.pod, "/spec/hostname");
            if !hostname.is_empty() && read::text(backend.pod, "/spec/subdomain") == read::name(service) {
                endpoint["hostname"] = hostname.into();
            }
            let node = read::text(backend.pod, "/spec/nodeName");
            if !node.is_empty() {
                endpoint["nodeName"] = node.into();
            }
            groups.entry(backend.ports.clone()).or_default().push(endpoint);
        }
        if groups.is_empty() {
            groups.insert(Vec::new(), Vec::new());
        }
        for (ports, mut endpoints) in groups {
            endpoints.sort_by_key(|one| read::text(one, "/targetRef/name").to_owned());
            let chunks: Vec<&[Value]> = if endpoints.is_empty() { vec![&[]] } else { endpoints.chunks(MOST).collect() };
            for (index, chunk) in chunks.into_iter().enumerate() {
                all.push(slice(service, family, &ports, chunk, index));
            }
        }
    }
    all
}

fn slice(service: &Value, family: &str, ports: &[Port], endpoints: &[Value], index: usize) -> Value {
    let ports: Vec<Value> = ports.iter().map(Port::to_json).collect();
    // The name says which slice it is, so that it is found again.
    let identity = json!([read::uid(service), family, ports, index]);
    let suffix: String = template::hash(&identity).chars().rev().take(5).collect();
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(MANAGED.to_owned(), MANAGER.into());
    labels.insert(SERVICE.to_owned(), read::name(service).into());
    if service["spec"]["clusterIP"] == "None" {
        labels.insert("service.kubernetes.io/headless".to_owned(), "".into());
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": read::namespace(service), "name": format!("{}-{suffix}", read::name(service)),
            "labels": labels, "ownerReferences": [read::owner_reference(service)],
        },
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pods_share_slices_and_nothing_changes_the_second_time() {
        let mut view = View::default();
        view.put(Kind::Service, json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "n", "name": "s", "uid": "s", "resourceVersion": "1"},
            "spec": {"selector": {"app": "a"}, "ipFamilies": ["IPv4"], "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]}}));
        for index in 0..250 {
            let name = format!("p{index}");
            view.put(Kind::Pod, json!({"metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": "1", "labels": {"app": "a"}},
                "status": {"podIP": format!("10.0.0.{index}"), "conditions": [{"type": "Ready", "status": "True"}]}}));
        }
        let actions = plan(&view);
        assert_eq!(actions.len(), 3);
        for (index, action) in actions.into_iter().enumerate() {
            let Action::Create(kind, mut slice) = action else { panic!("only new slices") };
            slice["metadata"]["resourceVersion"] = "2".into();
            slice["metadata"]["uid"] = format!("slice{index}").into();
            view.put(kind, slice);
        }
        assert_eq!(plan(&view), []);
    }
}
