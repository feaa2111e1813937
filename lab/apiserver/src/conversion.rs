//! How does an object look in another version than the one that is kept?

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use crate::registry::Resource;
use crate::store::Object;

/// Fields of events that have other names in the two groups: core, events.k8s.io.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(value: &mut Value, forward: bool) {
    let Value::Object(map) = value else { return };
    let renamed: Map<String, Value> = std::mem::take(map)
        .into_iter()
        .map(|(name, value)| {
            let pair = EVENT_FIELDS.iter().find(|(core, new)| *(if forward { core } else { new }) == name);
            let name = pair.map_or(name, |(core, new)| (if forward { new } else { core }).to_string());
            (name, value)
        })
        .collect();
    *map = renamed;
}

fn is_new_event(resource: &Resource) -> bool {
    resource.collection == "events" && !resource.group.is_empty()
}

/// The object in the version that the resource is asked in.
pub fn present(resource: &Resource, object: &Object) -> Bytes {
    if resource.stored_as == resource.api_version() {
        return object.json();
    }
    Bytes::from(present_value(resource, &object.value).to_string())
}

/// As `present`, as a value.
pub fn present_value(resource: &Resource, value: &Value) -> Value {
    let mut value = value.clone();
    if resource.stored_as != resource.api_version() {
        if is_new_event(resource) {
            rename(&mut value, true);
        }
        value["apiVersion"] = resource.api_version().into();
    }
    value
}

/// An object as it came, in the version that is kept.
pub fn to_stored(resource: &Resource, mut value: Value) -> Value {
    if is_new_event(resource) {
        rename(&mut value, false);
    }
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".into(), json!(resource.stored_as));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_other_names_in_their_own_group_and_come_back_equal() {
        let mut event = json!({"involvedObject": {"name": "a"}, "message": "m", "reason": "r"});
        rename(&mut event, true);
        assert_eq!(event, json!({"regarding": {"name": "a"}, "note": "m", "reason": "r"}));
        rename(&mut event, false);
        assert_eq!(event, json!({"involvedObject": {"name": "a"}, "message": "m", "reason": "r"}));
    }
}
