//! The cluster's part: renders pools, tells nodes when it is their turn, reports.
//!
//! ```text
//!  watches ─► stores ─► round: built-in pools, tuning, render, status, start, taints ─► API
//!                  └──► drains: one task per node that asked for one
//! ```
//!
//! A round looks at everything and writes what differs, so it may be repeated, cut
//! off and begun anew at any point. Only starting a node spends something, and is
//! therefore decided once more on a list that was read for it. One controller runs
//! at a time; a second would spend the same budget again.

mod drain;
mod error;
mod observe;
mod render;
mod round;
mod tuning;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use error::ControllerError;
use observe::Stores;
use osc_fault::chain;
use render::Rendering;
use write::Writer;

/// Settings of the controller.
#[derive(Clone, Debug)]
pub struct Options {
    /// Node the controller itself runs on, if it runs on one.
    pub host: Option<String>,
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
            settle: Duration::from_secs(5),
            drain_poll: Duration::from_secs(2),
            drain_retry: Duration::from_secs(60),
        }
    }
}

/// How long nothing may change before everything is looked at again anyway.
const RESYNC: Duration = Duration::from_secs(60);
/// First delay after a failed round; it doubles.
const FIRST_DELAY: Duration = Duration::from_millis(20);
/// Longest delay after failed rounds.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// Longest round: every request has its own limit, this one is for their sum.
const ROUND: Duration = Duration::from_secs(300);

/// The controller ended although nobody stopped it.
#[derive(Debug, thiserror::Error)]
#[error("a watch of the machine-config controller ended unexpectedly; this is a bug, restart the controller")]
pub struct RunError;

/// Runs the controller until `stop` is cancelled. The definitions of the objects
/// must exist or come into being; an API that is not there is waited for.
///
/// # Errors
/// [`RunError`].
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let (stores, watching) = Stores::follow(&client);
    let writer = Writer::new(&client);
    let drains = drain::run(client.clone(), stores.clone(), options.clone());
    let mut controller = Controller { stores, writer, options, pools: BTreeMap::new(), told: BTreeSet::new() };
    let serving = async {
        controller.stores.synced().await;
        let mut failures = 0;
        loop {
            let pause = controller.paced(&mut failures).await;
            tokio::select! {
                () = controller.stores.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = serving => Err(RunError),
        () = drains => Err(RunError),
        () = watching => Err(RunError),
    }
}

struct Controller {
    stores: Stores,
    writer: Writer,
    options: Options,
    /// What is known about rendering, by pool. Lost at a restart, it is found out again.
    pools: BTreeMap<String, Rendering>,
    /// What people were told in the last round.
    told: BTreeSet<String>,
}

impl Controller {
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
                again.unwrap_or(RESYNC).min(RESYNC)
            }
            Err(error) => {
                *failures = failures.saturating_add(1);
                if error.is_conflict() {
                    tracing::debug!(error = %chain(&error), "what was read is old; looking again");
                } else {
                    tracing::warn!(error = %chain(&error), attempt = *failures, "round failed; it is repeated");
                }
                delay
            }
        }
    }
}
