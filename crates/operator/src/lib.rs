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
mod made;
mod metrics;
mod options;
mod plan;
mod prober;
mod reconcile;
mod seen;
mod triggers;
mod webhook;

use std::{collections::BTreeSet, sync::Arc};

use kube::Client;
use osc_service::{
    leader::{Candidate, Ended, Leader},
    web::{self, ListenError, Tells},
};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, reconcile::Reconciler};

pub use error::Error;
pub use options::{Options, ReachedBy, WebhookOptions};
pub use osc_service::leader::LeaseTimes;
pub use prober::Prober;

/// Name of the Lease; fixed, so that releases exclude each other.
pub(crate) const LEASE: &str = "290f4947.kataconfiguration.openshift.io";

/// The operator could not begin or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
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
        let listener = web::listen("metrics", address).await?;
        tasks.spawn(web::serve(listener, Arc::clone(&metrics) as Arc<dyn Tells>));
    }
    if let Some(webhook) = &options.webhook {
        let listener = web::listen("the webhook", webhook.listen).await?;
        tasks.spawn(webhook::run(client.clone(), Arc::clone(&options), webhook.reached_by.clone(), listener));
    }
    let candidate = Candidate {
        namespace: options.namespace.clone(),
        lease: LEASE,
        identity: options.identity.clone(),
        times: options.lease,
    };
    let leader = Leader::new(client.clone(), candidate);
    let mut leading = JoinSet::new();
    leading.spawn(async move {
        let work = || passes(client.clone(), Arc::clone(&options), Arc::clone(&metrics));
        leader.lead(&stop, |leads| metrics.lead(leads), work).await
    });
    let ended = tokio::select! {
        ended = leading.join_next() => ended,
        Some(ended) = tasks.join_next() => return Err(RunError::Ended { source: ended.err() }),
    };
    match ended {
        Some(Ok(Ended::Stopped)) => Ok(()),
        ended => Err(RunError::Ended { source: ended.and_then(Result::err) }),
    }
}

/// Makes passes as long as it is polled.
async fn passes(client: Client, options: Arc<Options>, metrics: Arc<Metrics>) {
    let wake = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    triggers::start(&client, &options.namespace, &wake, &mut watches);
    watches.spawn(prober::mark_always(client.clone(), options.namespace.clone()));
    let mut reconciler = Reconciler::new(client.clone(), options, metrics);
    let mut pods = PodWatch::default();
    loop {
        let next = reconciler.pass().await;
        pods.look_at(next.blocked_by, &client, &wake);
        let woken = tokio::time::timeout(next.again, wake.notified()).await.is_ok();
        if woken {
            tokio::time::sleep(next.burst).await;
        }
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
