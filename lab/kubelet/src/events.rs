//! How do users learn what happens to their pods?

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::sync::mpsc;

/// Sends events in the background; one that cannot be sent is lost, as with any kubelet.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

#[derive(Debug)]
struct Note {
    about: ObjectReference,
    kind: &'static str,
    reason: &'static str,
    message: String,
}

impl Recorder {
    /// Starts the sender.
    pub fn start(client: kube::Client, node: &str) -> Recorder {
        let (queue, notes) = mpsc::channel(1024);
        tokio::spawn(send_all(client, node.to_string(), notes));
        Recorder { queue }
    }

    /// Something expected.
    pub fn normal(&self, pod: &Pod, reason: &'static str, message: impl Into<String>) {
        self.note(pod, "Normal", reason, message.into());
    }

    /// Something that should be looked at.
    pub fn warning(&self, pod: &Pod, reason: &'static str, message: impl Into<String>) {
        self.note(pod, "Warning", reason, message.into());
    }

    fn note(&self, pod: &Pod, kind: &'static str, reason: &'static str, message: String) {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            ..ObjectReference::default()
        };
        if self.queue.try_send(Note { about, kind, reason, message }).is_err() {
            tracing::warn!(reason, "event lost: the queue is full");
        }
    }
}

/// Names of the events that were sent, to count repetitions.
type Known = Mutex<HashMap<(String, String, String), (String, i32)>>;

async fn send_all(client: kube::Client, node: String, mut notes: mpsc::Receiver<Note>) {
    let known = Known::default();
    while let Some(note) = notes.recv().await {
        let reason = note.reason;
        if let Err(error) = send(&client, &node, &known, note).await {
            tracing::debug!(%error, reason, "event not sent");
        }
    }
}

async fn send(client: &kube::Client, node: &str, known: &Known, note: Note) -> kube::Result<()> {
    let namespace = note.about.namespace.clone().unwrap_or_else(|| "default".into());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let now = Time(Timestamp::now());
    let key = (note.about.uid.clone().unwrap_or_default(), note.reason.to_string(), note.message.clone());
    let repeated = repeat(known, &key);
    if let Some((name, count)) = repeated {
        let patch = serde_json::json!({"count": count, "lastTimestamp": now});
        if api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
            return Ok(());
        }
    }
    let name = format!("{}.{:x}", note.about.name.clone().unwrap_or_default(), now.0.as_nanosecond());
    let event = Event {
        metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..ObjectMeta::default() },
        involved_object: note.about,
        type_: Some(note.kind.into()),
        reason: Some(note.reason.into()),
        message: Some(note.message),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.into()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.into()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await?;
    if let Ok(mut known) = known.lock() {
        if known.len() > 4096 {
            known.clear();
        }
        known.insert(key, (name, 1));
    }
    Ok(())
}

fn repeat(known: &Known, key: &(String, String, String)) -> Option<(String, i32)> {
    let mut known = known.lock().ok()?;
    let entry = known.get_mut(key)?;
    entry.1 += 1;
    Some(entry.clone())
}
