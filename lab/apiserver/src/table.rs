//! What does a printed table show of an object: the columns and cells of the real servers?

mod core;
mod jsonpath;
mod network;
mod pods;
mod workloads;

use serde_json::{Value, json};

use crate::meta;
use crate::registry::Resource;

/// A column: name, type, priority (0 is always shown, 1 with `-o wide`).
type Column = (&'static str, &'static str, i64);

const NAME: Column = ("Name", "string", 0);
const AGE: Column = ("Age", "string", 0);

/// The columns of a collection; kinds without a layout of their own show name and age.
fn layout(collection: &str) -> &'static [Column] {
    core::layout(collection)
        .or_else(|| pods::layout(collection))
        .or_else(|| workloads::layout(collection))
        .or_else(|| network::layout(collection))
        .unwrap_or(&[NAME, ("Created At", "date", 0)])
}

/// `columnDefinitions` of a table.
pub fn columns(resource: &Resource) -> Value {
    let definition = |name: &str, kind: &str, format: &str, description: &str, priority: i64| {
        let format = if name == "Name" { "name" } else { format };
        json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
    };
    if let Some(columns) = &resource.columns {
        let name = definition("Name", "string", "name", "Name of the object, unique among its kind and namespace", 0);
        let others =
            columns.iter().map(|one| definition(&one.name, &one.kind, &one.format, &one.description, one.priority));
        return std::iter::once(name).chain(others).collect();
    }
    let all = layout(&resource.collection).iter();
    all.map(|(name, kind, priority)| definition(name, kind, "", &format!("{name} of the {}", resource.kind), *priority))
        .collect()
}

/// The cells of one object.
pub fn cells(resource: &Resource, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    if let Some(columns) = &resource.columns {
        let name = json!(meta::name(object));
        return std::iter::once(name).chain(columns.iter().map(|column| custom(column, object, now))).collect();
    }
    let collection = resource.collection.as_str();
    core::cells(collection, object, now)
        .or_else(|| pods::cells(collection, object, now))
        .or_else(|| workloads::cells(collection, object, now))
        .or_else(|| network::cells(collection, object, now))
        .unwrap_or_else(|| vec![json!(meta::name(object)), object["metadata"]["creationTimestamp"].clone()])
}

fn custom(column: &crate::registry::Column, object: &Value, now: jiff::Timestamp) -> Value {
    let found = jsonpath::find(object, &column.path);
    let Some(first) = found.first() else { return Value::Null };
    match column.kind.as_str() {
        "date" => first.as_str().map_or(Value::Null, |text| json!(since(text, now))),
        "integer" | "number" | "boolean" => (*first).clone(),
        _ => {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            json!(found.iter().map(|value| text(value)).collect::<Vec<_>>().join(","))
        }
    }
}

/// Pods that have ended are marked, so that clients can leave them out.
pub fn row_conditions(resource: &Resource, object: &Value) -> Value {
    if resource.collection != "pods" {
        return Value::Null;
    }
    match meta::text(object, "/status/phase") {
        phase @ ("Succeeded" | "Failed") => json!([{
            "type": "Completed", "status": "True", "reason": phase,
            "message": if phase == "Succeeded" { "The pod has completed successfully." } else { "The pod failed." },
        }]),
        _ => Value::Null,
    }
}

/// How long ago that was, or `<unknown>`.
fn since(text: &str, now: jiff::Timestamp) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(then) => duration(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

fn age(object: &Value, now: jiff::Timestamp) -> Value {
    json!(since(meta::text(object, "/metadata/creationTimestamp"), now))
}

/// A duration with as much precision as people read: `47s`, `3m10s`, `11m`, `2d3h`, `19h`, `4d14h`, `40d`.
pub fn duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A label selector on one line.
fn selector(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).map_or_else(|| "<none>".to_owned(), |found| or_none(crate::selector::to_text(found)))
}

/// Names and images of a pod template's containers.
fn containers(object: &Value) -> (String, String) {
    let all = meta::list(object, "/spec/template/spec/containers");
    let join = |field: &str| all.iter().filter_map(|one| one[field].as_str()).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_as_precise_as_people_read_them() {
        let expected = [
            (47, "47s"),
            (119, "119s"),
            (120, "2m"),
            (560, "9m20s"),
            (660, "11m"),
            (3960, "66m"),
            (10_800, "3h"),
            (11_160, "3h6m"),
            (68_400, "19h"),
            (396_000, "4d14h"),
            (691_200, "8d"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ];
        for (seconds, text) in expected {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_table_has_columns() {
        for resource in crate::kinds::builtin().into_iter().filter(Resource::is_stored) {
            let cells = cells(&resource, &json!({"metadata": {"name": "x"}}), jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), columns(&resource).as_array().map_or(0, Vec::len), "{}", resource.collection);
            assert_eq!(cells.len(), layout(&resource.collection).len());
        }
    }
}
