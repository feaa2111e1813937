//! Does a value fit a schema, and where does it not?

use serde_json::{Map, Value};

use crate::Problem;

/// Every place where the value does not fit: unknown and missing fields, wrong types, values that are not allowed.
///
/// A field that is null is wrong: an API server takes it away before it looks at the object, which then means something
/// that its author may not have meant, as rules without peers are for everybody. `pattern` is left to who reads the field, who
/// can say more, and so is every `format` but `cidr`.
pub fn check(value: &Value, schema: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    at(value, schema, "", &mut problems);
    problems
}

fn at(value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        if !value.is_string() && !value.is_i64() {
            problems.push(wrong_type(path, value, "a whole number or a text"));
        }
        return;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => object(value, schema, path, problems),
        Some("array") => array(value, schema, path, problems),
        Some("string") if !value.is_string() => problems.push(wrong_type(path, value, "a text")),
        Some("boolean") if !value.is_boolean() => problems.push(wrong_type(path, value, "true or false")),
        Some("integer") if !(value.is_i64() || value.is_u64()) => {
            problems.push(wrong_type(path, value, "a whole number"));
        }
        Some("number") if !value.is_number() => problems.push(wrong_type(path, value, "a number")),
        _ => problems.extend(scalar_problem(value, schema).map(|message| Problem::at(path, message))),
    }
}

fn object(value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let Value::Object(fields) = value else {
        problems.push(wrong_type(path, value, "an object"));
        return;
    };
    let none = Map::new();
    let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let others = schema.get("additionalProperties");
    // Without any property it is a place for anything, as `metadata` is.
    let open = known.is_empty() && others.is_none()
        || schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    for (name, field) in fields {
        let below = join(path, name);
        match (known.get(name), others) {
            (Some(inner), _) => at(field, inner, &below, problems),
            (None, Some(inner)) => at(field, inner, &below, problems),
            (None, None) if !open => problems.push(Problem::at(below, unknown_field(name, known))),
            (None, None) => {}
        }
    }
    let count = fields.len() as u64;
    let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
    if limit("minProperties").is_some_and(|least| count < least)
        || limit("maxProperties").is_some_and(|most| count > most)
    {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        problems
            .push(Problem::at(path, format!("{count} fields are set; exactly one of {} is right", names.join(", "))));
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if fields.get(name).is_none_or(Value::is_null) {
            problems.push(Problem::at(join(path, name), "required value: the field must be there"));
        }
    }
}

fn array(value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let Value::Array(items) = value else {
        problems.push(wrong_type(path, value, "a list"));
        return;
    };
    let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
    let count = items.len() as u64;
    if let Some(most) = limit("maxItems").filter(|most| count > *most) {
        problems.push(Problem::at(path, format!("too many: {count}: must have at most {most} items")));
    }
    if let Some(least) = limit("minItems").filter(|least| count < *least) {
        problems.push(Problem::at(path, format!("too few: {count}: must have at least {least} items")));
    }
    let Some(inner) = schema.get("items") else { return };
    for (index, item) in items.iter().enumerate() {
        let below = format!("{path}[{index}]");
        at(item, inner, &below, problems);
    }
}

fn scalar_problem(value: &Value, schema: &Value) -> Option<String> {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        return Some(format!("unsupported value: {value}: supported values: {}", allowed.join(", ")));
    }
    if let Some(number) = value.as_i64() {
        let limit = |name: &str| schema.get(name).and_then(Value::as_f64).map(|limit| limit as i64);
        let below = limit("minimum").filter(|least| number < *least);
        let above = limit("maximum").filter(|most| number > *most);
        return below
            .map(|least| format!("invalid value: {number}: must be greater than or equal to {least}"))
            .or_else(|| above.map(|most| format!("invalid value: {number}: must be less than or equal to {most}")));
    }
    let text = value.as_str()?;
    if schema.get("format").and_then(Value::as_str) == Some("cidr") && text.parse::<ipnet::IpNet>().is_err() {
        return Some(format!("invalid value: {text:?} is not a prefix like 192.0.2.0/24"));
    }
    let length = text.chars().count() as u64;
    let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
    let long = limit("maxLength").filter(|most| length > *most);
    let short = limit("minLength").filter(|least| length < *least);
    long.map(|most| format!("too long: it has {length} characters and may have at most {most}"))
        .or_else(|| short.map(|least| format!("too short: it must have at least {least} characters")))
}

fn wrong_type(path: &str, value: &Value, wanted: &str) -> Problem {
    let is_field = !path.ends_with(']');
    let more = if value.is_null() && is_field {
        "; an API server would leave the field out: do so if that is meant"
    } else {
        ""
    };
    Problem::at(path, format!("invalid type: found {}, must be {wanted}{more}", describe(value)))
}

/// A value in a few words; long ones are cut.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(items) => format!("a list of {} items", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("the text {:?}", text.chars().take(60).collect::<String>()),
    }
}

fn unknown_field(name: &str, known: &Map<String, Value>) -> String {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    let like = names.iter().find(|one| one.eq_ignore_ascii_case(name));
    match like {
        Some(like) => format!("unknown field {name:?}; {like:?} is meant?"),
        None => format!("unknown field {name:?}; known here are {}", names.join(", ")),
    }
}

fn join(path: &str, name: &str) -> String {
    match (path, name.contains(['.', '/'])) {
        ("", _) => name.to_owned(),
        (_, true) => format!("{path}[{name}]"),
        (_, false) => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::structural;
    use serde_json::json;

    fn problems(value: Value) -> Vec<String> {
        check(&value, &structural::<crate::CiliumNetworkPolicy>()).iter().map(Problem::to_string).collect()
    }

    fn check_one(rule: Value, expected: &str) {
        let found = problems(json!({ "metadata": { "name": "x" }, "spec": rule }));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?} is not {expected}");
    }

    #[test]
    fn wrong_fields_are_named_with_path_found_and_wanted() {
        check_one(json!({ "egres": [] }), "spec.egres: unknown field \"egres\"; known here are endpointSelector");
        check_one(
            json!({ "egress": [{ "toCidr": [] }] }),
            "spec.egress[0].toCidr: unknown field \"toCidr\"; \"toCIDR\" is meant?",
        );
        check_one(json!({ "egress": {} }), "spec.egress: invalid type: found an object, must be a list");
        // A null is not an absent field: what would it select?
        check_one(json!({ "egress": null }), "spec.egress: invalid type: found null, must be a list");
        check_one(json!({ "egress": [null] }), "spec.egress[0]: invalid type: found null, must be an object");
        let port = |port: Value| json!({ "egress": [{ "toPorts": [{ "ports": [port] }] }] });
        check_one(port(json!({ "port": 80 })), "ports[0].port: invalid type: found 80, must be a text");
        check_one(
            port(json!({ "port": "80", "protocol": "tcpp" })),
            "unsupported value: \"tcpp\": supported values: \"TCP\"",
        );
        check_one(port(json!({ "port": "80", "endPort": 70000 })), "must be less than or equal to 65535");
        check_one(
            json!({ "endpointSelector": { "matchLabels": { "exposed": true } } }),
            "matchLabels.exposed: invalid type: found true",
        );
        check_one(
            json!({ "ingress": [{ "icmps": [{ "fields": [{ "family": "IPv4" }] }] }] }),
            "fields[0].type: required value",
        );
        check_one(
            json!({ "ingress": [{ "fromRequires": ["x"] }] }),
            "fromRequires: too many: 1: must have at most 0 items",
        );
    }

    #[test]
    fn what_is_right_has_no_problems() {
        let rule = json!({ "endpointSelector": {}, "egress": [{}], "ingress": [{ "icmps": [{ "fields": [{ "type": 8 }, { "type": "EchoRequest" }] }] }] });
        assert_eq!(
            problems(json!({ "metadata": { "name": "x", "labels": { "a": "b" } }, "spec": rule })),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_object_itself_is_required_to_be_one() {
        assert_eq!(problems(json!(null)).len(), 1);
        assert_eq!(problems(json!([])).len(), 1);
        assert!(problems(json!({}))[0].starts_with("metadata: required value"));
    }
}
