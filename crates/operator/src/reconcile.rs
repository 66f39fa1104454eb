//! One pass: look, decide, record, write.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::try_join_all;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, Resource, ResourceExt,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use osc_fault::{Kind, chain};
use osc_objects::{
    Condition, ConditionStatus, Conditions, KataConfig, KataConfigStatus,
    kata_config::{ConditionType, DegradedReason, InProgressReason},
};

use crate::{
    act::Hands,
    decide::{decide, progress_of, publish_failure},
    error::{Attempt, Error},
    metrics::Metrics,
    options::Options,
    plan::{Plan, Write},
    seen::{PodsSeen, Reader, Seen},
};

/// Limit of one pass.
const PASS_LIMIT: Duration = Duration::from_secs(120);
/// Limit of one event.
const EVENT_LIMIT: Duration = Duration::from_secs(5);
/// Events that come in a burst are answered by one pass; a burst may last this long …
const BURST: Duration = Duration::from_millis(50);
/// … and this much more for every node: what a pass costs grows with them.
const BURST_OF_NODE: Duration = Duration::from_micros(200);
/// Nodes labelled at the same time.
const AT_ONCE: usize = 16;
/// First pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// When the next pass is due.
pub(crate) struct Next {
    /// Even if nothing happens, after this time.
    pub again: Duration,
    /// How long to wait for more news after the first.
    pub burst: Duration,
    /// Namespaces and names of the pods it waits for.
    pub blocked_by: BTreeSet<(String, String)>,
}

/// Makes passes.
pub(crate) struct Reconciler {
    reader: Reader,
    hands: Hands,
    events: Recorder,
    options: Arc<Options>,
    metrics: Arc<Metrics>,
    namespace_labelled: bool,
    failures: u32,
}

impl Reconciler {
    pub(crate) fn new(client: Client, options: Arc<Options>, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: "osc-operator".into(), instance: Some(options.identity.clone()) };
        Self {
            reader: Reader::new(client.clone(), options.namespace.clone()),
            hands: Hands::new(client.clone(), options.namespace.clone()),
            events: Recorder::new(client, reporter),
            options,
            metrics,
            namespace_labelled: false,
            failures: 0,
        }
    }

    /// One pass.
    pub(crate) async fn pass(&mut self) -> Next {
        let result = tokio::time::timeout(PASS_LIMIT, self.try_pass()).await;
        let result = result.unwrap_or(Err(Error::Timeout { limit: PASS_LIMIT }));
        self.metrics.passed(result.is_ok());
        match result {
            Ok(next) => {
                self.failures = 0;
                next
            }
            Err(error) => {
                let pause = pause(self.failures, error.kind());
                self.failures = self.failures.saturating_add(1);
                tracing::warn!(error = chain(&error), retry_ms = pause.as_millis(), "pass failed");
                Next { again: pause, burst: BURST, blocked_by: BTreeSet::new() }
            }
        }
    }

    async fn try_pass(&mut self) -> Result<Next, Error> {
        if !self.namespace_labelled {
            self.hands.label_namespace().await?;
            self.namespace_labelled = true;
        }
        let seen = self.reader.look(Timestamp::now()).await?;
        let plans = decide(&seen, &self.options);
        self.metrics.show(plans.first().map(|plan| &plan.status));
        let blocked_by = blocking_pods(&seen, &plans);
        let mut again = Duration::from_secs(300);
        let mut failure = None;
        for plan in &plans {
            let Some(config) = seen.configs.iter().find(|config| config.name_any() == plan.config) else { continue };
            match self.carry_out(plan, config).await {
                Ok(()) => again = again.min(plan.again),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let burst = BURST.saturating_add(BURST_OF_NODE.saturating_mul(seen.nodes.len().try_into().unwrap_or(u32::MAX)));
        failure.map_or(Ok(Next { again, burst, blocked_by }), Err)
    }

    /// Status first, then the writes. A write that fails ends the plan, and the status says so:
    /// what was decided is kept.
    async fn carry_out(&self, plan: &Plan, config: &KataConfig) -> Result<(), Error> {
        let mut first = plan.clone();
        let had_failed = keep_failure(&mut first, config.status.as_ref());
        let recorded = self.hands.record(&first, config).await?;
        self.tell(config, &first.status).await;
        for some in plan.writes.chunk_by(|one, next| one.is_label() && next.is_label()) {
            let Err(error) = self.write(some, &recorded).await else { continue };
            if error.kind() != Kind::Busy {
                let mut status = plan.status.clone();
                publish_failure(&mut status, &chain(&error), Timestamp::now());
                // The write's failure is the one to report.
                if let Err(second) = self.hands.set_status(recorded, &status).await {
                    tracing::warn!(error = chain(&second), "failure not recorded in the status");
                }
            }
            return Err(error);
        }
        // With the finalizer gone, the object may be, too.
        if had_failed && !plan.writes.contains(&Write::RemoveFinalizer) {
            self.hands.set_status(recorded, &plan.status).await?;
        }
        Ok(())
    }

    /// Some writes that do not depend on each other.
    async fn write(&self, some: &[Write], config: &KataConfig) -> Result<(), Error> {
        for some in some.chunks(AT_ONCE) {
            try_join_all(some.iter().map(|write| self.hands.write(write, config))).await?;
        }
        Ok(())
    }

    /// Events for conditions that changed.
    async fn tell(&self, config: &KataConfig, new: &KataConfigStatus) {
        let old = config.status.clone().unwrap_or_default();
        let about = config.object_ref(&());
        for event in changes(&old, new) {
            let published = tokio::time::timeout(EVENT_LIMIT, self.events.publish(&event, &about)).await;
            let published = published.map(|done| done.during("write event about KataConfig", config.name_any()));
            match published {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = chain(&error), "event not written"),
                Err(_) => tracing::debug!("event not written in time"),
            }
        }
    }
}

fn blocking_pods(seen: &Seen, plans: &[Plan]) -> BTreeSet<(String, String)> {
    let blocked = |plan: &Plan| progress_of(&plan.status) == InProgressReason::BlockedByExistingKataPods;
    match &seen.pods {
        PodsSeen::Listed(pods) if plans.iter().any(blocked) => {
            pods.iter().map(|pod| (pod.namespace.clone(), pod.name.clone())).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// Before writes are tried again, their failure stays in the status: it is over when they succeed.
fn keep_failure(plan: &mut Plan, old: Option<&KataConfigStatus>) -> bool {
    let type_ = ConditionType::Degraded.as_str();
    let old = old.and_then(|old| old.conditions.of(type_));
    let Some(old) = old.filter(|old| old.reason == DegradedReason::ApiFailure.as_str() && !plan.writes.is_empty())
    else {
        return false;
    };
    plan.status.conditions.retain(|condition| condition.type_ != type_);
    plan.status.conditions.push(old.clone());
    true
}

fn changes(old: &KataConfigStatus, new: &KataConfigStatus) -> Vec<Event> {
    let mut events = Vec::new();
    for type_ in [ConditionType::InProgress, ConditionType::Degraded] {
        let (before, now) = (old.conditions.of(type_.as_str()), new.conditions.of(type_.as_str()));
        let Some(now) = now.filter(|now| before.is_none_or(|before| before.reason != now.reason)) else { continue };
        events.extend(event(type_, before, now));
    }
    events
}

fn event(type_: ConditionType, before: Option<&Condition>, now: &Condition) -> Option<Event> {
    let failed = now.reason == InProgressReason::Failed.as_str();
    let degraded = type_ == ConditionType::Degraded && now.status == ConditionStatus::True;
    let reason = match (now.reason.as_str(), before) {
        // The first status says nothing new when it says that all is well.
        ("" | "AsExpected", None) => return None,
        ("", Some(_)) => "Completed",
        (reason, _) => reason,
    };
    Some(Event {
        type_: if failed || degraded { EventType::Warning } else { EventType::Normal },
        reason: reason.into(),
        note: Some(now.message.chars().take(1000).collect()),
        action: "Reconcile".into(),
        secondary: None,
    })
}

fn pause(failures: u32, kind: Kind) -> Duration {
    // Somebody was faster: what was read is old, nothing is wrong.
    if kind == Kind::Busy && failures < 5 {
        return FIRST_PAUSE;
    }
    FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures.min(10))).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_but_not_for_ever_and_not_for_conflicts() {
        assert_eq!(pause(0, Kind::Unavailable), FIRST_PAUSE);
        assert_eq!(pause(3, Kind::Unavailable), FIRST_PAUSE * 8);
        assert_eq!(pause(90, Kind::Unavailable), LONGEST_PAUSE);
        assert_eq!(pause(4, Kind::Busy), FIRST_PAUSE);
    }

    #[test]
    fn events_tell_transitions_only() {
        let at = |reason: &str| {
            let mut status = KataConfigStatus::default();
            status.conditions.set("InProgress", ConditionStatus::True, reason, "", Timestamp::UNIX_EPOCH);
            status
        };
        let told = |old: &str, new: &str| -> Vec<String> {
            changes(&at(old), &at(new)).into_iter().map(|event| event.reason).collect()
        };
        assert_eq!(told("Installing", "Installing"), Vec::<String>::new());
        assert_eq!(told("Installing", "Failed"), ["Failed"]);
        assert_eq!(told("Installing", ""), ["Completed"]);
        assert!(changes(&KataConfigStatus::default(), &at("")).is_empty());
    }
}
