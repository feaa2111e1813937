//! What is in memory: objects, recent events, and who owns whom.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use crate::meta;
use crate::status::Status;

/// Events that are kept for each collection; who is further behind has to list again.
const KEPT_EVENTS: usize = 8192;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub collection: String,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(collection: &str, namespace: &str, name: &str) -> Self {
        Self { collection: collection.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One version of an object.
#[derive(Debug)]
pub struct Object {
    pub value: Value,
    /// Its resource version.
    pub rv: u64,
    json: OnceLock<Bytes>,
}

impl Object {
    pub fn new(value: Value, rv: u64) -> Self {
        Self { value, rv, json: OnceLock::new() }
    }

    /// The object as JSON, written once.
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| Bytes::from(self.value.to_string())).clone()
    }
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub enum Change {
    Put {
        new: Arc<Object>,
        old: Option<Arc<Object>>,
    },
    /// `last` has the resource version of the removal.
    Delete {
        old: Arc<Object>,
        last: Arc<Object>,
    },
}

#[derive(Clone, Debug)]
pub struct Event {
    pub rv: u64,
    pub change: Change,
}

struct Collection {
    objects: BTreeMap<(String, String), Arc<Object>>,
    log: VecDeque<Event>,
    /// Events up to this version are not in the log.
    forgotten: u64,
    changed: watch::Sender<u64>,
}

impl Collection {
    fn new(forgotten: u64) -> Self {
        Self { objects: BTreeMap::new(), log: VecDeque::new(), forgotten, changed: watch::Sender::new(forgotten) }
    }

    fn record(&mut self, event: Event) {
        self.log.push_back(event);
        if self.log.len() > KEPT_EVENTS
            && let Some(old) = self.log.pop_front()
        {
            self.forgotten = old.rv;
        }
    }
}

/// Everything that is known.
pub struct State {
    pub version: u64,
    /// How often an object went, or was asked to.
    pub departures: u64,
    /// The version at which this state was loaded.
    loaded: u64,
    collections: HashMap<String, Collection>,
    owners: HashMap<String, HashSet<Key>>,
    uids: HashMap<String, Key>,
}

/// What the disk held: its version and its objects.
pub struct Loaded {
    pub version: u64,
    pub objects: Vec<(Key, Value)>,
}

impl State {
    pub fn new(loaded: Loaded) -> Self {
        let mut state = Self {
            version: loaded.version,
            departures: 0,
            loaded: loaded.version,
            collections: HashMap::new(),
            owners: HashMap::new(),
            uids: HashMap::new(),
        };
        for (key, value) in loaded.objects {
            let rv = meta::text(&value, "/metadata/resourceVersion").parse().unwrap_or(0);
            state.index(&key, &value);
            let object = Arc::new(Object::new(value, rv));
            state.collection(&key.collection).objects.insert((key.namespace, key.name), object);
        }
        state
    }

    fn collection(&mut self, name: &str) -> &mut Collection {
        let loaded = self.loaded;
        self.collections.entry(name.to_owned()).or_insert_with(|| Collection::new(loaded))
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.collections.get(&key.collection)?.objects.get(&(key.namespace.clone(), key.name.clone())).cloned()
    }

    pub fn list(&self, collection: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Some(collection) = self.collections.get(collection) else { return Vec::new() };
        match namespace {
            None => collection.objects.values().cloned().collect(),
            Some(namespace) => {
                let from = Bound::Included((namespace.to_owned(), String::new()));
                let range = collection.objects.range((from, Bound::Unbounded));
                range.take_while(|((inside, _), _)| inside == namespace).map(|(_, object)| object.clone()).collect()
            }
        }
    }

    pub fn events(&self, collection: &str, since: u64) -> Result<Vec<Event>, Status> {
        let collection = self.collections.get(collection);
        let forgotten = collection.map_or(self.loaded, |collection| collection.forgotten);
        if since < forgotten {
            return Err(Status::expired(format!("too old resource version: {since} ({forgotten})")));
        }
        let Some(collection) = collection else { return Ok(Vec::new()) };
        let start = collection.log.partition_point(|event| event.rv <= since);
        Ok(collection.log.range(start..).cloned().collect())
    }

    pub fn subscribe(&mut self, collection: &str) -> watch::Receiver<u64> {
        self.collection(collection).changed.subscribe()
    }

    pub fn dependents(&self, uid: &str) -> Vec<Key> {
        self.owners.get(uid).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    pub fn by_uid(&self, uid: &str) -> Option<Key> {
        self.uids.get(uid).cloned()
    }

    pub fn owned(&self) -> Vec<(Key, Arc<Object>)> {
        let keys: HashSet<&Key> = self.owners.values().flatten().collect();
        keys.into_iter().filter_map(|key| self.get(key).map(|object| (key.clone(), object))).collect()
    }

    /// Makes staged changes visible.
    pub fn apply(&mut self, staged: Vec<(Key, Option<Arc<Object>>)>, version: u64) {
        let mut rv = version - staged.len() as u64;
        for (key, new) in staged {
            rv += 1;
            self.apply_one(key, new, rv);
        }
        self.version = version;
    }

    fn apply_one(&mut self, key: Key, new: Option<Arc<Object>>, rv: u64) {
        let place = (key.namespace.clone(), key.name.clone());
        let old = self.get(&key);
        self.departures += u64::from(new.as_ref().is_none_or(|new| meta::is_deleting(&new.value)));
        if let Some(old) = &old {
            self.forget_index(&key, &old.value);
        }
        if let Some(new) = &new {
            self.index(&key, &new.value);
        }
        let collection = self.collection(&key.collection);
        let change = match (new, old) {
            (Some(new), old) => {
                collection.objects.insert(place, new.clone());
                Change::Put { new, old }
            }
            (None, Some(old)) => {
                collection.objects.remove(&place);
                let mut value = old.value.clone();
                meta::metadata(&mut value).insert("resourceVersion".into(), rv.to_string().into());
                Change::Delete { old, last: Arc::new(Object::new(value, rv)) }
            }
            (None, None) => return,
        };
        collection.record(Event { rv, change });
        collection.changed.send_replace(rv);
    }

    fn index(&mut self, key: &Key, value: &Value) {
        let uid = meta::uid(value);
        if !uid.is_empty() {
            self.uids.insert(uid.to_owned(), key.clone());
        }
        for owner in meta::list(value, "/metadata/ownerReferences") {
            let uid = owner["uid"].as_str().unwrap_or_default();
            self.owners.entry(uid.to_owned()).or_default().insert(key.clone());
        }
    }

    fn forget_index(&mut self, key: &Key, value: &Value) {
        let uid = meta::uid(value);
        if self.uids.get(uid) == Some(key) {
            self.uids.remove(uid);
        }
        for owner in meta::list(value, "/metadata/ownerReferences") {
            let uid = owner["uid"].as_str().unwrap_or_default();
            if let Some(keys) = self.owners.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owners.remove(uid);
                }
            }
        }
    }
}
