//! One metadata watch per kind, started and stopped as kinds come and go.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::StreamExt;
use kube::{
    Api, Client,
    api::{DynamicObject, PartialObjectMeta},
    runtime::{WatchStreamExt, watcher},
};
use osc_fault::chain;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{garbage::Collector, kinds::Kind};

/// Kinds whose objects own nothing and are owned by nobody, in numbers.
const IGNORED: [&str; 2] = ["events.", "events.events.k8s.io"];

struct Watching {
    kind: Kind,
    stop: CancellationToken,
    synced: watch::Receiver<bool>,
}

/// The running watches.
pub(super) struct Watches {
    client: Client,
    running: HashMap<String, Watching>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Watches {
    pub(super) fn new(client: Client, stop: CancellationToken) -> Self {
        Self { client, running: HashMap::new(), tasks: JoinSet::new(), stop }
    }

    /// Starts watches of new kinds and stops those of kinds no longer served.
    pub(super) fn follow(&mut self, collector: &Arc<Collector>, kinds: &[Kind]) {
        while self.tasks.try_join_next().is_some() {}
        let wanted =
            |kind: &&Kind| kind.watchable && kind.listable && kind.deletable && !IGNORED.contains(&kind.id().as_str());
        let wanted: HashMap<String, &Kind> = kinds.iter().filter(wanted).map(|kind| (kind.id(), kind)).collect();
        self.running.retain(|id, watching| {
            let keep = wanted.get(id).is_some_and(|kind| **kind == watching.kind);
            if !keep {
                watching.stop.cancel();
            }
            keep
        });
        for (id, kind) in wanted {
            if !self.running.contains_key(&id) {
                self.start(collector.clone(), id, kind.clone());
            }
        }
    }

    fn start(&mut self, collector: Arc<Collector>, id: String, kind: Kind) {
        let stop = self.stop.child_token();
        let (done, synced) = watch::channel(false);
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &kind.resource);
        let task = follow_kind(api, Arc::new(kind.clone()), collector, done, stop.clone());
        self.tasks.spawn(task);
        self.running.insert(id, Watching { kind, stop, synced });
    }

    /// Waits until every kind watched now has been listed once.
    pub(super) async fn synced(&self) {
        for watching in self.running.values() {
            let mut synced = watching.synced.clone();
            // An error means that the kind vanished while we waited.
            let _ = synced.wait_for(|synced| *synced).await;
        }
    }
}

async fn follow_kind(
    api: Api<PartialObjectMeta<DynamicObject>>,
    kind: Arc<Kind>,
    collector: Arc<Collector>,
    synced: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut known: HashSet<String> = HashSet::new();
    let mut listed: HashSet<String> = HashSet::new();
    let uid_of = |object: &PartialObjectMeta<DynamicObject>| object.metadata.uid.clone().unwrap_or_default();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => break,
            event = events.next() => event,
        };
        match event {
            None => break,
            Some(Err(error)) => {
                tracing::debug!(kind = %kind.id(), error = %chain(&error), "metadata watch interrupted; it resumes");
            }
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitApply(object))) => {
                listed.insert(uid_of(&object));
                known.insert(uid_of(&object));
                collector.seen(&kind, &object.metadata);
            }
            Some(Ok(watcher::Event::InitDone)) => {
                known.retain(|uid| {
                    let there = listed.contains(uid);
                    if !there {
                        collector.deleted(uid);
                    }
                    there
                });
                listed = HashSet::new();
                synced.send_replace(true);
            }
            Some(Ok(watcher::Event::Apply(object))) => {
                known.insert(uid_of(&object));
                collector.seen(&kind, &object.metadata);
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                known.remove(&uid_of(&object));
                collector.deleted(&uid_of(&object));
            }
        }
    }
    for uid in known {
        collector.unwatched(&uid);
    }
}
