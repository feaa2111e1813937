//! How does the cluster hear of a pod's status?

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::PodState;
use crate::kubelet::{Node, lock};
use crate::status;

/// When a status that could not be written is tried again.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// Writes the status whenever it differs from what was written.
pub(super) async fn publish(node: Arc<Node>, state: Arc<PodState>) {
    let mut written = None;
    loop {
        let facts = lock(&state.facts).clone();
        if written.as_ref() != Some(&facts) {
            if write_status(&node, &state).await {
                written = Some(facts);
            } else {
                tokio::time::sleep(AGAIN).await;
            }
            continue;
        }
        state.changed.notified().await;
    }
}

/// True if there is nothing more to do about it.
pub(super) async fn write_status(node: &Node, state: &PodState) -> bool {
    let object = state.object();
    let facts = lock(&state.facts).clone();
    let status = status::of(&object, &facts, Timestamp::now());
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(node.client.clone(), &namespace);
    let patch = json!({"metadata": {"uid": object.metadata.uid}, "status": explicit(&status)});
    match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(updated) => {
            let mut own = lock(&state.object);
            // The watch may have brought something newer meanwhile; only the conditions' times are needed from here.
            own.status = updated.status;
            true
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
        Err(error) => {
            tracing::warn!(%error, pod = name, "status not written");
            false
        }
    }
}

/// A merge patch forgets a field only if it is null.
fn explicit(status: &k8s_openapi::api::core::v1::PodStatus) -> serde_json::Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    for field in ["podIP", "podIPs", "reason", "message"] {
        if value.get(field).is_none() {
            value[field] = serde_json::Value::Null;
        }
    }
    value
}
