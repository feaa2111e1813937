//! Which defaults does a schema put into a value?

use serde_json::Value;

use super::Schema;

/// Adds declared defaults where fields are absent, or null where null is not allowed.
pub fn fill(schema: &Schema, value: &mut Value) {
    let schema = schema.resolve();
    match value {
        Value::Object(map) => {
            for (name, field) in &schema.properties {
                let Some(default) = &field.default else { continue };
                let absent = map.get(name).is_none_or(|old| old.is_null() && !field.nullable);
                if absent {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, inner) in map.iter_mut() {
                if let Some(field) = schema.properties.get(name).or(schema.additional.as_deref()) {
                    fill(field, inner);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = &schema.items {
                items.iter_mut().for_each(|inner| fill(item, inner));
            }
        }
        _ => {}
    }
}
