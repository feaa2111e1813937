//! Does a value keep its schema's types, required fields and limits?

use serde_json::Value;

use super::{Limits, ListKind, Schema, Type};
use crate::status::FieldError;

/// Everything that is wrong with the value.
pub fn check(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(schema, value, "", &mut errors);
    errors
}

/// Types only: what a decoder into fixed structures would refuse. The first mismatch, as (path, found, expected).
pub fn first_type_mismatch(schema: &Schema, value: &Value, path: &str) -> Option<(String, &'static str, &'static str)> {
    let schema = schema.resolve();
    if value.is_null() {
        return None;
    }
    if !matches_type(schema, value) {
        let wanted = if schema.kind == Type::IntOrString { "string" } else { schema.kind.name() };
        return Some((path.to_owned(), found(value), wanted));
    }
    match value {
        Value::Object(map) => map.iter().find_map(|(name, inner)| {
            let field = schema.properties.get(name).or(schema.additional.as_deref())?;
            first_type_mismatch(field, inner, &join(path, name))
        }),
        Value::Array(items) => {
            let item = schema.items.as_deref()?;
            let mut indexed = items.iter().enumerate();
            indexed.find_map(|(index, inner)| first_type_mismatch(item, inner, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn matches_type(schema: &Schema, value: &Value) -> bool {
    match schema.kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Boolean => value.is_boolean(),
        Type::Number => value.is_number(),
        Type::Integer => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Type::IntOrString => value.is_string() || value.is_number(),
    }
}

fn walk(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let schema = schema.resolve();
    if value.is_null() && schema.nullable {
        return;
    }
    if !matches_type(schema, value) {
        let wanted = if schema.kind == Type::IntOrString { "integer,string" } else { schema.kind.name() };
        let detail = format!("{path} in body must be of type {wanted}: {:?}", found(value));
        errors.push(FieldError::type_invalid(or_root(path), found(value), &detail));
        return;
    }
    limits(&schema.limits, value, path, errors);
    match value {
        Value::Object(map) => {
            for name in schema.required.iter().filter(|name| map.get(*name).is_none_or(Value::is_null)) {
                errors.push(FieldError::required(join(path, name), ""));
            }
            for (name, inner) in map {
                if let Some(field) = schema.properties.get(name).or(schema.additional.as_deref()) {
                    walk(field, inner, &join(path, name), errors);
                }
            }
        }
        Value::Array(items) => {
            list(schema, items, path, errors);
            for (index, inner) in items.iter().enumerate() {
                if let Some(item) = schema.items.as_deref() {
                    walk(item, inner, &format!("{path}[{index}]"), errors);
                }
            }
        }
        Value::String(text) => format(&schema.format, text, path, errors),
        _ => {}
    }
    combinations(schema, value, path, errors);
}

fn or_root(path: &str) -> String {
    if path.is_empty() { "<nil>".to_owned() } else { path.to_owned() }
}

fn list(schema: &Schema, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let identity = |item: &Value| match &schema.list {
        ListKind::Atomic => None,
        ListKind::Set => Some(item.clone()),
        ListKind::Map(keys) => Some(Value::Object(
            keys.iter().map(|key| (key.clone(), item.get(key).cloned().unwrap_or(Value::Null))).collect(),
        )),
    };
    let mut seen = std::collections::HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let Some(key) = identity(item) else { return };
        if !seen.insert(key.to_string()) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), &key));
        }
    }
}

fn format(format: &str, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let fits = match format {
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "ip" => text.parse::<std::net::IpAddr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        _ => true,
    };
    if !fits {
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        errors.push(FieldError::invalid(or_root(path), &text.into(), &detail));
    }
}

fn limits(limits: &Limits, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut fault = |detail: String| {
        errors.push(FieldError::invalid(or_root(path), value, &format!("{path} in body {detail}")));
    };
    if let Some(number) = value.as_f64() {
        numbers(limits, number, &mut fault);
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if let Some(most) = limits.max_length.filter(|most| length > *most) {
            fault(format!("should be at most {most} chars long"));
        }
        if let Some(least) = limits.min_length.filter(|least| length < *least) {
            fault(format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = limits.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            fault(format!("should match '{pattern}'"));
        }
    }
    let (count, most, least, what) = match value {
        Value::Array(items) => (items.len() as u64, limits.max_items, limits.min_items, "items"),
        Value::Object(map) => (map.len() as u64, limits.max_properties, limits.min_properties, "properties"),
        _ => (0, None, None, ""),
    };
    if let Some(most) = most.filter(|most| count > *most) {
        fault(format!("should have at most {most} {what}"));
    }
    if let Some(least) = least.filter(|least| count < *least) {
        fault(format!("should have at least {least} {what}"));
    }
    let repeated = |items: &Vec<Value>| items.iter().enumerate().any(|(index, item)| items[..index].contains(item));
    if limits.unique_items && value.as_array().is_some_and(repeated) {
        fault("shouldn't contain duplicates".to_owned());
    }
    if !limits.values.is_empty() && !limits.values.contains(value) {
        let allowed: Vec<String> =
            limits.values.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        errors.push(FieldError::unsupported(or_root(path), value, &allowed));
    }
}

fn numbers(limits: &Limits, number: f64, fault: &mut impl FnMut(String)) {
    if let Some(least) =
        limits.minimum.filter(|least| number < *least || (limits.exclusive_minimum && number == *least))
    {
        let or_equal = if limits.exclusive_minimum { "" } else { " or equal to" };
        fault(format!("should be greater than{or_equal} {least}"));
    }
    if let Some(most) = limits.maximum.filter(|most| number > *most || (limits.exclusive_maximum && number == *most)) {
        let or_equal = if limits.exclusive_maximum { "" } else { " or equal to" };
        fault(format!("should be less than{or_equal} {most}"));
    }
    if let Some(step) = limits.multiple_of.filter(|step| *step != 0.0 && (number / step).fract() != 0.0) {
        fault(format!("should be a multiple of {step}"));
    }
}

fn combinations(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for inner in &schema.all_of {
        walk(inner, value, path, errors);
    }
    let fits = |inner: &Schema| {
        let mut found = Vec::new();
        walk(inner, value, path, &mut found);
        found.is_empty()
    };
    let mut fault = |detail: &str| {
        errors.push(FieldError::invalid(or_root(path), value, &format!("{path:?} {detail}")));
    };
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(fits) {
        fault("must validate at least one schema (anyOf)");
    }
    let matching = schema.one_of.iter().filter(|inner| fits(inner)).count();
    if !schema.one_of.is_empty() && matching != 1 {
        fault(&format!(
            "must validate one and only one schema (oneOf). Found {}",
            match matching {
                0 => "none valid".to_owned(),
                many => format!("{many} valid alternatives"),
            }
        ));
    }
    if schema.not.as_deref().is_some_and(fits) {
        fault("must not validate the schema (not)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::custom;
    use serde_json::json;

    fn check_text(schema: Value, value: Value) -> Vec<String> {
        let errors = check(&custom::root(Some(&schema)), &value);
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_value_is_held_against_types_limits_and_alternatives() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {
            "type": "object", "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 10},
                "name": {"type": "string", "pattern": "^[a-z]+$"},
                "mode": {"enum": ["on", "off"], "type": "string"},
                "port": {"x-kubernetes-int-or-string": true}},
            "oneOf": [{"required": ["name"]}, {"required": ["mode"]}]}}});
        assert_eq!(check_text(schema.clone(), json!({"spec": {"size": 2, "name": "a", "port": "http"}})), [""; 0]);
        assert_eq!(check_text(schema.clone(), json!({})), ["spec: Required value"]);
        assert_eq!(
            check_text(schema.clone(), json!({"spec": {"size": 11, "mode": "x"}})),
            [
                "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10",
                "spec.mode: Unsupported value: \"x\": supported values: \"on\", \"off\""
            ]
        );
        let both = check_text(schema, json!({"spec": {"size": 1, "mode": "on", "name": "a"}}));
        assert!(both[0].contains("oneOf). Found 2 valid alternatives"), "{both:?}");
    }
}
