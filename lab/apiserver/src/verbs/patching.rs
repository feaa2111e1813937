//! Patch in its four forms.

use hyper::Response;
use hyper::body::Bytes;
use serde_json::Value;

use super::change::{Outcome, Part, accept, prepare_new, put_new, write_changed, writer};
use super::{Call, decode};
use crate::apply;
use crate::http::{self, Body};
use crate::patch::{json, merge, strategic};
use crate::status::Status;
use crate::{conversion, meta};

pub async fn patch(call: &Call, bytes: &Bytes) -> Result<Response<Body>, Status> {
    patch_part(call, bytes, Part::Main).await
}

pub async fn patch_part(call: &Call, bytes: &Bytes, part: Part) -> Result<Response<Body>, Status> {
    let media = call.content_type.split(';').next().unwrap_or_default().trim().to_owned();
    if matches!(media.as_str(), "application/apply-patch+yaml" | "application/apply-patch+cbor") {
        return apply_patch(call, bytes, part).await;
    }
    let known = matches!(
        media.as_str(),
        "application/json-patch+json" | "application/merge-patch+json" | "application/strategic-merge-patch+json"
    );
    if !known || (call.resource.custom && media.starts_with("application/strategic")) {
        let strategic = if call.resource.custom { "" } else { ", application/strategic-merge-patch+json" };
        return Err(Status::unsupported_media(format!(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json{strategic}, application/apply-patch+yaml"
        )));
    }
    let change = decode(bytes, &media)?;
    let mut warnings = Vec::new();
    let outcome = call
        .api
        .store
        .transact(|tx| {
            let old = tx.get(&call.key(call.name())).ok_or_else(|| call.not_found(call.name()))?;
            let mut object = conversion::present_value(&call.resource, &old.value);
            change_by(call, &media, &mut object, &change)?;
            let (object, found) = accept(call, object)?;
            warnings = found;
            check_name(call, &object)?;
            write_changed(call, tx, &old, object, part, true)
        })
        .await?;
    finish(call, &outcome, 200, &warnings)
}

fn finish(call: &Call, outcome: &Outcome, code: u16, warnings: &[String]) -> Result<Response<Body>, Status> {
    call.settle();
    let mut response = call.reply(code, outcome.object());
    http::warn(&mut response, warnings);
    Ok(response)
}

fn check_name(call: &Call, object: &Value) -> Result<(), Status> {
    let name = meta::name(object);
    if name == call.name() {
        return Ok(());
    }
    let message = format!("the name of the object ({name}) does not match the name on the URL ({})", call.name());
    Err(Status::bad_request(message))
}

fn change_by(call: &Call, media: &str, object: &mut Value, change: &Value) -> Result<(), Status> {
    match media {
        "application/json-patch+json" => json::apply(object, change).map_err(|why| {
            let (group, kind) = (&call.resource.group, &call.resource.kind);
            let mut status = Status::invalid(group, kind, call.name(), &[]);
            status.message = why;
            status
        }),
        "application/merge-patch+json" => {
            merge::merge(object, change);
            Ok(())
        }
        _ => strategic::apply(&call.resource.schema, object, change).map_err(Status::bad_request),
    }
}

async fn apply_patch(call: &Call, bytes: &Bytes, part: Part) -> Result<Response<Body>, Status> {
    if call.query.get("fieldManager").is_none() {
        return Err(Status::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let mut given = decode(bytes, "application/apply-patch+yaml")?;
    if given.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    // The path says which object is meant, also where the body does not.
    crate::meta::default(meta::metadata(&mut given), "name", call.name());
    let (mut applied, warnings) = accept(call, given)?;
    check_name(call, &applied)?;
    if let Some(namespace) = call.namespace() {
        meta::metadata(&mut applied).insert("namespace".into(), namespace.into());
    }
    let (now, force) = (meta::seconds(call.now), call.query.is("force"));
    let (outcome, code) = call
        .api
        .store
        .transact(|tx| {
            let writer = writer(call, part, &now);
            let schema = &call.resource.schema;
            match tx.get(&call.key(call.name())) {
                None if part != Part::Main => Err(call.not_found(call.name())),
                None => {
                    let merged = apply::apply(schema, None, &applied, &writer, force)?;
                    let prepared = prepare_new(call, tx, merged)?;
                    Ok((Outcome::Written(put_new(call, tx, prepared)), 201))
                }
                Some(old) => {
                    let merged = apply::apply(schema, Some(&old.value), &applied, &writer, force)?;
                    write_changed(call, tx, &old, merged, part, false).map(|outcome| (outcome, 200))
                }
            }
        })
        .await?;
    finish(call, &outcome, code, &warnings)
}
