//! How are the served kinds described to clients that validate, explain and merge?

mod documentation;
mod proto;
mod schemas;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use hyper::Response;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::http::{Body, json as reply, respond};
use crate::registry::{Registry, Resource};
use crate::status::Status;

/// Asked for with an `@` before the version, which is not allowed in answers.
const PROTO_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers `/openapi/v2`, `/openapi/v3` and the documents below it.
///
/// # Errors
/// If there is no such document, or not in the form that is asked for.
pub fn serve(api: &Api, path: &str, accept: &str) -> Result<Response<Body>, Status> {
    let registry = api.registry.load();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).skip(1).collect();
    match parts.as_slice() {
        ["v2"] => {
            let document = document_v2(&registry, &api.version);
            if accept.contains("proto-openapi.spec.v2") {
                return Ok(respond(200, PROTO_V2, proto::document(&document)));
            }
            Ok(reply(200, &document))
        }
        ["v3"] => Ok(reply(200, &index(&registry))),
        ["v3", rest @ ..] => {
            // Only protobuf asked for: clients fall back to JSON when told so.
            let json = accept.is_empty()
                || accept
                    .split(',')
                    .any(|one| matches!(one.split(';').next().map(str::trim), Some("application/json" | "*/*")));
            if !json {
                return Err(Status::not_acceptable("application/json"));
            }
            let group = rest.join("/");
            document_v3(&registry, &group, &api.version)
                .map(|document| reply(200, &document))
                .ok_or_else(Status::no_such_path)
        }
        _ => Err(Status::no_such_path()),
    }
}

/// `api/v1`, `apis/apps/v1`: the name of a group's version in paths.
fn place(resource: &Resource) -> String {
    let start = if resource.group.is_empty() { "api" } else { "apis" };
    format!("{start}/{}", resource.api_version())
}

fn index(registry: &Registry) -> Value {
    let mut hashes: BTreeMap<String, DefaultHasher> = BTreeMap::new();
    for resource in registry.all() {
        let hasher = hashes.entry(place(resource)).or_default();
        resource.kind.hash(hasher);
        resource.status.hash(hasher);
        resource.declared.as_ref().map(Value::to_string).hash(hasher);
    }
    let paths: Map<String, Value> = hashes
        .into_iter()
        .map(|(place, hasher)| {
            let url = format!("/openapi/v3/{place}?hash={:016X}", hasher.finish());
            (place, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

fn document_v3(registry: &Registry, wanted: &str, version: &str) -> Option<Value> {
    let resources: Vec<&Resource> =
        registry.all().iter().map(AsRef::as_ref).filter(|one| place(one) == wanted).collect();
    if resources.is_empty() {
        return None;
    }
    let mut paths = Map::new();
    resources.iter().for_each(|resource| add_paths(resource, &mut paths, true));
    Some(json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version},
        "paths": paths, "components": {"schemas": schemas::of(&resources, "#/components/schemas/")},
    }))
}

fn document_v2(registry: &Registry, version: &str) -> Value {
    let resources: Vec<&Resource> = registry.all().iter().map(AsRef::as_ref).collect();
    let mut paths = Map::new();
    resources.iter().for_each(|resource| add_paths(resource, &mut paths, false));
    json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": version},
        "paths": paths, "definitions": schemas::of(&resources, "#/definitions/"),
    })
}

/// Group, version and kind in the form of the extension.
pub fn kind_of(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn add_paths(resource: &Resource, paths: &mut Map<String, Value>, third: bool) {
    let start = format!("/{}", place(resource));
    let inside = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{start}{inside}/{}", resource.plural);
    let operation = |action: &str, writes: bool| {
        let parameter = |name: &str| match third {
            true => json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}),
            false => json!({"name": name, "in": "query", "type": "string", "uniqueItems": true}),
        };
        let names: &[&str] = if writes { &["dryRun", "fieldManager", "fieldValidation"] } else { &[] };
        let parameters: Vec<Value> = names.iter().map(|name| parameter(name)).collect();
        json!({
            "parameters": parameters, "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind_of(resource),
        })
    };
    let has = |verb: &str| resource.verbs.contains(&verb);
    let mut many = Map::new();
    let mut one = Map::new();
    for (verb, method, action, writes) in [
        ("list", "get", "list", false),
        ("create", "post", "post", true),
        ("deletecollection", "delete", "deletecollection", false),
    ] {
        if has(verb) {
            many.insert(method.into(), operation(action, writes));
        }
    }
    for (verb, method, action, writes) in [
        ("get", "get", "get", false),
        ("update", "put", "put", true),
        ("patch", "patch", "patch", true),
        ("delete", "delete", "delete", false),
    ] {
        if has(verb) {
            one.insert(method.into(), operation(action, writes));
        }
    }
    if !one.is_empty() {
        paths.insert(format!("{collection}/{{name}}"), one.into());
        if resource.namespaced {
            paths.insert(format!("{start}/{}", resource.plural), json!({"get": operation("list", false)}));
        }
    }
    paths.insert(collection, many.into());
}
