//! Watches: they say that it is time to look, never what there is to see.
//!
//! Each remembers a fingerprint per object of what matters to decisions, so that
//! heartbeats of nodes and our own status writes wake nobody.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Node, Pod},
    node::v1::RuntimeClass,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use osc_objects::{ContainerRuntimeConfig, KataConfig, MachineConfig, MachineConfigPool, names::kata};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinSet};

use crate::seen::NodeSeen;

/// Starts all watches. They end when the set is dropped or aborted.
pub(crate) fn start(client: &Client, namespace: &str, wake: &Arc<Notify>, tasks: &mut JoinSet<()>) {
    let client = client.clone();
    let config = watcher::Config::default;
    let mut whole = Whole { wake, tasks };
    whole.watch(Api::<KataConfig>::all(client.clone()), config(), |config| {
        fingerprint(&(config.metadata.generation, config.metadata.deletion_timestamp.is_some(), config.finalizers()))
    });
    whole.watch(Api::<PartialObjectMeta<Node>>::all(client.clone()), config(), |node| {
        fingerprint(&format!("{:?}", NodeSeen::from(node)))
    });
    whole.watch(Api::<MachineConfigPool>::all(client.clone()), config(), |pool| {
        fingerprint(&format!("{:?} {:?}", pool.spec, pool.status))
    });
    whole.watch(Api::<ContainerRuntimeConfig>::all(client.clone()), config(), |level| {
        fingerprint(&format!("{:?}", level.spec))
    });
    let ours = || Api::<ConfigMap>::namespaced(client.clone(), namespace);
    whole.watch(ours(), config(), |map| fingerprint(&map.data));
    let monitor = config().fields(&format!("metadata.name={}", kata::MONITOR));
    whole.watch(Api::<DaemonSet>::namespaced(client.clone(), namespace), monitor, |set| {
        fingerprint(&set.metadata.generation)
    });
    whole.existence(Api::<PartialObjectMeta<RuntimeClass>>::all(client.clone()));
    whole.existence(Api::<PartialObjectMeta<MachineConfig>>::all(client));
}

/// A watch on some pods: only while a deletion waits for them. Of all others, which there
/// may be many of, it remembers nothing and wakes nobody.
pub(crate) async fn pods(client: Client, wake: Arc<Notify>, some: BTreeSet<(String, String)>) {
    let stream = watcher(Api::<PartialObjectMeta<Pod>>::all(client), watcher::Config::default());
    let concerned = move |pod: &PartialObjectMeta<Pod>| {
        let name = (pod.namespace().unwrap_or_default(), pod.name_any());
        some.contains(&name).then(|| fingerprint(&pod.metadata.resource_version))
    };
    follow(stream, wake, concerned).await;
}

struct Whole<'a> {
    wake: &'a Arc<Notify>,
    tasks: &'a mut JoinSet<()>,
}

impl Whole<'_> {
    /// A watch on what objects say.
    fn watch<K>(&mut self, api: Api<K>, config: watcher::Config, print: fn(&K) -> u64)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        self.tasks.spawn(follow(watcher(api, config), Arc::clone(self.wake), move |object| Some(print(object))));
    }

    /// A watch on which objects there are; there may be large ones.
    fn existence<K>(&mut self, api: Api<PartialObjectMeta<K>>)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
    {
        self.watch(api, watcher::Config::default(), |_| 0);
    }
}

/// Wakes when an object's print changes; one without a print is nobody's concern.
async fn follow<K, P>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    wake: Arc<Notify>,
    print: P,
) where
    K: Resource<DynamicType = ()>,
    P: Fn(&K) -> Option<u64>,
{
    let mut events = std::pin::pin!(stream.default_backoff());
    let mut prints: HashMap<(Option<String>, String), u64> = HashMap::new();
    let key = |object: &K| (object.namespace(), object.name_any());
    while let Some(event) = events.next().await {
        let news = match event {
            Ok(watcher::Event::Init) => {
                prints.clear();
                false
            }
            Ok(watcher::Event::InitApply(object)) => {
                prints.extend(print(&object).map(|print| (key(&object), print)));
                false
            }
            // Anything may have happened while there was no watch.
            Ok(watcher::Event::InitDone) => true,
            Ok(watcher::Event::Apply(object)) => {
                print(&object).is_some_and(|new| prints.insert(key(&object), new) != Some(new))
            }
            Ok(watcher::Event::Delete(object)) => prints.remove(&key(&object)).is_some(),
            Err(error) => {
                // Most often the kind is not there yet; the watch tries again by itself.
                tracing::debug!(kind = %K::kind(&()), error = %error, "watch interrupted");
                false
            }
        };
        if news {
            wake.notify_one();
        }
    }
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
