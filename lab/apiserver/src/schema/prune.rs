//! Which fields of a value does its schema not know?

use serde_json::Value;

use super::{Schema, Type};

/// Removes fields that the schema does not know, and nulls where null means absence; returns their paths.
pub fn prune(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(schema, value, "", &mut unknown);
    unknown
}

fn walk(schema: &Schema, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    let schema = schema.resolve();
    match value {
        Value::Object(map) => {
            let closed = !schema.preserve && schema.additional.is_none() && schema.kind == Type::Object;
            map.retain(|name, inner| {
                let known = !closed
                    || schema.properties.contains_key(name)
                    || (schema.embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
                if !known {
                    unknown.push(join(path, name));
                }
                let keep_null = schema.preserve || schema.properties.get(name).is_none_or(|field| field.nullable);
                known && (!inner.is_null() || keep_null)
            });
            for (name, inner) in map.iter_mut() {
                if let Some(field) = schema.properties.get(name).or(schema.additional.as_deref()) {
                    walk(field, inner, &join(path, name), unknown);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = &schema.items else { return };
            for (index, inner) in items.iter_mut().enumerate() {
                walk(item, inner, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_found_by_path_and_maps_keep_theirs() {
        let mut pod = json!({"metadata": {"labels": {"any": "x"}}, "spec": {"contaners": [], "containers": [{"name": "a", "imagge": "b"}]}});
        let unknown = prune(&builtin::reference("api.core.v1.Pod"), &mut pod);
        assert_eq!(unknown, ["spec.contaners", "spec.containers[0].imagge"]);
        assert_eq!(pod, json!({"metadata": {"labels": {"any": "x"}}, "spec": {"containers": [{"name": "a"}]}}));
    }
}
