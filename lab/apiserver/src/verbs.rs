//! Which verb does a request mean, may the user do it, and who answers it?

pub mod change;
pub mod patching;
pub mod read;
pub mod remove;
pub mod reviews;
pub mod subresources;

use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, Response};
use serde_json::Value;

use crate::api::Api;
use crate::auth::User;
use crate::http::{self, Body};
use crate::rbac::{self, Action};
use crate::registry::Resource;
use crate::render::{Form, Include, negotiate};
use crate::request::{Query, Target};
use crate::schema::wire;
use crate::status::Status;
use crate::store::{Key, Object};
use crate::{crd, proxy, render, watch};

/// A request for a resource, understood.
pub struct Call {
    pub api: Arc<Api>,
    pub user: User,
    pub target: Target,
    pub resource: Arc<Resource>,
    pub query: Query,
    pub form: Form,
    pub content_type: String,
    agent: String,
    pub now: jiff::Timestamp,
}

impl Call {
    pub fn namespace(&self) -> Option<&str> {
        self.target.namespace.as_deref()
    }

    pub fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    pub fn subresource(&self) -> &str {
        self.target.subresource.as_deref().unwrap_or_default()
    }

    pub fn key(&self, name: &str) -> Key {
        Key::new(&self.resource.collection, self.namespace().unwrap_or_default(), name)
    }

    /// Who is noted as the owner of fields.
    pub fn manager(&self) -> &str {
        let agent = self.agent.split('/').next().unwrap_or_default();
        let agent = if agent.is_empty() { "unknown" } else { agent };
        self.query.get("fieldManager").unwrap_or(agent)
    }

    pub fn dry_run(&self) -> bool {
        self.query.all("dryRun").any(|value| value == "All")
    }

    pub fn include(&self) -> Include {
        Include::parse(self.query.get("includeObject"))
    }

    pub fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.resource.group, &self.resource.plural, name)
    }

    /// The object that the path names.
    ///
    /// # Errors
    /// If there is none.
    pub fn current(&self) -> Result<Arc<Object>, Status> {
        self.api.store.get(&self.key(self.name())).ok_or_else(|| self.not_found(self.name()))
    }

    /// A response with one object.
    pub fn reply(&self, code: u16, object: &Object) -> Response<Body> {
        http::respond(code, "application/json", render::object(&self.resource, object, self.form, self.include()))
    }

    /// After a change: what depends on definitions is read anew.
    pub fn settle(&self) {
        if self.resource.collection == crd::COLLECTION {
            self.api.reload_registry();
        }
    }
}

fn header(request: &Request<Incoming>, name: hyper::header::HeaderName) -> String {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// The verb as roles name it.
fn verb(method: &Method, target: &Target, query: &Query) -> Option<&'static str> {
    let connect = matches!(target.subresource.as_deref(), Some("exec" | "attach" | "portforward"));
    Some(match *method {
        Method::GET if connect => "create",
        Method::GET | Method::HEAD if target.watch || (query.is("watch") && target.subresource.is_none()) => "watch",
        Method::GET | Method::HEAD if target.name.is_some() => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if target.name.is_some() => "delete",
        Method::DELETE => "deletecollection",
        _ => return None,
    })
}

/// Answers a request for a resource.
///
/// # Errors
/// Whatever the verb fails with.
pub async fn serve(
    api: Arc<Api>,
    user: User,
    target: Target,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let query = Query::parse(request.uri().query());
    let verb = verb(request.method(), &target, &query).ok_or_else(Status::method_not_allowed)?;
    let resource = {
        let registry = api.registry.load();
        registry.find(&target.group, &target.version, &target.resource).cloned().ok_or_else(Status::no_such_path)?
    };
    authorize(&api, &user, &target, verb)?;
    let call = Call {
        form: negotiate(&header(&request, ACCEPT))
            .or_else(|status| if streams(&target) { Ok(Form::Whole) } else { Err(status) })?,
        content_type: header(&request, CONTENT_TYPE),
        agent: header(&request, USER_AGENT),
        now: jiff::Timestamp::now(),
        api,
        user,
        target,
        resource,
        query,
    };
    let allowed = call.target.subresource.is_some() || call.resource.verbs.contains(&verb);
    if !allowed || (call.namespace().is_some() && !call.resource.namespaced) {
        return Err(if allowed { Status::no_such_path() } else { Status::method_not_allowed() });
    }
    if call.target.subresource.is_some() {
        if streams(&call.target) {
            return proxy::serve(call, request).await;
        }
        return subresources::serve(call, verb, http::body(request).await?).await;
    }
    dispatch(call, verb, request).await
}

/// Subresources that the node's kubelet answers.
fn streams(target: &Target) -> bool {
    target.resource == "pods"
        && matches!(target.subresource.as_deref(), Some("log" | "exec" | "attach" | "portforward"))
}

async fn dispatch(call: Call, verb: &str, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    if !call.resource.is_stored() {
        return reviews::create(&call, &http::body(request).await?);
    }
    match verb {
        "get" => read::get(&call),
        "list" => read::list(&call),
        "watch" => watch::serve(call),
        "create" => change::create(&call, &http::body(request).await?).await,
        "update" => change::update(&call, &http::body(request).await?).await,
        "patch" => patching::patch(&call, &http::body(request).await?).await,
        "delete" => remove::delete(&call, &http::body(request).await?).await,
        "deletecollection" => remove::delete_collection(&call, &http::body(request).await?).await,
        _ => Err(Status::method_not_allowed()),
    }
}

fn authorize(api: &Api, user: &User, target: &Target, verb: &str) -> Result<(), Status> {
    let resource = match &target.subresource {
        Some(sub) => format!("{}/{sub}", target.resource),
        None => target.resource.clone(),
    };
    let name = target.name.as_deref().unwrap_or_default();
    let namespace = target.namespace.as_deref().unwrap_or_default();
    // A namespace's own object is judged by roles inside of it, too.
    let judged = if target.resource == "namespaces" && namespace.is_empty() { name } else { namespace };
    let action = Action { verb, group: &target.group, resource: &resource, name, namespace: judged, path: "" };
    if rbac::allows(&api.store, user, &action) {
        return Ok(());
    }
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let why =
        format!("User {:?} cannot {verb} resource {resource:?} in API group {:?} {place}", user.name, target.group);
    Err(Status::forbidden(&target.group, &target.resource, name, &why))
}

/// Reads JSON or YAML.
///
/// # Errors
/// If it is neither, or of a media type that is not served.
pub fn decode(bytes: &Bytes, content_type: &str) -> Result<Value, Status> {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let fault = |error: &dyn std::fmt::Display| {
        Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
    };
    match media {
        ""
        | "application/json"
        | "application/json-patch+json"
        | "application/merge-patch+json"
        | "application/strategic-merge-patch+json" => serde_json::from_slice(bytes).map_err(|error| fault(&error)),
        "application/yaml" | "application/apply-patch+yaml" | "application/apply-patch+json" => {
            if let Ok(value) = serde_json::from_slice(bytes) {
                return Ok(value);
            }
            let text = std::str::from_utf8(bytes).map_err(|error| fault(&error))?;
            serde_saphyr::from_str(text).map_err(|error| fault(&error))
        }
        "application/vnd.kubernetes.protobuf" => wire::decode(bytes)
            .map_err(|why| Status::bad_request(format!("the body is not understood as protobuf: {why}"))),
        other => Err(Status::unsupported_media(format!(
            "the body of the request was in an unknown format ({other}) - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf"
        ))),
    }
}
