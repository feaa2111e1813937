//! In which form does the client want objects: whole, as a printed table, or only their metadata?

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::conversion;
use crate::registry::Resource;
use crate::status::Status;
use crate::store::Object;
use crate::table;

/// A form of objects in responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Whole,
    Table,
    Metadata,
}

/// What table rows carry besides their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("None") => Self::None,
            Some("Object") => Self::Object,
            _ => Self::Metadata,
        }
    }
}

const ACCEPTED: &str = "application/json, application/yaml";

/// The first form in `Accept` that can be had.
///
/// # Errors
/// If there is none.
pub fn negotiate(accept: &str) -> Result<Form, Status> {
    if accept.trim().is_empty() {
        return Ok(Form::Whole);
    }
    for one in accept.split(',') {
        let mut parts = one.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "*/*" | "application/*")) {
            continue;
        }
        let parameters: Vec<&str> = parts.collect();
        match parameters.iter().find_map(|part| part.strip_prefix("as=")) {
            None => return Ok(Form::Whole),
            Some("Table") => return Ok(Form::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Form::Metadata),
            Some(_) => {}
        }
    }
    Err(Status::not_acceptable(ACCEPTED))
}

fn metadata_only(value: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": value.get("metadata").cloned().unwrap_or_default(),
    })
}

/// One object.
pub fn object(resource: &Resource, object: &Object, form: Form, include: Include) -> Bytes {
    match form {
        Form::Whole => conversion::present(resource, object),
        Form::Metadata => Bytes::from(metadata_only(&object.value).to_string()),
        Form::Table => {
            let row = table_row(resource, object, include);
            Bytes::from(table_of(resource, vec![row], &object.rv.to_string(), None, true).to_string())
        }
    }
}

fn table_row(resource: &Resource, object: &Object, include: Include) -> Value {
    let mut row = json!({"cells": table::cells(resource, &object.value, jiff::Timestamp::now())});
    let conditions = table::row_conditions(resource, &object.value);
    if !conditions.is_null() {
        row["conditions"] = conditions;
    }
    match include {
        Include::None => {}
        Include::Metadata => row["object"] = metadata_only(&object.value),
        Include::Object => row["object"] = conversion::present_value(resource, &object.value),
    }
    row
}

fn table_of(resource: &Resource, rows: Vec<Value>, version: &str, next: Option<(&str, usize)>, columns: bool) -> Value {
    let mut metadata = json!({"resourceVersion": version});
    if let Some((token, remaining)) = next {
        metadata["continue"] = token.into();
        metadata["remainingItemCount"] = remaining.into();
    }
    let columns = if columns { table::columns(resource) } else { Value::Null };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

/// A list and where it goes on.
pub struct Page<'a> {
    pub objects: &'a [std::sync::Arc<Object>],
    pub version: String,
    /// Token for the rest, and how many objects that is.
    pub next: Option<(String, usize)>,
}

/// A list of objects.
pub fn list(resource: &Resource, page: &Page<'_>, form: Form, include: Include) -> Bytes {
    let next = page.next.as_ref().map(|(token, remaining)| (token.as_str(), *remaining));
    if form == Form::Table {
        let rows = page.objects.iter().map(|object| table_row(resource, object, include)).collect();
        return Bytes::from(table_of(resource, rows, &page.version, next, true).to_string());
    }
    let mut metadata = json!({"resourceVersion": page.version});
    if let Some((token, remaining)) = next {
        metadata["continue"] = token.into();
        metadata["remainingItemCount"] = remaining.into();
    }
    let (kind, version) = match form {
        Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        _ => (resource.list_kind.clone(), resource.api_version()),
    };
    // Objects are kept as text, so a list is mostly a concatenation.
    let mut out = Vec::with_capacity(256 + page.objects.len() * 1024);
    out.extend_from_slice(
        format!("{{\"kind\":{kind:?},\"apiVersion\":{version:?},\"metadata\":{metadata},\"items\":[").as_bytes(),
    );
    for (index, object) in page.objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match form {
            Form::Metadata => out.extend_from_slice(metadata_only(&object.value).to_string().as_bytes()),
            _ => out.extend_from_slice(&conversion::present(resource, object)),
        }
    }
    out.extend_from_slice(b"]}\n");
    Bytes::from(out)
}

/// One event of a watch, as a line.
pub fn event(kind: &str, resource: &Resource, object: &Object, form: Form, include: Include, first: bool) -> Bytes {
    let inner = match form {
        Form::Table => {
            let row = table_row(resource, object, include);
            Bytes::from(table_of(resource, vec![row], &object.rv.to_string(), None, first).to_string())
        }
        _ => self::object(resource, object, form, include),
    };
    let mut line = Vec::with_capacity(inner.len() + 40);
    line.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
    line.extend_from_slice(&inner);
    line.extend_from_slice(b"}\n");
    Bytes::from(line)
}

/// A bookmark: nothing happened, up to this version.
pub fn bookmark(resource: &Resource, version: u64, form: Form, initial_end: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = match form {
        Form::Table => {
            let holder = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
            json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version.to_string()},
                "columnDefinitions": table::columns(resource), "rows": [{"cells": [], "object": holder}],
            })
        }
        Form::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
        }
        Form::Whole => json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata}),
    };
    Bytes::from(format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_form_that_can_be_had_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(kubectl).unwrap(), Form::Table);
        assert_eq!(negotiate("application/vnd.kubernetes.protobuf,application/json").unwrap(), Form::Whole);
        assert_eq!(
            negotiate("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").unwrap(),
            Form::Metadata
        );
        assert_eq!(negotiate("").unwrap(), Form::Whole);
        assert_eq!(negotiate("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
    }
}
