//! Delete: at once, after a grace period, or when finalizers are done?

use std::sync::Arc;

use hyper::Response;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::change::{is_finished, key_of};
use super::read::{Selection, selected};
use super::{Call, decode};
use crate::http::{self, Body};
use crate::registry::Resource;
use crate::status::Status;
use crate::store::{Object, Transaction};
use crate::{crd, gc, meta};

/// What the client says about a deletion.
#[derive(Clone, Debug, Default)]
pub struct Options {
    grace: Option<i64>,
    policy: Option<String>,
    uid: Option<String>,
    version: Option<String>,
    pub dry_run: bool,
}

impl Options {
    pub fn with_grace(grace: Option<i64>, dry_run: bool) -> Self {
        Self { grace, dry_run, ..Self::default() }
    }

    fn read(call: &Call, bytes: &Bytes) -> Result<Self, Status> {
        let body = if bytes.is_empty() { Value::Null } else { decode(bytes, &call.content_type)? };
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let grace = match call.query.get("gracePeriodSeconds") {
            Some(text) => Some(
                text.parse()
                    .map_err(|_| Status::bad_request(format!("gracePeriodSeconds is {text:?}, not a number")))?,
            ),
            None => body["gracePeriodSeconds"].as_i64(),
        };
        let orphan =
            body["orphanDependents"].as_bool().or(call.query.get("orphanDependents").map(|text| text == "true"));
        let policy = call.query.get("propagationPolicy").map(str::to_owned).or_else(|| text("/propagationPolicy"));
        let policy = policy.or(orphan.filter(|orphan| *orphan).map(|_| "Orphan".to_owned()));
        if let Some(other) = policy.as_deref().filter(|one| !matches!(*one, "Orphan" | "Background" | "Foreground")) {
            return Err(Status::bad_request(format!(
                "propagationPolicy {other:?} is none of Orphan, Background, Foreground"
            )));
        }
        let dry_run = call.dry_run() || meta::list(&body, "/dryRun").iter().any(|one| one == "All");
        Ok(Self {
            grace,
            policy,
            uid: text("/preconditions/uid"),
            version: text("/preconditions/resourceVersion"),
            dry_run,
        })
    }
}

/// What is left of an object after a deletion.
pub enum Left {
    Nothing(Arc<Object>),
    Waiting(Arc<Object>),
}

pub async fn delete(call: &Call, bytes: &Bytes) -> Result<Response<Body>, Status> {
    let options = Options::read(call, bytes)?;
    let left = call
        .api
        .store
        .transact(|tx| {
            let old = tx.get(&call.key(call.name())).ok_or_else(|| call.not_found(call.name()))?;
            let left = remove(&call.resource, tx, &old, &options, call.now)?;
            if options.dry_run {
                tx.discard();
            }
            Ok(left)
        })
        .await?;
    call.settle();
    match left {
        Left::Waiting(object) => Ok(call.reply(200, &object)),
        // Pods are returned even when they went at once: clients look at their metadata.
        Left::Nothing(object) if call.resource.collection == "pods" => Ok(call.reply(200, &object)),
        Left::Nothing(object) => {
            let mut details =
                json!({"name": call.name(), "kind": call.resource.plural, "uid": meta::uid(&object.value)});
            if !call.resource.group.is_empty() {
                details["group"] = call.resource.group.as_str().into();
            }
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            Ok(http::json(200, &status))
        }
    }
}

pub async fn delete_collection(call: &Call, bytes: &Bytes) -> Result<Response<Body>, Status> {
    let options = Options::read(call, bytes)?;
    let (objects, version) = selected(call, &Selection::of(call)?);
    call.api
        .store
        .transact(|tx| {
            for object in &objects {
                if let Some(old) = tx.get(&key_of(&call.resource, &object.value)) {
                    remove(&call.resource, tx, &old, &options, call.now)?;
                }
            }
            if options.dry_run {
                tx.discard();
            }
            Ok(())
        })
        .await?;
    call.settle();
    let page = crate::render::Page { objects: &objects, version: version.to_string(), next: None };
    Ok(http::respond(200, "application/json", crate::render::list(&call.resource, &page, call.form, call.include())))
}

/// Deletes an object, or notes that it is to be deleted.
///
/// # Errors
/// If a precondition does not hold.
pub fn remove(
    resource: &Resource,
    tx: &mut Transaction<'_>,
    old: &Arc<Object>,
    options: &Options,
    now: jiff::Timestamp,
) -> Result<Left, Status> {
    check(resource, old, options)?;
    let mut object = old.value.clone();
    let grace = grace(resource, &object, options.grace);
    add_propagation(&mut object, options.policy.as_deref());
    let already = meta::is_deleting(&object);
    let earlier = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let shortens = earlier.is_none_or(|earlier| grace < earlier);
    let metadata = meta::metadata(&mut object);
    if !already || shortens {
        let until = now.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
        metadata.insert("deletionTimestamp".into(), meta::seconds(until).into());
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
        let generation = metadata.get("generation").and_then(Value::as_i64);
        if let Some(generation) = generation.filter(|_| !already) {
            metadata.insert("generation".into(), (generation + 1).into());
        }
    }
    if resource.collection == "namespaces" {
        meta::child(&mut object, "status").insert("phase".into(), "Terminating".into());
    }
    let key = key_of(resource, &object);
    if is_finished(resource, &object) {
        if resource.collection == crd::COLLECTION {
            crd::remove_objects(tx, &object);
        }
        let last = tx.delete(&key).unwrap_or_else(|| old.clone());
        return Ok(Left::Nothing(last));
    }
    if object == old.value {
        return Ok(Left::Waiting(old.clone()));
    }
    Ok(Left::Waiting(tx.put(key, object)))
}

fn check(resource: &Resource, old: &Object, options: &Options) -> Result<(), Status> {
    let name = meta::name(&old.value);
    let conflict = |what: &str, wanted: &str, found: &str| {
        let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        Status::conflict(&resource.group, &resource.plural, name, &why)
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta::uid(&old.value)) {
        return Err(conflict("UID", uid, meta::uid(&old.value)));
    }
    let version = old.rv.to_string();
    match options.version.as_deref() {
        Some(wanted) if wanted != version => Err(conflict("ResourceVersion", wanted, &version)),
        _ => Ok(()),
    }
}

/// Seconds until the object may be forgotten; only pods get any.
fn grace(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    if resource.collection != "pods" {
        return 0;
    }
    // Nothing runs for a pod that has no node or has ended, so nobody would confirm its end.
    let unscheduled = meta::text(object, "/spec/nodeName").is_empty();
    if unscheduled || matches!(meta::text(object, "/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
    asked.unwrap_or(own).max(0)
}

fn add_propagation(object: &mut Value, policy: Option<&str>) {
    let finalizer = match policy {
        Some("Foreground") => gc::FOREGROUND,
        Some("Orphan") => gc::ORPHAN,
        _ => return,
    };
    let metadata = meta::metadata(object);
    let list = metadata.entry("finalizers").or_insert_with(|| json!([]));
    if let Value::Array(items) = list
        && !items.iter().any(|one| one == finalizer)
    {
        items.push(finalizer.into());
    }
}
