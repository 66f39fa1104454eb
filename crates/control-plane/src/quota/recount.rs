//! Counting what is there, for quotas whose objects changed.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use osc_api::{Quantity, pod::Resources, quota, status::Status};
use osc_store::{Page, Prefix, Revision, WriteError};
use serde_json::Value;
use tokio::{sync::Notify, task::JoinSet};
use tracing::warn;

use super::{note, quotas};
use crate::{api::Api, objects};

/// Changes often come in bursts.
const SETTLE: Duration = Duration::from_millis(100);
/// Kinds nobody follows, which are custom resources, are counted this often.
const RESYNC: Duration = Duration::from_secs(30);
/// Pause after a failure of the store.
const RETRY: Duration = Duration::from_secs(1);

/// Namespaces in which something changed.
#[derive(Default)]
struct Dirty {
    namespaces: Mutex<BTreeSet<String>>,
    bell: Notify,
}

impl Dirty {
    fn add(&self, namespaces: impl IntoIterator<Item = String>) {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).extend(namespaces);
        self.bell.notify_one();
    }

    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.namespaces.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps the status of all quotas true until the server stops.
pub(crate) async fn run(api: Arc<Api>) {
    let dirty = Arc::new(Dirty::default());
    let mut followers = JoinSet::new();
    for resource in osc_api::builtin().iter().filter(|resource| quota::counts(resource)) {
        let kind = (resource.group.clone(), resource.plural.clone());
        followers.spawn(follow(Arc::clone(&api), kind, Arc::clone(&dirty)));
    }
    loop {
        if let Err(status) = everywhere(&api, &dirty).await {
            warn!(error = status.message, "quotas are not counted, trying again");
        }
        let again = tokio::time::sleep(RESYNC);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = api.stop.cancelled() => return,
                () = again.as_mut() => break,
                () = dirty.bell.notified() => tokio::time::sleep(SETTLE).await,
            }
            if let Err(status) = settle(&api, &dirty).await {
                warn!(error = status.message, "quotas are not counted, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Notes in which namespaces objects of a kind change.
async fn follow(api: Arc<Api>, (group, plural): (String, String), dirty: Arc<Dirty>) {
    let Ok(prefix) = Prefix::resource(&group, &plural) else { return };
    while !api.stop.is_cancelled() {
        // What happens before this is counted by the round over everything.
        let watch = api.store.revision().map_err(Into::into).and_then(|now| api.store.watch(&prefix, now));
        if let Ok(mut watch) = watch {
            loop {
                let event = tokio::select! {
                    () = api.stop.cancelled() => return,
                    event = watch.next() => event,
                };
                let Ok(event) = event else { break };
                dirty.add([event.key.namespace().to_owned()]);
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Marks all namespaces that have a quota, and counts there.
async fn everywhere(api: &Api, dirty: &Dirty) -> Result<(), Status> {
    let listing = api.store.list(&quotas(api)?.prefix("")?, Page::default()).await;
    let listing = listing.map_err(|error| objects::history(&error))?;
    dirty.add(listing.entries.iter().map(|entry| entry.key.namespace().to_owned()));
    settle(api, dirty).await
}

/// Counts in all marked namespaces.
async fn settle(api: &Api, dirty: &Dirty) -> Result<(), Status> {
    for namespace in dirty.take() {
        if let Err(status) = namespace_of(api, &namespace).await {
            dirty.add([namespace]);
            return Err(status);
        }
    }
    Ok(())
}

/// Counts for the quotas of a namespace, and writes down what differs.
async fn namespace_of(api: &Api, namespace: &str) -> Result<(), Status> {
    let served = quotas(api)?;
    let listing = api.store.list(&served.prefix(namespace)?, Page::default()).await;
    let listing = listing.map_err(|error| objects::history(&error))?;
    for entry in &listing.entries {
        let mut quota = objects::decode(&served, &entry.value)?;
        let used = count(api, &quota, namespace, listing.revision).await?;
        if quota::used(&quota).as_ref() == Some(&used) {
            continue;
        }
        note(&mut quota, used);
        let key = served.key(namespace, entry.key.name())?;
        match api.store.write(vec![objects::replacement(&served, key, entry.revision, quota)]).await {
            // Charged or changed meanwhile: that is a change of its own, which is counted next.
            Ok(_) | Err(WriteError::Conflict { .. }) => {}
            Err(failure) => return Err(Status::unavailable(failure.to_string())),
        }
    }
    Ok(())
}

/// What is used of a quota at a revision.
pub(super) async fn count(api: &Api, quota: &Value, namespace: &str, at: Revision) -> Result<Resources, Status> {
    let hard = quota::hard(quota);
    let mut used: Resources = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
    let snapshot = api.catalog.snapshot();
    let mut seen = BTreeSet::new();
    for served in snapshot.iter().filter(|served| quota::counts(&served.resource)) {
        let names = quota::usage(&served.resource, &Value::Null);
        let named = |name: &String| hard.contains_key(name);
        // Pods and claims have names that depend on what they ask for.
        let manifold = served.resource.is("", "pods") || served.resource.is("", "persistentvolumeclaims");
        if !(manifold || names.keys().any(named)) || !seen.insert(served.resource.qualified()) {
            continue;
        }
        let page = Page { at: Some(at), ..Page::default() };
        let listing =
            api.store.list(&served.prefix(namespace)?, page).await.map_err(|error| objects::history(&error))?;
        for entry in &listing.entries {
            let object = objects::decode(served, &entry.value)?;
            if !quota::covers(quota, &served.resource, &object) {
                continue;
            }
            for (name, amount) in quota::usage(&served.resource, &object) {
                if let Some(sum) = used.get_mut(&name) {
                    *sum = sum.plus(&amount);
                }
            }
        }
    }
    Ok(used)
}
