//! Which types are built in? They are read from a table of names, fields and merge keys.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::{ListKind, Schema, Type};

static TYPES: LazyLock<HashMap<String, Schema>> = LazyLock::new(|| parse(include_str!("builtin.txt")));

/// The type of this name, for example `api.core.v1.Pod`.
pub fn find(name: &str) -> Option<&'static Schema> {
    TYPES.get(name)
}

/// Every type and its name.
#[cfg(test)]
pub fn all() -> impl Iterator<Item = (&'static String, &'static Schema)> {
    TYPES.iter()
}

/// A schema that stands for a built-in type.
pub fn reference(name: &str) -> Schema {
    Schema { reference: Some(name.to_owned()), ..Schema::default() }
}

fn parse(text: &str) -> HashMap<String, Schema> {
    let mut types = HashMap::new();
    let mut current: Option<(String, Schema)> = None;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(header) = line.strip_prefix('@') {
            types.extend(current.take());
            let (name, flag) = header.split_once(' ').unwrap_or((header, ""));
            let schema = Schema { kind: Type::Object, atomic: flag == "atomic", ..Schema::default() };
            current = Some((name.to_owned(), schema));
        } else if let Some((_, schema)) = &mut current {
            add_field(schema, line);
        }
    }
    types.extend(current);
    types
}

fn add_field(owner: &mut Schema, line: &str) {
    let mut words = line.split(' ');
    let (Some(name), Some(kind)) = (words.next(), words.next()) else { return };
    let required = name.ends_with('!');
    let name = name.trim_end_matches('!');
    let mut schema = parse_type(kind);
    for word in words {
        match word.split_once('=') {
            Some(("merge", key)) => {
                schema.merge_key = Some(key.to_owned());
                schema.list = ListKind::Map(vec![key.to_owned()]);
            }
            Some(("keys", keys)) => schema.list = ListKind::Map(keys.split(',').map(str::to_owned).collect()),
            _ if word == "set" => schema.list = ListKind::Set,
            _ if word == "ptr" => schema.pointer = true,
            _ if word == "atomic" => schema.atomic = true,
            _ => {
                let numbers = word.trim_start_matches('#').split('.');
                schema.wire = numbers.filter_map(|number| number.parse().ok()).collect();
            }
        }
    }
    if required {
        owner.required.push(name.to_owned());
    }
    owner.properties.insert(name.to_owned(), schema);
}

fn parse_type(text: &str) -> Schema {
    if let Some(item) = text.strip_prefix("[]") {
        return Schema { kind: Type::Array, items: Some(Box::new(parse_type(item))), ..Schema::default() };
    }
    if let Some(value) = text.strip_prefix("{}") {
        return Schema { kind: Type::Object, additional: Some(Box::new(parse_type(value))), ..Schema::default() };
    }
    if let Some(name) = text.strip_prefix('>') {
        return reference(name);
    }
    let (kind, format) = text.split_once(':').unwrap_or((text, ""));
    let (kind, preserve) = match kind {
        "string" => (Type::String, false),
        "integer" => (Type::Integer, false),
        "number" => (Type::Number, false),
        "boolean" => (Type::Boolean, false),
        "int-or-string" | "quantity" => (Type::IntOrString, false),
        "object" => (Type::Object, true),
        _ => (Type::Any, true),
    };
    Schema { kind, preserve, format: format.to_owned(), ..Schema::default() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_reference_leads_to_a_type() {
        fn walk(schema: &Schema, place: &str) {
            if let Some(name) = &schema.reference {
                assert!(find(name).is_some(), "{place} refers to {name}");
            }
            schema.properties.iter().for_each(|(name, field)| walk(field, &format!("{place}.{name}")));
            schema.items.iter().chain(&schema.additional).for_each(|inner| walk(inner, place));
        }
        all().for_each(|(name, schema)| walk(schema, name));
    }

    #[test]
    fn containers_merge_by_name_and_their_ports_are_owned_by_port_and_protocol() {
        let spec = find("api.core.v1.PodSpec").unwrap();
        assert_eq!(spec.properties["containers"].merge_key.as_deref(), Some("name"));
        let ports = &find("api.core.v1.Container").unwrap().properties["ports"];
        assert_eq!(ports.merge_key.as_deref(), Some("containerPort"));
        assert_eq!(ports.list, ListKind::Map(vec!["containerPort".into(), "protocol".into()]));
    }
}
