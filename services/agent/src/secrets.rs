//! What do the Secrets that policies name hold now? Each is watched by itself, and only while a policy names it.
//!
//! What was read is kept in memory, is told to the proxy, and is shown nowhere: neither a Secret's content nor an error
//! that may quote it.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as k8s;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use proxy_api::Hidden;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::proxy::secrets::{Items, Known, Reference, Secrets as View};

/// How often files are read again.
const FILES_AGAIN: Duration = Duration::from_secs(10);

/// Where Secrets are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Files here count before all else (`certificates-directory`).
    pub files: PathBuf,
    /// Which of the cluster's may be read.
    pub reading: Reading,
}

/// Which Secrets the agent may read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// All that policies name, where they are.
    #[default]
    Anywhere,
    /// Those of this namespace (`policy-secrets-only-from-secrets-namespace`).
    Only(String),
    /// The operator's copies in this namespace (`enable-policy-secrets-sync`).
    Copies(String),
}

/// Where a Secret is read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    namespace: String,
    name: String,
    /// It has to be a copy of this one.
    owner: Option<Reference>,
}

/// What of Secrets is a name may be one of files, too.
fn check_names(of: &Reference) -> Result<(), String> {
    let good = is_name(&of.name, true) && is_name(&of.namespace, false);
    if good { Ok(()) } else { Err("expected a namespace and a name as Kubernetes has them".into()) }
}

impl Reading {
    fn place(&self, of: &Reference) -> Result<Place, String> {
        let here = |owner| Place { namespace: of.namespace.clone(), name: of.name.clone(), owner };
        match self {
            Reading::Anywhere => Ok(here(None)),
            Reading::Only(namespace) if *namespace == of.namespace => Ok(here(None)),
            Reading::Only(namespace) => Err(format!("only Secrets of namespace {namespace} may be read")),
            Reading::Copies(namespace) => Ok(Place {
                namespace: namespace.clone(),
                name: crds::secret_sync::copy_name(&of.namespace, &of.name),
                owner: Some(of.clone()),
            }),
        }
    }
}

/// RFC 1123, as Kubernetes names objects and, without dots, namespaces.
fn is_name(text: &str, dots: bool) -> bool {
    let part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    let most = if dots { 253 } else { 63 };
    text.len() <= most && if dots { text.split('.').all(part) } else { part(text) }
}

/// The Secrets that policies name.
#[derive(Clone, Debug)]
pub struct Secrets {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sources: Sources,
    full: bool,
    known: Mutex<Known>,
    /// Grows with each change of what is known.
    changed: watch::Sender<u64>,
    wanted: watch::Sender<BTreeSet<Reference>>,
}

impl Secrets {
    /// Of which nothing is known. `full`: items that the other side of TLS would use count too.
    pub fn new(sources: Sources, full: bool) -> Secrets {
        let (changed, wanted) = (watch::Sender::new(0), watch::Sender::new(BTreeSet::new()));
        Secrets { shared: Arc::new(Shared { sources, full, known: Mutex::default(), changed, wanted }) }
    }

    /// Grows with each change.
    pub fn version(&self) -> u64 {
        *self.shared.changed.borrow()
    }

    /// Told of each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Looks at what is known.
    pub fn look<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        look(View { known: &self.shared.known(), full: self.shared.full })
    }

    /// From now on these are wanted, and no others; false if it were these already.
    pub fn want(&self, wanted: BTreeSet<Reference>) -> bool {
        self.shared.wanted.send_if_modified(|before| {
            let other = *before != wanted;
            *before = wanted;
            other
        })
    }

    /// Waits until of each that is wanted it is known whether it is there, but not longer than this.
    pub async fn settle(&self, patience: Duration) {
        let mut changes = self.changes();
        let settled = async { while !self.is_settled() && changes.changed().await.is_ok() {} };
        if tokio::time::timeout(patience, settled).await.is_err() {
            tracing::warn!("not all Secrets that policies name are read yet: rules that name them allow nothing");
        }
    }

    fn is_settled(&self) -> bool {
        let known = self.shared.known();
        self.shared.wanted.borrow().iter().all(|reference| known.contains_key(reference))
    }

    /// Follows what is wanted for as long as the process runs.
    pub async fn follow(self, client: Client) {
        let mut wanted = self.shared.wanted.subscribe();
        let mut watched: BTreeMap<Reference, AbortHandle> = BTreeMap::new();
        loop {
            let now = wanted.borrow_and_update().clone();
            watched.retain(|reference, task| {
                let stays = now.contains(reference);
                if !stays {
                    task.abort();
                }
                stays
            });
            self.shared.forget_others(&now);
            for reference in now {
                watched.entry(reference).or_insert_with_key(|reference| {
                    tokio::spawn(follow_one(self.shared.clone(), client.clone(), reference.clone())).abort_handle()
                });
            }
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_others(&self, wanted: &BTreeSet<Reference>) {
        let mut known = self.known();
        let before = known.len();
        known.retain(|reference, _| wanted.contains(reference));
        if known.len() != before {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// Takes what a Secret holds; nothing changes if nobody wants it any more.
    fn set(&self, reference: &Reference, found: Result<Items, String>) {
        let mut known = self.known();
        if self.wanted.borrow().contains(reference) && known.get(reference) != Some(&found) {
            tracing::info!(secret = %reference, found = found.as_ref().err().map_or("its items", String::as_str), "Secret");
            known.insert(reference.clone(), found);
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// It cannot be asked for. What is known of it stays.
    fn unreachable(&self, reference: &Reference, why: String) {
        let known = self.known().contains_key(reference);
        if !known {
            self.set(reference, Err(why));
        }
    }
}

async fn follow_one(shared: Arc<Shared>, client: Client, reference: Reference) {
    if let Err(why) = check_names(&reference) {
        return shared.set(&reference, Err(why));
    }
    loop {
        while let Some(found) = files::read(&shared.sources.files, &reference) {
            shared.set(&reference, found);
            tokio::time::sleep(FILES_AGAIN).await;
        }
        tokio::select! {
            () = follow_in_cluster(&shared, client.clone(), &reference) => {}
            () = appear(&shared.sources.files, &reference) => {}
        }
    }
}

/// Waits until there are files in the Secret's place.
async fn appear(root: &Path, reference: &Reference) {
    while files::read(root, reference).is_none() {
        tokio::time::sleep(FILES_AGAIN).await;
    }
}

/// Follows a Secret for as long as somebody waits.
async fn follow_in_cluster(shared: &Shared, client: Client, reference: &Reference) {
    let place = match shared.sources.reading.place(reference) {
        Ok(place) => place,
        Err(why) => {
            shared.set(reference, Err(why));
            return std::future::pending().await;
        }
    };
    let api: Api<DynamicObject> =
        Api::namespaced_with(client, &place.namespace, &ApiResource::erase::<k8s::Secret>(&()));
    let config = watcher::Config::default().fields(&format!("metadata.name={}", place.name));
    let mut stream = watcher(api, config).default_backoff().boxed();
    let mut listed = None;
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = None,
            Ok(watcher::Event::InitApply(object)) => listed = Some(object),
            Ok(watcher::Event::InitDone) => shared.set(reference, read(listed.take().as_ref(), &place)),
            Ok(watcher::Event::Apply(object)) => shared.set(reference, read(Some(&object), &place)),
            Ok(watcher::Event::Delete(_)) => shared.set(reference, read(None, &place)),
            Err(error) => {
                let why = reason(&error);
                tracing::warn!(secret = %reference, why, "Secret cannot be watched, trying again");
                shared.unreachable(reference, format!("it cannot be read: {why}"));
            }
        }
    }
}

/// Why not, without what an answer held.
fn reason(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => match error {
            kube::Error::SerdeError(_) | kube::Error::ReadEvents(_) | kube::Error::FromUtf8(_) => {
                "the API server's answer cannot be read".into()
            }
            error => crate::cluster::brief(error),
        },
        watcher::Error::WatchError(status) => format!("{} ({})", status.message, status.code),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

fn read(object: Option<&DynamicObject>, place: &Place) -> Result<Items, String> {
    let Some(object) = object.filter(|object| object.name_any() == place.name) else {
        return Err(match &place.owner {
            None => "not found".into(),
            Some(_) => format!("the operator has not copied it to namespace {}", place.namespace),
        });
    };
    if let Some(owner) = &place.owner {
        let label = |name| object.labels().get(name).map(String::as_str);
        let of = (label(crds::secret_sync::OWNING_NAMESPACE), label(crds::secret_sync::OWNING_NAME));
        if of != (Some(owner.namespace.as_str()), Some(owner.name.as_str())) {
            return Err(format!("{}/{} does not say that it is its copy", place.namespace, place.name));
        }
    }
    let data = object.data.get("data").filter(|data| !data.is_null()).cloned().unwrap_or_else(|| serde_json::json!({}));
    let data: BTreeMap<String, ByteString> =
        serde_json::from_value(data).map_err(|_| "its data cannot be read".to_owned())?;
    Ok(Hidden(data.into_iter().map(|(name, value)| (name, value.0)).collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reference(namespace: &str, name: &str) -> Reference {
        Reference { namespace: namespace.into(), name: name.into() }
    }

    fn object(name: &str, labels: serde_json::Value, data: serde_json::Value) -> DynamicObject {
        let object =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "data": data});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn settings_say_where_a_secret_is_read_and_names_lead_nowhere_else() {
        let place = |reading: &Reading, namespace: &str, name: &str| {
            reading.place(&reference(namespace, name)).map(|place| (place.namespace, place.name))
        };
        let here = |namespace: &str, name: &str| Ok((namespace.to_owned(), name.to_owned()));
        assert_eq!(place(&Reading::Anywhere, "a", "s.t"), here("a", "s.t"));
        let only = Reading::Only("cilium-secrets".into());
        assert_eq!(place(&only, "cilium-secrets", "s"), here("cilium-secrets", "s"));
        assert!(place(&only, "a", "s").unwrap_err().contains("only Secrets of namespace cilium-secrets"));
        let copies = Reading::Copies("cilium-secrets".into());
        assert_eq!(place(&copies, "a", "s"), here("cilium-secrets", &crds::secret_sync::copy_name("a", "s")));
        for (namespace, name) in
            [("", "s"), ("a/b", "s"), ("a", "../s"), ("a", ""), ("a.b", "s"), ("a", "S"), ("-", "s")]
        {
            assert!(check_names(&reference(namespace, name)).is_err(), "{namespace:?} {name:?}");
        }
    }

    #[test]
    fn only_the_operator_s_copy_counts_as_one() {
        let owner = reference("a", "s");
        let place = Reading::Copies("n".into()).place(&owner).unwrap();
        let data = json!({"t": "aHVudGVyMg=="});
        let labels = json!({crds::secret_sync::OWNING_NAMESPACE: "a", crds::secret_sync::OWNING_NAME: "s"});
        let copy = object(&place.name, labels, data.clone());
        assert_eq!(read(Some(&copy), &place).unwrap().0["t"], b"hunter2");
        let stranger = object(&place.name, json!({crds::secret_sync::OWNING_NAMESPACE: "b"}), data);
        assert!(read(Some(&stranger), &place).is_err());
        assert!(read(None, &place).unwrap_err().contains("has not copied it"));
    }

    #[test]
    fn a43_data_that_is_none_is_not_quoted() {
        let place = Reading::Anywhere.place(&reference("a", "s")).unwrap();
        for data in [json!({"t": "hunter2!"}), json!("hunter2"), json!({"t": ["hunter2"]})] {
            let error = read(Some(&object("s", json!({}), data)), &place).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(read(Some(&object("s", json!({}), json!(null))), &place).unwrap().0.is_empty());
    }

    #[tokio::test]
    async fn files_count_before_the_cluster_which_is_not_even_asked() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/s")).unwrap();
        std::fs::write(root.path().join("a/s/token"), "hunter2").unwrap();
        // Of the cluster this one may not be read.
        let sources = Sources { files: root.path().to_owned(), reading: Reading::Only("other".into()) };
        let secrets = Secrets::new(sources, false);
        // Nobody listens there.
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let following = tokio::spawn(secrets.clone().follow(client));
        let (file, none, wrong) = (reference("a", "s"), reference("a", "t"), reference("..", "s"));
        secrets.want(BTreeSet::from([file.clone(), none.clone(), wrong.clone()]));
        secrets.settle(Duration::from_secs(10)).await;
        secrets.look(|view| {
            assert_eq!(view.known[&file].as_ref().unwrap().0["token"], b"hunter2");
            assert!(view.known[&none].as_ref().unwrap_err().contains("only Secrets of namespace other"));
            assert!(view.known[&wrong].as_ref().unwrap_err().contains("as Kubernetes has them"));
        });
        following.abort();
    }

    #[tokio::test]
    async fn what_is_not_wanted_any_more_is_forgotten_and_what_is_awaited_is_not_awaited_for_ever() {
        let secrets = Secrets::new(Sources::default(), false);
        let (one, two) = (reference("a", "one"), reference("a", "two"));
        secrets.want(BTreeSet::from([one.clone(), two.clone()]));
        secrets.shared.set(&one, Err("not found".into()));
        let started = std::time::Instant::now();
        secrets.settle(Duration::from_millis(50)).await;
        assert!(started.elapsed() >= Duration::from_millis(50), "of the other nothing is known");
        secrets.shared.set(&two, Ok(Items::default()));
        secrets.settle(Duration::from_secs(60)).await;
        // what cannot be asked for stays as it was
        secrets.shared.unreachable(&two, "gone".into());
        assert!(secrets.look(|view| view.known[&two].is_ok()));
        let before = secrets.version();
        secrets.want(BTreeSet::from([two.clone()]));
        secrets.shared.forget_others(&BTreeSet::from([two.clone()]));
        assert_eq!((secrets.look(|view| view.known.len()), secrets.version()), (1, before + 1));
        secrets.shared.set(&one, Ok(Items::default()));
        assert_eq!(secrets.version(), before + 1, "nobody wants it");
    }
}
