//! Which values does a column's path find? The subset that definitions use.

use serde_json::Value;

/// `.a.b`, `['a.b']`, `[0]`, `[*]` and `[?(@.key=="value")]`; nothing for a path that is not understood.
pub fn find<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = closing(after) else { return Vec::new() };
            found = found.into_iter().flat_map(|value| select(value, &after[..end])).collect();
            rest = &after[end + 1..];
        } else {
            let after = rest.trim_start_matches('.');
            let (name, next) = field(after);
            if name.is_empty() {
                return Vec::new();
            }
            found = found.into_iter().filter_map(|value| value.get(&name)).collect();
            rest = &after[next..];
        }
    }
    found.retain(|value| !value.is_null());
    found
}

/// A name up to the next dot or bracket; a backslash takes the dot into the name.
fn field(text: &str) -> (String, usize) {
    let mut name = String::new();
    let mut escaped = false;
    for (at, char) in text.char_indices() {
        match char {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => return (name, at),
            other => {
                name.push(other);
                escaped = false;
            }
        }
    }
    (name, text.len())
}

/// The place of the bracket that ends what was opened, quotes respected.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, char) in text.char_indices() {
        match (quote, char) {
            (Some(open), char) if open == char => quote = None,
            (None, '\'' | '"') => quote = Some(char),
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

/// A scalar as it is written without quotes.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn select<'a>(value: &'a Value, inside: &str) -> Vec<&'a Value> {
    let inside = inside.trim();
    if inside == "*" {
        return match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        };
    }
    if let Some(condition) = inside.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let Some((left, right)) = condition.split_once("==") else { return Vec::new() };
        let path = left.trim().trim_start_matches('@');
        let wanted = right.trim().trim_matches(['"', '\'']);
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        let equal = |item: &&Value| find(item, path).iter().any(|found| text(found) == wanted);
        return items.iter().filter(equal).collect();
    }
    let quoted = inside.trim_matches(['"', '\'']);
    if quoted.len() != inside.len() {
        return value.get(quoted).into_iter().collect();
    }
    let Ok(index) = inside.parse::<i64>() else { return Vec::new() };
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    let place = if index < 0 { items.len() as i64 + index } else { index };
    usize::try_from(place).ok().and_then(|place| items.get(place)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_paths_that_definitions_use() {
        let value = json!({"status": {"conditions": [{"type": "Valid", "status": "True"}, {"type": "X", "status": "False"}],
            "identity": {"id": 7}, "ips": [{"ipv4": "1"}, {"ipv4": "2"}]}, "metadata": {"labels": {"a.b/c": "d"}}});
        assert_eq!(find(&value, ".status.identity.id"), [&json!(7)]);
        assert_eq!(find(&value, ".status.conditions[?(@.type=='Valid')].status"), [&json!("True")]);
        assert_eq!(find(&value, ".status.ips[0].ipv4"), [&json!("1")]);
        assert_eq!(find(&value, ".status.ips[*].ipv4"), [&json!("1"), &json!("2")]);
        assert_eq!(find(&value, ".metadata.labels['a.b/c']"), [&json!("d")]);
        assert_eq!(find(&value, ".metadata.labels.a\\.b/c"), [&json!("d")]);
        assert!(find(&value, ".status.nothing.at").is_empty());
        assert!(find(&value, ".status[").is_empty());
    }
}
