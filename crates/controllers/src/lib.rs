//! Scheduler and controllers: they speak only to the API.
//!
//! Every controller is a pure decision (what is seen → what to do) and a thin
//! loop around it. All of them share one watch per kind and may be restarted at
//! any time: whatever they know is read back from the API.
//!
//! ```text
//!            watches                 keys                    writes
//!   API ───────────────► caches ───────────► work queues ──► decide ──► API
//!    │                     │ pods, nodes          (back-off, bounded)     ▲
//!    │                     └────────────► scheduler ──── bindings ────────┤
//!    └─ metadata of every kind ─► garbage collector ─── deletions ────────┘
//! ```

mod cache;
mod context;
mod error;
mod events;
mod kinds;
mod ownership;
mod pods;
mod quantity;
mod queue;
mod taints;
#[cfg(test)]
mod testing;
mod wake;

mod cluster_roles;
mod cron_jobs;
mod daemon_sets;
mod deployments;
mod disruption;
mod endpoints;
mod expired_events;
mod garbage;
mod jobs;
mod namespaces;
mod nodes;
mod pod_garbage;
mod replica_sets;
mod revisions;
mod scheduler;
mod stateful_sets;
mod template;
mod volumes;

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Caches, Context},
    events::Recorder,
    kinds::Kinds,
};

pub use error::Error;

/// Settings of all controllers.
#[derive(Clone, Debug)]
pub struct Options {
    /// PEM of the cluster's certificate authority, published as ConfigMap
    /// `kube-root-ca.crt` in every namespace. Empty: nothing is published.
    pub ca_pem: String,
    /// Pods with this `schedulerName` are scheduled.
    pub scheduler_name: String,
    /// A node whose lease and status are silent for this long is taken for unreachable.
    pub node_grace: Duration,
    /// Events older than this are deleted.
    pub event_ttl: Duration,
    /// Finished pods beyond this number are deleted, oldest first.
    pub finished_pods: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ca_pem: String::new(),
            scheduler_name: "default-scheduler".into(),
            node_grace: Duration::from_secs(50),
            event_ttl: Duration::from_secs(3600),
            finished_pods: 1000,
        }
    }
}

/// Runs the scheduler and all controllers until `stop` is cancelled. An API that
/// is not there yet, or goes away for a while, is waited for.
///
/// # Errors
///
/// When a controller ends although nobody stopped it, which is a bug.
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), RunError> {
    // Children stop with us even if our caller only drops this future.
    let stop = stop.child_token();
    let _guard = stop.clone().drop_guard();
    let (events, writer) = Recorder::new(client.clone(), stop.clone());
    let cx = Context {
        caches: Caches::new(),
        kinds: Kinds::new(client.clone()),
        events,
        options: Arc::new(options),
        stop: stop.clone(),
        client,
    };
    let controllers = Registered::all(&cx);
    let mut tasks = JoinSet::new();
    tasks.spawn(writer);
    tasks.spawn(cx.kinds.clone().run(stop.clone()));
    cx.caches.start(&cx.client, &stop, &mut tasks);
    tokio::select! {
        () = cx.caches.synced() => {}
        () = stop.cancelled() => {}
    }
    controllers.start(&mut tasks);
    let ended = tasks.join_next().await;
    if stop.is_cancelled() {
        tasks.join_all().await;
        return Ok(());
    }
    Err(RunError { source: ended.and_then(Result::err) })
}

/// A controller ended although nobody stopped it.
#[derive(Debug, thiserror::Error)]
#[error("a controller ended unexpectedly; this is a bug, restart the control plane")]
pub struct RunError {
    #[source]
    source: Option<tokio::task::JoinError>,
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Controllers that listen to the caches already but do not act yet.
struct Registered(Vec<Task>);

impl Registered {
    fn all(cx: &Context) -> Self {
        Self(vec![
            Box::pin(scheduler::controller(cx)),
            Box::pin(replica_sets::controller(cx)),
            Box::pin(deployments::controller(cx)),
            Box::pin(daemon_sets::controller(cx)),
            Box::pin(stateful_sets::controller(cx)),
            Box::pin(jobs::controller(cx)),
            Box::pin(cron_jobs::controller(cx)),
            Box::pin(garbage::controller(cx)),
            Box::pin(namespaces::controller(cx)),
            Box::pin(endpoints::controller(cx)),
            Box::pin(nodes::controller(cx)),
            Box::pin(pod_garbage::controller(cx)),
            Box::pin(disruption::controller(cx)),
            Box::pin(volumes::controller(cx)),
            Box::pin(cluster_roles::controller(cx)),
            Box::pin(expired_events::controller(cx)),
        ])
    }

    fn start(self, tasks: &mut JoinSet<()>) {
        for task in self.0 {
            tasks.spawn(task);
        }
    }
}
