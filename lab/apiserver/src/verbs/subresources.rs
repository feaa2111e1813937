//! Status, scale, binding, eviction, tokens, finalization.

use hyper::Response;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::change::{Part, update_part, write_changed};
use super::patching::patch_part;
use super::remove::{self, Options};
use super::{Call, decode};
use crate::http::{self, Body};
use crate::patch;
use crate::registry::ScalePaths;
use crate::status::{FieldError, Status};
use crate::{meta, selector, token};

pub async fn serve(call: Call, verb: &str, bytes: Bytes) -> Result<Response<Body>, Status> {
    let paths = call.resource.scale.clone();
    let has = |name: &str| call.resource.others.iter().any(|(other, ..)| *other == name);
    match (call.subresource(), verb) {
        ("status", "get") if call.resource.status => Ok(call.reply(200, &*call.current()?)),
        ("status", "update") if call.resource.status => update_part(&call, &bytes, Part::Status).await,
        ("status", "patch") if call.resource.status => patch_part(&call, &bytes, Part::Status).await,
        ("finalize", "update") if has("finalize") => update_part(&call, &bytes, Part::Finalize).await,
        ("binding", "create") if has("binding") => bind(&call, &bytes).await,
        ("eviction", "create") if has("eviction") => evict(&call, &bytes).await,
        ("token", "create") if has("token") => issue_token(&call, &bytes),
        ("scale", verb) => match paths {
            Some(paths) => scale(&call, verb, &bytes, &paths).await,
            None => Err(Status::no_such_path()),
        },
        _ => Err(Status::no_such_path()),
    }
}

fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

/// What the `scale` subresource shows of an object.
fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let number = |path: &str| object.pointer(&pointer(path)).and_then(Value::as_i64).unwrap_or(0);
    let selector = paths.selector.as_deref().and_then(|path| object.pointer(&pointer(path)));
    let selector = selector.map_or_else(String::new, |found| match found {
        Value::String(text) => text.clone(),
        other => selector::to_text(other),
    });
    let metadata = &object["metadata"];
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": number(&paths.replicas)},
        "status": {"replicas": number(&paths.status), "selector": selector},
    })
}

async fn scale(call: &Call, verb: &str, bytes: &Bytes, paths: &ScalePaths) -> Result<Response<Body>, Status> {
    if verb == "get" {
        return Ok(http::json(200, &scale_of(&call.current()?.value, paths)));
    }
    let media = call.content_type.split(';').next().unwrap_or_default().trim();
    let change = decode(bytes, media)?;
    let outcome = call
        .api
        .store
        .transact(|tx| {
            let old = tx.get(&call.key(call.name())).ok_or_else(|| call.not_found(call.name()))?;
            let mut wanted = scale_of(&old.value, paths);
            match (verb, media) {
                ("update", _) => wanted = change,
                ("patch", "application/json-patch+json") => {
                    patch::json::apply(&mut wanted, &change).map_err(Status::bad_request)?
                }
                _ => patch::merge::merge(&mut wanted, &change),
            }
            let replicas = &wanted["spec"]["replicas"];
            if replicas.as_i64().is_none_or(|count| count < 0) {
                let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
                return Err(Status::invalid("autoscaling", "Scale", call.name(), &[error]));
            }
            let mut object = old.value.clone();
            set(&mut object, &pointer(&paths.replicas), replicas.clone());
            let version = wanted.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
            meta::metadata(&mut object).insert("resourceVersion".into(), version);
            write_changed(call, tx, &old, object, Part::Main, true)
        })
        .await?;
    Ok(http::json(200, &scale_of(&outcome.object().value, paths)))
}

/// Sets a value at a pointer, making maps on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut slot = object;
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        if !slot.is_object() {
            *slot = json!({});
        }
        slot = &mut slot[part];
    }
    *slot = value;
}

fn success(code: u16) -> Response<Body> {
    http::json(code, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}))
}

async fn bind(call: &Call, bytes: &Bytes) -> Result<Response<Body>, Status> {
    let binding = decode(bytes, &call.content_type)?;
    let node = meta::text(&binding, "/target/name").to_owned();
    if node.is_empty() {
        return Err(Status::invalid("", "Binding", call.name(), &[FieldError::required("target.name", "")]));
    }
    call.api
        .store
        .transact(|tx| {
            let key = call.key(call.name());
            let old = tx.get(&key).ok_or_else(|| call.not_found(call.name()))?;
            let conflict = |why: &str| Status::conflict("", "pods/binding", call.name(), why);
            if meta::is_deleting(&old.value) {
                return Err(conflict(&format!("pod {} is being deleted, cannot be assigned to a host", call.name())));
            }
            let assigned = meta::text(&old.value, "/spec/nodeName");
            if !assigned.is_empty() {
                return Err(conflict(&format!("pod {} is already assigned to node {assigned:?}", call.name())));
            }
            let mut pod = old.value.clone();
            meta::child(&mut pod, "spec").insert("nodeName".into(), node.as_str().into());
            let now = meta::seconds(call.now);
            let scheduled =
                json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
            let status = meta::child(&mut pod, "status");
            let conditions = status.entry("conditions").or_insert_with(|| json!([]));
            if let Value::Array(items) = conditions {
                items.retain(|one| one["type"] != "PodScheduled");
                items.push(scheduled);
            }
            tx.put(key, pod);
            Ok(())
        })
        .await?;
    Ok(success(201))
}

async fn evict(call: &Call, bytes: &Bytes) -> Result<Response<Body>, Status> {
    let eviction = decode(bytes, &call.content_type)?;
    let grace = eviction.pointer("/deleteOptions/gracePeriodSeconds").and_then(Value::as_i64);
    let options = Options::with_grace(grace, call.dry_run());
    call.api
        .store
        .transact(|tx| {
            let old = tx.get(&call.key(call.name())).ok_or_else(|| call.not_found(call.name()))?;
            check_budgets(call, tx, &old.value)?;
            remove::remove(&call.resource, tx, &old, &options, call.now)?;
            if options.dry_run {
                tx.discard();
            }
            Ok(())
        })
        .await?;
    Ok(success(201))
}

/// Refuses an eviction that a disruption budget does not allow.
fn check_budgets(call: &Call, tx: &crate::store::Transaction<'_>, pod: &Value) -> Result<(), Status> {
    for budget in tx.list("poddisruptionbudgets.policy", call.namespace()) {
        let selects = selector::Labels::from_object(&budget.value["spec"]["selector"]).matches(pod);
        let allowed = budget.value.pointer("/status/disruptionsAllowed").and_then(Value::as_i64);
        if selects && allowed.unwrap_or(0) <= 0 {
            return Err(Status::too_many("Cannot evict pod as it would violate the pod's disruption budget."));
        }
    }
    Ok(())
}

fn issue_token(call: &Call, bytes: &Bytes) -> Result<Response<Body>, Status> {
    let mut request = if bytes.is_empty() { json!({}) } else { decode(bytes, &call.content_type)? };
    let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_u64).unwrap_or(3600);
    let audiences: Vec<String> =
        meta::list(&request, "/spec/audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let pod = request.pointer("/spec/boundObjectRef").filter(|bound| bound["kind"] == "Pod").cloned();
    let pod = pod.as_ref().map(|bound| (meta::text(bound, "/name"), meta::text(bound, "/uid")));
    let namespace = call.namespace().unwrap_or_default();
    let (token, expires) = token::for_service_account(&call.api, namespace, call.name(), &audiences, seconds, pod)?;
    let expires = jiff::Timestamp::from_second(expires).unwrap_or(call.now);
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["status"] = json!({"token": token, "expirationTimestamp": meta::seconds(expires)});
    Ok(http::json(201, &request))
}
