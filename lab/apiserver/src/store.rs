//! Which objects exist, what changed since a resource version, and is it on disk?
//!
//! All objects are in memory; a change is applied there under one lock and acknowledged when the disk has it. Many
//! changes share one commit. Resource versions never go back: the disk keeps a ceiling that no version handed out may
//! pass, and a restarted store begins above it.

mod disk;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::status::Status;
use state::State;
pub use state::{Change, Event, Key, Object};

/// The store.
pub struct Store {
    state: Mutex<State>,
    disk: Mutex<Option<disk::Disk>>,
}

/// Changes in the making: nothing of it is seen before all of it is.
pub struct Transaction<'a> {
    state: &'a State,
    staged: Vec<(Key, Option<Arc<Object>>)>,
    version: u64,
}

impl Transaction<'_> {
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        let staged = self.staged.iter().rev().find(|(staged, _)| staged == key);
        staged.map_or_else(|| self.state.get(key), |(_, object)| object.clone())
    }

    /// The objects of a collection as they were before this transaction.
    pub fn list(&self, collection: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        self.state.list(collection, namespace)
    }

    /// Writes an object under the next resource version, which it gets in its metadata.
    pub fn put(&mut self, key: Key, mut value: Value) -> Arc<Object> {
        self.version += 1;
        crate::meta::metadata(&mut value).insert("resourceVersion".into(), self.version.to_string().into());
        let object = Arc::new(Object::new(value, self.version));
        self.staged.push((key, Some(object.clone())));
        object
    }

    /// Forgets all changes so far: what a dry run ends with.
    pub fn discard(&mut self) {
        self.staged.clear();
        self.version = self.state.version;
    }

    /// Removes an object; returns it as the last event shows it.
    pub fn delete(&mut self, key: &Key) -> Option<Arc<Object>> {
        let old = self.get(key)?;
        self.version += 1;
        let mut value = old.value.clone();
        crate::meta::metadata(&mut value).insert("resourceVersion".into(), self.version.to_string().into());
        self.staged.push((key.clone(), None));
        Some(Arc::new(Object::new(value, self.version)))
    }
}

impl Store {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// If it cannot be read or holds what is not an object.
    pub fn open(path: &Path) -> Result<Self, crate::Error> {
        let (disk, loaded) =
            disk::Disk::open(path).map_err(|reason| crate::Error::Store { path: path.to_owned(), reason })?;
        Ok(Self { state: Mutex::new(State::new(loaded)), disk: Mutex::new(Some(disk)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held cannot have left half a transaction: they are applied without fallible steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn resource_version(&self) -> u64 {
        self.state().version
    }

    /// How often an object went, or was asked to, since the start.
    pub fn departures(&self) -> u64 {
        self.state().departures
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.state().get(key)
    }

    /// Objects of a collection in order of namespace and name, and the resource version of this view.
    pub fn list(&self, collection: &str, namespace: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        let state = self.state();
        (state.list(collection, namespace), state.version)
    }

    /// Events of a collection after `since`, and the version up to which they are complete.
    ///
    /// # Errors
    /// If some of them are no longer known.
    pub fn events(&self, collection: &str, since: u64) -> Result<(Vec<Event>, u64), Status> {
        let state = self.state();
        state.events(collection, since).map(|events| (events, state.version))
    }

    /// Wakes whenever the collection changes.
    pub fn subscribe(&self, collection: &str) -> watch::Receiver<u64> {
        self.state().subscribe(collection)
    }

    /// Objects that name this one as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<Key> {
        self.state().dependents(uid)
    }

    /// Where the object with this uid is.
    pub fn by_uid(&self, uid: &str) -> Option<Key> {
        self.state().by_uid(uid)
    }

    /// Every object that has owners.
    pub fn owned(&self) -> Vec<(Key, Arc<Object>)> {
        self.state().owned()
    }

    /// Runs `work` on a view that nobody else changes; its changes are applied together, or not at all on an error.
    ///
    /// # Errors
    /// What `work` returns, or that the disk failed.
    pub async fn transact<T>(&self, work: impl FnOnce(&mut Transaction<'_>) -> Result<T, Status>) -> Result<T, Status> {
        let (result, durable) = self.apply(work)?;
        match durable {
            None => Ok(result),
            Some(durable) => match durable.await {
                Ok(Ok(())) => Ok(result),
                Ok(Err(reason)) => Err(Status::internal(format!("store: {reason}"))),
                Err(_) => Err(Status::unavailable("the store is closed")),
            },
        }
    }

    #[allow(clippy::type_complexity)]
    fn apply<T>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, Status>,
    ) -> Result<(T, Option<oneshot::Receiver<Result<(), String>>>), Status> {
        let mut state = self.state();
        let mut transaction = Transaction { state: &state, staged: Vec::new(), version: state.version };
        let result = work(&mut transaction)?;
        let (staged, version) = (transaction.staged, transaction.version);
        if staged.is_empty() {
            return Ok((result, None));
        }
        // The queue is filled under the state's lock, so that the disk sees changes in their order.
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = disk.as_ref().ok_or_else(|| Status::unavailable("the store is closed"))?;
        let durable = disk.write(version, &staged).map_err(Status::internal)?;
        state.apply(staged, version);
        Ok((result, Some(durable)))
    }

    /// Waits until all changes are on disk and lets go of the file.
    pub fn close(&self) {
        drop(self.disk.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn key(name: &str) -> Key {
        Key::new("things", "ns", name)
    }

    #[tokio::test]
    async fn objects_and_versions_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::open(&path).unwrap();
        for name in ["a", "b"] {
            store.transact(|tx| Ok(tx.put(key(name), json!({"metadata": {"name": name}})).rv)).await.unwrap();
        }
        store.transact(|tx| Ok(tx.delete(&key("a")).is_some())).await.unwrap();
        let last = store.resource_version();
        store.close();
        let again = Store::open(&path).unwrap();
        assert!(again.resource_version() >= last);
        let (objects, _) = again.list("things", None);
        assert_eq!(objects.len(), 1);
        assert_eq!(objects[0].value["metadata"]["name"], "b");
        assert!(again.events("things", last - 1).is_err(), "what happened before the restart is not known");
        assert!(again.events("things", again.resource_version()).unwrap().0.is_empty());
    }

    #[tokio::test]
    async fn a_failed_transaction_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let failed: Result<(), Status> = store
            .transact(|tx| {
                tx.put(key("a"), json!({}));
                Err(Status::bad_request("no"))
            })
            .await;
        assert!(failed.is_err());
        assert!(store.get(&key("a")).is_none());
    }

    #[tokio::test]
    async fn a_torn_file_does_not_lose_what_was_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::open(&path).unwrap();
        store.transact(|tx| Ok(tx.put(key("a"), json!({"metadata": {"name": "a"}})).rv)).await.unwrap();
        // What a crash leaves: the file as it is on disk now, without an orderly close.
        let crashed = folder.path().join("crashed");
        std::fs::copy(&path, &crashed).unwrap();
        let version = store.resource_version();
        let again = Store::open(&crashed).unwrap();
        assert!(again.get(&key("a")).is_some());
        assert!(again.resource_version() >= version);
    }
}
