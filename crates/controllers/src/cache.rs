//! What the controllers know about the cluster.
//!
//! One watch per kind feeds one [`Cache`], shared by everybody. Listeners hear
//! every change with the object before and after it, in order, and must only
//! note it (put keys in queues): they run on the watching task.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug, Display},
    sync::{Arc, PoisonError, RwLock},
};

use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use osc_fault::chain;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Key of a cluster-scoped object.
    pub(crate) fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// One object before and after a change; at least one side is there.
pub(crate) struct Change<K> {
    pub(crate) old: Option<Arc<K>>,
    pub(crate) new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object as last seen.
    pub(crate) fn latest(&self) -> &Arc<K> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has an object")
    }

    /// Both sides that exist: labels may have changed from one owner to another.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }
}

/// Anything that can be watched and cached.
pub(crate) trait Object: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Object for K {}

type Listener<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// All objects of one kind as last seen; clones share it.
pub(crate) struct Cache<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    listeners: RwLock<Vec<Listener<K>>>,
    synced: watch::Sender<bool>,
}

impl<K> Cache<K> {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            objects: RwLock::new(BTreeMap::new()),
            listeners: RwLock::new(Vec::new()),
            synced: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Calls `listener` on every change from now on.
    pub(crate) fn on_change(&self, listener: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.shared.listeners.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects().get(key).cloned()
    }

    /// Everything, in order of namespace and name.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.objects().values().cloned().collect()
    }

    /// Everything of one namespace.
    pub(crate) fn of_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.objects()
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Waits until the first complete list is in. Cancel-safe.
    pub(crate) async fn synced(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn objects(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.shared.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: &Change<K>) {
        for listener in self.shared.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(change);
        }
    }
}

impl<K: Resource> Cache<K> {
    fn put(&self, object: K) {
        let key = Key::of(&object);
        let new = Arc::new(object);
        let old = self.shared.objects.write().unwrap_or_else(PoisonError::into_inner).insert(key, new.clone());
        let same = old.as_ref().is_some_and(|old| old.meta().resource_version == new.meta().resource_version);
        if !same {
            self.tell(&Change { old, new: Some(new) });
        }
    }

    fn remove(&self, key: &Key) {
        let old = self.shared.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        if old.is_some() {
            self.tell(&Change { old, new: None });
        }
    }

    /// Takes over a complete list: whatever is not in it is gone.
    fn replace(&self, listed: Vec<K>) {
        let seen: std::collections::BTreeSet<Key> = listed.iter().map(Key::of).collect();
        let gone: Vec<Key> = self.objects().keys().filter(|key| !seen.contains(key)).cloned().collect();
        for key in gone {
            self.remove(&key);
        }
        for object in listed {
            self.put(object);
        }
        self.shared.synced.send_replace(true);
    }

    #[cfg(test)]
    pub(crate) fn with(objects: Vec<K>) -> Self {
        let cache = Self::new();
        cache.replace(objects);
        cache
    }
}

impl<K: Object> Cache<K> {
    /// Watches until stopped. `trim` drops what no controller reads before it is kept.
    pub(crate) async fn fill(self, api: Api<K>, config: watcher::Config, trim: fn(&mut K), stop: CancellationToken) {
        let events = watcher(api, config).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed = Vec::new();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                None => return,
                Some(Ok(event)) => self.take(event, trim, &mut listed),
                // Before the first list nothing works, so somebody should know.
                Some(Err(error)) if !*self.shared.synced.borrow() => {
                    let kind = std::any::type_name::<K>();
                    tracing::warn!(kind, error = %chain(&error), "objects cannot be listed; controllers wait");
                }
                Some(Err(error)) => {
                    tracing::debug!(error = %chain(&error), "watch interrupted; it resumes");
                }
            }
        }
    }

    fn take(&self, event: watcher::Event<K>, trim: fn(&mut K), listed: &mut Vec<K>) {
        let kept = |mut object: K| {
            object.meta_mut().managed_fields = None;
            trim(&mut object);
            object
        };
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => listed.push(kept(object)),
            watcher::Event::InitDone => self.replace(std::mem::take(listed)),
            watcher::Event::Apply(object) => self.put(kept(object)),
            watcher::Event::Delete(object) => self.remove(&Key::of(&object)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    fn object(namespace: &str, name: &str, version: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[test]
    fn a_relist_tells_exactly_what_changed_while_nobody_watched() {
        let cache = Cache::with(vec![object("a", "kept", "1"), object("a", "changed", "2"), object("b", "gone", "3")]);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        cache.on_change(move |change| {
            let version = |side: &Option<Arc<ConfigMap>>| {
                side.as_ref().and_then(|object| object.metadata.resource_version.clone()).unwrap_or_default()
            };
            log.lock().unwrap().push((
                Key::of(change.latest().as_ref()).to_string(),
                version(&change.old),
                version(&change.new),
            ));
        });
        cache.replace(vec![object("a", "kept", "1"), object("a", "changed", "4"), object("b", "new", "5")]);
        let row = |name: &str, old: &str, new: &str| (name.to_owned(), old.to_owned(), new.to_owned());
        assert_eq!(*heard.lock().unwrap(), [row("b/gone", "3", ""), row("a/changed", "2", "4"), row("b/new", "", "5")]);
        assert_eq!(cache.of_namespace("a").len(), 2);
        assert_eq!(cache.of_namespace("b").len(), 1);
    }
}
