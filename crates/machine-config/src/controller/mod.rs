//! The cluster's part: renders pools, tells nodes when it is their turn, reports.
//!
//! ```text
//!  watches ─► stores ─► round: built-in pools, tuning, render, status, start, taints ─► API
//!                  └──► drains: one task per node that asked for one
//! ```
//!
//! A round looks at everything and writes what differs, so it may be repeated, cut
//! off and begun anew at any point. Only starting a node spends something; what was
//! spent counts before the watch shows it. One controller runs at a time; a second
//! would spend the same budget again.
//!
//! Changes that come in a burst are answered by one round, and the more nodes there
//! are the longer a burst may last: what a round costs grows with them.

mod drain;
mod error;
mod metrics;
mod observe;
mod render;
mod round;
mod settings;
mod told;
mod tuning;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use osc_fault::chain;
use osc_service::{
    leader::{Candidate, Ended, Leader, LeaseTimes},
    web::{self, ListenError, Tells},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use error::ControllerError;
use metrics::Metrics;
use observe::Stores;
use render::Rendering;
use told::Told;
use write::Writer;

/// Settings of the controller.
#[derive(Clone, Debug)]
pub struct Options {
    /// Node the controller itself runs on, if it runs on one.
    pub host: Option<String>,
    /// Name of this process among its replicas.
    pub identity: String,
    /// Namespace of the lease by which one replica leads.
    pub namespace: String,
    /// Times of that lease.
    pub lease: LeaseTimes,
    /// Where metrics and health are served.
    pub metrics: Option<SocketAddr>,
    /// How long inputs of a pool must be still before it is rendered.
    pub settle: Duration,
    /// Pace of a drain that waits for pods.
    pub drain_poll: Duration,
    /// Pause between attempts of a drain.
    pub drain_retry: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: None,
            identity: format!("{}-{}", crate::names::CONTROLLER, std::process::id()),
            namespace: osc_objects::names::NAMESPACE.into(),
            lease: LeaseTimes::default(),
            metrics: None,
            settle: Duration::from_secs(5),
            drain_poll: Duration::from_secs(2),
            drain_retry: Duration::from_secs(60),
        }
    }
}

/// Name of the lease; fixed, so that releases exclude each other.
pub(crate) const LEASE: &str = "machine-config-controller";
/// How long nothing may change before everything is looked at again anyway.
const RESYNC: Duration = Duration::from_secs(60);
/// First delay after a failed round; it doubles.
const FIRST_DELAY: Duration = Duration::from_millis(20);
/// Longest delay after failed rounds.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// Longest round: every request has its own limit, this one is for their sum.
const ROUND: Duration = Duration::from_secs(300);

/// Changes within this time of the first are answered by one round …
const BURST: Duration = Duration::from_millis(10);
/// … and within this much more for every node.
const BURST_OF_NODE: Duration = Duration::from_micros(20);

/// The controller could not begin, or ended although nobody stopped it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address for metrics is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A part ended by itself.
    #[error("a watch of the machine-config controller ended unexpectedly; this is a bug, restart the controller")]
    Ended,
}

/// Runs the controller until `stop` is cancelled. Of several replicas one acts. The
/// definitions of the objects must exist or come into being; an API that is not there
/// is waited for.
///
/// # Errors
/// [`RunError`].
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::default());
    // Aborted when this future is dropped.
    let mut serving = JoinSet::new();
    if let Some(address) = options.metrics {
        let listener = web::listen("metrics", address).await?;
        serving.spawn(web::serve(listener, Arc::clone(&metrics) as Arc<dyn Tells>));
    }
    let candidate = Candidate {
        namespace: options.namespace.clone(),
        lease: LEASE,
        identity: options.identity.clone(),
        times: options.lease,
    };
    let work = || work(client.clone(), options.clone(), Arc::clone(&metrics));
    let leader = Leader::new(client.clone(), candidate);
    match leader.lead(&stop, |leads| metrics.lead(leads), work).await {
        Ended::Stopped => Ok(()),
        Ended::ByItself => Err(RunError::Ended),
    }
}

/// What the leader does. Everything it knows is found out anew by the next one.
async fn work(client: Client, options: Options, metrics: Arc<Metrics>) {
    let (stores, watching) = Stores::follow(&client);
    let drains = drain::run(client.clone(), stores.clone(), options.clone(), Arc::clone(&metrics));
    let mut controller = Controller {
        stores,
        writer: Writer::new(&client),
        options,
        metrics,
        pools: BTreeMap::new(),
        told: Told::default(),
        said: BTreeSet::new(),
    };
    let serving = async {
        controller.stores.synced().await;
        let mut failures = 0;
        loop {
            let pause = controller.paced(&mut failures).await;
            tokio::select! {
                () = controller.stores.changed() => tokio::time::sleep(controller.burst()).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    };
    tokio::select! {
        () = serving => {}
        () = drains => {}
        () = watching => {}
    }
}

struct Controller {
    stores: Stores,
    writer: Writer,
    options: Options,
    metrics: Arc<Metrics>,
    /// What is known about rendering, by pool. Lost at a restart, it is found out again.
    pools: BTreeMap<String, Rendering>,
    /// Targets nodes were told.
    told: Told,
    /// What people were told in the last round.
    said: BTreeSet<String>,
}

impl Controller {
    /// How long to wait for more changes after the first.
    fn burst(&self) -> Duration {
        let nodes = u32::try_from(self.stores.nodes.len()).unwrap_or(u32::MAX);
        BURST.saturating_add(BURST_OF_NODE.saturating_mul(nodes))
    }

    /// One round; returns how long to rest if nothing changes.
    async fn paced(&mut self, failures: &mut u32) -> Duration {
        let result = match tokio::time::timeout(ROUND, self.round(Timestamp::now())).await {
            Ok(result) => result,
            Err(_) => Err(ControllerError::Slow(ROUND)),
        };
        let delay = FIRST_DELAY.saturating_mul(1 << (*failures).min(16)).min(LONGEST_DELAY);
        match result {
            Ok(again) => {
                *failures = 0;
                self.metrics.round(None, 0);
                again.unwrap_or(RESYNC).min(RESYNC)
            }
            Err(error) => {
                *failures = failures.saturating_add(1);
                let why = chain(&error);
                self.metrics.round(Some(&why), *failures);
                if error.is_conflict() {
                    tracing::debug!(error = why, "what was read is old; looking again");
                } else {
                    tracing::warn!(error = why, attempt = *failures, "round failed; it is repeated");
                }
                delay
            }
        }
    }
}
