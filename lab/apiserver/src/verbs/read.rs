//! Get and list.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hyper::Response;
use serde_json::{Value, json};

use super::Call;
use crate::http::{self, Body};
use crate::meta;
use crate::render::{self, Page};
use crate::selector::{Fields, Labels};
use crate::status::Status;
use crate::store::Object;

/// Both selectors of a list or watch.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub labels: Labels,
    pub fields: Fields,
    /// The one object that a watch by path is about.
    pub name: Option<String>,
}

impl Selection {
    /// # Errors
    /// If a selector is not understood.
    pub fn of(call: &Call) -> Result<Self, Status> {
        Ok(Self {
            labels: Labels::parse(call.query.get("labelSelector").unwrap_or_default())?,
            fields: Fields::parse(call.query.get("fieldSelector").unwrap_or_default(), &call.resource.collection)?,
            name: call.target.name.clone(),
        })
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.name.as_deref().is_none_or(|name| meta::name(object) == name)
            && self.labels.matches(object)
            && self.fields.matches(object)
    }
}

pub fn get(call: &Call) -> Result<Response<Body>, Status> {
    Ok(call.reply(200, &*call.current()?))
}

/// Objects that are selected and the version of this view.
pub fn selected(call: &Call, selection: &Selection) -> (Vec<Arc<Object>>, u64) {
    if let (Some(name), Some(_)) = (selection.fields.exact_name(), call.namespace()) {
        let (found, version) = (call.api.store.get(&call.key(name)), call.api.store.resource_version());
        return (found.into_iter().filter(|object| selection.matches(&object.value)).collect(), version);
    }
    let (mut objects, version) = call.api.store.list(&call.resource.collection, call.namespace());
    objects.retain(|object| selection.matches(&object.value));
    (objects, version)
}

pub fn list(call: &Call) -> Result<Response<Body>, Status> {
    let (mut objects, mut version) = selected(call, &Selection::of(call)?);
    let limit = call.query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    if let Some(token) = call.query.get("continue") {
        let (begun, after) = read_token(token)?;
        // Who watches from the first page's version sees what changed in between; that must still be known.
        call.api.store.events(&call.resource.collection, begun)?;
        version = begun;
        objects.retain(|object| place(object) > after);
    }
    let mut next = None;
    if let Some(limit) = limit.filter(|limit| objects.len() > *limit) {
        let remaining = objects.len() - limit;
        objects.truncate(limit);
        next = objects.last().map(|last| (write_token(version, &place(last)), remaining));
    }
    let page = Page { objects: &objects, version: version.to_string(), next };
    Ok(http::respond(200, "application/json", render::list(&call.resource, &page, call.form, call.include())))
}

type Place = (String, String);

fn place(object: &Object) -> Place {
    (meta::namespace(&object.value).to_owned(), meta::name(&object.value).to_owned())
}

fn write_token(version: u64, (namespace, name): &Place) -> String {
    BASE64.encode(json!({"rv": version, "ns": namespace, "name": name}).to_string())
}

fn read_token(token: &str) -> Result<(u64, Place), Status> {
    let read = || -> Option<(u64, Place)> {
        let value: Value = serde_json::from_slice(&BASE64.decode(token).ok()?).ok()?;
        Some((value["rv"].as_u64()?, (value["ns"].as_str()?.to_owned(), value["name"].as_str()?.to_owned())))
    };
    read().ok_or_else(|| Status::bad_request(format!("continue key is not valid: {token:?}")))
}
