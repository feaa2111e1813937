//! What goes when its owner went?
//!
//! An object whose owners are all gone is deleted. An owner that is deleted in the foreground stays until those who block
//! it are gone; one that is orphaned lets go of its dependents first.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::api::Api;
use crate::meta;
use crate::registry::Resource;
use crate::store::{Key, Object, Transaction};
use crate::verbs::remove::{self, Options};

/// The finalizer of an owner that waits for its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner that wants its dependents to stay.
pub const ORPHAN: &str = "orphan";

const PAUSE: Duration = Duration::from_millis(50);

/// An object may be made after its owner went; that is found out this much later at most.
const REVIEW: u32 = 100;

/// Runs until the server stops: soon after something went or was asked to, and now and then.
pub async fn run(api: Arc<Api>) {
    let (mut seen, mut reviewed, mut rounds) = (u64::MAX, 0, 0);
    loop {
        let (departures, version) = (api.store.departures(), api.store.resource_version());
        rounds += 1;
        if departures != seen || (rounds >= REVIEW && version != reviewed) {
            (seen, reviewed, rounds) = (departures, version, 0);
            collect(&api).await;
        }
        tokio::select! {
            () = api.stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn resource_of(api: &Api, collection: &str) -> Option<Arc<Resource>> {
    api.registry.load().collections().find(|resource| resource.collection == collection).cloned()
}

/// Which owners of an object are gone, and whether one that is there is being deleted in the foreground.
fn owners(api: &Api, object: &Value) -> (usize, usize, bool) {
    let (mut present, mut absent, mut waiting) = (0, 0, false);
    for owner in meta::list(object, "/metadata/ownerReferences") {
        let found = owner["uid"].as_str().and_then(|uid| api.store.by_uid(uid)).and_then(|key| api.store.get(&key));
        match found {
            None => absent += 1,
            Some(found) => {
                present += 1;
                waiting |=
                    meta::is_deleting(&found.value) && meta::finalizers(&found.value).any(|one| one == FOREGROUND);
            }
        }
    }
    (present, absent, waiting)
}

async fn collect(api: &Api) {
    for (key, object) in api.store.owned() {
        if meta::is_deleting(&object.value) {
            continue;
        }
        let (present, absent, waiting) = owners(api, &object.value);
        if (present == 0 && absent > 0) || (waiting && present == 1) {
            delete(api, &key, &object).await;
        }
    }
    for resource in api.registry.load_full().collections() {
        for owner in api.store.list(&resource.collection, None).0 {
            if meta::is_deleting(&owner.value) {
                settle(api, resource, &owner).await;
            }
        }
    }
}

async fn delete(api: &Api, key: &Key, object: &Object) {
    let Some(resource) = resource_of(api, &key.collection) else { return };
    let uid = meta::uid(&object.value);
    let result = api
        .store
        .transact(|tx| {
            let Some(current) = tx.get(key).filter(|current| meta::uid(&current.value) == uid) else { return Ok(()) };
            remove::remove(&resource, tx, &current, &Options::default(), jiff::Timestamp::now()).map(drop)
        })
        .await;
    if let Err(status) = result {
        tracing::warn!(object = ?key, reason = %status, "gc: not deleted");
    }
}

/// Ends an owner's waiting where it has nothing left to wait for.
async fn settle(api: &Api, resource: &Resource, owner: &Object) {
    let uid = meta::uid(&owner.value);
    let has = |finalizer: &str| meta::finalizers(&owner.value).any(|one| one == finalizer);
    let dependents = api.store.dependents(uid);
    let key = crate::verbs::change::key_of(resource, &owner.value);
    if has(ORPHAN) {
        for dependent in &dependents {
            change(api, dependent, |object| let_go(object, uid)).await;
        }
        change(api, &key, |object| drop_finalizer(object, ORPHAN)).await;
    } else if has(FOREGROUND) {
        let blocks = |key: &Key| {
            let object = api.store.get(key);
            object.is_some_and(|object| {
                meta::list(&object.value, "/metadata/ownerReferences")
                    .iter()
                    .any(|one| one["uid"] == uid && one["blockOwnerDeletion"] == true)
            })
        };
        if !dependents.iter().any(blocks) {
            change(api, &key, |object| drop_finalizer(object, FOREGROUND)).await;
        }
    }
}

fn let_go(object: &mut Value, uid: &str) {
    if let Some(Value::Array(owners)) = meta::metadata(object).get_mut("ownerReferences") {
        owners.retain(|owner| owner["uid"] != uid);
    }
}

fn drop_finalizer(object: &mut Value, finalizer: &str) {
    if let Some(Value::Array(items)) = meta::metadata(object).get_mut("finalizers") {
        items.retain(|one| one != finalizer);
    }
}

/// Changes an object, and deletes it if nothing holds it any more.
pub async fn change(api: &Api, key: &Key, work: impl FnOnce(&mut Value)) {
    let Some(resource) = resource_of(api, &key.collection) else { return };
    let result = api.store.transact(|tx| rewrite(&resource, tx, key, work)).await;
    if let Err(status) = result {
        tracing::warn!(object = ?key, reason = %status, "object not changed");
    }
    if key.collection == crate::crd::COLLECTION {
        api.reload_registry();
    }
}

fn rewrite(
    resource: &Resource,
    tx: &mut Transaction<'_>,
    key: &Key,
    work: impl FnOnce(&mut Value),
) -> Result<(), crate::Status> {
    let Some(old) = tx.get(key) else { return Ok(()) };
    let mut object = old.value.clone();
    work(&mut object);
    if meta::list(&object, "/metadata/finalizers").is_empty() {
        meta::metadata(&mut object).shift_remove("finalizers");
    }
    if meta::list(&object, "/metadata/ownerReferences").is_empty() {
        meta::metadata(&mut object).shift_remove("ownerReferences");
    }
    if crate::verbs::change::is_finished(resource, &object) {
        if resource.collection == crate::crd::COLLECTION {
            crate::crd::remove_objects(tx, &object);
        }
        tx.delete(key);
    } else if object != old.value {
        tx.put(key.clone(), object);
    }
    Ok(())
}
