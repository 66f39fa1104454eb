//! The operator of sandboxed containers: a KataConfig becomes nodes that run sandboxes.
//!
//! ```text
//!   API ──watches──► "look again" ──► look ──► decide ──► record status ──► write ──► API
//!    ▲                                (Seen)   (pure)      (intent)                    │
//!    └─────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! It speaks only to the API. What happens on nodes is the business of whoever consumes
//! MachineConfigs: the platform on OpenShift, `machine-config` elsewhere. It may be
//! killed at any moment: all it knows is read back from the API.

mod act;
pub mod bundle;
mod decide;
mod error;
mod http;
mod leader;
mod made;
mod metrics;
mod options;
mod plan;
mod prober;
mod reconcile;
mod seen;
mod triggers;
mod webhook;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use kube::Client;
use osc_fault::chain;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{leader::Leader, metrics::Metrics, reconcile::Reconciler};

pub use error::Error;
pub use options::{LeaseTimes, Options, ReachedBy, WebhookOptions};
pub use prober::Prober;

/// Events that come in a burst are answered by one pass.
const BURST: Duration = Duration::from_millis(50);
/// Limit for handing over the lead.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// The operator could not begin or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address is not to be had.
    #[error("cannot listen on {address} for {what}: free it, or choose another")]
    Listen {
        /// What for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A part ended although nobody stopped it.
    #[error("a part of the operator ended unexpectedly; this is a bug, start it again")]
    Ended {
        /// Its panic, if it was one.
        #[source]
        source: Option<tokio::task::JoinError>,
    },
}

/// Runs the operator until `stop` is cancelled. An API that is not there yet, or goes away
/// for a while, is waited for. Of several replicas one acts; the webhook is served by all.
///
/// # Errors
///
/// When an address cannot be listened on, or a part ends unexpectedly.
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let options = Arc::new(options);
    let metrics = Arc::new(Metrics::default());
    // Aborted when this future is dropped: nothing of a killed operator may go on.
    let mut tasks = JoinSet::new();
    if let Some(address) = options.metrics {
        let listener = listen("metrics", address).await?;
        tasks.spawn(metrics::serve(listener, Arc::clone(&metrics)));
    }
    if let Some(webhook) = &options.webhook {
        let listener = listen("the webhook", webhook.listen).await?;
        tasks.spawn(webhook::run(client.clone(), Arc::clone(&options), webhook.reached_by.clone(), listener));
    }
    let leader = Leader::new(client.clone(), &options.namespace, options.identity.clone(), options.lease);
    let mut leading = JoinSet::new();
    leading.spawn(lead_always(client, options, metrics, leader, stop.clone()));
    let ended = tokio::select! {
        ended = leading.join_next() => ended,
        Some(ended) = tasks.join_next() => return Err(RunError::Ended { source: ended.err() }),
    };
    match ended {
        Some(Ok(())) if stop.is_cancelled() => Ok(()),
        ended => Err(RunError::Ended { source: ended.and_then(Result::err) }),
    }
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { what, address, source })
}

/// Leads whenever it can, until stopped.
async fn lead_always(
    client: Client,
    options: Arc<Options>,
    metrics: Arc<Metrics>,
    leader: Leader,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = leader.acquire() => {}
        }
        tracing::info!(identity = options.identity, "leading");
        metrics.lead(true);
        let still_leading = lead(&client, &options, &metrics, &leader, &stop).await;
        metrics.lead(false);
        if still_leading {
            break;
        }
        tracing::warn!(identity = options.identity, "lead lost");
    }
    match tokio::time::timeout(RELEASE_LIMIT, leader.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "lease not released; it runs out by itself"),
        Err(_) => tracing::warn!("lease not released in time; it runs out by itself"),
    }
}

/// Makes passes until stopped (`true`) or until the lead is lost (`false`).
async fn lead(
    client: &Client,
    options: &Arc<Options>,
    metrics: &Arc<Metrics>,
    leader: &Leader,
    stop: &CancellationToken,
) -> bool {
    let wake = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    triggers::start(client, &options.namespace, &wake, &mut watches);
    watches.spawn(prober::mark_always(client.clone(), options.namespace.clone()));
    let mut reconciler = Reconciler::new(client.clone(), Arc::clone(options), Arc::clone(metrics));
    let passes = async {
        let mut pods = PodWatch::default();
        loop {
            let next = reconciler.pass().await;
            pods.look_at(next.blocked_by, client, &wake);
            let woken = tokio::time::timeout(next.again, wake.notified()).await.is_ok();
            if woken {
                tokio::time::sleep(BURST).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => true,
        () = leader.keep() => false,
        () = passes => true,
    }
}

/// A watch on pods, running exactly while a deletion waits for some.
#[derive(Default)]
struct PodWatch {
    pods: BTreeSet<(String, String)>,
    task: JoinSet<()>,
}

impl PodWatch {
    fn look_at(&mut self, pods: BTreeSet<(String, String)>, client: &Client, wake: &Arc<Notify>) {
        if self.pods == pods {
            return;
        }
        self.task.abort_all();
        self.pods.clone_from(&pods);
        if !pods.is_empty() {
            self.task.spawn(triggers::pods(client.clone(), Arc::clone(wake), pods));
        }
    }
}
