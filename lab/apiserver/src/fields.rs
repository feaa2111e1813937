//! Which fields does a set of fields hold, and how is it written in `managedFields`?

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::{ListKind, Schema};

/// A tree of path elements: `f:name` for a field, `k:{...}` for an item by keys, `v:...` for a scalar of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The path that leads here is itself in the set.
    pub member: bool,
    pub children: BTreeMap<String, Fields>,
}

impl Fields {
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    /// Every path of a value.
    pub fn of(schema: Option<&Schema>, value: &Value) -> Self {
        let mut set = Self::default();
        match value {
            Value::Object(map) if !schema.is_some_and(Schema::is_atomic_map) => {
                for (name, inner) in map {
                    let field = schema.and_then(|schema| schema.field(name));
                    set.children.insert(format!("f:{name}"), Self::of_child(field, inner));
                }
            }
            Value::Array(items) => {
                let Some(schema) = schema.filter(|schema| schema.list != ListKind::Atomic) else { return Self::leaf() };
                for item in items {
                    let Some(element) = element(&schema.list, item) else { return Self::leaf() };
                    let mut inner = Self::of_child(schema.item(), item);
                    inner.member = true;
                    set.children.insert(element, inner);
                }
            }
            _ => return Self::leaf(),
        }
        set
    }

    fn of_child(schema: Option<&Schema>, value: &Value) -> Self {
        let set = Self::of(schema, value);
        if set.children.is_empty() { Self::leaf() } else { set }
    }

    pub fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, inner) in &other.children {
            self.children.entry(element.clone()).or_default().union(inner);
        }
    }

    /// The paths in both.
    pub fn intersect(&self, other: &Self) -> Self {
        let mut both = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (element, inner) in &self.children {
            let Some(theirs) = other.children.get(element) else { continue };
            let shared = inner.intersect(theirs);
            if !shared.is_empty() {
                both.children.insert(element.clone(), shared);
            }
        }
        both
    }

    /// Each path that is a member, in the notation of error messages: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, path: &str, found: &mut Vec<String>) {
        if self.member {
            found.push(path.to_owned());
        }
        for (element, inner) in &self.children {
            inner.collect(&format!("{path}{}", shown(element)), found);
        }
    }

    /// The form of `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, inner) in &self.children {
            map.insert(element.clone(), inner.to_json());
        }
        Value::Object(map)
    }

    pub fn from_json(value: &Value) -> Self {
        let mut set = Self::default();
        let Value::Object(map) = value else { return set };
        for (element, inner) in map {
            if element == "." {
                set.member = true;
                continue;
            }
            let mut child = Self::from_json(inner);
            child.member |= child.children.is_empty();
            set.children.insert(element.clone(), child);
        }
        set
    }
}

/// The element that names an item of a list; None if the item lacks its keys.
pub fn element(list: &ListKind, item: &Value) -> Option<String> {
    match list {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => {
            let mut id = BTreeMap::new();
            for key in keys {
                match item.get(key) {
                    Some(value) => drop(id.insert(key.clone(), value.clone())),
                    // Ports are told apart by number and protocol, and the protocol has a default.
                    None if key == "protocol" => drop(id.insert(key.clone(), "TCP".into())),
                    None => return None,
                }
            }
            serde_json::to_string(&id).ok().map(|text| format!("k:{text}"))
        }
    }
}

fn shown(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let parts: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", parts.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        _ => format!("[{element}]"),
    }
}

/// Paths whose values differ between two versions, or are in one of them only.
pub fn changed(schema: Option<&Schema>, old: &Value, new: &Value) -> Fields {
    let mut set = Fields::default();
    match (old, new) {
        (Value::Object(before), Value::Object(after)) if !schema.is_some_and(Schema::is_atomic_map) => {
            for (name, new) in after {
                let field = schema.and_then(|schema| schema.field(name));
                let difference = match before.get(name) {
                    Some(old) if old == new => continue,
                    Some(old) => changed(field, old, new),
                    None => whole(field, new),
                };
                set.children.insert(format!("f:{name}"), difference);
            }
            for (name, old) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
                let field = schema.and_then(|schema| schema.field(name));
                set.children.insert(format!("f:{name}"), whole(field, old));
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            let Some(schema) = schema.filter(|schema| schema.list != ListKind::Atomic) else { return Fields::leaf() };
            let id = |item: &Value| element(&schema.list, item);
            for item in after {
                let Some(name) = id(item) else { return Fields::leaf() };
                let difference = match before.iter().find(|old| id(old).as_ref() == Some(&name)) {
                    Some(old) if old == item => continue,
                    Some(old) => changed(schema.item(), old, item),
                    None => whole_item(schema.item(), item),
                };
                set.children.insert(name, difference);
            }
            for item in before.iter().filter(|old| !after.iter().any(|new| id(new) == id(old))) {
                let Some(name) = id(item) else { return Fields::leaf() };
                set.children.insert(name, whole_item(schema.item(), item));
            }
        }
        _ => return Fields::leaf(),
    }
    set
}

fn whole(schema: Option<&Schema>, value: &Value) -> Fields {
    let mut set = Fields::of(schema, value);
    // A structure is owned by its fields; a map is there, or not, apart from its keys.
    let structure = schema.is_some_and(|schema| !schema.resolve().properties.is_empty());
    set.member = set.children.is_empty() || !structure;
    set
}

fn whole_item(schema: Option<&Schema>, item: &Value) -> Fields {
    Fields { member: true, ..whole(schema, item) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;
    use serde_json::json;

    #[test]
    fn a_set_is_written_and_read_back() {
        let schema = builtin::reference("api.core.v1.Pod");
        let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}});
        let set = Fields::of(Some(&schema), &pod);
        let text = set.to_json();
        assert_eq!(
            text,
            json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                ".": {}, "f:image": {}, "f:name": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}})
        );
        assert_eq!(Fields::from_json(&text), set);
    }

    #[test]
    fn differences_name_only_what_changed() {
        let schema = builtin::reference("api.core.v1.Pod");
        let old = json!({"spec": {"containers": [{"name": "c", "image": "1"}, {"name": "d"}]}});
        let new = json!({"spec": {"containers": [{"name": "c", "image": "2"}, {"name": "d"}]}});
        assert_eq!(changed(Some(&schema), &old, &new).paths(), [".spec.containers[name=\"c\"].image"]);
    }
}
