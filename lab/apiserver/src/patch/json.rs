//! What does a JSON patch (RFC 6902) make of a value?

use serde_json::Value;

/// Applies all operations, or none.
///
/// # Errors
/// Which operation could not be applied, and why.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), String> {
    let operations = patch.as_array().ok_or("a JSON patch is a list of operations")?;
    let mut result = target.clone();
    for operation in operations {
        step(&mut result, operation)
            .map_err(|why| format!("the server rejected our request due to an error in our request: {why}"))?;
    }
    *target = result;
    Ok(())
}

fn step(target: &mut Value, operation: &Value) -> Result<(), String> {
    let text = |name: &str| operation[name].as_str().ok_or_else(|| format!("operation without {name}: {operation}"));
    let value = || operation.get("value").cloned().ok_or_else(|| format!("operation without value: {operation}"));
    let path = text("path")?;
    match text("op")? {
        "add" => add(target, path, value()?),
        "replace" => {
            let slot = target
                .pointer_mut(path)
                .ok_or_else(|| format!("replace operation does not apply: doc is missing path: {path}"))?;
            *slot = value()?;
            Ok(())
        }
        "remove" => remove(target, path).map(drop),
        "move" => {
            let moved = remove(target, text("from")?)?;
            add(target, path, moved)
        }
        "copy" => {
            let from = text("from")?;
            let copy = target.pointer(from).cloned().ok_or_else(|| format!("copy from a missing path: {from}"))?;
            add(target, path, copy)
        }
        "test" => {
            let wanted = operation.get("value").cloned().unwrap_or(Value::Null);
            let found = target.pointer(path).cloned().unwrap_or(Value::Null);
            if found == wanted { Ok(()) } else { Err(format!("testing value {path} failed")) }
        }
        other => Err(format!("unknown operation {other:?}")),
    }
}

fn split(path: &str) -> Result<(&str, String), String> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| format!("{path:?} is not a path"))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn index(text: &str, length: usize) -> Result<usize, String> {
    let index: usize = text.parse().map_err(|_| format!("{text:?} is not an index"))?;
    if index < length { Ok(index) } else { Err(format!("index {index} is outside of {length} items")) }
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(last, value);
            Ok(())
        }
        Some(Value::Array(items)) => {
            let at = if last == "-" { items.len() } else { index(&last, items.len() + 1)? };
            items.insert(at, value);
            Ok(())
        }
        _ => Err(format!("add operation does not apply: doc is missing path: {path:?}: missing value")),
    }
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, last) = split(path)?;
    let missing = || format!("remove operation does not apply: doc is missing path: {path}: missing value");
    match target.pointer_mut(parent) {
        Some(Value::Object(map)) => map.shift_remove(&last).ok_or_else(missing),
        Some(Value::Array(items)) => {
            let at = index(&last, items.len())?;
            Ok(items.remove(at))
        }
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn operations_apply_in_order() {
        let mut value = json!({"a": {"b/c": 1}, "l": [1, 2]});
        let patch = json!([
            {"op": "test", "path": "/a/b~1c", "value": 1},
            {"op": "add", "path": "/l/1", "value": 9},
            {"op": "add", "path": "/l/-", "value": 3},
            {"op": "move", "from": "/a/b~1c", "path": "/d"},
            {"op": "replace", "path": "/a", "value": {}},
            {"op": "remove", "path": "/l/0"}]);
        apply(&mut value, &patch).unwrap();
        assert_eq!(value, json!({"a": {}, "l": [9, 2, 3], "d": 1}));
    }

    #[test]
    fn a_failed_operation_leaves_the_value() {
        let mut value = json!({"a": 1});
        let patch = json!([{"op": "add", "path": "/b", "value": 1}, {"op": "remove", "path": "/x"}]);
        assert!(apply(&mut value, &patch).unwrap_err().contains("missing path: /x"));
        assert_eq!(value, json!({"a": 1}));
    }
}
