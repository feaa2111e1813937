//! Which pod comes out of a template, and what is the template's short name?

use serde_json::{Map, Value, json};

use crate::read;

const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A value with its maps in order of keys, so that equal values have equal text.
fn ordered(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            let sorted: Map<String, Value> = keys.into_iter().map(|key| (key.clone(), ordered(&map[key]))).collect();
            Value::Object(sorted)
        }
        Value::Array(items) => items.iter().map(ordered).collect(),
        other => other.clone(),
    }
}

/// A short name for a value: FNV-1a of its text, its digits as letters.
pub fn hash(value: &Value) -> String {
    let text = ordered(value).to_string();
    let hash = text.bytes().fold(2_166_136_261u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

/// Whether two templates make the same pods, one label apart.
pub fn equal(one: &Value, other: &Value, label: &str) -> bool {
    let strip = |template: &Value| {
        let mut template = template.clone();
        if let Some(Value::Object(labels)) = template.pointer_mut("/metadata/labels") {
            labels.remove(label);
        }
        if let Some(Value::Object(metadata)) = template.get_mut("metadata") {
            metadata.retain(|_, value| !value.is_null());
        }
        ordered(&template)
    };
    strip(one) == strip(other)
}

/// A pod that a controller makes from its template.
pub fn pod(owner: &Value, template: &Value) -> Value {
    let mut metadata = json!({
        "generateName": format!("{}-", read::name(owner)), "namespace": read::namespace(owner),
        "ownerReferences": [read::owner_reference(owner)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field).filter(|value| !value.is_null()) {
            metadata[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_content_only() {
        let one = json!({"a": 1, "b": {"c": [1, 2]}});
        let other = json!({"b": {"c": [1, 2]}, "a": 1});
        assert_eq!(hash(&one), hash(&other));
        assert_ne!(hash(&one), hash(&json!({"a": 2})));
        assert!(hash(&one).chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit()));
    }

    #[test]
    fn templates_are_equal_apart_from_the_label() {
        let one = json!({"metadata": {"labels": {"a": "b", "pod-template-hash": "x"}, "creationTimestamp": null}, "spec": {}});
        let other = json!({"metadata": {"labels": {"a": "b"}}, "spec": {}});
        assert!(equal(&one, &other, "pod-template-hash"));
    }
}
