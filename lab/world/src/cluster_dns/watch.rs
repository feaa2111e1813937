//! How does the cluster's DNS learn of namespaces, services and endpoints?

use super::records::{self, Cluster, Key, Source};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tracing::{info, warn};

/// How long until the next try.
const PAUSE: Duration = Duration::from_secs(1);
/// A server that is there answers sooner; one that a policy just let through should not wait for longer.
const CONNECT: Duration = Duration::from_secs(3);

type Shared = Arc<RwLock<Cluster>>;

/// Keeps `cluster` as the API server of this pod's cluster says, for ever.
pub async fn keep(cluster: Shared) {
    keep_from(client().await, cluster).await;
}

/// Keeps `cluster` as this API server says, for ever; tries again for as long as it does not answer.
pub(super) async fn keep_from(client: Client, cluster: Shared) {
    tokio::join!(
        follow::<Namespace>(client.clone(), cluster.clone()),
        follow::<Service>(client.clone(), cluster.clone()),
        follow::<EndpointSlice>(client, cluster),
    );
}

async fn client() -> Client {
    loop {
        match connect() {
            Ok(client) => return client,
            Err(error) => warn!(error, "no way to the API server"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn connect() -> Result<Client, String> {
    let mut config = Config::incluster_env().map_err(|e| e.to_string())?;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|e| e.to_string())
}

/// An object that names are made of.
trait Named: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    const SOURCE: Source;
    fn note(&self, cluster: &mut Cluster);

    fn key(&self) -> Key {
        Key { namespace: self.namespace().unwrap_or_default(), name: self.name_any() }
    }
}

impl Named for Namespace {
    const SOURCE: Source = Source::Namespaces;

    fn note(&self, cluster: &mut Cluster) {
        cluster.set_namespace(&self.name_any());
    }
}

impl Named for Service {
    const SOURCE: Source = Source::Services;

    fn note(&self, cluster: &mut Cluster) {
        cluster.set_service(self.key(), records::service(self));
    }
}

impl Named for EndpointSlice {
    const SOURCE: Source = Source::Slices;

    fn note(&self, cluster: &mut Cluster) {
        cluster.set_slice(self.key(), records::slice(self));
    }
}

async fn follow<K: Named>(client: Client, cluster: Shared) {
    let mut events = watcher(Api::<K>::all(client), watcher::Config::default()).boxed();
    let mut present = HashSet::new();
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                let mut cluster = cluster.write().unwrap_or_else(PoisonError::into_inner);
                take(event, &mut cluster, &mut present);
            }
            Ok(None) => return,
            Err(error) => {
                warn!(kind = ?K::SOURCE, %error, "watch");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Takes note of an event. A list only adds until it is whole, so that names do not vanish in between.
fn take<K: Named>(event: Event<K>, cluster: &mut Cluster, present: &mut HashSet<Key>) {
    match event {
        Event::Init => present.clear(),
        Event::InitApply(object) => {
            present.insert(object.key());
            object.note(cluster);
        }
        Event::InitDone => {
            cluster.listed(K::SOURCE, present);
            info!(kind = ?K::SOURCE, count = present.len(), "listed");
            present.clear();
        }
        Event::Apply(object) => object.note(cluster),
        Event::Delete(object) => cluster.remove(K::SOURCE, &object.key()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hickory_proto::rr::Name;

    fn namespace(name: &str) -> Namespace {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap()
    }

    #[test]
    fn a_second_list_takes_away_what_is_gone_only_at_its_end() {
        let mut cluster = Cluster::new(Name::from_ascii("cluster.local").unwrap());
        let mut present = HashSet::new();
        let mut event = |event| take(event, &mut cluster, &mut present);
        event(Event::Init);
        event(Event::InitApply(namespace("a")));
        event(Event::InitDone);
        event(Event::Apply(namespace("b")));
        event(Event::Init);
        event(Event::InitApply(namespace("c")));
        assert!(["a", "b", "c"].iter().all(|n| cluster.has_namespace(n)));
        take(Event::<Namespace>::InitDone, &mut cluster, &mut present);
        assert!(cluster.has_namespace("c") && !cluster.has_namespace("a") && !cluster.has_namespace("b"));
        take(Event::Delete(namespace("c")), &mut cluster, &mut present);
        assert!(!cluster.has_namespace("c"));
    }
}
