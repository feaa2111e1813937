//! Reviews: who am I, may I, is this token good?

use hyper::Response;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::{Call, decode};
use crate::auth::{self, User};
use crate::http::{self, Body};
use crate::meta;
use crate::rbac::{self, Action};
use crate::status::Status;

pub fn create(call: &Call, bytes: &Bytes) -> Result<Response<Body>, Status> {
    let mut review = if bytes.is_empty() { json!({}) } else { decode(bytes, &call.content_type)? };
    review["kind"] = call.resource.kind.as_str().into();
    review["apiVersion"] = call.resource.api_version().into();
    meta::default(meta::metadata(&mut review), "creationTimestamp", Value::Null);
    let status = match call.resource.plural.as_str() {
        "selfsubjectreviews" => json!({"userInfo": call.user.to_json()}),
        "tokenreviews" => token(call, &review),
        "selfsubjectrulesreviews" => rules(call, &review),
        "selfsubjectaccessreviews" => access(call, &call.user, &review),
        _ => access(call, &subject(&review), &review),
    };
    review["status"] = status;
    Ok(http::json(201, &review))
}

fn subject(review: &Value) -> User {
    let groups: Vec<&str> = meta::list(review, "/spec/groups").iter().filter_map(Value::as_str).collect();
    User::new(meta::text(review, "/spec/user"), &groups)
}

fn access(call: &Call, user: &User, review: &Value) -> Value {
    let at = |name: &str| meta::text(review, &format!("/spec/resourceAttributes/{name}"));
    let resource = match at("subresource") {
        "" => at("resource").to_owned(),
        sub => format!("{}/{sub}", at("resource")),
    };
    let path = review.pointer("/spec/nonResourceAttributes");
    let action = match path {
        Some(attributes) => {
            Action { verb: meta::text(attributes, "/verb"), path: meta::text(attributes, "/path"), ..Action::default() }
        }
        None => Action {
            verb: at("verb"),
            group: at("group"),
            resource: &resource,
            name: at("name"),
            namespace: at("namespace"),
            path: "",
        },
    };
    json!({"allowed": rbac::allows(&call.api.store, user, &action)})
}

fn token(call: &Call, review: &Value) -> Value {
    match auth::from_token(&call.api, meta::text(review, "/spec/token")) {
        Some(user) => json!({"authenticated": true, "user": user.to_json()}),
        None => json!({"authenticated": false, "error": "the token is not known, or not valid any more"}),
    }
}

fn rules(call: &Call, review: &Value) -> Value {
    let mut rules = rbac::rules(&call.api.store, &call.user, meta::text(review, "/spec/namespace"));
    let everything = Action { verb: "*", group: "*", resource: "*", ..Action::default() };
    if rbac::allows(&call.api.store, &call.user, &everything) {
        rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    let (paths, resources): (Vec<Value>, Vec<Value>) =
        rules.into_iter().partition(|rule| rule.get("nonResourceURLs").is_some());
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
