//! How are objects watched, and actions carried out?

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::action::{Action, News};
use crate::view::{Kind, View};
use crate::{Config, Error, namespaces, read};

/// After news, more are waited for this long.
const GATHER: Duration = Duration::from_millis(5);
/// Some things follow from time alone.
const TICK: Duration = Duration::from_secs(1);
/// After an action failed.
const PAUSE: Duration = Duration::from_millis(250);
const AT_ONCE: usize = 16;

enum Heard {
    Put(Kind, Value),
    Gone(Kind, Value),
    All(Kind, Vec<Value>),
    Ended(Kind),
}

struct Shell {
    client: Client,
    config: Config,
    view: View,
    /// Events told already: (object, reason, message) to the event's name and count.
    told: HashMap<(String, &'static str, String), (String, u32)>,
}

pub async fn run(client: Client, config: Config) -> Result<(), Error> {
    let (news, mut heard) = mpsc::channel(1024);
    let mut watches = tokio::task::JoinSet::new();
    for kind in Kind::ALL {
        watches.spawn(watch(client.clone(), kind, news.clone()));
    }
    drop(news);
    let mut shell = Shell { client, config, view: View::default(), told: HashMap::new() };
    let mut missing: HashSet<Kind> = Kind::ALL.into_iter().collect();
    loop {
        let first = tokio::time::timeout(TICK, heard.recv()).await;
        if let Ok(Some(first)) = first {
            let mut relevant = shell.hear(first, &mut missing)?;
            tokio::time::sleep(GATHER).await;
            while let Ok(more) = heard.try_recv() {
                relevant |= shell.hear(more, &mut missing)?;
            }
            if !relevant {
                continue;
            }
        }
        if missing.is_empty() {
            shell.settle().await;
        }
    }
}

/// Fields that controllers write are noted as theirs.
fn as_controllers() -> PostParams {
    PostParams { field_manager: Some("kube-controller-manager".to_owned()), ..PostParams::default() }
}

fn api(client: &Client, kind: Kind, namespace: &str) -> Api<DynamicObject> {
    let (group, name, plural) = kind.names();
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", name), plural);
    if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    }
}

/// A watched object as plain JSON; lists leave the type out, so it is put in.
fn plain(kind: Kind, object: DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let (group, name, _) = kind.names();
    value["apiVersion"] = if group.is_empty() { "v1".into() } else { format!("{group}/v1").into() };
    value["kind"] = name.into();
    value
}

async fn watch(client: Client, kind: Kind, news: mpsc::Sender<Heard>) {
    let config = match kind {
        Kind::ConfigMap => watcher::Config::default().fields(&format!("metadata.name={}", namespaces::CERTIFICATE)),
        _ => watcher::Config::default(),
    };
    let mut stream = watcher(api(&client, kind, ""), config).default_backoff().boxed();
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        let heard = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.push(plain(kind, object));
                continue;
            }
            Ok(watcher::Event::InitDone) => Heard::All(kind, std::mem::take(&mut listed)),
            Ok(watcher::Event::Apply(object)) => Heard::Put(kind, plain(kind, object)),
            Ok(watcher::Event::Delete(object)) => Heard::Gone(kind, plain(kind, object)),
            Err(error) => {
                tracing::debug!(?kind, %error, "controllers: watch");
                continue;
            }
        };
        if news.send(heard).await.is_err() {
            return;
        }
    }
    let _ = news.send(Heard::Ended(kind)).await;
}

impl Shell {
    /// Takes news into the view; true if it was news.
    fn hear(&mut self, heard: Heard, missing: &mut HashSet<Kind>) -> Result<bool, Error> {
        Ok(match heard {
            Heard::Put(kind, object) => self.view.put(kind, object),
            Heard::Gone(kind, object) => self.view.remove(kind, &object),
            Heard::All(kind, objects) => {
                self.view.replace(kind, objects);
                missing.remove(&kind);
                true
            }
            Heard::Ended(kind) => {
                return Err(Error::Watch { kind: kind.names().1, reason: "the watch ended".to_owned() });
            }
        })
    }

    /// Carries out what is missing, until nothing is or something fails.
    async fn settle(&mut self) {
        const ROUNDS: usize = 8;
        for _ in 0..ROUNDS {
            let actions = crate::plan(&self.view, &self.config, jiff::Timestamp::now());
            if actions.is_empty() || !self.carry_out(actions).await {
                return;
            }
        }
    }

    /// False if an action failed: it is tried again after a pause.
    async fn carry_out(&mut self, actions: Vec<Action>) -> bool {
        let (news, changes): (Vec<Action>, Vec<Action>) =
            actions.into_iter().partition(|one| matches!(one, Action::Tell(_)));
        let client = self.client.clone();
        // Writes to one object must keep their order, so of several only the first is done now.
        let mut touched = HashSet::new();
        let changes = changes.into_iter().filter(|one| place(one).is_none_or(|place| touched.insert(place)));
        let results: Vec<_> = futures::stream::iter(changes)
            .map(|action| perform(&client, action))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let (mut fine, mut made) = (true, Vec::new());
        for result in results {
            match result {
                Ok(Done::Made(kind, object)) => {
                    made.extend(made_for(kind, &object));
                    self.view.put(kind, object);
                }
                Ok(Done::Written(kind, object)) => drop(self.view.put(kind, object)),
                Ok(Done::Assumed(kind, object)) => self.view.assume(kind, object),
                Ok(Done::Gone(kind, object)) => drop(self.view.remove(kind, &object)),
                Ok(Done::Nothing) => {}
                Err(failure) => {
                    fine = false;
                    self.note_failure(failure);
                }
            }
        }
        for news in made {
            self.tell(news).await;
        }
        for action in news {
            if let Action::Tell(news) = action {
                self.tell(news).await;
            }
        }
        if !fine {
            tokio::time::sleep(PAUSE).await;
        }
        fine
    }

    fn note_failure(&self, (action, error): (String, kube::Error)) {
        // Somebody was faster, or the object went: the next view will show it.
        let expected = matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409));
        if expected {
            tracing::debug!(action, %error, "controllers: not done");
        } else {
            tracing::warn!(action, %error, "controllers: not done");
        }
    }

    /// Tells something once, and counts when it happens again.
    async fn tell(&mut self, news: News) {
        const REMEMBERED: usize = 4096;
        let key = (read::text(&news.about, "/uid").to_owned(), news.reason, news.message.clone());
        let now = read::stamp(jiff::Timestamp::now());
        let namespace = match read::text(&news.about, "/namespace") {
            "" => "default",
            inside => inside,
        };
        let events = {
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Event"), "events");
            Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource)
        };
        if let Some((name, count)) = self.told.get_mut(&key) {
            *count += 1;
            let patch = json!({"count": count, "lastTimestamp": now});
            let patched =
                events.patch(name, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await;
            if patched.is_ok() {
                return;
            }
        }
        let name = format!("{}.{:016x}", read::text(&news.about, "/name"), rand::random::<u64>());
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
            "involvedObject": news.about, "reason": news.reason, "message": news.message,
            "type": if news.warning { "Warning" } else { "Normal" }, "count": 1, "firstTimestamp": now,
            "lastTimestamp": now, "source": {"component": news.component}, "reportingComponent": news.component,
        });
        let Ok(event) = serde_json::from_value(event) else { return };
        match events.create(&as_controllers(), &event).await {
            Ok(_) => {
                if self.told.len() > REMEMBERED {
                    self.told.clear();
                }
                self.told.insert(key, (name, 1));
            }
            Err(error) => tracing::debug!(%error, reason = news.reason, "controllers: event not told"),
        }
    }
}

/// What is told of a new pod: who made it.
fn made_for(kind: Kind, pod: &Value) -> Option<News> {
    if kind != Kind::Pod {
        return None;
    }
    let owner = read::list(pod, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true)?;
    let mut about = owner.clone();
    about["namespace"] = read::namespace(pod).into();
    if let Value::Object(map) = &mut about {
        map.retain(|key, _| !matches!(key.as_str(), "controller" | "blockOwnerDeletion"));
    }
    let component = if owner["kind"] == "DaemonSet" { "daemonset-controller" } else { "replicaset-controller" };
    let message = format!("Created pod: {}", read::name(pod));
    Some(News { about, warning: false, reason: "SuccessfulCreate", message, component })
}

/// The object that an action writes, if it exists already.
fn place(action: &Action) -> Option<(Kind, String)> {
    match action {
        Action::Replace(kind, object) | Action::ReplaceStatus(kind, object) | Action::Delete { kind, object, .. } => {
            Some((*kind, read::uid(object).to_owned()))
        }
        Action::Bind { pod, .. } => Some((Kind::Pod, read::uid(pod).to_owned())),
        Action::Create(..) | Action::Tell(_) => None,
    }
}

/// What is known after an action.
enum Done {
    Made(Kind, Value),
    Written(Kind, Value),
    /// It will be so in the next version.
    Assumed(Kind, Value),
    Gone(Kind, Value),
    Nothing,
}

fn describe(action: &Action) -> String {
    let of = |verb: &str, kind: Kind, object: &Value| {
        let name = read::name(object);
        let name = if name.is_empty() { read::text(object, "/metadata/generateName") } else { name };
        format!("{verb} {kind:?} {}/{name}", read::namespace(object))
    };
    match action {
        Action::Create(kind, object) => of("create", *kind, object),
        Action::Replace(kind, object) => of("replace", *kind, object),
        Action::ReplaceStatus(kind, object) => of("replace status of", *kind, object),
        Action::Delete { kind, object, .. } => of("delete", *kind, object),
        Action::Bind { pod, node } => format!("{} to {node}", of("bind", Kind::Pod, pod)),
        Action::Tell(news) => format!("tell {}", news.reason),
    }
}

async fn perform(client: &Client, action: Action) -> Result<Done, (String, kube::Error)> {
    let told = describe(&action);
    attempt(client, action).await.map_err(|error| (told, error))
}

async fn attempt(client: &Client, action: Action) -> Result<Done, kube::Error> {
    let parse = |object: Value| serde_json::from_value::<DynamicObject>(object).map_err(kube::Error::SerdeError);
    match action {
        Action::Create(kind, object) => {
            let api = api(client, kind, read::namespace(&object));
            let made = api.create(&as_controllers(), &parse(object)?).await?;
            Ok(Done::Made(kind, plain(kind, made)))
        }
        Action::Replace(kind, object) => {
            let (api, name) = (api(client, kind, read::namespace(&object)), read::name(&object).to_owned());
            let written = api.replace(&name, &as_controllers(), &parse(object)?).await?;
            Ok(Done::Written(kind, plain(kind, written)))
        }
        Action::ReplaceStatus(kind, object) => {
            let (api, name) = (api(client, kind, read::namespace(&object)), read::name(&object).to_owned());
            let written = api.replace_status(&name, &as_controllers(), &parse(object)?).await?;
            Ok(Done::Written(kind, plain(kind, written)))
        }
        Action::Delete { kind, object, grace } => {
            let (api, name) = (api(client, kind, read::namespace(&object)), read::name(&object).to_owned());
            let preconditions = Preconditions { uid: Some(read::uid(&object).to_owned()), resource_version: None };
            let params = DeleteParams {
                grace_period_seconds: grace,
                preconditions: Some(preconditions),
                ..DeleteParams::background()
            };
            let Some(left) = api.delete(&name, &params).await?.left() else { return Ok(Done::Gone(kind, object)) };
            let left = plain(kind, left);
            // A pod that went at once is returned like one that waits for its grace period.
            let waits = read::number(&left, "/metadata/deletionGracePeriodSeconds", 0) > 0
                || !read::list(&left, "/metadata/finalizers").is_empty();
            Ok(if waits { Done::Written(kind, left) } else { Done::Gone(kind, left) })
        }
        Action::Bind { mut pod, node } => {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": read::name(&pod), "namespace": read::namespace(&pod)},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let api = api(client, Kind::Pod, read::namespace(&pod));
            let _: Value = api.create_subresource("binding", read::name(&pod), &as_controllers(), &binding).await?;
            pod["spec"]["nodeName"] = node.into();
            Ok(Done::Assumed(Kind::Pod, pod))
        }
        Action::Tell(_) => Ok(Done::Nothing),
    }
}
