//! The schemas of resources and of all types that they refer to, as OpenAPI has them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{documentation, kind_of};
use crate::registry::Resource;
use crate::schema::{ListKind, Schema, Type, builtin};

const OBJECT_META: &str = "apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Schemas by name; references begin with `prefix`.
pub fn of(resources: &[&Resource], prefix: &str) -> Value {
    let mut schemas = Map::new();
    let mut needed: BTreeSet<String> = BTreeSet::from([OBJECT_META.to_owned()]);
    for resource in resources {
        match &resource.schema.reference {
            Some(name) => {
                needed.insert(name.clone());
            }
            None => {
                schemas.insert(name_of(resource), custom(resource, prefix));
            }
        }
    }
    let mut done = BTreeSet::new();
    while let Some(name) = needed.pop_first() {
        let Some(schema) = builtin::find(&name).filter(|_| done.insert(name.clone())) else { continue };
        references(schema, &mut needed);
        schemas.insert(format!("io.k8s.{name}"), to_json(schema, &name, prefix));
    }
    for resource in resources {
        if let Some(schema) = schemas.get_mut(&name_of(resource)) {
            let kinds = schema
                .as_object_mut()
                .map(|map| map.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([])));
            if let Some(Value::Array(kinds)) = kinds {
                kinds.push(kind_of(resource));
            }
        }
    }
    Value::Object(schemas)
}

/// `io.cilium.v2.CiliumNetworkPolicy` for a kind of the group `cilium.io`.
fn name_of(resource: &Resource) -> String {
    if let Some(name) = &resource.schema.reference {
        return format!("io.k8s.{name}");
    }
    let mut parts: Vec<&str> = resource.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), resource.version, resource.kind)
}

fn references(schema: &Schema, found: &mut BTreeSet<String>) {
    found.extend(schema.reference.clone());
    schema.properties.values().for_each(|field| references(field, found));
    schema.items.iter().chain(&schema.additional).for_each(|inner| references(inner, found));
}

fn to_json(schema: &Schema, name: &str, prefix: &str) -> Value {
    let mut value = one(schema, prefix);
    let text = documentation::of_type(name);
    if !text.is_empty() {
        value["description"] = text.into();
    }
    for (field, inner) in &schema.properties {
        let text = documentation::of_field(name, field);
        let slot = &mut value["properties"][field];
        if text.is_empty() {
            continue;
        }
        if inner.reference.is_some() && prefix.contains("components") {
            // A reference has no room for a description of its own.
            *slot = json!({"allOf": [slot.clone()], "description": text});
        } else {
            slot["description"] = text.into();
        }
    }
    value
}

fn one(schema: &Schema, prefix: &str) -> Value {
    if let Some(name) = &schema.reference {
        return json!({"$ref": format!("{prefix}io.k8s.{name}")});
    }
    let mut value = Map::new();
    match schema.kind {
        Type::IntOrString => {
            value.insert("type".into(), "string".into());
            value.insert("format".into(), "int-or-string".into());
        }
        Type::Any => {}
        kind => drop(value.insert("type".into(), kind.name().into())),
    }
    if !schema.format.is_empty() {
        value.insert("format".into(), schema.format.as_str().into());
    }
    if !schema.properties.is_empty() {
        let fields: Map<String, Value> =
            schema.properties.iter().map(|(name, field)| (name.clone(), one(field, prefix))).collect();
        value.insert("properties".into(), fields.into());
    }
    if !schema.required.is_empty() {
        value.insert("required".into(), json!(schema.required));
    }
    if let Some(items) = &schema.items {
        value.insert("items".into(), one(items, prefix));
    }
    if let Some(additional) = &schema.additional {
        value.insert("additionalProperties".into(), one(additional, prefix));
    }
    extensions(schema, &mut value);
    value.into()
}

fn extensions(schema: &Schema, value: &mut Map<String, Value>) {
    if schema.atomic {
        value.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if schema.kind != Type::Array {
        return;
    }
    match &schema.list {
        ListKind::Atomic => drop(value.insert("x-kubernetes-list-type".into(), "atomic".into())),
        ListKind::Set => {
            value.insert("x-kubernetes-list-type".into(), "set".into());
            value.insert("x-kubernetes-patch-strategy".into(), "merge".into());
        }
        ListKind::Map(keys) => {
            value.insert("x-kubernetes-list-type".into(), "map".into());
            value.insert("x-kubernetes-list-map-keys".into(), json!(keys));
        }
    }
    if let Some(key) = &schema.merge_key {
        value.insert("x-kubernetes-patch-merge-key".into(), key.as_str().into());
        value.insert("x-kubernetes-patch-strategy".into(), "merge".into());
    }
}

/// A custom kind: what its definition declares, with the fields that every object has.
fn custom(resource: &Resource, prefix: &str) -> Value {
    let mut schema = resource.declared.clone().unwrap_or_else(|| json!({"type": "object"}));
    if prefix.contains("definitions") {
        simplify(&mut schema);
    }
    let text = |name: &str| json!({"type": "string", "description": documentation::of_field("", name)});
    schema["properties"]["apiVersion"] = text("apiVersion");
    schema["properties"]["kind"] = text("kind");
    schema["properties"]["metadata"] = json!({"$ref": format!("{prefix}io.k8s.{OBJECT_META}")});
    schema
}

/// The older form has no alternatives and no null; what it cannot say is left open.
fn simplify(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for name in ["anyOf", "oneOf", "not", "nullable", "default"] {
        map.remove(name);
    }
    if map.get("x-kubernetes-int-or-string").is_some_and(|flag| flag == true) {
        map.insert("type".into(), "string".into());
        map.insert("format".into(), "int-or-string".into());
    }
    if map.get("x-kubernetes-preserve-unknown-fields").is_some_and(|flag| flag == true) {
        map.remove("properties");
        map.remove("required");
    }
    for (_, field) in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        simplify(field);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(name) {
            simplify(inner);
        }
    }
    for inner in map.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
        simplify(inner);
    }
}
