//! Deciding: from what is seen to what is done, without touching anything.
//!
//! ```text
//!             ┌──────────── finalizer, MachineConfig, pool, labels
//!             │     ┌────── at the end: RuntimeClass, monitor
//!   Idle ──► Installing ──────────► Idle
//!             │   ▲                  │ ▲
//!             ▼   │      Updating ◄──┘ │   nodes come, go or are reconfigured
//!            Failed          └─────────┘
//!   deleted: BlockedByExistingKataPods ──► Uninstalling ──► gone
//! ```
//!
//! Condition `InProgress` says where in this drawing a KataConfig is; condition
//! `Degraded` says what keeps it there and what an administrator can do.

mod gates;
mod health;
mod install;
mod nodes;
mod selection;
mod topology;
mod uninstall;

#[cfg(test)]
mod tests;

use std::time::Duration;

use kube::ResourceExt;
use osc_objects::{
    ConditionStatus, Conditions, KataConfig, KataConfigStatus,
    kata_config::{ConditionType, DegradedReason, InProgressReason},
    names::kata,
};

pub(crate) use health::publish_failure;

use self::{health::Problem, topology::Topology};
use crate::{
    options::Options,
    plan::{Plan, Write},
    seen::Seen,
};

/// Look again after this time when nothing goes on: watches say the rest.
const IDLE: Duration = Duration::from_secs(300);
/// Look again after this time while something goes on.
const BUSY: Duration = Duration::from_secs(20);

/// What to do about every KataConfig.
pub fn decide(seen: &Seen, options: &Options) -> Vec<Plan> {
    let Some(active) = active(&seen.configs) else { return Vec::new() };
    let others = seen.configs.iter().filter(|config| config.name_any() != active.name_any());
    let others = others.map(|other| duplicate(seen, other, active));
    std::iter::once(one(seen, active, options)).chain(others).collect()
}

/// The one that counts: it was here first. One that was acted upon already, which its
/// finalizer shows, stays the one; creation times have only seconds, names break the tie.
fn active(configs: &[KataConfig]) -> Option<&KataConfig> {
    configs.iter().min_by_key(|config| {
        let created = config.creation_timestamp().map(|time| time.0);
        (!has_finalizer(config), created, config.name_any())
    })
}

fn has_finalizer(config: &KataConfig) -> bool {
    config.finalizers().iter().any(|name| name == kata::FINALIZER)
}

fn one(seen: &Seen, config: &KataConfig, options: &Options) -> Plan {
    let topology = Topology::of(seen);
    let mut draft = Draft::new(seen, config);
    let deleting = config.metadata.deletion_timestamp.is_some();
    if deleting && !has_finalizer(config) {
        return draft.finish(IDLE);
    }
    if deleting && !install::is_under_way(seen, &topology, &draft.status) {
        uninstall::decide(seen, &topology, options, draft)
    } else {
        draft.add_finalizer = !deleting && !has_finalizer(config);
        install::decide(seen, &topology, options, draft)
    }
}

fn duplicate(seen: &Seen, config: &KataConfig, active: &KataConfig) -> Plan {
    let mut draft = Draft::new(seen, config);
    draft.progress(InProgressReason::Idle, String::new());
    draft.problems.push(Problem::new(
        DegradedReason::DuplicateKataConfig,
        format!("KataConfig {} was first, and there can be only one: delete this one", active.name_any()),
    ));
    if config.metadata.deletion_timestamp.is_some() && has_finalizer(config) {
        draft.writes.push(Write::RemoveFinalizer);
    }
    draft.finish(IDLE)
}

/// A plan in the making.
struct Draft<'a> {
    seen: &'a Seen,
    config: &'a KataConfig,
    add_finalizer: bool,
    status: KataConfigStatus,
    writes: Vec<Write>,
    problems: Vec<Problem>,
}

impl<'a> Draft<'a> {
    fn new(seen: &'a Seen, config: &'a KataConfig) -> Self {
        let status = config.status.clone().unwrap_or_default().migrated(seen.now);
        Self { seen, config, add_finalizer: false, status, writes: Vec::new(), problems: Vec::new() }
    }

    fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Sets condition `InProgress`. The reason decides whether it holds.
    fn progress(&mut self, reason: InProgressReason, message: String) {
        use InProgressReason as R;
        let holds = match reason {
            R::Idle | R::BlockedByExistingKataPods => ConditionStatus::False,
            R::PodVmImageJobStatusUnknown => ConditionStatus::Unknown,
            _ => ConditionStatus::True,
        };
        let type_ = ConditionType::InProgress.as_str();
        self.status.conditions.set(type_, holds, reason.as_str(), &message, self.seen.now);
    }

    fn finish(mut self, again: Duration) -> Plan {
        health::publish(&mut self.status, self.problems, self.seen.now);
        Plan {
            config: self.config.name_any(),
            add_finalizer: self.add_finalizer,
            status: self.status,
            writes: self.writes,
            again,
        }
    }
}

/// Present reason of condition `InProgress`.
pub(crate) fn progress_of(status: &KataConfigStatus) -> InProgressReason {
    let condition = status.conditions.of(ConditionType::InProgress.as_str());
    condition.and_then(|condition| InProgressReason::parse(&condition.reason)).unwrap_or(InProgressReason::Idle)
}
