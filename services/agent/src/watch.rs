//! How do the cluster's objects become events, also when the API comes and goes?
//!
//! Each object is parsed by itself: one that cannot be read is reported and leaves the last good state, the others count.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use k8s_openapi::api::{core::v1 as k8s, discovery::v1::EndpointSlice, networking::v1 as networking};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::config::Settings;
use crate::core::Event;
use crate::objects::{AgentNode, Key, Node, Pod, RemotePod, ServiceLabels, read_service, read_slice};
use crate::ops::{PolicyKey, PolicyKind};

/// What the watchers tell.
#[derive(Debug)]
pub enum Told {
    /// Something changed.
    Events(Vec<Event>),
    /// An own CiliumEndpoint was seen to be gone.
    EndpointGone(Key),
    /// Everything has been listed once.
    Synced,
    /// The API answers, or does not.
    Reachable(bool),
}

/// How an object of one kind becomes events.
struct Reader {
    resource: ApiResource,
    selector: watcher::Config,
    applied: fn(&Key, serde_json::Value) -> Result<Vec<Event>, String>,
    gone: fn(Key) -> Event,
}

type Read = Result<Vec<Event>, String>;

fn parse<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn policy_key(kind: PolicyKind, key: &Key) -> PolicyKey {
    PolicyKey { kind, namespace: key.0.clone(), name: key.1.clone() }
}

/// Policies are read by those who know their language, unknown fields and all.
fn policy(kind: PolicyKind, key: &Key, value: serde_json::Value) -> Read {
    Ok(vec![Event::Policy(policy_key(kind, key), Box::new(value))])
}

fn reader<K>(applied: fn(&Key, serde_json::Value) -> Read, gone: fn(Key) -> Event) -> Reader
where
    K: Resource<DynamicType = ()>,
{
    Reader { resource: ApiResource::erase::<K>(&()), selector: watcher::Config::default(), applied, gone }
}

/// A kind that others define: without its definition there are no objects of it.
fn cluster_network_policies() -> Reader {
    let kind = GroupVersionKind::gvk("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy");
    Reader {
        resource: ApiResource::from_gvk_with_plural(&kind, "clusternetworkpolicies"),
        selector: watcher::Config::default(),
        applied: |key, value| policy(PolicyKind::KubernetesCluster, key, value),
        gone: |key| Event::PolicyGone(policy_key(PolicyKind::KubernetesCluster, &key)),
    }
}

fn readers(settings: &Settings) -> Vec<Reader> {
    let node = &settings.node;
    let mut readers = vec![
        Reader {
            selector: watcher::Config::default().fields(&format!("spec.nodeName={node}")),
            ..reader::<k8s::Pod>(
                |key, value| Ok(vec![Event::Pod(key.clone(), Pod::read(&parse(value)?))]),
                Event::PodGone,
            )
        },
        reader::<k8s::Namespace>(
            |key, value| {
                let namespace: k8s::Namespace = parse(value)?;
                Ok(vec![Event::Namespace(key.1.clone(), namespace.metadata.labels.unwrap_or_default())])
            },
            |key| Event::NamespaceGone(key.1),
        ),
        reader::<k8s::Node>(
            |key, value| Ok(vec![Event::Node(key.1.clone(), Node::read(&parse(value)?))]),
            |key| Event::NodeGone(key.1),
        ),
        reader::<k8s::Service>(
            |key, value| {
                let service = parse(value)?;
                let read = Event::Service(key.clone(), read_service(&service));
                Ok(vec![read, Event::ServiceLabels(key.clone(), ServiceLabels::read(&service))])
            },
            Event::ServiceGone,
        ),
        reader::<EndpointSlice>(
            |key, mut value| {
                // A slice without endpoints may say so by null.
                if value.get("endpoints").is_none_or(serde_json::Value::is_null) {
                    value["endpoints"] = serde_json::json!([]);
                }
                let read = read_slice(&parse(value)?);
                Ok(read.map(|(service, slice)| Event::Slice(key.clone(), service, slice)).into_iter().collect())
            },
            Event::SliceGone,
        ),
        reader::<crds::CiliumNode>(
            |key, value| Ok(vec![Event::AgentNode(key.1.clone(), AgentNode::read(&parse(value)?))]),
            |key| Event::AgentNodeGone(key.1),
        ),
        reader::<crds::CiliumEndpoint>(
            |key, value| Ok(vec![Event::RemotePod(key.clone(), RemotePod::read(&parse(value)?))]),
            Event::RemotePodGone,
        ),
        reader::<crds::CiliumIdentity>(
            |_, value| {
                let identity: crds::CiliumIdentity = parse(value)?;
                let number = identity.number().ok_or_else(|| "its name is no number".to_owned())?;
                Ok(vec![Event::Identity(number, identity.labels())])
            },
            |key| Event::IdentityGone(key.1.parse().unwrap_or(0)),
        ),
        reader::<crds::CiliumNetworkPolicy>(
            |key, value| policy(PolicyKind::Cilium, key, value),
            |key| Event::PolicyGone(policy_key(PolicyKind::Cilium, &key)),
        ),
        reader::<crds::CiliumClusterwideNetworkPolicy>(
            |key, value| policy(PolicyKind::CiliumClusterwide, key, value),
            |key| Event::PolicyGone(policy_key(PolicyKind::CiliumClusterwide, &key)),
        ),
        reader::<crds::CiliumCIDRGroup>(
            |key, value| Ok(vec![Event::CidrGroup(key.1.clone(), Box::new(parse(value)?))]),
            |key| Event::CidrGroupGone(key.1),
        ),
    ];
    if settings.cluster_network_policy {
        readers.push(cluster_network_policies());
    }
    if settings.network_policy {
        readers.push(reader::<networking::NetworkPolicy>(
            |key, value| policy(PolicyKind::Kubernetes, key, value),
            |key| Event::PolicyGone(policy_key(PolicyKind::Kubernetes, &key)),
        ));
    }
    readers
}

/// Watches everything that the agent needs, until the receiver is gone.
pub fn start(client: &Client, settings: &Settings, told: &mpsc::Sender<Told>) {
    let readers = readers(settings);
    let waiting = Arc::new(AtomicUsize::new(readers.len()));
    for reader in readers {
        let (client, told, waiting) = (client.clone(), told.clone(), waiting.clone());
        tokio::spawn(async move { watch(client, reader, told, waiting).await });
    }
}

fn reason(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => crate::cluster::brief(error),
        watcher::Error::WatchError(status) => format!("{} ({})", status.message, status.code),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// The API server answers, and says that there is no such kind.
fn is_undefined(error: &watcher::Error) -> bool {
    match error {
        // The server's own words for a path that it does not serve; a list of a kind that it serves is never "not found".
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

fn key_of(object: &DynamicObject) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

async fn watch(client: Client, reader: Reader, told: mpsc::Sender<Told>, waiting: Arc<AtomicUsize>) {
    let api: Api<DynamicObject> = Api::all_with(client, &reader.resource);
    let mut stream = watcher(api, reader.selector.clone()).default_backoff().boxed();
    let (mut known, mut listing, mut listed) = (BTreeSet::<Key>::new(), BTreeSet::<Key>::new(), false);
    while let Some(event) = stream.next().await {
        let mut events = Vec::new();
        let done = matches!(event, Ok(watcher::Event::InitDone));
        match event {
            Ok(watcher::Event::Init) => listing.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                let key = key_of(&object);
                listing.insert(key.clone());
                known.insert(key.clone());
                apply(&reader, &key, object, &mut events);
            }
            Ok(watcher::Event::InitDone) => {
                // What was deleted while nobody watched.
                let gone: Vec<Key> = known.difference(&listing).cloned().collect();
                for key in gone {
                    known.remove(&key);
                    events.push((reader.gone)(key));
                }
            }
            Ok(watcher::Event::Apply(object)) => {
                let key = key_of(&object);
                known.insert(key.clone());
                apply(&reader, &key, object, &mut events);
            }
            Ok(watcher::Event::Delete(object)) => {
                let key = key_of(&object);
                known.remove(&key);
                if reader.resource.kind == "CiliumEndpoint" && told.send(Told::EndpointGone(key.clone())).await.is_err()
                {
                    return;
                }
                events.push((reader.gone)(key));
            }
            Err(error) => {
                if is_undefined(&error) {
                    let events: Vec<Event> = std::mem::take(&mut known).into_iter().map(reader.gone).collect();
                    let first = !std::mem::replace(&mut listed, true);
                    if first {
                        let kind = &reader.resource.kind;
                        tracing::warn!(kind, "the cluster does not define this kind: there are none until it does");
                    }
                    let all = first && waiting.fetch_sub(1, Ordering::AcqRel) == 1;
                    for news in [Told::Events(events)].into_iter().chain(all.then_some(Told::Synced)) {
                        if told.send(news).await.is_err() {
                            return;
                        }
                    }
                    continue;
                }
                let reason = reason(&error);
                tracing::warn!(kind = reader.resource.kind, reason, "watch broken, trying again");
                if told.send(Told::Reachable(false)).await.is_err() {
                    return;
                }
                continue;
            }
        }
        if !events.is_empty() && told.send(Told::Events(events)).await.is_err() {
            return;
        }
        if done {
            let all = !std::mem::replace(&mut listed, true) && waiting.fetch_sub(1, Ordering::AcqRel) == 1;
            let news = if all { Told::Synced } else { Told::Reachable(true) };
            if told.send(news).await.is_err() {
                return;
            }
        }
    }
}

fn apply(reader: &Reader, key: &Key, object: DynamicObject, events: &mut Vec<Event>) {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    // Items of a list need not say what they are.
    value["apiVersion"] = reader.resource.api_version.clone().into();
    value["kind"] = reader.resource.kind.clone().into();
    match (reader.applied)(key, value) {
        Ok(read) => events.extend(read),
        Err(reason) => {
            tracing::warn!(
                kind = reader.resource.kind,
                namespace = key.0,
                name = key.1,
                reason,
                "object cannot be read, left as it was"
            );
        }
    }
}
