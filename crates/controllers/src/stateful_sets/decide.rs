//! The next step of a StatefulSet: one at a time and in order, unless Parallel.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};

use crate::pods::nonzero;

/// One pod of the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    /// Name of its revision.
    pub(super) revision: String,
    pub(super) ready: bool,
    pub(super) available: bool,
    pub(super) deleting: bool,
    pub(super) finished: bool,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) start: i32,
    pub(super) replicas: i32,
    pub(super) parallel: bool,
    /// `None`: pods are only replaced when somebody deletes them.
    pub(super) partition: Option<i32>,
    /// Revision that pods below the partition, and not yet updated ones, have.
    pub(super) current: String,
    pub(super) update: String,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create {
        ordinal: i32,
        revision: String,
    },
    /// Out of the wanted range.
    Condemn {
        ordinal: i32,
    },
    /// Finished or outdated: deleted to be made anew.
    Replace {
        ordinal: i32,
    },
}

impl Wanted {
    pub(super) fn of(set: &StatefulSet, current: &str, update: &str) -> Self {
        let spec = set.spec.clone().unwrap_or_default();
        let strategy = spec.update_strategy.unwrap_or_default();
        let by_hand = strategy.type_.as_deref() == Some("OnDelete");
        Self {
            start: spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0),
            replicas: spec.replicas.unwrap_or(1).max(0),
            parallel: spec.pod_management_policy.as_deref() == Some("Parallel"),
            partition: (!by_hand).then(|| strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or(0)),
            current: current.to_owned(),
            update: update.to_owned(),
        }
    }

    fn range(&self) -> std::ops::Range<i32> {
        self.start..self.start.saturating_add(self.replicas)
    }

    /// Revision a missing pod is made with: below the partition it comes back as it was.
    fn revision_of(&self, ordinal: i32) -> String {
        let old = self.partition.is_some_and(|partition| ordinal - self.start < partition);
        if old { self.current.clone() } else { self.update.clone() }
    }
}

/// Everything to do now.
pub(super) fn plan(wanted: &Wanted, members: &BTreeMap<i32, Member>) -> Vec<Action> {
    let mut actions = Vec::new();
    for ordinal in wanted.range() {
        let held_up = match members.get(&ordinal) {
            None => {
                actions.push(Action::Create { ordinal, revision: wanted.revision_of(ordinal) });
                true
            }
            Some(member) if member.deleting => true,
            Some(member) if member.finished => {
                actions.push(Action::Replace { ordinal });
                true
            }
            Some(member) => !member.available,
        };
        if held_up && !wanted.parallel {
            return actions;
        }
    }
    let condemned = condemn(wanted, members);
    let settled = condemned.is_none();
    actions.extend(condemned.into_iter().flatten());
    if wanted.parallel || (actions.is_empty() && settled) {
        let missing = actions.iter().any(|action| matches!(action, Action::Create { .. } | Action::Replace { .. }));
        if !missing {
            actions.extend(replace(wanted, members));
        }
    }
    actions
}

/// Pods above (or below) the range, highest first. `None`: there are none;
/// an empty list means that one is still going.
fn condemn(wanted: &Wanted, members: &BTreeMap<i32, Member>) -> Option<Vec<Action>> {
    let outside: Vec<_> = members.iter().rev().filter(|(ordinal, _)| !wanted.range().contains(ordinal)).collect();
    let (first, first_member) = outside.first()?;
    if wanted.parallel {
        let left = outside.iter().filter(|(_, member)| !member.deleting);
        return Some(left.map(|(ordinal, _)| Action::Condemn { ordinal: **ordinal }).collect());
    }
    let action = (!first_member.deleting).then_some(Action::Condemn { ordinal: **first });
    Some(action.into_iter().collect())
}

/// The next pod to update: from the top down to the partition, each one only
/// when all above it are available again.
fn replace(wanted: &Wanted, members: &BTreeMap<i32, Member>) -> Option<Action> {
    let partition = wanted.partition?;
    for ordinal in wanted.range().rev() {
        if ordinal - wanted.start < partition {
            return None;
        }
        let member = members.get(&ordinal)?;
        if member.deleting {
            return None;
        }
        if member.revision != wanted.update {
            return Some(Action::Replace { ordinal });
        }
        if !member.available {
            return None;
        }
    }
    None
}

/// Status of the set.
pub(super) fn status(set: &StatefulSet, wanted: &Wanted, members: &BTreeMap<i32, Member>) -> StatefulSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let count = |holds: &dyn Fn(&Member) -> bool| -> i32 {
        i32::try_from(members.values().filter(|member| holds(member)).count()).unwrap_or(i32::MAX)
    };
    let alive = |member: &Member| !member.deleting;
    let updated = count(&|member| alive(member) && member.revision == wanted.update);
    let ready = count(&|member| member.ready);
    let total = count(&|_| true);
    let mut current = wanted.current.clone();
    // The update is through once everything runs and is ready with it.
    if updated == wanted.replicas && ready == wanted.replicas && total == wanted.replicas {
        current.clone_from(&wanted.update);
    }
    StatefulSetStatus {
        replicas: total,
        ready_replicas: nonzero(ready),
        available_replicas: Some(count(&|member| member.available)),
        current_replicas: nonzero(count(&|member| alive(member) && member.revision == current)),
        updated_replicas: nonzero(updated),
        current_revision: Some(current),
        update_revision: Some(wanted.update.clone()),
        observed_generation: set.metadata.generation,
        collision_count: old.collision_count.or(Some(0)),
        conditions: old.conditions,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    fn wanted(replicas: i32) -> Wanted {
        Wanted { start: 0, replicas, parallel: false, partition: Some(0), current: "old".into(), update: "new".into() }
    }

    /// `n`/`o` new and old, upper case available, `~` deleting and `!` finished before it, `-` missing.
    fn members(marks: &str) -> BTreeMap<i32, Member> {
        let (mut deleting, mut finished, mut ordinal) = (false, false, 0);
        let mut members = BTreeMap::new();
        for mark in marks.chars() {
            match mark {
                '~' => deleting = true,
                '!' => finished = true,
                '-' => ordinal += 1,
                _ => {
                    let available = mark.is_ascii_uppercase();
                    let revision = if mark.eq_ignore_ascii_case(&'n') { "new" } else { "old" };
                    let member = Member { revision: revision.into(), ready: available, available, deleting, finished };
                    members.insert(ordinal, member);
                    (deleting, finished) = (false, false);
                    ordinal += 1;
                }
            }
        }
        members
    }

    fn short(actions: Vec<Action>) -> String {
        let text = |action| match action {
            Action::Create { ordinal, revision } => format!("+{ordinal}{}", &revision[..1]),
            Action::Condemn { ordinal } => format!("-{ordinal}"),
            Action::Replace { ordinal } => format!("~{ordinal}"),
        };
        actions.into_iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_step_at_a_time() {
        for (why, wanted, marks, want) in [
            ("first", wanted(3), "", "+0n"),
            ("wait until available", wanted(3), "n", ""),
            ("then the next", wanted(3), "N", "+1n"),
            ("done", wanted(2), "NN", ""),
            ("a hole is filled first", wanted(3), "N-N", "+1n"),
            ("finished pods are replaced", wanted(2), "N!n", "~1"),
            ("ending pods are waited for", wanted(2), "~NN", ""),
            ("scale down from the top", wanted(1), "NNN", "-2"),
            ("one by one", wanted(1), "NN~N", ""),
            ("not while one below is sick", wanted(1), "nNN", ""),
            ("update from the top", wanted(3), "OOO", "~2"),
            ("wait for the updated one", wanted(3), "OOn", ""),
            ("then downwards", wanted(3), "OON", "~1"),
            ("the updated one comes back new", wanted(3), "OO", "+2n"),
            ("a lost old one comes back new too", wanted(3), "-ON", "+0n"),
            ("a broken old one holds up the update", wanted(2), "oN", ""),
            ("partition", Wanted { partition: Some(2), ..wanted(3) }, "OOO", "~2"),
            ("partition reached", Wanted { partition: Some(2), ..wanted(3) }, "OON", ""),
            ("below the partition as it was", Wanted { partition: Some(2), ..wanted(3) }, "-ON", "+0o"),
            ("by hand", Wanted { partition: None, ..wanted(2) }, "OO", ""),
            ("by hand, new when deleted", Wanted { partition: None, ..wanted(2) }, "O", "+1n"),
            ("another start", Wanted { start: 1, ..wanted(2) }, "NN", "+2n"),
            ("below the start", Wanted { start: 1, ..wanted(1) }, "NN", "-0"),
            ("to nothing", wanted(0), "NN", "-1"),
        ] {
            assert_eq!(short(plan(&wanted, &members(marks))), want, "{why}: {marks}");
        }
    }

    #[test]
    fn parallel_does_not_wait() {
        let parallel = |replicas| Wanted { parallel: true, ..wanted(replicas) };
        for (why, wanted, marks, want) in [
            ("all at once", parallel(3), "", "+0n +1n +2n"),
            ("sick ones do not matter", parallel(3), "n", "+1n +2n"),
            ("down at once", parallel(1), "NNN", "-2 -1"),
            ("updates one by one", parallel(3), "OOO", "~2"),
            ("updates wait", parallel(3), "OOn", ""),
        ] {
            assert_eq!(short(plan(&wanted, &members(marks))), want, "{why}: {marks}");
        }
    }

    #[test]
    fn status_and_the_end_of_an_update() {
        let set: StatefulSet = object(json!({"metadata": {"generation": 2}}));
        let middle = status(&set, &wanted(3), &members("OON"));
        assert_eq!((middle.replicas, middle.ready_replicas, middle.updated_replicas), (3, Some(3), Some(1)));
        assert_eq!((middle.current_replicas, middle.current_revision.as_deref()), (Some(2), Some("old")));
        let end = status(&set, &wanted(3), &members("NNN"));
        assert_eq!((end.current_revision.as_deref(), end.update_revision.as_deref()), (Some("new"), Some("new")));
        assert_eq!((end.current_replicas, end.observed_generation), (Some(3), Some(2)));
    }
}
