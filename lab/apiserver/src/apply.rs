//! Server-side apply: what becomes of an object when a manager applies its fields, and who owns which afterwards?

use serde_json::{Map, Value, json};

use crate::fields::{Fields, changed, element};
use crate::meta;
use crate::schema::{ListKind, Schema};
use crate::status::Status;

/// Who writes, how, and when.
pub struct Writer<'a> {
    pub manager: &'a str,
    pub api_version: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    pub now: &'a str,
}

struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    fields: Fields,
}

fn entries(object: &Value) -> Vec<Entry> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    meta::list(object, "/metadata/managedFields")
        .iter()
        .map(|entry| Entry {
            manager: text(&entry["manager"]),
            operation: text(&entry["operation"]),
            api_version: text(&entry["apiVersion"]),
            subresource: text(&entry["subresource"]),
            time: text(&entry["time"]),
            fields: Fields::from_json(&entry["fieldsV1"]),
        })
        .collect()
}

fn write_entries(object: &mut Value, entries: &[Entry]) {
    let written: Vec<Value> = entries
        .iter()
        .filter(|entry| !entry.fields.is_empty())
        .map(|entry| {
            let mut value = json!({
                "manager": entry.manager, "operation": entry.operation, "apiVersion": entry.api_version,
                "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": entry.fields.to_json(),
            });
            if !entry.subresource.is_empty() {
                value["subresource"] = entry.subresource.as_str().into();
            }
            value
        })
        .collect();
    let metadata = meta::metadata(object);
    if written.is_empty() {
        metadata.shift_remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), written.into());
    }
}

/// What nobody owns: identity and what the server itself writes.
fn without_system_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Value::Object(map) = &mut object {
        map.shift_remove("apiVersion");
        map.shift_remove("kind");
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            for name in [
                "name",
                "namespace",
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "generation",
                "managedFields",
                "selfLink",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
            ] {
                metadata.shift_remove(name);
            }
            if metadata.is_empty() {
                map.shift_remove("metadata");
            }
        }
    }
    object
}

/// Notes in `new` that the writer owns what it changed by an ordinary write.
pub fn track_update(schema: &Schema, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let empty = json!({});
    let before = old.map_or(empty, without_system_fields);
    let after = without_system_fields(new);
    if before == after {
        return;
    }
    let present = Fields::of(Some(schema), &after);
    let difference = changed(Some(schema), &before, &after);
    let mut owned = difference.intersect(&with_members(&present));
    let mut all = entries(new);
    for entry in &mut all {
        let mine = is_update_of(entry, writer);
        if !mine {
            let mut lost = difference.clone();
            lost.member = false;
            remove_exact(&mut entry.fields, &lost);
        }
        // What is gone has no owner.
        entry.fields = entry.fields.intersect(&with_members(&present));
    }
    owned.member = false;
    match all.iter_mut().find(|entry| is_update_of(entry, writer)) {
        Some(entry) => {
            entry.fields.union(&owned);
            entry.time = writer.now.to_owned();
        }
        None if owned.is_empty() => {}
        None => all.push(Entry {
            manager: writer.manager.to_owned(),
            operation: "Update".to_owned(),
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: writer.now.to_owned(),
            fields: owned,
        }),
    }
    write_entries(new, &all);
}

fn is_update_of(entry: &Entry, writer: &Writer<'_>) -> bool {
    entry.operation == "Update" && entry.manager == writer.manager && entry.subresource == writer.subresource
}

/// The set with every inner path as a member, so that intersections keep `.` where an entry has it.
fn with_members(set: &Fields) -> Fields {
    Fields {
        member: true,
        children: set.children.iter().map(|(name, inner)| (name.clone(), with_members(inner))).collect(),
    }
}

/// Removes exactly the other's members: an owner of a map keeps its other keys.
fn remove_exact(set: &mut Fields, other: &Fields) {
    if other.member && other.children.is_empty() {
        set.member = false;
        set.children.clear();
    }
    for (name, inner) in &other.children {
        if let Some(mine) = set.children.get_mut(name) {
            remove_exact(mine, inner);
            if mine.is_empty() {
                set.children.remove(name);
            }
        }
    }
}

/// The object after `applied` was applied to `live`.
///
/// # Errors
/// A conflict if others own fields that would change, unless forced.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Status> {
    let wanted = Fields::of(Some(schema), &without_system_fields(applied));
    let empty = json!({});
    let base = live.unwrap_or(&empty);
    let mut merged = merge(Some(schema), base, applied);
    let mut all = entries(base);
    let mine = all.iter().position(|entry| {
        entry.operation == "Apply" && entry.manager == writer.manager && entry.subresource == writer.subresource
    });
    let previous = mine.map(|place| all.remove(place));
    if live.is_some() {
        let difference = changed(Some(schema), &without_system_fields(base), &without_system_fields(&merged));
        settle_conflicts(&mut all, &difference.intersect(&with_members(&wanted)), force)?;
    }
    if let Some(previous) = &previous {
        let mut others = Fields::default();
        all.iter().for_each(|entry| others.union(&entry.fields));
        remove_abandoned(Some(schema), &mut merged, &previous.fields, &wanted, Some(&others));
    }
    let unchanged_time = previous
        .filter(|previous| previous.fields == wanted && live.is_some_and(|live| *live == merged))
        .map(|previous| previous.time);
    all.push(Entry {
        manager: writer.manager.to_owned(),
        operation: "Apply".to_owned(),
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: unchanged_time.unwrap_or_else(|| writer.now.to_owned()),
        fields: wanted,
    });
    all.sort_by(|a, b| (&a.operation, &a.manager).cmp(&(&b.operation, &b.manager)));
    let present = with_members(&Fields::of(Some(schema), &without_system_fields(&merged)));
    for entry in all.iter_mut().filter(|entry| entry.operation == "Update") {
        entry.fields = entry.fields.intersect(&present);
    }
    write_entries(&mut merged, &all);
    Ok(merged)
}

fn settle_conflicts(others: &mut [Entry], contested: &Fields, force: bool) -> Result<(), Status> {
    let mut causes = Vec::new();
    for entry in others.iter_mut() {
        let shared = entry.fields.intersect(contested);
        if shared.is_empty() {
            continue;
        }
        if force {
            remove_exact(&mut entry.fields, contested);
            continue;
        }
        let mut who = format!("conflict with {:?}", entry.manager);
        if !entry.subresource.is_empty() {
            who.push_str(&format!(" with subresource {:?}", entry.subresource));
        }
        if entry.operation == "Update" {
            who.push_str(&format!(" using {}", entry.api_version));
        }
        causes.extend(shared.paths().into_iter().map(|path| (path, who.clone())));
    }
    if causes.is_empty() { Ok(()) } else { Err(Status::owned_by_others(&causes)) }
}

/// Removes what the manager applied before and does not any more, where nobody else owns it.
fn remove_abandoned(
    schema: Option<&Schema>,
    value: &mut Value,
    before: &Fields,
    wanted: &Fields,
    others: Option<&Fields>,
) {
    for (name, inner) in &before.children {
        let theirs = others.and_then(|others| others.children.get(name));
        let still = wanted.children.get(name);
        let Some((kind, label)) = name.split_once(':') else { continue };
        match value {
            Value::Object(map) if kind == "f" => {
                let field = schema.and_then(|schema| schema.field(label));
                if still.is_none() && theirs.is_none() {
                    map.shift_remove(label);
                } else if let Some(slot) = map.get_mut(label) {
                    remove_abandoned(field, slot, inner, still.unwrap_or(&Fields::default()), theirs);
                    let emptied =
                        slot.as_object().is_some_and(Map::is_empty) || slot.as_array().is_some_and(Vec::is_empty);
                    if emptied && still.is_none() {
                        map.shift_remove(label);
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = schema else { continue };
                let place = items.iter().position(|item| element(&schema.list, item).as_ref() == Some(name));
                let Some(place) = place else { continue };
                if still.is_none() && theirs.is_none() {
                    items.remove(place);
                } else {
                    let wanted = still.cloned().unwrap_or_default();
                    remove_abandoned(schema.item(), &mut items[place], inner, &wanted, theirs);
                }
            }
            _ => {}
        }
    }
}

/// The applied value laid over the live one.
fn merge(schema: Option<&Schema>, live: &Value, applied: &Value) -> Value {
    match (live, applied) {
        (Value::Object(old), Value::Object(new)) if !schema.is_some_and(Schema::is_atomic_map) => {
            let mut merged = old.clone();
            for (name, inner) in new {
                let field = schema.and_then(|schema| schema.field(name));
                let value = old.get(name).map_or_else(|| inner.clone(), |old| merge(field, old, inner));
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(old), Value::Array(new)) => match schema {
            Some(schema) if schema.list != ListKind::Atomic => merge_lists(schema, old, new),
            _ => applied.clone(),
        },
        _ => applied.clone(),
    }
}

/// Applied items in their order; live ones that are not applied stay after the item they followed.
fn merge_lists(schema: &Schema, old: &[Value], new: &[Value]) -> Value {
    let id = |item: &Value| element(&schema.list, item);
    let mut merged: Vec<Value> = Vec::new();
    let mut rest = old.iter().filter(|item| !new.iter().any(|one| id(one) == id(item))).peekable();
    let place = |item: &Value| old.iter().position(|one| id(one) == id(item));
    for item in new {
        let before = place(item);
        while let (Some(candidate), Some(limit)) = (rest.peek(), before) {
            if place(candidate).is_some_and(|at| at < limit) {
                merged.push((*candidate).clone());
                rest.next();
            } else {
                break;
            }
        }
        merged.push(before.map_or_else(|| item.clone(), |at| merge(schema.item(), &old[at], item)));
    }
    merged.extend(rest.cloned());
    Value::Array(merged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::schema::builtin;

    fn writer(manager: &str) -> Writer<'_> {
        Writer { manager, api_version: "apps/v1", subresource: "", now: "2026-01-01T00:00:00Z" }
    }

    fn schema() -> Schema {
        builtin::reference("api.apps.v1.Deployment")
    }

    #[test]
    fn a_field_that_is_no_longer_applied_goes_away_unless_another_owns_it() {
        let first = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 2}});
        let live = apply(&schema(), None, &first, &writer("me"), false).unwrap();
        let live =
            apply(&schema(), Some(&live), &json!({"metadata": {"labels": {"b": "2"}}}), &writer("you"), false).unwrap();
        let live = apply(&schema(), Some(&live), &json!({"spec": {"replicas": 2}}), &writer("me"), false).unwrap();
        assert_eq!(live["metadata"]["labels"], json!({"b": "2"}));
        assert_eq!(live["spec"]["replicas"], 2);
    }

    #[test]
    fn changing_what_another_owns_conflicts_and_force_takes_it() {
        let mut live = json!({"spec": {"replicas": 2}});
        track_update(&schema(), None, &mut live, &writer("kubectl"));
        let wanted = json!({"spec": {"replicas": 3}});
        let refused = apply(&schema(), Some(&live), &wanted, &writer("me"), false).unwrap_err();
        assert_eq!(refused.code, 409);
        assert!(refused.message.contains("conflict with \"kubectl\" using apps/v1: .spec.replicas"), "{refused}");
        let live = apply(&schema(), Some(&live), &wanted, &writer("me"), true).unwrap();
        assert_eq!(live["spec"]["replicas"], 3);
        assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn equal_values_are_owned_together() {
        let wanted = json!({"spec": {"replicas": 2}});
        let live = apply(&schema(), None, &wanted, &writer("me"), false).unwrap();
        let live = apply(&schema(), Some(&live), &wanted, &writer("you"), false).unwrap();
        assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn items_of_other_managers_stay_in_keyed_lists() {
        let container =
            |name: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": name, "image": "i"}]}}}});
        let live = apply(&schema(), None, &container("a"), &writer("me"), false).unwrap();
        let live = apply(&schema(), Some(&live), &container("b"), &writer("you"), false).unwrap();
        let names = |live: &Value| -> Vec<String> {
            meta::list(live, "/spec/template/spec/containers")
                .iter()
                .map(|one| one["name"].as_str().unwrap().into())
                .collect()
        };
        assert_eq!(names(&live).len(), 2);
        let live = apply(&schema(), Some(&live), &json!({"spec": {"paused": false}}), &writer("you"), false).unwrap();
        assert_eq!(names(&live), ["a"]);
    }
}
