//! Which schema does a CustomResourceDefinition declare?

use serde_json::Value;

use super::{Limits, ListKind, Schema, Type, builtin};

const OBJECT_META: &str = "apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The schema of a whole custom object.
pub fn root(declared: Option<&Value>) -> Schema {
    let mut schema = declared.map_or_else(|| Schema { kind: Type::Object, preserve: true, ..Schema::default() }, parse);
    let text = Schema { kind: Type::String, ..Schema::default() };
    schema.properties.insert("apiVersion".into(), text.clone());
    schema.properties.insert("kind".into(), text);
    schema.properties.insert("metadata".into(), builtin::reference(OBJECT_META));
    schema
}

fn parse(value: &Value) -> Schema {
    let flag = |name: &str| value[name].as_bool().unwrap_or(false);
    let many = |name: &str| value[name].as_array().map(|all| all.iter().map(parse).collect()).unwrap_or_default();
    let boxed = |name: &str| value.get(name).filter(|inner| inner.is_object()).map(|inner| Box::new(parse(inner)));
    let open = value["additionalProperties"] == true;
    Schema {
        kind: kind(value),
        format: value["format"].as_str().unwrap_or_default().to_owned(),
        nullable: flag("nullable"),
        properties: value["properties"]
            .as_object()
            .map(|fields| fields.iter().map(|(name, field)| (name.clone(), parse(field))).collect())
            .unwrap_or_default(),
        additional: boxed("additionalProperties"),
        items: boxed("items"),
        required: strings(&value["required"]),
        preserve: open || flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        atomic: value["x-kubernetes-map-type"] == "atomic",
        list: list_kind(value),
        default: value.get("default").cloned(),
        limits: limits(value),
        all_of: many("allOf"),
        any_of: many("anyOf"),
        one_of: many("oneOf"),
        not: boxed("not"),
        ..Schema::default()
    }
}

fn kind(value: &Value) -> Type {
    if value["x-kubernetes-int-or-string"] == true {
        return Type::IntOrString;
    }
    match value["type"].as_str() {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => Type::Any,
    }
}

fn list_kind(value: &Value) -> ListKind {
    match value["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(strings(&value["x-kubernetes-list-map-keys"])),
        _ => ListKind::Atomic,
    }
}

fn strings(value: &Value) -> Vec<String> {
    let all = value.as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn limits(value: &Value) -> Limits {
    let flag = |name: &str| value[name].as_bool().unwrap_or(false);
    Limits {
        minimum: value["minimum"].as_f64(),
        maximum: value["maximum"].as_f64(),
        exclusive_minimum: flag("exclusiveMinimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: value["multipleOf"].as_f64(),
        min_length: value["minLength"].as_u64(),
        max_length: value["maxLength"].as_u64(),
        min_items: value["minItems"].as_u64(),
        max_items: value["maxItems"].as_u64(),
        min_properties: value["minProperties"].as_u64(),
        max_properties: value["maxProperties"].as_u64(),
        unique_items: flag("uniqueItems"),
        // A pattern that does not compile is refused when the definition is created.
        pattern: value["pattern"].as_str().and_then(|text| regex::Regex::new(text).ok()),
        values: value["enum"].as_array().cloned().unwrap_or_default(),
    }
}

/// Patterns in a declared schema that no regular expression engine here understands: (path, pattern, why).
pub fn bad_patterns(value: &Value, path: &str, found: &mut Vec<(String, String, String)>) {
    if let Some(pattern) = value["pattern"].as_str()
        && let Err(error) = regex::Regex::new(pattern)
    {
        found.push((format!("{path}.pattern"), pattern.to_owned(), error.to_string()));
    }
    for (name, field) in value["properties"].as_object().into_iter().flatten() {
        bad_patterns(field, &format!("{path}.properties[{name}]"), found);
    }
    for name in ["items", "additionalProperties", "not"] {
        if value[name].is_object() {
            bad_patterns(&value[name], &format!("{path}.{name}"), found);
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in value[name].as_array().into_iter().flatten().enumerate() {
            bad_patterns(inner, &format!("{path}.{name}[{index}]"), found);
        }
    }
}

/// Places in a declared schema that have rules in CEL.
pub fn rules(value: &Value, path: &str, found: &mut Vec<String>) {
    if value["x-kubernetes-validations"].as_array().is_some_and(|rules| !rules.is_empty()) {
        found.push(path.to_owned());
    }
    for (name, field) in value["properties"].as_object().into_iter().flatten() {
        rules(field, &format!("{path}.properties[{name}]"), found);
    }
    for name in ["items", "additionalProperties"] {
        if value[name].is_object() {
            rules(&value[name], &format!("{path}.{name}"), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_in_cel_are_found_wherever_they_stand() {
        let rule = json!([{"rule": "self.a > 0"}]);
        let schema = json!({"properties": {"a": {"items": {"x-kubernetes-validations": rule}}, "b": {"type": "string"}},
            "additionalProperties": {"x-kubernetes-validations": rule}});
        let mut found = Vec::new();
        rules(&schema, "s", &mut found);
        assert_eq!(found, ["s.properties[a].items", "s.additionalProperties"]);
    }
}
