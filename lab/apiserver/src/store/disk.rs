//! How do changes reach the file, many in one commit?

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use hyper::body::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::state::{Key, Loaded, Object};

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const CEILING: &str = "resource-version-ceiling";
/// How far versions may run ahead of the last commit.
const AHEAD: u64 = 100_000;
const BATCH: usize = 1000;

struct Write {
    version: u64,
    changes: Vec<(String, Option<Bytes>)>,
    done: oneshot::Sender<Result<(), String>>,
}

/// The file and the thread that writes it.
pub struct Disk {
    queue: Option<Sender<Write>>,
    thread: Option<JoinHandle<()>>,
    progress: Arc<Progress>,
}

/// What the writer tells those who hand changes to it.
struct Progress {
    committed: AtomicU64,
    failed: AtomicBool,
}

fn path_of(key: &Key) -> String {
    format!("{}/{}/{}", key.collection, key.namespace, key.name)
}

fn key_of(path: &str) -> Option<Key> {
    let mut parts = path.splitn(3, '/');
    Some(Key::new(parts.next()?, parts.next()?, parts.next()?))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Disk {
    pub fn open(path: &Path) -> Result<(Self, Loaded), String> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(text)?;
        }
        let database = Database::create(path).map_err(text)?;
        let loaded = load(&database)?;
        let progress = Arc::new(Progress { committed: AtomicU64::new(loaded.version), failed: AtomicBool::new(false) });
        // From here on the versions of this run are below a ceiling that is on disk.
        commit(&database, loaded.version, &[])?;
        let (queue, incoming) = channel();
        let told = progress.clone();
        let thread = std::thread::Builder::new()
            .name("apiserver-store".into())
            .spawn(move || write_all(&database, &incoming, &told))
            .map_err(text)?;
        Ok((Self { queue: Some(queue), thread: Some(thread), progress }, loaded))
    }

    /// Hands changes to the writer; the receiver tells when they are on disk.
    pub fn write(
        &self,
        version: u64,
        staged: &[(Key, Option<Arc<Object>>)],
    ) -> Result<oneshot::Receiver<Result<(), String>>, String> {
        if self.progress.failed.load(Ordering::Relaxed) {
            return Err("the store's disk failed earlier; nothing is written any more".into());
        }
        if version > self.progress.committed.load(Ordering::Relaxed) + AHEAD / 2 {
            return Err("the store's disk does not keep up".into());
        }
        let changes =
            staged.iter().map(|(key, object)| (path_of(key), object.as_ref().map(|object| object.json()))).collect();
        let (done, receiver) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or("the store is closed")?;
        queue.send(Write { version, changes, done }).map_err(|_| "the store's writer ended".to_owned())?;
        Ok(receiver)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn load(database: &Database) -> Result<Loaded, String> {
    let setup = database.begin_write().map_err(text)?;
    setup.open_table(OBJECTS).map_err(text)?;
    setup.open_table(NUMBERS).map_err(text)?;
    setup.commit().map_err(text)?;
    let view = database.begin_read().map_err(text)?;
    let numbers = view.open_table(NUMBERS).map_err(text)?;
    let version = numbers.get(CEILING).map_err(text)?.map_or(1, |value| value.value());
    let mut objects = Vec::new();
    for entry in view.open_table(OBJECTS).map_err(text)?.iter().map_err(text)? {
        let (path, bytes) = entry.map_err(text)?;
        let path = path.value();
        let key = key_of(path).ok_or_else(|| format!("{path:?} is no object's key"))?;
        let value = serde_json::from_slice(bytes.value()).map_err(|error| format!("object {path}: {error}"))?;
        objects.push((key, value));
    }
    Ok(Loaded { version, objects })
}

fn write_all(database: &Database, incoming: &Receiver<Write>, progress: &Progress) {
    let mut failure: Option<String> = None;
    while let Ok(first) = incoming.recv() {
        let mut batch = vec![first];
        batch.extend(incoming.try_iter().take(BATCH));
        let version = batch.last().map_or(0, |write| write.version);
        // After one failure memory is ahead of the disk: nothing more is acknowledged.
        let result = match &failure {
            Some(reason) => Err(reason.clone()),
            None => commit(database, version, &batch),
        };
        match &result {
            Ok(()) => progress.committed.store(version, Ordering::Relaxed),
            Err(reason) => {
                tracing::error!(%reason, "store: commit failed");
                progress.failed.store(true, Ordering::Relaxed);
                failure = Some(reason.clone());
            }
        }
        for write in batch {
            let _ = write.done.send(result.clone());
        }
    }
}

fn commit(database: &Database, version: u64, batch: &[Write]) -> Result<(), String> {
    let transaction = database.begin_write().map_err(text)?;
    {
        let mut objects = transaction.open_table(OBJECTS).map_err(text)?;
        for (path, bytes) in batch.iter().flat_map(|write| &write.changes) {
            match bytes {
                Some(bytes) => drop(objects.insert(path.as_str(), bytes.as_ref()).map_err(text)?),
                None => drop(objects.remove(path.as_str()).map_err(text)?),
            }
        }
        let mut numbers = transaction.open_table(NUMBERS).map_err(text)?;
        numbers.insert(CEILING, version + AHEAD).map_err(text)?;
    }
    transaction.commit().map_err(text)
}
