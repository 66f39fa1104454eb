//! What the controller knows of the cluster: one watch per kind.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
        watcher::Event,
    },
};
use osc_fault::chain;
use osc_objects::{ContainerRuntimeConfig, KubeletConfig, MachineConfig, MachineConfigPool, MachineConfiguration};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::pools::NodeView;

/// All objects of the kinds the controller follows, as last seen.
#[derive(Clone)]
pub(super) struct Stores {
    pub(super) nodes: Nodes,
    pub(super) pools: Store<MachineConfigPool>,
    pub(super) configs: Store<MachineConfig>,
    pub(super) engines: Store<ContainerRuntimeConfig>,
    pub(super) kubelets: Store<KubeletConfig>,
    pub(super) settings: Store<MachineConfiguration>,
    changes: watch::Receiver<u64>,
}

impl Stores {
    /// The stores, and what fills them as long as it is polled.
    pub(super) fn follow(client: &Client) -> (Self, impl Future<Output = ()> + use<>) {
        let changes = Arc::new(watch::Sender::new(0));
        let nodes = Nodes::default();
        let follow_nodes = nodes.clone().follow(events(client), changes.clone());
        let (pools, follow_pools) = follow(client, &changes);
        let (configs, follow_configs) = follow(client, &changes);
        let (engines, follow_engines) = follow(client, &changes);
        let (kubelets, follow_kubelets) = follow(client, &changes);
        let (settings, follow_settings) = follow(client, &changes);
        let stores = Self { nodes, pools, configs, engines, kubelets, settings, changes: changes.subscribe() };
        let watching = async move {
            tokio::select! {
                () = follow_nodes => {}
                () = follow_pools => {}
                () = follow_configs => {}
                () = follow_engines => {}
                () = follow_kubelets => {}
                () = follow_settings => {}
            }
        };
        (stores, watching)
    }

    /// Waits until every store that is decided by holds a complete list. Cancel-safe.
    pub(super) async fn synced(&mut self) {
        // The writers live as long as the controller, so waiting cannot fail.
        let _ = self.pools.wait_until_ready().await;
        let _ = self.configs.wait_until_ready().await;
        let _ = self.engines.wait_until_ready().await;
        let _ = self.kubelets.wait_until_ready().await;
        while !self.nodes.listed() {
            self.changed().await;
        }
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

/// Every node, reduced to what is decided by. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    nodes: BTreeMap<String, Arc<NodeView>>,
    /// A list that is still coming in.
    coming: BTreeMap<String, Arc<NodeView>>,
    listed: bool,
}

impl Nodes {
    /// All nodes, by name.
    pub(super) fn all(&self) -> Vec<Arc<NodeView>> {
        self.known(|known| known.nodes.values().cloned().collect())
    }

    pub(super) fn len(&self) -> usize {
        self.known(|known| known.nodes.len())
    }

    fn listed(&self) -> bool {
        self.known(|known| known.listed)
    }

    fn known<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn follow(self, events: impl Stream<Item = watcher::Result<Event<Node>>>, changes: Arc<watch::Sender<u64>>) {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if self.known(|known| known.take(event)) {
                        changes.send_modify(|count| *count += 1);
                    }
                }
                Err(error) => interrupted::<Node>(&error),
            }
        }
    }
}

impl Known {
    /// Takes an event in; whether it says anything new.
    fn take(&mut self, event: Event<Node>) -> bool {
        match event {
            Event::Init => {
                self.coming.clear();
                false
            }
            Event::InitApply(node) => {
                let view = NodeView::of(&node);
                self.coming.insert(view.name.clone(), Arc::new(view));
                false
            }
            Event::InitDone => {
                self.nodes = std::mem::take(&mut self.coming);
                self.listed = true;
                true
            }
            Event::Apply(node) => {
                let view = NodeView::of(&node);
                let news = self.nodes.get(&view.name).is_none_or(|old| !old.says_the_same(&view));
                self.nodes.insert(view.name.clone(), Arc::new(view));
                news
            }
            Event::Delete(node) => self.nodes.remove(&node.name_any()).is_some(),
        }
    }
}

fn events<K>(client: &Client) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff()
}

fn interrupted<K: Resource<DynamicType = ()>>(error: &watcher::Error) {
    let kind = K::kind(&());
    tracing::debug!(%kind, error = %chain(error), "watch interrupted; it resumes");
}

fn follow<K>(client: &Client, changes: &Arc<watch::Sender<u64>>) -> (Store<K>, impl Future<Output = ()> + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = events(client).modify(|object: &mut K| object.managed_fields_mut().clear());
    let changes = changes.clone();
    let filling = async move {
        let mut events = std::pin::pin!(events.reflect(writer));
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => changes.send_modify(|count| *count += 1),
                Err(error) => interrupted::<K>(&error),
            }
        }
    };
    (store, filling)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, version: &str, state: &str) -> Node {
        let annotations = json!({crate::names::STATE: state});
        let node = json!({"metadata": {"name": name, "resourceVersion": version, "annotations": annotations}});
        serde_json::from_value(node).expect("a node")
    }

    #[test]
    fn a_list_replaces_what_was_known_and_heartbeats_wake_nobody() {
        let mut known = Known::default();
        let names = |known: &Known| known.nodes.keys().cloned().collect::<Vec<_>>();
        for (event, news, want) in [
            (Event::Init, false, &[][..]),
            (Event::InitApply(node("a", "1", "Done")), false, &[]),
            (Event::InitApply(node("b", "2", "Done")), false, &[]),
            (Event::InitDone, true, &["a", "b"]),
            (Event::Apply(node("a", "3", "Done")), false, &["a", "b"]),
            (Event::Apply(node("a", "4", "Working")), true, &["a", "b"]),
            (Event::Apply(node("c", "5", "Done")), true, &["a", "b", "c"]),
            (Event::Delete(node("b", "6", "Done")), true, &["a", "c"]),
            (Event::Delete(node("b", "6", "Done")), false, &["a", "c"]),
            (Event::Init, false, &["a", "c"]),
            (Event::InitApply(node("a", "7", "Done")), false, &["a", "c"]),
            (Event::InitDone, true, &["a"]),
        ] {
            let what = format!("{event:?}");
            assert_eq!(known.take(event), news, "{what}");
            assert_eq!(names(&known), want, "{what}");
        }
        assert!(known.listed && known.nodes["a"].version == "7");
    }
}
