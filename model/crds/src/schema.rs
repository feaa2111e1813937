//! Which schema do our kinds have, in the form that Kubernetes takes?

mod check;

use schemars::JsonSchema;
pub use schemars::JsonSchema as Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

pub use check::check;

/// The structural schema of a type: no references, no nulls, descriptions in every field.
pub fn structural<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

/// A schema that takes any object.
pub(crate) fn open_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// The schema of a kind that we do not look into.
pub fn open_kind(description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "apiVersion": { "type": "string", "description": "Version of the API that the object is written for." },
            "kind": { "type": "string", "description": "Kind of the object." },
            "metadata": { "type": "object" },
        },
    })
}

/// Takes out what Kubernetes refuses or what says nothing.
fn tidy(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for name in ["$schema", "title", "nullable", "additionalProperties"] {
        if name != "additionalProperties" || fields.get(name) == Some(&Value::Bool(false)) {
            fields.remove(name);
        }
    }
    // Types say it under names of their own, because schemars would take it apart where a field may be absent.
    for (own, name) in [("x-one-of", "oneOf"), ("x-any-of", "anyOf")] {
        if let Some(schemas) = fields.remove(own) {
            fields.insert(name.to_owned(), schemas);
        }
    }
    tidy_numbers(fields);
    tidy_default(fields);
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = text.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            tidy(inner);
        }
    }
}

/// Formats of Rust's integers mean nothing to others.
fn tidy_numbers(fields: &mut Map<String, Value>) {
    let format = fields.get("format").and_then(Value::as_str).unwrap_or_default();
    if format.starts_with("uint") {
        fields.remove("format");
    }
}

/// `null`, `[]` and `{}` are what an absent field means anyway.
fn tidy_default(fields: &mut Map<String, Value>) {
    let empty = match fields.get("default") {
        Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(_)) => true,
        Some(Value::String(text)) => text.is_empty() || text == "cilium.io/v2" || text.starts_with("Cilium"),
        _ => false,
    };
    if empty {
        fields.remove("default");
    }
}
