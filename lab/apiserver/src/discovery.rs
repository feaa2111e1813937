//! Which groups, versions and resources does the server say it has?

use hyper::Response;
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Body, json as reply, respond};
use crate::meta;
use crate::registry::{Registry, Resource};
use crate::status::Status;

/// What `/version` says.
pub fn version(version: &str) -> Value {
    let mut numbers = version.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next().unwrap_or_default(), "minor": numbers.next().unwrap_or_default(),
        "gitVersion": version, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// Answers `/api`, `/apis` and what is below them down to a group's version.
///
/// # Errors
/// If there is no such group or version.
pub fn serve(api: &Api, path: &str, accept: &str) -> Result<Response<Body>, Status> {
    let registry = api.registry.load();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let (Some(form), ["api" | "apis"]) = (aggregated(accept), parts.as_slice()) {
        let content = aggregate(&registry, parts[0] == "api", form);
        let kind = if form == "v2" {
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        } else {
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        };
        return Ok(respond(200, kind, content.to_string()));
    }
    let found = match parts.as_slice() {
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        })),
        ["apis"] => {
            let groups: Vec<Value> =
                registry.groups().into_iter().filter(|(name, _)| !name.is_empty()).map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => registry.groups().into_iter().find(|(group, _)| group == name).map(|found| {
            let mut value = group(found);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }),
        ["api", version] => resources(&registry, "", version),
        ["apis", group, version] => resources(&registry, group, version),
        _ => None,
    };
    found.map(|value| reply(200, &value)).ok_or_else(Status::no_such_path)
}

/// The version of aggregated discovery that the client would like first.
fn aggregated(accept: &str) -> Option<&'static str> {
    accept.split(',').find_map(|one| {
        let has = |text: &str| one.split(';').any(|part| part.trim() == text);
        if !has("as=APIGroupDiscoveryList") {
            return None;
        }
        if has("v=v2") { Some("v2") } else { has("v=v2beta1").then_some("v2beta1") }
    })
}

fn group((name, versions): (String, Vec<String>)) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

fn of<'a>(registry: &'a Registry, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Resource> {
    registry.all().iter().map(AsRef::as_ref).filter(move |one| one.group == group && one.version == version)
}

/// A subresource as discovery shows it: name, apiVersion and kind, verbs.
fn subresources(resource: &Resource) -> Vec<(&str, String, &str, Vec<&'static str>)> {
    let mut all: Vec<(&str, String, &str, Vec<&'static str>)> = Vec::new();
    for (name, version, kind, verbs) in &resource.others {
        all.push((name, (*version).to_owned(), kind, verbs.to_vec()));
    }
    let changing = vec!["get", "patch", "update"];
    if resource.scale.is_some() {
        all.push(("scale", "autoscaling/v1".into(), "Scale", changing.clone()));
    }
    if resource.status {
        all.push(("status", resource.api_version(), &resource.kind, changing));
    }
    all
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for resource in of(registry, group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs,
        });
        if !resource.short.is_empty() {
            entry["shortNames"] = json!(resource.short);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for (name, api_version, kind, verbs) in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": kind, "verbs": verbs,
            });
            if api_version != resource.api_version() {
                let (group, version) = meta::split_api_version(&api_version);
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            list.push(entry);
        }
    }
    (!list.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": meta::api_version(group, version), "resources": list,
        })
    })
}

fn aggregate(registry: &Registry, core: bool, form: &str) -> Value {
    let items: Vec<Value> = registry
        .groups()
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = of(registry, &name, version).map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core { json!({"creationTimestamp": null}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{form}"),
        "metadata": {}, "items": items,
    })
}

fn kind_of(api_version: &str, kind: &str) -> Value {
    let (group, version) = meta::split_api_version(api_version);
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
    let mut entry = json!({
        "resource": resource.plural, "responseKind": kind_of(&resource.api_version(), &resource.kind),
        "scope": scope, "singularResource": resource.singular, "verbs": resource.verbs,
    });
    if !resource.short.is_empty() {
        entry["shortNames"] = json!(resource.short);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let below: Vec<Value> = subresources(resource)
        .into_iter()
        .map(|(name, version, kind, verbs)| {
            json!({"subresource": name, "responseKind": kind_of(&version, kind), "verbs": verbs})
        })
        .collect();
    if !below.is_empty() {
        entry["subresources"] = below.into();
    }
    entry
}
