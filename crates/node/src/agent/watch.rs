//! Watches the pods bound to this node and gives each a worker.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use osc_agent_protocol::kind::chain;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    worker::{Latest, Worker},
};

/// Watches until `stop`; then all workers end, and their pods stay.
pub(super) async fn run(client: Client, node: String, shared: Arc<Shared>, stop: CancellationToken) {
    let config = Config::default().fields(&format!("spec.nodeName={node}"));
    let events = watcher(Api::<Pod>::all(client), config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut crew = Crew { shared, workers: HashMap::new(), tasks: JoinSet::new(), listed: None, first: true };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = events.try_next() => match event { // cancel-safe
                Ok(Some(event)) => crew.handle(event),
                Ok(None) => break,
                Err(error) => tracing::warn!(error = chain(&error), "pods of this node are not watched, trying again"),
            },
            Some(ended) = crew.tasks.join_next() => crew.forget(ended),
        }
    }
    crew.tasks.shutdown().await;
}

/// The workers, by the identity of their pods.
struct Crew {
    shared: Arc<Shared>,
    workers: HashMap<String, watch::Sender<Latest>>,
    tasks: JoinSet<String>,
    /// What a list in progress has had so far.
    listed: Option<HashSet<String>>,
    first: bool,
}

impl Crew {
    fn handle(&mut self, event: Event<Pod>) {
        match event {
            Event::Apply(pod) => self.apply(pod),
            Event::Delete(pod) => self.gone(&pod.metadata.uid.unwrap_or_default()),
            Event::Init => self.listed = Some(HashSet::new()),
            Event::InitApply(pod) => {
                if let Some(listed) = &mut self.listed {
                    listed.extend(pod.metadata.uid.clone());
                }
                self.apply(pod);
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<String> = self.workers.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| self.gone(uid));
                if std::mem::take(&mut self.first) {
                    self.remove_orphans(&listed);
                }
            }
        }
    }

    fn apply(&mut self, object: Pod) {
        let Some(uid) = object.metadata.uid.clone() else { return };
        let latest = Latest { object, gone: false };
        match self.workers.get(&uid) {
            Some(worker) => drop(worker.send_replace(latest)),
            None => {
                let (sender, latest) = watch::channel(latest);
                self.workers.insert(uid.clone(), sender);
                let worker = Worker { shared: self.shared.clone(), latest };
                self.tasks.spawn(async move {
                    worker.run().await;
                    uid
                });
            }
        }
    }

    fn gone(&mut self, uid: &str) {
        if let Some(worker) = self.workers.get(uid) {
            worker.send_modify(|latest| latest.gone = true);
        }
    }

    fn forget(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => drop(self.workers.remove(&uid)),
            Err(error) => tracing::error!(error = %error, "worker of a pod ended badly"),
        }
    }

    /// Removes pods that were deleted while no agent ran.
    fn remove_orphans(&mut self, listed: &HashSet<String>) {
        let pods = &self.shared.pods;
        let known = pods.store().list().into_iter();
        let orphans: Vec<_> = known.filter(|r| r.class.is_some() && !listed.contains(&r.uid)).collect();
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            for record in orphans {
                tracing::info!(pod.name = %record.full_name(), "removing pod that was deleted meanwhile");
                if let Err(error) = shared.pods.delete_abandoned(&record).await {
                    tracing::error!(pod.name = %record.full_name(), error = chain(&error), "pod is not removed");
                }
            }
            if let Err(error) = shared.pods.delete_unknown().await {
                tracing::error!(error = chain(&error), "unknown sandboxes are not removed");
            }
            shared.links.sweep();
            String::new()
        });
    }
}
