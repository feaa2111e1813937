//! What can a controller want done?

use serde_json::Value;

use crate::read;
use crate::view::Kind;

/// A change to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Kind, Value),
    /// Writes the object; fails if somebody else wrote it since.
    Replace(Kind, Value),
    ReplaceStatus(Kind, Value),
    Delete {
        kind: Kind,
        object: Value,
        grace: Option<u32>,
    },
    Bind {
        pod: Value,
        node: String,
    },
    Tell(News),
}

/// Something to tell as an event.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// Reference to the object.
    pub about: Value,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    pub component: &'static str,
}

/// Deletes an object.
pub fn delete(kind: Kind, object: &Value) -> Action {
    let metadata = &object["metadata"];
    let short = serde_json::json!({"metadata": {
        "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }});
    Action::Delete { kind, object: short, grace: None }
}

/// Tells something about an object.
pub fn tell(component: &'static str, object: &Value, reason: &'static str, message: String) -> Action {
    Action::Tell(News { about: reference(object), warning: false, reason, message, component })
}

/// Tells of trouble.
pub fn warn(component: &'static str, object: &Value, reason: &'static str, message: String) -> Action {
    Action::Tell(News { about: reference(object), warning: true, reason, message, component })
}

fn reference(object: &Value) -> Value {
    serde_json::json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "namespace": read::namespace(object),
        "name": read::name(object), "uid": read::uid(object), "resourceVersion": object["metadata"]["resourceVersion"],
    })
}
