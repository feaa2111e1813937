//! Which object do the bytes of a protobuf body hold? Built-in kinds only, as clients with generated types send them.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::{Schema, Type, builtin};

/// How every body in this form begins.
const MAGIC: &[u8] = b"k8s\0";
/// Nesting that no built-in type reaches.
const DEEPEST: usize = 40;

/// A value on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads a body: an envelope with the type's name around the object.
///
/// # Errors
/// What is broken or unknown in it.
pub fn decode(body: &[u8]) -> Result<Value, String> {
    let envelope = body.strip_prefix(MAGIC).ok_or("it does not begin with the mark of this form")?;
    let (mut kind, mut version, mut raw) = (String::new(), String::new(), &[][..]);
    for (number, value) in fields(envelope)? {
        match (number, value) {
            (1, Wire::Bytes(inner)) => {
                for (number, value) in fields(inner)? {
                    match (number, value) {
                        (1, Wire::Bytes(text)) => version = string(text)?,
                        (2, Wire::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(inner)) => raw = inner,
            _ => {}
        }
    }
    let schema = find(&version, &kind).ok_or_else(|| format!("{version} {kind} is not known in this form; JSON is"))?;
    let mut object = message(schema, raw, 0)?;
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".into(), version.into());
        map.insert("kind".into(), kind.into());
    }
    Ok(object)
}

/// The type of a kind: the groups' names have no domains in it.
fn find(api_version: &str, kind: &str) -> Option<&'static Schema> {
    let (group, version) = crate::meta::split_api_version(api_version);
    let group = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
    builtin::find(&format!("api.{group}.{version}.{kind}"))
        .or_else(|| builtin::find(&format!("apimachinery.pkg.apis.meta.v1.{kind}")))
}

fn varint(data: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = data.split_first().ok_or("it ends in a number")?;
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is too long".to_owned())
}

fn take<'a>(data: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let taken = data.get(..length).ok_or("it ends in a field")?;
    *data = &data[length..];
    Ok(taken)
}

/// Numbers and values of a message.
fn fields(mut data: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, String> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let tag = varint(&mut data)?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field's number is too large")?;
        let value = match tag & 7 {
            0 => Wire::Number(varint(&mut data)?),
            1 => Wire::Number(u64::from_le_bytes(take(&mut data, 8)?.try_into().map_err(|_| "eight bytes")?)),
            2 => {
                let length = usize::try_from(varint(&mut data)?).map_err(|_| "a field is too long")?;
                Wire::Bytes(take(&mut data, length)?)
            }
            5 => Wire::Number(u64::from(u32::from_le_bytes(take(&mut data, 4)?.try_into().map_err(|_| "four bytes")?))),
            other => return Err(format!("{other} is no wire type")),
        };
        found.push((number, value));
    }
    Ok(found)
}

fn string(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8".to_owned())
}

fn message(schema: &Schema, data: &[u8], depth: usize) -> Result<Value, String> {
    let mut object = Map::new();
    read_into(schema.resolve(), data, &[], &mut object, depth)?;
    Ok(Value::Object(object))
}

/// Reads the fields of a message; those that are one object in JSON may be nested messages here.
fn read_into(
    schema: &Schema,
    data: &[u8],
    outer: &[u32],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".to_owned());
    }
    for (number, value) in fields(data)? {
        let path = [outer, &[number]].concat();
        let field = schema.properties.iter().find(|(_, field)| field.wire == path);
        if let Some((name, field)) = field {
            add(name, field, value, object, depth)?;
        } else if let Wire::Bytes(inner) = value
            && schema.properties.values().any(|field| field.wire.len() > path.len() && field.wire.starts_with(&path))
        {
            read_into(schema, inner, &path, object, depth + 1)?;
        }
    }
    Ok(())
}

fn add(
    name: &str,
    field: &Schema,
    value: Wire<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if let (Type::Array, Some(item)) = (field.kind, &field.items) {
        let list = object.entry(name).or_insert_with(|| json!([]));
        if let (Value::Array(items), Some(value)) = (list, one(item, value, true, depth)?) {
            items.push(value);
        }
        return Ok(());
    }
    if let (Some(additional), Wire::Bytes(entry)) = (&field.additional, value) {
        let map = object.entry(name).or_insert_with(|| json!({}));
        let (mut key, mut inner) = (String::new(), None);
        for (number, value) in fields(entry)? {
            match (number, value) {
                (1, Wire::Bytes(text)) => key = string(text)?,
                (2, value) => inner = one(additional, value, true, depth)?,
                _ => {}
            }
        }
        if let Value::Object(map) = map {
            map.insert(key, inner.unwrap_or_else(|| json!("")));
        }
        return Ok(());
    }
    if let Some(value) = one(field, value, field.pointer, depth)? {
        object.insert(name.to_owned(), value);
    }
    Ok(())
}

/// A single value; zero is nothing unless `keep`.
fn one(schema: &Schema, value: Wire<'_>, keep: bool, depth: usize) -> Result<Option<Value>, String> {
    if schema.reference.is_some() {
        let Wire::Bytes(data) = value else { return Err("a message was expected".to_owned()) };
        let inner = message(schema, data, depth + 1)?;
        let empty = inner.as_object().is_some_and(Map::is_empty);
        return Ok((keep || !empty).then_some(inner));
    }
    let found = match (schema.kind, value) {
        (Type::Boolean, Wire::Number(number)) => (keep || number != 0).then(|| json!(number != 0)),
        (Type::Integer, Wire::Number(number)) => (keep || number != 0).then(|| json!(number.cast_signed())),
        (Type::Number, Wire::Number(number)) => Some(json!(f64::from_bits(number))),
        (Type::String, Wire::Bytes(data)) if schema.format == "date-time" => time(data)?,
        (Type::String, Wire::Bytes(data)) if schema.format == "byte" => {
            (keep || !data.is_empty()).then(|| json!(base64::engine::general_purpose::STANDARD.encode(data)))
        }
        (Type::String, Wire::Bytes(data)) => (keep || !data.is_empty()).then_some(json!(string(data)?)),
        (Type::IntOrString, Wire::Bytes(data)) => int_or_string(data)?.filter(|value| keep || *value != json!(0)),
        (Type::Object | Type::Any, Wire::Bytes(data)) => raw(data)?,
        (Type::Array, Wire::Bytes(data)) => {
            // A list as a map's value is a message of its own.
            let items = fields(data)?.into_iter().filter_map(|(_, value)| match value {
                Wire::Bytes(text) => string(text).ok().map(Value::String),
                Wire::Number(_) => None,
            });
            Some(Value::Array(items.collect()))
        }
        _ => return Err(format!("a field is not of type {}", schema.kind.name())),
    };
    Ok(found)
}

fn time(data: &[u8]) -> Result<Option<Value>, String> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for (number, value) in fields(data)? {
        match (number, value) {
            (1, Wire::Number(number)) => seconds = number.cast_signed(),
            (2, Wire::Number(number)) => nanos = number.cast_signed(),
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(None);
    }
    let time = jiff::Timestamp::new(seconds, i32::try_from(nanos).unwrap_or(0)).map_err(|error| error.to_string())?;
    Ok(Some(json!(if nanos == 0 {
        crate::meta::seconds(time)
    } else {
        time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    })))
}

/// Quantities are a text in field 1; numbers or texts say in field 1 which of fields 2 and 3 counts.
fn int_or_string(data: &[u8]) -> Result<Option<Value>, String> {
    let (mut text_kind, mut number, mut text, mut quantity) = (false, 0, None, None);
    for (place, value) in fields(data)? {
        match (place, value) {
            (1, Wire::Number(kind)) => text_kind = kind == 1,
            (1, Wire::Bytes(bytes)) => quantity = Some(string(bytes)?),
            (2, Wire::Number(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => text = Some(string(bytes)?),
            _ => {}
        }
    }
    Ok(Some(match (quantity, text) {
        (Some(quantity), _) => json!(quantity),
        (None, Some(text)) if text_kind => json!(text),
        _ => json!(number),
    }))
}

/// JSON inside of protobuf.
fn raw(data: &[u8]) -> Result<Option<Value>, String> {
    for (number, value) in fields(data)? {
        if let (1, Wire::Bytes(bytes)) = (number, value) {
            return serde_json::from_slice(bytes).map(Some).map_err(|error| error.to_string());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn config_map() -> Vec<u8> {
        let kind = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        let metadata = [field(1, b"name"), field(2, b"")].concat();
        let entry = [field(1, b"key"), field(2, b"value")].concat();
        let object = [field(1, &metadata), field(2, &entry)].concat();
        [MAGIC.to_vec(), field(1, &kind), field(2, &object)].concat()
    }

    #[test]
    fn a_body_is_read_by_field_numbers() {
        let expected =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "name"}, "data": {"key": "value"}});
        assert_eq!(decode(&config_map()).unwrap(), expected);
    }

    #[test]
    fn cut_and_changed_bodies_never_panic() {
        let body = config_map();
        for length in 0..body.len() {
            let _ = decode(&body[..length]);
        }
        for place in 0..body.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut changed = body.clone();
                changed[place] = value;
                let _ = decode(&changed);
            }
        }
    }
}
