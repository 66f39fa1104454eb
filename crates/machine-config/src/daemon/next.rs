//! What the daemon does next: a pure function of what it sees.

use crate::pools::State;

/// What the node's object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Configuration reported as running.
    pub current: String,
    /// Configuration to run.
    pub desired: String,
    /// State reported.
    pub state: State,
    /// Reason reported.
    pub reason: String,
    /// Announced reboot.
    pub post_action: String,
    /// Drain or uncordon asked for.
    pub desired_drain: String,
    /// The last one carried out.
    pub applied_drain: String,
    /// Whether this is the only node of its control plane, so that nothing can
    /// move elsewhere.
    pub single: bool,
}

/// Everything that is decided by. No update is half-way: that is seen to before.
#[derive(Clone, Debug, Default)]
pub struct Seen<'a> {
    /// The node's object.
    pub notes: Notes,
    /// Name of the recorded configuration; none on first contact.
    pub record: Option<&'a str>,
    /// Whether managed files were changed by somebody.
    pub drifted: bool,
    /// Whether the force file is there.
    pub forced: bool,
    /// Whether the recorded configuration means something else by now.
    pub outdated: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take over a node nobody has configured: record the baseline and report it.
    Adopt,
    /// Report that managed files were changed.
    ReportDrift,
    /// Change to the desired configuration.
    Update,
    /// Ask for pods to be let in again.
    AskUncordon,
    /// Wait for what was asked for.
    AwaitUncordon,
    /// Report that all is done.
    ReportDone,
    /// Nothing.
    Rest,
}

/// What is asked of whoever drains.
pub fn drain_request(config: &str) -> String {
    format!("drain-{config}")
}

/// The opposite.
pub fn uncordon_request(config: &str) -> String {
    format!("uncordon-{config}")
}

/// Decides.
pub fn next(seen: &Seen<'_>) -> Step {
    let notes = &seen.notes;
    let Some(record) = seen.record else { return Step::Adopt };
    // Before the controller knows the node there is nothing to change to.
    let desired = if notes.desired.is_empty() { record } else { notes.desired.as_str() };
    if seen.forced {
        return Step::Update;
    }
    if seen.drifted {
        return Step::ReportDrift;
    }
    if desired != record || seen.outdated {
        return Step::Update;
    }
    if notes.desired_drain.starts_with("drain-") {
        return Step::AskUncordon;
    }
    if notes.desired_drain != notes.applied_drain {
        return Step::AwaitUncordon;
    }
    let reported = notes.current == record
        && notes.desired == record
        && notes.state == State::Done
        && notes.reason.is_empty()
        && notes.post_action.is_empty();
    if reported { Step::Rest } else { Step::ReportDone }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(current: &str, desired: &str, state: State) -> Notes {
        Notes { current: current.into(), desired: desired.into(), state, ..Notes::default() }
    }

    fn seen(record: &str, notes: Notes) -> Seen<'_> {
        Seen { notes, record: Some(record), ..Seen::default() }
    }

    #[test]
    fn every_sight_has_its_step() {
        let done = || notes("a", "a", State::Done);
        let failed = Notes { reason: "x".into(), ..notes("a", "a", State::Degraded) };
        let draining = Notes { desired_drain: "drain-a".into(), applied_drain: "drain-a".into(), ..done() };
        let leaving = Notes { desired_drain: "uncordon-a".into(), applied_drain: "drain-a".into(), ..done() };
        let back = Notes { desired_drain: "uncordon-a".into(), applied_drain: "uncordon-a".into(), ..done() };
        let rebooted = Notes { post_action: "Rebooting".into(), ..done() };
        for (seen, want) in [
            (Seen::default(), Step::Adopt),
            (Seen { notes: done(), ..Seen::default() }, Step::Adopt),
            (seen("a", done()), Step::Rest),
            (seen("a", back), Step::Rest),
            (seen("a", notes("", "", State::Unknown)), Step::ReportDone),
            (seen("a", notes("old", "a", State::Working)), Step::ReportDone),
            (seen("a", rebooted), Step::ReportDone),
            (seen("a", failed), Step::ReportDone),
            (seen("a", notes("a", "b", State::Done)), Step::Update),
            (seen("a", notes("a", "b", State::Degraded)), Step::Update),
            (Seen { drifted: true, ..seen("a", notes("a", "b", State::Done)) }, Step::ReportDrift),
            (Seen { drifted: true, ..seen("a", done()) }, Step::ReportDrift),
            (Seen { drifted: true, forced: true, ..seen("a", done()) }, Step::Update),
            (Seen { forced: true, ..seen("a", done()) }, Step::Update),
            (Seen { outdated: true, ..seen("a", done()) }, Step::Update),
            (seen("a", draining), Step::AskUncordon),
            (seen("a", leaving), Step::AwaitUncordon),
        ] {
            assert_eq!(next(&seen), want, "{seen:?}");
        }
    }
}
