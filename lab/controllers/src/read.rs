//! What does an object say? Short ways to read JSON.

use serde_json::{Map, Value, json};

/// Text at a JSON pointer, or nothing.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Number at a JSON pointer, or the fallback.
pub fn number(object: &Value, pointer: &str, fallback: i64) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(fallback)
}

/// The list at a JSON pointer; an absent one is empty.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.pointer("/metadata/labels").and_then(Value::as_object)
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"]["annotations"][key].as_str().unwrap_or_default()
}

pub fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// The uid of the controller that owns the object.
pub fn controller(object: &Value) -> Option<&str> {
    list(object, "/metadata/ownerReferences")
        .iter()
        .find(|owner| owner["controller"] == true)
        .and_then(|owner| owner["uid"].as_str())
}

/// A reference from a dependent to its controller.
pub fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

pub fn time(object: &Value, pointer: &str) -> Option<jiff::Timestamp> {
    text(object, pointer).parse().ok()
}

/// A moment as objects give it.
pub fn stamp(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A condition's object.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|one| one["type"] == kind)
}

/// Whether a `LabelSelector` selects these labels.
pub fn selects(selector: &Value, labels: Option<&Map<String, Value>>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let equal = |(key, wanted): (&String, &Value)| value(key).is_some_and(|found| *wanted == *found);
    selector["matchLabels"].as_object().into_iter().flatten().all(equal)
        && list(selector, "/matchExpressions").iter().all(|one| expression(one, value(text(one, "/key"))))
}

/// Whether a requirement of a selector holds for a value.
pub fn expression(requirement: &Value, value: Option<&str>) -> bool {
    let among = || list(requirement, "/values").iter().any(|one| value.is_some_and(|value| *one == *value));
    let compare = |wanted: std::cmp::Ordering| {
        let limit =
            list(requirement, "/values").first().and_then(Value::as_str).and_then(|text| text.parse::<i64>().ok());
        let found = value.and_then(|text| text.parse::<i64>().ok());
        found.zip(limit).is_some_and(|(found, limit)| found.cmp(&limit) == wanted)
    };
    match text(requirement, "/operator") {
        "In" => among(),
        "NotIn" => !among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_selects_by_labels_and_expressions() {
        let labels = json!({"app": "web", "tier": "front"});
        let check = |selector: Value| selects(&selector, labels.as_object());
        assert!(check(json!({})));
        assert!(check(json!({"matchLabels": {"app": "web"}})));
        assert!(!check(json!({"matchLabels": {"app": "db"}})));
        assert!(check(json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}]})));
        assert!(!check(json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]})));
        assert!(!check(json!({"matchExpressions": [{"key": "tier", "operator": "Sounds", "values": ["front"]}]})));
    }
}
