//! Deployments, replica sets, daemon sets, stateful sets and jobs in tables.

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
        "statefulsets.apps" => Some(&[NAME, ("Ready", "string", 0), AGE, CONTAINERS, IMAGES]),
        "jobs.batch" => Some(&[
            NAME,
            ("Status", "string", 0),
            ("Completions", "string", 0),
            ("Duration", "string", 0),
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
        "statefulsets.apps" => {
            let ready = format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"));
            return Some(vec![name, json!(ready), age(object, now), wide[0].clone(), wide[1].clone()]);
        }
        "jobs.batch" => {
            vec![name, json!(job_state(object)), json!(completions(object)), json!(took(object, now)), age(object, now)]
        }
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

fn job_state(object: &Value) -> &'static str {
    let holds = |kind: &str| {
        meta::list(object, "/status/conditions").iter().any(|one| one["type"] == kind && one["status"] == "True")
    };
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if holds("Suspended") => "Suspended",
        () => "Running",
    }
}

fn completions(object: &Value) -> String {
    let succeeded = number(object, "/status/succeeded");
    match object["spec"]["completions"].as_i64() {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => format!("{succeeded}/1 of {}", number(object, "/spec/parallelism")),
    }
}

/// How long a job took, or has taken so far.
fn took(object: &Value, now: jiff::Timestamp) -> String {
    let time = |field: &str| meta::text(object, &format!("/status/{field}")).parse::<jiff::Timestamp>().ok();
    let Some(start) = time("startTime") else { return String::new() };
    super::duration(time("completionTime").unwrap_or(now).as_second() - start.as_second())
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
