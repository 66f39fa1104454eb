//! What the controller knows of the cluster: one watch per kind.

use std::{fmt::Debug, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use osc_fault::chain;
use osc_objects::{ContainerRuntimeConfig, KubeletConfig, MachineConfig, MachineConfigPool};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// All objects of the kinds the controller follows, as last seen.
#[derive(Clone)]
pub(super) struct Stores {
    pub(super) nodes: Store<Node>,
    pub(super) pools: Store<MachineConfigPool>,
    pub(super) configs: Store<MachineConfig>,
    pub(super) engines: Store<ContainerRuntimeConfig>,
    pub(super) kubelets: Store<KubeletConfig>,
    changes: watch::Receiver<u64>,
}

impl Stores {
    /// The stores, and what fills them as long as it is polled.
    pub(super) fn follow(client: &Client) -> (Self, impl Future<Output = ()> + use<>) {
        let changes = Arc::new(watch::Sender::new(0));
        let (nodes, follow_nodes) = follow(client, &changes);
        let (pools, follow_pools) = follow(client, &changes);
        let (configs, follow_configs) = follow(client, &changes);
        let (engines, follow_engines) = follow(client, &changes);
        let (kubelets, follow_kubelets) = follow(client, &changes);
        let stores = Self { nodes, pools, configs, engines, kubelets, changes: changes.subscribe() };
        let watching = async move {
            tokio::select! {
                () = follow_nodes => {}
                () = follow_pools => {}
                () = follow_configs => {}
                () = follow_engines => {}
                () = follow_kubelets => {}
            }
        };
        (stores, watching)
    }

    /// Waits until every store holds a complete list. Cancel-safe.
    pub(super) async fn synced(&self) {
        // The writers live as long as the controller, so waiting cannot fail.
        let _ = self.nodes.wait_until_ready().await;
        let _ = self.pools.wait_until_ready().await;
        let _ = self.configs.wait_until_ready().await;
        let _ = self.engines.wait_until_ready().await;
        let _ = self.kubelets.wait_until_ready().await;
    }

    /// Waits for a change since the last call. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await; // whoever polls the watches notices
        }
    }

    /// All objects of a store, by name.
    pub(super) fn sorted<K>(store: &Store<K>) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        let mut all = store.state();
        all.sort_by_key(|object| object.name_any());
        all
    }
}

fn follow<K>(client: &Client, changes: &Arc<watch::Sender<u64>>) -> (Store<K>, impl Future<Output = ()> + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let api: Api<K> = Api::all(client.clone());
    let changes = changes.clone();
    let filling = async move {
        let events = watcher(api, watcher::Config::default()).default_backoff().modify(|object| {
            object.managed_fields_mut().clear();
        });
        let mut events = std::pin::pin!(events.reflect(writer));
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => changes.send_modify(|count| *count += 1),
                Err(error) => {
                    let kind = K::kind(&());
                    tracing::debug!(%kind, error = %chain(&error), "watch interrupted; it resumes");
                }
            }
        }
    };
    (store, filling)
}
