//! Are the Secrets that policies name copied to the one namespace that agents may read?
//!
//! With `enable-policy-secrets-sync`. A copy is named, labelled and annotated as Cilium's, so that agents know whose it is.
//! One that says so of another Secret, or does not say so at all, is nobody's copy and stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1 as k8s;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::sweep::Key;
use crate::{Error, settled};
use crds::secret_sync::{OWNING_NAME, OWNING_NAMESPACE, SOURCE_KIND, SOURCE_NAME, SOURCE_NAMESPACE, copy_name};

/// Changes that come together are done together.
const PAUSE: Duration = Duration::from_millis(100);
/// How soon what failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often everything is looked through though nothing was told.
const EVERY: Duration = Duration::from_secs(600);

/// The Secrets that a policy object names. Those without a namespace are in the policy's.
pub fn named(object: &Value, namespace: &str) -> BTreeSet<Key> {
    let specs = object["specs"].as_array().into_iter().flatten().chain([&object["spec"]]);
    let mut found = BTreeSet::new();
    for section in specs.flat_map(|spec| [&spec["ingress"], &spec["egress"]]) {
        let ports = section.as_array().into_iter().flatten().flat_map(|rule| rule["toPorts"].as_array());
        for port in ports.flatten() {
            let http = port["rules"]["http"].as_array().into_iter().flatten();
            let headers = http.flat_map(|rule| rule["headerMatches"].as_array()).flatten();
            let contexts = [&port["terminatingTLS"], &port["originatingTLS"]];
            for secret in headers.chain(contexts).map(|user| &user["secret"]) {
                let text = |name: &str| secret[name].as_str().filter(|text| !text.is_empty());
                if let (Some(name), Some(namespace)) = (text("name"), text("namespace").or(Some(namespace))) {
                    found.insert((namespace.to_owned(), name.to_owned()));
                }
            }
        }
    }
    found.retain(|(namespace, _)| !namespace.is_empty());
    found
}

/// The copy of a Secret, in this namespace.
pub fn copy(of: &Key, original: &k8s::Secret, namespace: &str) -> k8s::Secret {
    let mut labels = original.metadata.labels.clone().unwrap_or_default();
    labels.extend([(OWNING_NAMESPACE.into(), of.0.clone()), (OWNING_NAME.into(), of.1.clone())]);
    let mut annotations = original.metadata.annotations.clone().unwrap_or_default();
    // It holds the content once more, as text.
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations.extend([
        (SOURCE_KIND.into(), "Secret".into()),
        (SOURCE_NAMESPACE.into(), of.0.clone()),
        (SOURCE_NAME.into(), of.1.clone()),
    ]);
    let mut copy = k8s::Secret {
        data: original.data.clone(),
        immutable: original.immutable,
        type_: original.type_.clone(),
        ..k8s::Secret::default()
    };
    copy.metadata.namespace = Some(namespace.to_owned());
    copy.metadata.name = Some(copy_name(&of.0, &of.1));
    (copy.metadata.labels, copy.metadata.annotations) = (Some(labels), Some(annotations));
    copy
}

/// Whose copy it says that it is.
fn owner(secret: &k8s::Secret) -> Option<Key> {
    let labels = secret.labels();
    Some((labels.get(OWNING_NAMESPACE)?.clone(), labels.get(OWNING_NAME)?.clone()))
}

/// What is to be done about the copy of a Secret.
#[derive(Debug, PartialEq, Eq)]
pub enum Deed {
    /// Nothing.
    Leave,
    /// There is none yet.
    Create,
    /// It says something else.
    Replace,
    /// The same, and this is no change that an object can take.
    CreateAnew,
    /// Another object has its name.
    Stranger,
}

/// Compares what is there with what is to be there.
pub fn deed(of: &Key, found: Option<&k8s::Secret>, wanted: &k8s::Secret) -> Deed {
    let Some(found) = found else { return Deed::Create };
    if owner(found).as_ref() != Some(of) {
        return Deed::Stranger;
    }
    let meta = |secret: &k8s::Secret| (secret.metadata.labels.clone(), secret.metadata.annotations.clone());
    let kind = |secret: &k8s::Secret| secret.type_.clone().unwrap_or_else(|| "Opaque".into());
    let same_data = found.data == wanted.data;
    let frozen = found.immutable == Some(true);
    match () {
        () if kind(found) != kind(wanted) || (frozen && (!same_data || found.immutable != wanted.immutable)) => {
            Deed::CreateAnew
        }
        () if same_data && meta(found) == meta(wanted) && found.immutable == wanted.immutable => Deed::Leave,
        () => Deed::Replace,
    }
}

/// Keeps copies as they are to be, for ever.
pub async fn keep(client: &Client, namespace: &str) {
    let mut news = std::pin::pin!(news(client));
    let mut wait = Duration::ZERO;
    loop {
        // The first look comes without news, and one after a failure too.
        let _ = tokio::time::timeout(wait, news.next()).await;
        tokio::time::sleep(PAUSE).await;
        while let Ok(Some(())) = tokio::time::timeout(Duration::ZERO, news.next()).await {}
        wait = match look_through(client, namespace).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(error = brief(&error), "copies of Secrets are not as they are to be, trying again");
                AGAIN
            }
        };
    }
}

/// Something changed: a policy or a Secret, of which only the name is read.
fn news(client: &Client) -> impl Stream<Item = ()> + use<> {
    let config = watcher::Config::default;
    let told = |changed: bool| async move { changed.then_some(()) };
    let of = |api: Api<DynamicObject>| watcher(api, config()).default_backoff().filter_map(move |e| told(e.is_ok()));
    let policies = policies(client);
    let secrets = Api::<PartialObjectMeta<k8s::Secret>>::all(client.clone());
    let secrets = watcher(secrets, config()).default_backoff();
    let [one, two] = policies.map(of);
    futures::stream::select(
        futures::stream::select(one, two).boxed(),
        secrets.filter_map(move |event| told(event.is_ok())).boxed(),
    )
}

fn policies(client: &Client) -> [Api<DynamicObject>; 2] {
    use kube::api::ApiResource;
    let kinds = [
        ApiResource::erase::<crds::CiliumNetworkPolicy>(&()),
        ApiResource::erase::<crds::CiliumClusterwideNetworkPolicy>(&()),
    ];
    kinds.map(|kind| Api::all_with(client.clone(), &kind))
}

async fn look_through(client: &Client, namespace: &str) -> Result<(), Error> {
    let mut wanted = BTreeSet::new();
    for api in policies(client) {
        for object in api.list(&ListParams::default()).await?.items {
            wanted.extend(named(&object.data, &object.namespace().unwrap_or_default()));
        }
    }
    let copies: Api<k8s::Secret> = Api::namespaced(client.clone(), namespace);
    let listed = copies.list(&ListParams::default().labels(OWNING_NAME)).await?;
    let mut known: BTreeMap<String, k8s::Secret> = listed.items.into_iter().map(|s| (s.name_any(), s)).collect();
    for of in &wanted {
        let original = Api::<k8s::Secret>::namespaced(client.clone(), &of.0).get_opt(&of.1).await?;
        let Some(original) = original else { continue };
        let name = copy_name(&of.0, &of.1);
        let found = match known.remove(&name) {
            Some(found) => Some(found),
            None => copies.get_opt(&name).await?,
        };
        write(&copies, of, found, copy(of, &original, namespace)).await?;
    }
    // Of what is left nobody has a need, or it is a copy of nothing.
    for (name, secret) in known {
        let Some(of) = owner(&secret).filter(|of| copy_name(&of.0, &of.1) == name) else { continue };
        tracing::info!(namespace = of.0, name = of.1, "the copy of a Secret is removed");
        settled(copies.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(())
}

async fn write(
    copies: &Api<k8s::Secret>,
    of: &Key,
    found: Option<k8s::Secret>,
    mut wanted: k8s::Secret,
) -> Result<(), Error> {
    let name = wanted.name_any();
    let deed = deed(of, found.as_ref(), &wanted);
    match deed {
        Deed::Leave => return Ok(()),
        Deed::Stranger => {
            tracing::warn!(namespace = of.0, name = of.1, copy = name, "another Secret has the name of its copy");
            return Ok(());
        }
        Deed::CreateAnew => settled(copies.delete(&name, &DeleteParams::default()).await)?,
        Deed::Create | Deed::Replace => {}
    }
    tracing::info!(namespace = of.0, name = of.1, ?deed, "the copy of a Secret");
    if deed == Deed::Replace {
        // Nobody else may have written meanwhile.
        wanted.metadata.resource_version = found.and_then(|found| found.resource_version());
        settled(copies.replace(&name, &PostParams::default(), &wanted).await)
    } else {
        settled(copies.create(&PostParams::default(), &wanted).await)
    }
}

/// Without what an answer held.
fn brief(error: &Error) -> String {
    match error {
        Error::Api(kube::Error::SerdeError(_)) => "the API server's answer cannot be read".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.into(), name.into())
    }

    fn secret(value: &str, kind: &str) -> k8s::Secret {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "a", "labels": {"own": "x"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2"}},
            "type": kind, "data": {"t": value}}))
        .unwrap()
    }

    #[test]
    fn policies_name_secrets_in_headers_and_for_both_sides_of_tls() {
        let port = json!({"terminatingTLS": {"secret": {"name": "one", "namespace": "b"}},
            "originatingTLS": {"secret": {"name": "two"}},
            "rules": {"http": [{"headerMatches": [{"name": "X", "secret": {"name": "three"}}, {"name": "Y"}]}]}});
        let object = json!({"spec": {"ingress": [{"toPorts": [port]}], "egress": [{}]}, "specs": [
            {"egress": [{"toPorts": [{"originatingTLS": {"secret": {"name": "four", "namespace": ""}}}, null]}]}, 7]});
        let all = [key("a", "four"), key("a", "three"), key("a", "two"), key("b", "one")];
        assert_eq!(named(&object, "a"), all.into());
        assert_eq!(named(&object, ""), [key("b", "one")].into(), "a cluster-wide policy has no namespace");
        assert_eq!(named(&json!({"spec": []}), "a"), BTreeSet::new());
    }

    #[test]
    fn copies_follow_their_secret_and_strangers_stay() {
        let of = key("a", "s");
        let wanted = copy(&of, &secret("aHVudGVyMg==", "Opaque"), "cilium-secrets");
        assert_eq!(wanted.metadata.name.as_deref(), Some(copy_name("a", "s").as_str()));
        assert_eq!((wanted.labels()["own"].as_str(), wanted.labels()[OWNING_NAME].as_str()), ("x", "s"));
        assert!(wanted.annotations().values().all(|value| value != "hunter2"));
        assert_eq!(deed(&of, None, &wanted), Deed::Create);
        assert_eq!(deed(&of, Some(&wanted), &wanted), Deed::Leave);
        let changed = copy(&of, &secret("bmV3", "Opaque"), "cilium-secrets");
        assert_eq!(deed(&of, Some(&wanted), &changed), Deed::Replace);
        let tls = copy(&of, &secret("bmV3", "kubernetes.io/tls"), "cilium-secrets");
        assert_eq!(deed(&of, Some(&wanted), &tls), Deed::CreateAnew);
        let frozen = k8s::Secret { immutable: Some(true), ..wanted.clone() };
        assert_eq!(deed(&of, Some(&frozen), &changed), Deed::CreateAnew);
        assert_eq!(deed(&key("b", "s"), Some(&wanted), &changed), Deed::Stranger);
        assert_eq!(deed(&of, Some(&secret("bmV3", "Opaque")), &changed), Deed::Stranger);
    }
}
