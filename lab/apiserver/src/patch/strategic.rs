//! What does a strategic merge patch make of a value, given which lists merge by which key?

use serde_json::{Map, Value};

use crate::schema::{ListKind, Schema};

const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies the patch.
///
/// # Errors
/// If a directive is unknown or an item lacks its merge key.
pub fn apply(schema: &Schema, target: &mut Value, patch: &Value) -> Result<(), String> {
    match (target, patch) {
        (Value::Object(fields), Value::Object(changes)) => maps(schema, fields, changes),
        (target, patch) => {
            *target = without_directives(patch);
            Ok(())
        }
    }
}

/// A value as it is when nothing was there to merge with.
fn without_directives(patch: &Value) -> Value {
    match patch {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(name, value)| !name.starts_with('$') && !value.is_null())
                .map(|(name, value)| (name.clone(), without_directives(value)))
                .collect(),
        ),
        Value::Array(items) => {
            let kept = items.iter().filter(|item| item.get("$patch").is_none_or(|directive| directive == "merge"));
            Value::Array(kept.map(without_directives).collect())
        }
        other => other.clone(),
    }
}

fn maps(schema: &Schema, fields: &mut Map<String, Value>, changes: &Map<String, Value>) -> Result<(), String> {
    match changes.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            if let Value::Object(new) = without_directives(&Value::Object(changes.clone())) {
                *fields = new;
            }
            return Ok(());
        }
        Some("delete") => {
            fields.clear();
            return Ok(());
        }
        None | Some("merge") => {}
        Some(other) => return Err(format!("unknown directive $patch: {other}")),
    }
    if let Some(kept) = changes.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| kept.iter().any(|one| one == name));
    }
    for (name, change) in changes {
        if let Some(name) = name.strip_prefix(DELETE_PRIMITIVES) {
            remove_primitives(fields.get_mut(name), change);
        } else if !name.starts_with('$') {
            field(schema, fields, name, change)?;
        }
    }
    for (name, order) in changes {
        if let Some(name) = name.strip_prefix(ELEMENT_ORDER)
            && let Some(Value::Array(items)) = fields.get_mut(name)
        {
            let key = schema.field(name).and_then(|field| field.merge_key.as_deref());
            set_order(items, order, key);
        }
    }
    Ok(())
}

fn field(schema: &Schema, fields: &mut Map<String, Value>, name: &str, change: &Value) -> Result<(), String> {
    let inner = schema.field(name);
    let fallback = Schema::default();
    match change {
        Value::Null => drop(fields.shift_remove(name)),
        Value::Object(changes) => {
            if changes.get("$patch").is_some_and(|directive| directive == "delete") {
                fields.shift_remove(name);
                return Ok(());
            }
            let slot = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            apply(inner.unwrap_or(&fallback), slot, change)?;
        }
        Value::Array(items) => {
            let key = inner.and_then(|inner| inner.merge_key.as_deref());
            let set = inner.is_some_and(|inner| inner.list == ListKind::Set);
            let slot = fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            match (slot, key) {
                (Value::Array(old), Some(key)) => {
                    let item = inner.and_then(Schema::item).unwrap_or(&fallback);
                    lists(item, old, items, key)?;
                }
                (Value::Array(old), None) if set => {
                    for one in items.iter().filter(|one| !one.is_object()) {
                        if !old.contains(one) {
                            old.push(one.clone());
                        }
                    }
                }
                (slot, _) => *slot = without_directives(change),
            }
        }
        scalar => drop(fields.insert(name.to_owned(), scalar.clone())),
    }
    Ok(())
}

fn lists(item: &Schema, old: &mut Vec<Value>, changes: &[Value], key: &str) -> Result<(), String> {
    if changes.iter().any(|change| change.get("$patch").is_some_and(|directive| directive == "replace")) {
        let kept = changes.iter().filter(|change| change.get("$patch").is_none());
        *old = kept.map(without_directives).collect();
        return Ok(());
    }
    for change in changes {
        let id = change.get(key).ok_or_else(|| format!("map: {change} does not contain declared merge key: {key}"))?;
        let place = old.iter().position(|one| one.get(key) == Some(id));
        let delete = change.get("$patch").is_some_and(|directive| directive == "delete");
        match (place, delete) {
            (Some(_), true) => old.retain(|one| one.get(key) != Some(id)),
            (None, true) => {}
            (Some(place), false) => apply(item, &mut old[place], change)?,
            (None, false) => old.push(without_directives(change)),
        }
    }
    Ok(())
}

fn remove_primitives(list: Option<&mut Value>, removed: &Value) {
    if let (Some(Value::Array(items)), Value::Array(removed)) = (list, removed) {
        items.retain(|item| !removed.contains(item));
    }
}

/// Items that the order names come in that order; the others keep their place relative to what preceded them.
fn set_order(items: &mut Vec<Value>, order: &Value, key: Option<&str>) {
    let Value::Array(order) = order else { return };
    let identity = |item: &Value| key.map_or_else(|| item.clone(), |key| item.get(key).cloned().unwrap_or(Value::Null));
    let wanted: Vec<Value> = order.iter().map(identity).collect();
    let mut ranked: Vec<(i64, usize, Value)> = Vec::with_capacity(items.len());
    let mut last = -1;
    for (place, item) in items.drain(..).enumerate() {
        let rank = wanted.iter().position(|one| *one == identity(&item)).map_or(last, |rank| rank as i64);
        last = last.max(rank);
        ranked.push((rank, place, item));
    }
    ranked.sort_by_key(|(rank, place, _)| (*rank, *place));
    items.extend(ranked.into_iter().map(|(_, _, item)| item));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::schema::builtin;
    use serde_json::json;

    fn check(target: Value, patch: Value, expected: Value) {
        let mut target = target;
        apply(&builtin::reference("api.core.v1.Pod"), &mut target, &patch).unwrap();
        assert_eq!(target, expected);
    }

    #[test]
    fn containers_merge_by_name_and_their_environment_too() {
        check(
            json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "b", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}}),
        );
    }

    #[test]
    fn tolerations_are_replaced_and_finalizers_are_a_set() {
        check(
            json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"tolerations": [{"key": "x"}]}}),
            json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}, "spec": {"tolerations": [{"key": "y"}]}}),
            json!({"metadata": {"finalizers": ["b", "c"]}, "spec": {"tolerations": [{"key": "y"}]}}),
        );
    }

    #[test]
    fn order_directives_sort_and_retained_keys_drop_others() {
        check(
            json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b"}]}}),
            json!({"spec": {"$setElementOrder/volumes": [{"name": "b"}, {"name": "a"}],
                "volumes": [{"name": "a", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
            json!({"spec": {"volumes": [{"name": "b"}, {"name": "a", "hostPath": {"path": "/x"}}]}}),
        );
    }

    #[test]
    fn null_removes_and_replace_replaces() {
        check(
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeName": "n"}}),
            json!({"metadata": {"labels": {"a": null, "c": "3"}}, "spec": {"$patch": "replace", "hostNetwork": true}}),
            json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "spec": {"hostNetwork": true}}),
        );
    }

    #[test]
    fn an_item_without_its_merge_key_is_refused() {
        let mut target = json!({"spec": {"containers": [{"name": "a"}]}});
        let patch = json!({"spec": {"containers": [{"image": "x"}]}});
        assert!(apply(&builtin::reference("api.core.v1.Pod"), &mut target, &patch).unwrap_err().contains("merge key"));
    }
}
