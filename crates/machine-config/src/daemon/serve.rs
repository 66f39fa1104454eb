//! The daemon's loop.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, events::EventType, reflector, watcher, watcher::Event},
};
use osc_fault::chain;
use osc_service::web::{self, ListenError, Tells};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    engine::Engine,
    host::{Entry, Host, HostError},
    metrics::Metrics,
    next::{self, Notes, Seen, Step, next},
    node::{ApiError, NodeObject, notes, reason},
    policy::{self, PolicyError},
    record::{self, Record, RecordError},
    update::{Ended, Recovered, UpdateError, Updater},
    watch::Watch,
};
use crate::{names, payload::Collected, pools::State, reconcile::FORCE_FILE};

/// Longest delay between two attempts: a cured cause needs nobody to hurry it.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// How often is looked for another payload.
const ROUND: Duration = Duration::from_secs(60);
/// How often is looked whether a version of the payload is still used by a pod.
const USAGE: Duration = Duration::from_secs(10);
/// How long a drain may take before it is called a failure; it is still waited for.
const DRAIN: Duration = Duration::from_secs(3600);
/// The same for the opposite.
const UNCORDON: Duration = Duration::from_secs(600);

/// The daemon could not begin, or ended although nobody stopped it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address for metrics is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The watch ended by itself.
    #[error("the watch of the node ended unexpectedly; this is a bug, restart the daemon")]
    Ended,
}

/// A round that did not get to its end.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("the API is needed")]
    Api(#[from] ApiError),
    #[error(transparent)]
    Update(#[from] UpdateError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("{what} is not done after {limit:?}; it is still waited for")]
    Slow { what: String, limit: Duration },
}

/// Runs the daemon until `stop` is cancelled; an update under way is ended before.
/// An API that is not there is waited for.
///
/// # Errors
/// [`RunError`].
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::default());
    // Aborted when this future is dropped.
    let mut answering = JoinSet::new();
    if let Some(address) = options.metrics {
        let listener = web::listen("metrics", address).await?;
        answering.spawn(web::serve(listener, Arc::clone(&metrics) as Arc<dyn Tells>));
    }
    let (store, writer) = reflector::store::<Node>();
    let only = watcher::Config::default().fields(&format!("metadata.name={}", options.node));
    let changed = Arc::new(Notify::new());
    let tell = changed.clone();
    let nodes = watcher(Api::<Node>::all(client.clone()), only).default_backoff().reflect(writer);
    let watching = async move {
        let mut nodes = std::pin::pin!(nodes);
        let mut known = None;
        while let Some(event) = nodes.next().await {
            let said = match &event {
                Ok(Event::Apply(node) | Event::InitApply(node)) => Some(notes(node)),
                Ok(_) => continue,
                Err(error) => {
                    tracing::debug!(error = %chain(error), "watch interrupted; it resumes");
                    continue;
                }
            };
            // Heartbeats of the node say nothing to us.
            if known != said {
                known = said;
                tell.notify_one();
            }
        }
    };
    let mut daemon = Daemon::new(&client, options, metrics);
    let serving = async {
        while !stop.is_cancelled() {
            let node = store.state().into_iter().next();
            let pause = daemon.round(node.as_deref()).await;
            let watch = std::mem::replace(&mut daemon.watch, Watch::new(&daemon.updater.host, None));
            tokio::select! {
                () = stop.cancelled() => {}
                () = changed.notified() => {}
                () = watch.changed() => daemon.hurry(),
                () = tokio::time::sleep(pause) => {}
            }
        }
    };
    tokio::select! {
        () = serving => Ok(()),
        () = watching => Err(RunError::Ended),
    }
}

struct Daemon {
    object: NodeObject,
    updater: Updater,
    retry: Duration,
    watch: Watch,
    failures: Option<Failures>,
    waiting: Option<(String, Instant)>,
    rebooting: bool,
    metrics: Arc<Metrics>,
    /// When unused versions are looked for next.
    collect: Instant,
}

/// Attempts in vain.
struct Failures {
    count: u32,
    /// Not before this.
    next: Instant,
    /// What they were for; another target is tried at once.
    target: String,
}

impl Daemon {
    fn new(client: &Client, options: Options, metrics: Arc<Metrics>) -> Self {
        let host = Host::new(&options.root);
        let engine = options.engine.unwrap_or_else(|| Engine::of(&host));
        Self {
            object: NodeObject::new(client, &options.node),
            watch: Watch::new(&host, None),
            updater: Updater {
                host,
                engine,
                payload: options.payload,
                rules: options.rules,
                policy: Vec::new(),
                actions: options.actions,
            },
            retry: options.retry,
            failures: None,
            waiting: None,
            rebooting: false,
            metrics,
            collect: Instant::now(),
        }
    }

    /// Looks and does one thing; returns how long to rest if nothing happens.
    async fn round(&mut self, node: Option<&Node>) -> Duration {
        let Some(node) = node.filter(|_| !self.rebooting) else { return ROUND };
        let notes = notes(node);
        let early = |failures: &&Failures| failures.target == notes.desired && Instant::now() < failures.next;
        let rest = match self.failures.as_ref().filter(early) {
            Some(failures) => failures.next - Instant::now(),
            None => match self.advance(node, &notes).await {
                Ok(()) => {
                    self.failures = None;
                    self.metrics.heard(None);
                    // What is due is done in the next round, which its own report brings.
                    let due = self.collect.saturating_duration_since(Instant::now());
                    return if due.is_zero() { ROUND } else { due.min(ROUND) };
                }
                Err(error) => self.failed(node, &notes, &error).await,
            },
        };
        // A failed update undid what it wrote: that is nobody's change.
        let record = Record::load(&self.updater.host).ok().flatten();
        self.watch = Watch::new(&self.updater.host, record.as_ref());
        rest
    }

    /// Somebody changed something managed, perhaps to cure a failure.
    fn hurry(&mut self) {
        if let Some(failures) = &mut self.failures {
            failures.next = Instant::now();
        }
    }

    async fn advance(&mut self, node: &Node, notes: &Notes) -> Result<(), RoundError> {
        match self.updater.recover().await? {
            Recovered::Nothing => {}
            Recovered::Rebooting => {
                self.rebooting = true;
                return Ok(());
            }
            ended => tracing::warn!(?ended, "an update that was cut off was ended"),
        }
        let record = Record::load(&self.updater.host)?;
        self.watch = Watch::new(&self.updater.host, record.as_ref());
        let (drift, outdated) = match &record {
            Some(record) => (self.updater.drift(record).await?, self.updater.outdated(record).await?),
            None => (Vec::new(), false),
        };
        let forced = record::exists(&self.updater.host, FORCE_FILE);
        let step = next(&Seen {
            notes: notes.clone(),
            record: record.as_ref().map(|record| record.name.as_str()),
            drifted: !drift.is_empty(),
            forced,
            outdated,
        });
        tracing::debug!(?step, desired = notes.desired, "decided");
        let record = record.unwrap_or_else(Record::baseline);
        self.metrics.show(&record.name, if step == Step::Rest { State::Done } else { State::Working });
        match step {
            Step::Adopt => self.adopt(notes).await?,
            Step::ReportDrift => return Err(UpdateError::Drifted(drift).into()),
            Step::Update => self.update(node, notes, &record, forced).await?,
            Step::AskUncordon => {
                let request = next::uncordon_request(&record.name);
                self.object.annotate(&[(names::DESIRED_DRAIN, &request)]).await?;
            }
            Step::AwaitUncordon => self.wait_for(&notes.desired_drain, UNCORDON)?,
            Step::ReportDone => self.report_done(node, notes, &record.name).await?,
            Step::Rest => self.collect(&record).await,
        }
        Ok(())
    }

    /// First contact: the node is what it is, and that is the baseline.
    async fn adopt(&self, notes: &Notes) -> Result<(), RoundError> {
        Record::baseline().store(&self.updater.host)?;
        self.report(notes, names::BASELINE).await?;
        Ok(())
    }

    async fn update(&mut self, node: &Node, notes: &Notes, record: &Record, force: bool) -> Result<(), RoundError> {
        let to = if notes.desired.is_empty() { record.name.clone() } else { notes.desired.clone() };
        let spec = if to == record.name { record.spec.clone() } else { self.object.config(&to).await? };
        self.updater.policy = policy::rules(&self.object.policy().await?, &self.updater.engine)?;
        let prepared = self.updater.prepare(record, &to, &spec, force).await?;
        // A repeated attempt stays Degraded until it succeeds.
        if notes.state != State::Working && self.failures.is_none() {
            self.object.annotate(&[(names::STATE, State::Working.as_str()), (names::REASON, "")]).await?;
        }
        if prepared.drain && !notes.single && notes.applied_drain != next::drain_request(&to) {
            let request = next::drain_request(&to);
            if notes.desired_drain != request {
                self.object.annotate(&[(names::DESIRED_DRAIN, &request)]).await?;
            }
            return self.wait_for(&request, DRAIN);
        }
        if prepared.reboots() {
            self.object.annotate(&[(names::POST_ACTION, "Rebooting")]).await?;
        }
        tracing::info!(from = record.name, to, force, "update begins");
        let ended = self.updater.apply(prepared).await?;
        if force {
            self.updater.host.put(std::path::Path::new(FORCE_FILE), &Entry::Absent)?;
        }
        self.metrics.updated();
        tracing::info!(from = record.name, to, ?ended, "update applied");
        self.collect = Instant::now();
        if ended == Ended::Rebooting {
            self.rebooting = true;
            return Ok(());
        }
        self.report_done_or_uncordon(node, notes, &to).await
    }

    async fn report_done_or_uncordon(&mut self, node: &Node, notes: &Notes, name: &str) -> Result<(), RoundError> {
        if notes.desired_drain.starts_with("drain-") {
            let request = next::uncordon_request(name);
            self.object.annotate(&[(names::DESIRED_DRAIN, &request)]).await?;
            return Ok(());
        }
        self.report_done(node, notes, name).await
    }

    async fn report_done(&mut self, node: &Node, notes: &Notes, name: &str) -> Result<(), RoundError> {
        self.waiting = None;
        self.report(notes, name).await?;
        if notes.current != name {
            self.object.event(node, EventType::Normal, "NodeDone", &format!("The node runs {name}")).await;
        }
        Ok(())
    }

    async fn report(&self, notes: &Notes, name: &str) -> Result<(), RoundError> {
        let mut report = vec![
            (names::CURRENT, name),
            (names::STATE, State::Done.as_str()),
            (names::REASON, ""),
            (names::POST_ACTION, ""),
        ];
        // It is the controller's once there is one.
        if notes.desired.is_empty() {
            report.push((names::DESIRED, name));
        }
        self.object.annotate(&report).await?;
        Ok(())
    }

    /// Waits for somebody else, in rounds; the node's object tells when it is over.
    fn wait_for(&mut self, what: &str, limit: Duration) -> Result<(), RoundError> {
        let since = match &self.waiting {
            Some((known, since)) if known == what => *since,
            _ => self.waiting.insert((what.to_owned(), Instant::now())).1,
        };
        if since.elapsed() < limit {
            return Ok(());
        }
        Err(RoundError::Slow { what: what.to_owned(), limit })
    }

    async fn collect(&mut self, record: &Record) {
        if Instant::now() < self.collect {
            return;
        }
        self.collect = Instant::now() + ROUND;
        match self.updater.collect(record).await {
            Ok(Collected { gone, used }) => {
                if !gone.is_empty() {
                    tracing::info!(?gone, "unused versions of the payload removed");
                }
                if !used.is_empty() {
                    self.collect = Instant::now() + USAGE;
                }
            }
            Err(error) => tracing::warn!(error = %chain(&error), "unused payload stays; it is tried again"),
        }
    }

    /// Publishes a failure and says when to try again.
    async fn failed(&mut self, node: &Node, notes: &Notes, error: &RoundError) -> Duration {
        let count = self.failures.as_ref().filter(|old| old.target == notes.desired).map_or(0, |old| old.count + 1);
        let delay = self.retry.saturating_mul(1 << count.min(16)).min(LONGEST_DELAY);
        self.failures = Some(Failures { count, next: Instant::now() + delay, target: notes.desired.clone() });
        let (state, event) = match error {
            RoundError::Update(update) if update.unreconcilable() => (State::Unreconcilable, "FailedToReconcile"),
            RoundError::Update(UpdateError::Drifted(_)) if notes.desired != notes.current => {
                (State::Degraded, "PreflightConfigDriftCheckFailed")
            }
            RoundError::Update(UpdateError::Drifted(_)) => (State::Degraded, "ConfigDriftDetected"),
            _ => (State::Degraded, "UpdateFailed"),
        };
        let drifted = matches!(error, RoundError::Update(UpdateError::Drifted(_)));
        self.metrics.failed(state, drifted);
        let why = reason(error);
        tracing::warn!(error = why, attempt = count + 1, delay_ms = delay.as_millis() as u64, "no update");
        if notes.state == state && notes.reason == why {
            return delay;
        }
        let report = [(names::STATE, state.as_str()), (names::REASON, &why), (names::POST_ACTION, "")];
        let unheard = self.object.annotate(&report).await.err().map(|error| chain(&error));
        if let Some(error) = &unheard {
            tracing::warn!(error, "the failure could not be reported");
        }
        self.metrics.heard(unheard);
        self.object.event(node, EventType::Warning, event, &why).await;
        delay
    }
}
