//! What do all requests share?

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::json;

use crate::registry::Registry;
use crate::services::Allocation;
use crate::store::Store;
use crate::token::Signer;
use crate::{Config, Error, KubeletResolver, StaticToken, crd, meta};

/// The server's state.
pub struct Api {
    pub store: Store,
    pub registry: ArcSwap<Registry>,
    pub tokens: Vec<StaticToken>,
    pub signer: Signer,
    pub allocation: Allocation,
    pub version: String,
    pub kubelets: Arc<dyn KubeletResolver>,
    pub stop: tokio_util::sync::CancellationToken,
}

impl Api {
    /// Opens the store and makes what every cluster has: namespaces, the service `kubernetes`, roles.
    ///
    /// # Errors
    /// If the store cannot be opened or written.
    pub async fn open(config: &Config) -> Result<Arc<Self>, Error> {
        let store = Store::open(&config.store)?;
        let registry = registry_after(&Registry::default(), &store);
        let allocation = Allocation::new(&config.service_cidrs, config.node_ports.clone())?;
        let api = Arc::new(Self {
            store,
            registry: ArcSwap::from_pointee(registry),
            tokens: config.tokens.clone(),
            signer: Signer::new(&config.authority.token_key)?,
            allocation,
            version: config.version.clone(),
            kubelets: config.kubelets.clone(),
            stop: tokio_util::sync::CancellationToken::new(),
        });
        let path = config.store.clone();
        api.bootstrap(config).await.map_err(|status| Error::Store { path, reason: status.message })?;
        Ok(api)
    }

    /// Reads the served resources anew: a definition came, changed or went.
    pub fn reload_registry(&self) {
        // Of two who do this at once the later one has seen the store last.
        self.registry.rcu(|before| registry_after(before, &self.store));
    }

    async fn bootstrap(&self, config: &Config) -> Result<(), crate::Status> {
        let now = meta::seconds(jiff::Timestamp::now());
        let objects = crate::lifecycle::bootstrap_objects(config, &self.allocation);
        self.store
            .transact(|tx| {
                for (key, mut object, renew) in objects {
                    let old = tx.get(&key);
                    if old.is_some() && !renew {
                        continue;
                    }
                    let metadata = meta::metadata(&mut object);
                    metadata.insert("name".into(), key.name.as_str().into());
                    if !key.namespace.is_empty() {
                        metadata.insert("namespace".into(), key.namespace.as_str().into());
                    }
                    let kept = |field: &str| old.as_ref().and_then(|old| old.value["metadata"].get(field).cloned());
                    let uid = kept("uid").unwrap_or_else(|| json!(uuid::Uuid::new_v4().to_string()));
                    metadata.insert("uid".into(), uid);
                    metadata
                        .insert("creationTimestamp".into(), kept("creationTimestamp").unwrap_or_else(|| json!(now)));
                    tx.put(key, object);
                }
                Ok(())
            })
            .await
    }
}

fn registry_after(before: &Registry, store: &Store) -> Registry {
    let (definitions, _) = store.list(crd::COLLECTION, None);
    let served = definitions.iter().map(|object| &object.value).filter(|definition| crd::is_served(definition));
    Registry::after(before, served)
}
