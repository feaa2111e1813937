//! The OpenAPI 2 document in the protobuf form that older clients ask for.

use serde_json::{Map, Value};

/// Writes messages field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str).filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn number(&mut self, field: u32, value: Option<&Value>) {
        if let Some(number) = value.and_then(Value::as_u64) {
            self.varint(u64::from(field) << 3);
            self.varint(number);
        }
    }

    fn double(&mut self, field: u32, value: Option<&Value>) {
        if let Some(number) = value.and_then(Value::as_f64) {
            self.varint(u64::from(field) << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, field: u32, inner: Self) {
        self.bytes(field, &inner.0);
    }
}

/// A map entry: name and value.
fn named(name: &str, value: Message) -> Message {
    let mut entry = Message::default();
    entry.bytes(1, name.as_bytes());
    entry.message(2, value);
    entry
}

/// A value of any form travels as YAML text, of which JSON is a part.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(2, value.to_string().as_bytes());
    message
}

fn extensions(message: &mut Message, field: u32, map: &Map<String, Value>) {
    for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
        message.message(field, named(name, any(value)));
    }
}

/// The whole document.
pub fn document(value: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, value.get("swagger"));
    let mut info = Message::default();
    info.text(1, value.pointer("/info/title"));
    info.text(2, value.pointer("/info/version"));
    message.message(2, info);
    let mut paths = Message::default();
    for (path, item) in value["paths"].as_object().into_iter().flatten() {
        paths.message(2, named(path, path_item(item)));
    }
    message.message(8, paths);
    let mut definitions = Message::default();
    for (name, inner) in value["definitions"].as_object().into_iter().flatten() {
        definitions.message(1, named(name, schema(inner)));
    }
    message.message(9, definitions);
    message.0
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(found) = item.get(method).and_then(Value::as_object) {
            message.message(field, operation(found));
        }
    }
    message
}

fn operation(value: &Map<String, Value>) -> Message {
    let mut message = Message::default();
    for parameter in value.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        // Nested as ParametersItem, Parameter, NonBodyParameter, QueryParameterSubSchema.
        let mut inner = Message::default();
        inner.text(2, parameter.get("in"));
        inner.text(4, parameter.get("name"));
        inner.text(6, parameter.get("type"));
        for field in [3, 2, 1] {
            let mut outer = Message::default();
            outer.message(field, inner);
            inner = outer;
        }
        message.message(8, inner);
    }
    let mut description = Message::default();
    description.bytes(1, b"OK");
    let mut response = Message::default();
    response.message(1, description);
    let mut responses = Message::default();
    responses.message(1, named("200", response));
    message.message(9, responses);
    extensions(&mut message, 13, value);
    message
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default();
    let Value::Object(map) = value else { return message };
    message.text(1, map.get("$ref"));
    message.text(2, map.get("format"));
    message.text(4, map.get("description"));
    message.double(7, map.get("maximum"));
    message.double(9, map.get("minimum"));
    message.number(11, map.get("maxLength"));
    message.number(12, map.get("minLength"));
    message.text(13, map.get("pattern"));
    message.number(14, map.get("maxItems"));
    message.number(15, map.get("minItems"));
    for name in map.get("required").and_then(Value::as_array).into_iter().flatten() {
        message.text(19, Some(name));
    }
    for one in map.get("enum").and_then(Value::as_array).into_iter().flatten() {
        message.message(20, any(one));
    }
    if let Some(additional) = map.get("additionalProperties").filter(|inner| inner.is_object()) {
        let mut item = Message::default();
        item.message(1, schema(additional));
        message.message(21, item);
    }
    if let Some(kind) = map.get("type") {
        let mut item = Message::default();
        item.text(1, Some(kind));
        message.message(22, item);
    }
    if let Some(items) = map.get("items") {
        let mut item = Message::default();
        item.message(1, schema(items));
        message.message(23, item);
    }
    for inner in map.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        message.message(24, schema(inner));
    }
    if let Some(fields) = map.get("properties").and_then(Value::as_object) {
        let mut properties = Message::default();
        for (name, field) in fields {
            properties.message(1, named(name, schema(field)));
        }
        message.message(25, properties);
    }
    extensions(&mut message, 31, map);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_is_written_field_by_field() {
        let written = schema(&json!({"type": "string", "format": "byte"})).0;
        assert_eq!(written, [0x12, 4, b'b', b'y', b't', b'e', 0xb2, 1, 8, 0x0a, 6, b's', b't', b'r', b'i', b'n', b'g']);
    }
}
