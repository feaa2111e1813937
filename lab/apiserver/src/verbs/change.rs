//! Create and update: what is checked, added and kept when an object is written?

use hyper::Response;
use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::{Call, decode};
use crate::apply::{self, Writer};
use crate::http::{self, Body};
use crate::registry::Resource;
use crate::schema::{check, fill, prune};
use crate::status::{FieldError, Status};
use crate::store::{Key, Object, Transaction};
use crate::{conversion, crd, defaults, meta, validation};
use std::sync::Arc;

/// What a write ended in.
pub enum Outcome {
    Written(Arc<Object>),
    /// The object was equal already.
    Same(Arc<Object>),
    /// The write took the last finalizer away, and the object went.
    Gone(Arc<Object>),
}

impl Outcome {
    pub fn object(&self) -> &Object {
        match self {
            Self::Written(object) | Self::Same(object) | Self::Gone(object) => object,
        }
    }
}

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Main,
    Status,
    /// A namespace's `spec.finalizers`.
    Finalize,
}

/// A body as an object of the call's resource, in the kept version; unknown fields are gone and warned of.
///
/// # Errors
/// If it is another kind, has wrong types, or unknown fields where that is asked to be strict.
pub fn accept(call: &Call, mut object: Value) -> Result<(Value, Vec<String>), Status> {
    let resource = &call.resource;
    if !object.is_object() {
        return Err(Status::bad_request("the request's body is not an object"));
    }
    let given = (meta::text(&object, "/apiVersion").to_owned(), meta::text(&object, "/kind").to_owned());
    if given.1.is_empty() && given.0.is_empty() {
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.as_str().into();
    } else if given != (resource.api_version(), resource.kind.clone()) {
        let message = format!(
            "the API version and kind in the data ({}, {}) do not match the expected ({}, {})",
            given.0,
            given.1,
            resource.api_version(),
            resource.kind
        );
        return Err(Status::bad_request(message));
    }
    let unknown = prune::prune(&resource.schema, &mut object);
    let mut warnings = judge_unknown(call, &unknown)?;
    if resource.collection == crd::COLLECTION {
        warnings.extend(crd::warnings(&object));
    }
    if !resource.custom
        && let Some((path, found, wanted)) = check::first_type_mismatch(&resource.schema, &object, "")
    {
        let (kind, version) = (&resource.kind, &resource.version);
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: json: cannot unmarshal {found} into field {path} of type {wanted}"
        )));
    }
    Ok((conversion::to_stored(resource, object), warnings))
}

fn judge_unknown(call: &Call, unknown: &[String]) -> Result<Vec<String>, Status> {
    let texts: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    match call.query.get("fieldValidation").unwrap_or("Warn") {
        "Ignore" => Ok(Vec::new()),
        "Strict" if !texts.is_empty() => {
            Err(Status::bad_request(format!("strict decoding error: {}", texts.join(", "))))
        }
        "Strict" | "Warn" => Ok(texts),
        other => Err(Status::bad_request(format!("fieldValidation {other:?} is none of Ignore, Warn, Strict"))),
    }
}

pub async fn create(call: &Call, bytes: &Bytes) -> Result<Response<Body>, Status> {
    let (object, warnings) = accept(call, decode(bytes, &call.content_type)?)?;
    let created = call
        .api
        .store
        .transact(|tx| {
            let prepared = prepare_new(call, tx, object)?;
            let tracked = track(call, None, prepared, Part::Main);
            Ok(put_new(call, tx, tracked))
        })
        .await?;
    call.settle();
    let mut response = call.reply(201, &created);
    http::warn(&mut response, &warnings);
    Ok(response)
}

pub fn put_new(call: &Call, tx: &mut Transaction<'_>, object: Value) -> Arc<Object> {
    let key = key_of(&call.resource, &object);
    let written = tx.put(key, object);
    if call.dry_run() {
        tx.discard();
    }
    written
}

pub fn key_of(resource: &Resource, object: &Value) -> Key {
    Key::new(&resource.collection, meta::namespace(object), meta::name(object))
}

pub fn writer<'a>(call: &'a Call, part: Part, now: &'a str) -> Writer<'a> {
    let subresource = if part == Part::Status { "status" } else { "" };
    Writer { manager: call.manager(), api_version: &call.resource.stored_as, subresource, now }
}

fn track(call: &Call, old: Option<&Value>, mut new: Value, part: Part) -> Value {
    let now = meta::seconds(call.now);
    apply::track_update(&call.resource.schema, old, &mut new, &writer(call, part, &now));
    new
}

/// A new object with everything that the server adds, checked.
///
/// # Errors
/// If it may not be created.
pub fn prepare_new(call: &Call, tx: &Transaction<'_>, mut object: Value) -> Result<Value, Status> {
    let resource = &call.resource;
    name_new(call, &mut object)?;
    let name = meta::name(&object).to_owned();
    if resource.namespaced {
        check_namespace(call, tx)?;
    }
    if tx.get(&key_of(resource, &object)).is_some() {
        return Err(Status::already_exists(&resource.group, &resource.plural, &name));
    }
    if !meta::text(&object, "/metadata/resourceVersion").is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let has_generation = has_generation(resource, &object);
    let metadata = meta::metadata(&mut object);
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        metadata.shift_remove(field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), meta::seconds(call.now).into());
    if has_generation {
        metadata.insert("generation".into(), 1.into());
    }
    if resource.status
        && resource.collection != "nodes"
        && let Value::Object(map) = &mut object
    {
        map.shift_remove("status");
    }
    complete(call, tx, None, &mut object)?;
    Ok(object)
}

/// Kinds whose specification's changes are counted.
fn has_generation(resource: &Resource, object: &Value) -> bool {
    resource.custom
        || (resource.group != "rbac.authorization.k8s.io"
            && object.get("spec").is_some()
            && !matches!(
                resource.collection.as_str(),
                "nodes" | "namespaces" | "leases.coordination.k8s.io" | "services"
            ))
}

fn name_new(call: &Call, object: &mut Value) -> Result<(), Status> {
    let resource = &call.resource;
    let metadata = meta::metadata(object);
    if resource.namespaced {
        let namespace = call.namespace().unwrap_or_default();
        match metadata.get("namespace").and_then(Value::as_str) {
            Some(given) if !given.is_empty() && given != namespace => {
                return Err(Status::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            _ => drop(metadata.insert("namespace".into(), namespace.into())),
        }
    } else {
        metadata.shift_remove("namespace");
    }
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if let (false, Some(start)) = (named, metadata.get("generateName").and_then(Value::as_str)) {
        let cut: String = start.chars().take(58).collect();
        let name = format!("{cut}{}", random_suffix());
        metadata.insert("name".into(), name.into());
    }
    if let (Some(in_path), Some(given)) = (&call.target.name, metadata.get("name").and_then(Value::as_str))
        && in_path != given
    {
        let message = format!("the name of the object ({given}) does not match the name on the URL ({in_path})");
        return Err(Status::bad_request(message));
    }
    Ok(())
}

/// Five characters without vowels and without those that look alike.
pub fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}

fn check_namespace(call: &Call, tx: &Transaction<'_>) -> Result<(), Status> {
    let name = call.namespace().filter(|name| !name.is_empty());
    let Some(name) = name else { return Err(Status::bad_request("an empty namespace may not be set during creation")) };
    let namespace =
        tx.get(&Key::new("namespaces", "", name)).ok_or_else(|| Status::not_found("", "namespaces", name))?;
    // Events of what is being deleted may still be told.
    if meta::is_deleting(&namespace.value) && call.resource.collection != "events" {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut status = Status::forbidden(&call.resource.group, &call.resource.plural, call.name(), &why);
        let cause = json!([{"reason": "NamespaceTerminating", "message": format!("namespace {name} is being terminated"), "field": "metadata.namespace"}]);
        status.details.insert("causes".into(), cause);
        return Err(status);
    }
    Ok(())
}

/// Defaults, addresses and checks, for new and changed objects alike.
fn complete(call: &Call, tx: &Transaction<'_>, old: Option<&Value>, object: &mut Value) -> Result<(), Status> {
    let resource = &call.resource;
    fill::fill(&resource.schema, object);
    if !resource.custom {
        defaults::apply(&resource.collection, object, old);
    }
    let mut errors = validation::metadata(resource, object);
    errors.extend(schema_errors(resource, object));
    if errors.is_empty() && !resource.custom {
        errors.extend(validation::content(&resource.collection, object));
    }
    if let Some(old) = old {
        errors.extend(validation::changes(resource, old, object));
    }
    if errors.is_empty() {
        errors.extend(admit(call, tx, old, object)?);
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&resource.group, &resource.kind, meta::name(object), &errors))
}

fn schema_errors(resource: &Resource, object: &Value) -> Vec<FieldError> {
    if resource.custom {
        return check::check(&resource.schema, object);
    }
    // Built-in status is written by components that may leave zero values out.
    let Value::Object(map) = object else { return Vec::new() };
    let without: Map<String, Value> =
        map.iter().filter(|(name, _)| *name != "status").map(|(name, value)| (name.clone(), value.clone())).collect();
    check::check(&resource.schema, &Value::Object(without))
}

/// What depends on other objects.
fn admit(
    call: &Call,
    tx: &Transaction<'_>,
    old: Option<&Value>,
    object: &mut Value,
) -> Result<Vec<FieldError>, Status> {
    match call.resource.collection.as_str() {
        "services" => Ok(call.api.allocation.allocate(tx, old, object)),
        "pods" if old.is_none() => defaults::admit_pod(tx, object).map(|()| Vec::new()),
        crd::COLLECTION => Ok(crd::accept(tx, object, old, call.now)),
        _ => Ok(Vec::new()),
    }
}

pub async fn update(call: &Call, bytes: &Bytes) -> Result<Response<Body>, Status> {
    update_part(call, bytes, Part::Main).await
}

pub async fn update_part(call: &Call, bytes: &Bytes, part: Part) -> Result<Response<Body>, Status> {
    let (object, warnings) = accept(call, decode(bytes, &call.content_type)?)?;
    let given = meta::name(&object);
    if given != call.name() {
        let message = format!("the name of the object ({given}) does not match the name on the URL ({})", call.name());
        return Err(Status::bad_request(message));
    }
    let outcome = call
        .api
        .store
        .transact(|tx| {
            let key = call.key(call.name());
            let Some(old) = tx.get(&key) else {
                if call.resource.collection == "leases.coordination.k8s.io" && part == Part::Main {
                    let prepared = prepare_new(call, tx, object)?;
                    return Ok(Outcome::Written(put_new(call, tx, prepared)));
                }
                return Err(call.not_found(call.name()));
            };
            if call.resource.custom && meta::text(&object, "/metadata/resourceVersion").is_empty() {
                let error =
                    FieldError::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
                return Err(Status::invalid(&call.resource.group, &call.resource.kind, call.name(), &[error]));
            }
            write_changed(call, tx, &old, object, part, true)
        })
        .await?;
    call.settle();
    let mut response = call.reply(200, outcome.object());
    http::warn(&mut response, &warnings);
    Ok(response)
}

/// Writes the part of `new` that this request may change.
///
/// # Errors
/// If versions conflict or the result is not valid.
pub fn write_changed(
    call: &Call,
    tx: &mut Transaction<'_>,
    old: &Arc<Object>,
    new: Value,
    part: Part,
    track_fields: bool,
) -> Result<Outcome, Status> {
    let resource = &call.resource;
    check_preconditions(call, old, &new)?;
    let mut object = combine(resource, &old.value, new, part);
    keep_system_fields(&old.value, &mut object);
    // Status of built-in kinds is written by components that know what they do.
    if part == Part::Main || resource.custom {
        complete(call, tx, Some(&old.value), &mut object)?;
    }
    bump_generation(resource, &old.value, &mut object);
    if track_fields {
        object = track(call, Some(&old.value), object, part);
    }
    if same_but_times(&old.value, &object) {
        return Ok(Outcome::Same(old.clone()));
    }
    let key = key_of(resource, &object);
    if is_finished(resource, &object) && !call.dry_run() {
        let last = Arc::new(Object::new(object, old.rv));
        tx.delete(&key);
        return Ok(Outcome::Gone(last));
    }
    Ok(Outcome::Written(put_new(call, tx, object)))
}

fn check_preconditions(call: &Call, old: &Object, new: &Value) -> Result<(), Status> {
    let resource = &call.resource;
    let version = meta::text(new, "/metadata/resourceVersion");
    if !version.is_empty() && version != "0" && version != old.rv.to_string() {
        return Err(Status::modified(&resource.group, &resource.plural, call.name()));
    }
    let (given, uid) = (meta::uid(new), meta::uid(&old.value));
    if !given.is_empty() && given != uid {
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
        return Err(Status::conflict(&resource.group, &resource.plural, call.name(), &why));
    }
    Ok(())
}

/// The old object with the part from the new one.
fn combine(resource: &Resource, old: &Value, mut new: Value, part: Part) -> Value {
    match part {
        Part::Main => {
            if resource.status
                && let Value::Object(map) = &mut new
            {
                match old.get("status") {
                    Some(status) => drop(map.insert("status".into(), status.clone())),
                    None => drop(map.shift_remove("status")),
                }
            }
            if resource.collection == "namespaces"
                && let Some(spec) = old.get("spec")
            {
                new["spec"] = spec.clone();
            }
            new
        }
        Part::Status => {
            let mut object = old.clone();
            object["status"] = new.get("status").cloned().unwrap_or_else(|| json!({}));
            let copied: &[&str] =
                if resource.custom { &["managedFields"] } else { &["managedFields", "labels", "annotations"] };
            for field in copied {
                let metadata = meta::metadata(&mut object);
                match new.pointer(&format!("/metadata/{field}")) {
                    Some(value) => drop(metadata.insert((*field).to_owned(), value.clone())),
                    None => drop(metadata.shift_remove(*field)),
                }
            }
            object
        }
        Part::Finalize => {
            let mut object = old.clone();
            let finalizers = new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
            meta::child(&mut object, "spec").insert("finalizers".into(), finalizers);
            object
        }
    }
}

fn keep_system_fields(old: &Value, new: &mut Value) {
    let metadata = meta::metadata(new);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "name",
        "namespace",
        "generateName",
        "resourceVersion",
    ] {
        match old["metadata"].get(field) {
            Some(value) => drop(metadata.insert(field.to_owned(), value.clone())),
            None => drop(metadata.shift_remove(field)),
        }
    }
}

fn bump_generation(resource: &Resource, old: &Value, new: &mut Value) {
    let Some(generation) = old.pointer("/metadata/generation").and_then(Value::as_i64) else { return };
    let content = |object: &Value| -> Map<String, Value> {
        let all = object.as_object().into_iter().flatten();
        let skipped = |name: &str| name == "metadata" || (name == "status" && resource.status);
        all.filter(|(name, _)| !skipped(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    if content(old) != content(new) {
        meta::metadata(new).insert("generation".into(), (generation + 1).into());
    }
}

/// Equal apart from version and the times of field owners.
fn same_but_times(old: &Value, new: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        meta::metadata(&mut object).shift_remove("resourceVersion");
        for entry in object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(map) = entry {
                map.shift_remove("time");
            }
        }
        object
    };
    strip(old) == strip(new)
}

/// Deletion was asked for, and nobody holds the object any more.
pub fn is_finished(resource: &Resource, object: &Value) -> bool {
    let held = meta::finalizers(object).next().is_some()
        || (resource.collection == "namespaces" && !meta::list(object, "/spec/finalizers").is_empty());
    let waits = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) > 0;
    meta::is_deleting(object) && !held && !waits
}
