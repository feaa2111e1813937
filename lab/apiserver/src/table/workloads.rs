//! Deployments, replica sets, daemon sets in tables.

use serde_json::{Value, json};

use super::{AGE, Column, NAME, age, containers, number, or_none, selector};
use crate::meta;

const CONTAINERS: Column = ("Containers", "string", 1);
const IMAGES: Column = ("Images", "string", 1);
const SELECTOR: Column = ("Selector", "string", 1);

pub fn layout(collection: &str) -> Option<&'static [Column]> {
    match collection {
        "deployments.apps" => Some(&[
            NAME,
            ("Ready", "string", 0),
            ("Up-to-date", "string", 0),
            ("Available", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ]),
        "replicasets.apps" => Some(&[
            NAME,
            ("Desired", "integer", 0),
            ("Current", "integer", 0),
            ("Ready", "integer", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ]),
        "daemonsets.apps" => Some(&[
            NAME,
            ("Desired", "integer", 0),
            ("Current", "integer", 0),
            ("Ready", "integer", 0),
            ("Up-to-date", "integer", 0),
            ("Available", "integer", 0),
            ("Node Selector", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ]),
        "controllerrevisions.apps" => Some(&[NAME, ("Controller", "string", 0), ("Revision", "string", 0), AGE]),
        "poddisruptionbudgets.policy" => Some(&[
            NAME,
            ("Min Available", "string", 0),
            ("Max Unavailable", "string", 0),
            ("Allowed Disruptions", "integer", 0),
            AGE,
        ]),
        _ => None,
    }
}

pub fn cells(collection: &str, object: &Value, now: jiff::Timestamp) -> Option<Vec<Value>> {
    let name = json!(meta::name(object));
    let (names, images) = containers(object);
    let wide = [json!(names), json!(images), json!(selector(object, "/spec/selector"))];
    let status = |field: &str| json!(number(object, &format!("/status/{field}")));
    let mut cells = match collection {
        "deployments.apps" => vec![
            name,
            json!(format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"))),
            status("updatedReplicas"),
            status("availableReplicas"),
            age(object, now),
        ],
        "replicasets.apps" => {
            vec![
                name,
                json!(number(object, "/spec/replicas")),
                status("replicas"),
                status("readyReplicas"),
                age(object, now),
            ]
        }
        "daemonsets.apps" => vec![
            name,
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            json!(node_selector(object)),
            age(object, now),
        ],
        "controllerrevisions.apps" => {
            return Some(vec![name, json!(controller(object)), object["revision"].clone(), age(object, now)]);
        }
        "poddisruptionbudgets.policy" => {
            let text = |field: &str| match &object["spec"][field] {
                Value::Null => json!("N/A"),
                Value::String(text) => json!(text),
                other => json!(other.to_string()),
            };
            return Some(vec![
                name,
                text("minAvailable"),
                text("maxUnavailable"),
                status("disruptionsAllowed"),
                age(object, now),
            ]);
        }
        _ => return None,
    };
    cells.extend(wide);
    Some(cells)
}

fn node_selector(object: &Value) -> String {
    let selector = object.pointer("/spec/template/spec/nodeSelector").and_then(Value::as_object);
    let pairs = selector.into_iter().flatten();
    or_none(
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(","),
    )
}

fn controller(object: &Value) -> String {
    let owner = meta::list(object, "/metadata/ownerReferences").iter().find(|one| one["controller"] == true);
    owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = meta::split_api_version(owner["apiVersion"].as_str().unwrap_or_default()).0;
            let kind = owner["kind"].as_str().unwrap_or_default().to_lowercase();
            format!("{}/{}", crate::status::qualified(&kind, group), owner["name"].as_str().unwrap_or_default())
        },
    )
}
