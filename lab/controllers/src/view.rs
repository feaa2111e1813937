//! Which objects are there, as far as the controllers have heard?

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::read;

/// The kinds that controllers look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    Service,
    ServiceAccount,
    ConfigMap,
    Endpoints,
    EndpointSlice,
    Deployment,
    ReplicaSet,
    DaemonSet,
    StatefulSet,
    Job,
    Lease,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Endpoints,
        Self::EndpointSlice,
        Self::Deployment,
        Self::ReplicaSet,
        Self::DaemonSet,
        Self::StatefulSet,
        Self::Job,
        Self::Lease,
    ];

    /// Group, kind, plural; all are of version v1.
    pub fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Namespace => ("", "Namespace", "namespaces"),
            Self::Node => ("", "Node", "nodes"),
            Self::Pod => ("", "Pod", "pods"),
            Self::Service => ("", "Service", "services"),
            Self::ServiceAccount => ("", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => ("", "ConfigMap", "configmaps"),
            Self::Endpoints => ("", "Endpoints", "endpoints"),
            Self::EndpointSlice => ("discovery.k8s.io", "EndpointSlice", "endpointslices"),
            Self::Deployment => ("apps", "Deployment", "deployments"),
            Self::ReplicaSet => ("apps", "ReplicaSet", "replicasets"),
            Self::DaemonSet => ("apps", "DaemonSet", "daemonsets"),
            Self::StatefulSet => ("apps", "StatefulSet", "statefulsets"),
            Self::Job => ("batch", "Job", "jobs"),
            Self::Lease => ("coordination.k8s.io", "Lease", "leases"),
        }
    }
}

type Name = (String, String);

/// Objects by kind, namespace and name.
#[derive(Default)]
pub struct View {
    objects: HashMap<Kind, BTreeMap<Name, Arc<Value>>>,
    /// Objects that are known to be gone: late news of them are not believed.
    gone: HashMap<String, u64>,
}

fn version(object: &Value) -> u64 {
    read::text(object, "/metadata/resourceVersion").parse().unwrap_or(0)
}

fn name_of(object: &Value) -> Name {
    (read::namespace(object).to_owned(), read::name(object).to_owned())
}

impl View {
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<Value>> {
        self.objects.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&kind)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Objects of a kind that have a controller, by the controller's uid.
    pub fn by_controller(&self, kind: Kind) -> HashMap<&str, Vec<&Arc<Value>>> {
        let mut owned: HashMap<&str, Vec<&Arc<Value>>> = HashMap::new();
        for object in self.all(kind) {
            if let Some(uid) = read::controller(object) {
                owned.entry(uid).or_default().push(object);
            }
        }
        owned
    }

    /// Takes news of an object, unless newer ones are known; true if something changed.
    pub fn put(&mut self, kind: Kind, object: Value) -> bool {
        if self.gone.contains_key(read::uid(&object)) {
            return false;
        }
        let place = self.objects.entry(kind).or_default();
        let name = name_of(&object);
        if place.get(&name).is_some_and(|old| read::uid(old) == read::uid(&object) && version(old) >= version(&object))
        {
            return false;
        }
        place.insert(name, Arc::new(object));
        true
    }

    /// Takes what will be so with the object's next version, whose news are still to come.
    pub fn assume(&mut self, kind: Kind, object: Value) {
        if let Some(old) = self.objects.entry(kind).or_default().get_mut(&name_of(&object))
            && read::uid(old) == read::uid(&object)
            && version(old) == version(&object)
        {
            *old = Arc::new(object);
        }
    }

    /// Forgets an object that went.
    pub fn remove(&mut self, kind: Kind, object: &Value) -> bool {
        let uid = read::uid(object).to_owned();
        let place = self.objects.entry(kind).or_default();
        let name = name_of(object);
        let known = place.get(&name).is_some_and(|old| read::uid(old) == uid);
        if known {
            place.remove(&name);
        }
        self.gone.insert(uid, version(object));
        self.trim();
        known
    }

    /// Keeps of a kind only what is in a full list.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Value>) {
        let uids: std::collections::HashSet<&str> = objects.iter().map(read::uid).collect();
        let newest = objects.iter().map(version).max().unwrap_or(0);
        // What was written here after the list was made is not in it.
        self.objects.entry(kind).or_default().retain(|_, old| uids.contains(read::uid(old)) || version(old) > newest);
        for object in objects {
            self.put(kind, object);
        }
    }

    /// News of objects that went are late by seconds at most; old ones need not be remembered.
    fn trim(&mut self) {
        const MOST: usize = 20_000;
        if self.gone.len() > MOST {
            let mut versions: Vec<u64> = self.gone.values().copied().collect();
            versions.sort_unstable();
            let middle = versions[versions.len() / 2];
            self.gone.retain(|_, version| *version > middle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, version: u64) -> Value {
        json!({"metadata": {"namespace": "a", "name": "p", "uid": uid, "resourceVersion": version.to_string()}})
    }

    #[test]
    fn late_news_are_not_believed() {
        let mut view = View::default();
        assert!(view.put(Kind::Pod, pod("1", 5)));
        assert!(!view.put(Kind::Pod, pod("1", 4)));
        assert!(view.remove(Kind::Pod, &pod("1", 6)));
        assert!(!view.put(Kind::Pod, pod("1", 5)));
        assert!(view.put(Kind::Pod, pod("2", 7)));
        assert_eq!(view.all(Kind::Pod).count(), 1);
    }
}
