//! What to do next for a pod: a pure function of what it should be and what the
//! engine says it is.
//!
//! ```text
//! no sandbox ──► MakeSandbox ──► init containers one by one, sidecars stay
//!                                   │
//! sandbox died ◄── Remake ──┐       ▼
//!                           └── containers ──► all ended for good ──► Done
//! ```

use std::{collections::HashMap, time::Duration};

use super::model::{Container, Pod, Restart};

/// Delay before the second restart; doubles up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long has earned an immediate restart.
const RAN_WELL: Duration = Duration::from_secs(600);

/// What the engine says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The newest sandbox.
    pub sandbox: Sandbox,
    /// The newest attempt of each container in that sandbox.
    pub containers: HashMap<String, Attempt>,
    /// How long ago the sandbox was made.
    pub age: Duration,
}

/// State of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// There is none.
    #[default]
    Absent,
    /// It runs.
    Ready {
        /// Its id.
        id: String,
    },
    /// It died or was stopped.
    Dead {
        /// Its id.
        id: String,
    },
}

/// One attempt of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The container's id.
    pub id: String,
    /// Number of restarts before it.
    pub number: u32,
    /// Its state.
    pub state: State,
}

/// State of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made but not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited {
        /// Exit code.
        code: i32,
        /// How long it ran.
        ran: Duration,
        /// How long ago it ended.
        since: Duration,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the sandbox.
    MakeSandbox,
    /// Remove a dead sandbox, so that a new one can be made.
    RemoveSandbox(String),
    /// Make and start the next attempt of a container.
    Run(String),
    /// Start a container that was made by somebody who did not live to start it.
    Start(String),
    /// Nothing, until something changes or so much time has passed.
    Wait(Option<Duration>),
    /// Nothing any more.
    Done(Phase),
}

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All containers ended with 0.
    Succeeded,
    /// Some did not, or the sandbox was lost.
    Failed,
}

/// Decides.
pub fn next(pod: &Pod, seen: &Seen) -> Action {
    match &seen.sandbox {
        Sandbox::Absent => return Action::MakeSandbox,
        Sandbox::Dead { id } => return dead(pod, seen, id),
        Sandbox::Ready { .. } => {}
    }
    if pod.active_deadline.is_some_and(|limit| seen.age >= limit) {
        return Action::Done(Phase::Failed);
    }
    let mut wait = pod.active_deadline.map(|limit| limit - seen.age);
    for container in &pod.init {
        match init_step(pod, seen, container) {
            Step::Over => {}
            Step::Act(action) => return action,
            Step::Later(delay) if container.sidecar => wait = shorter(wait, Some(delay)),
            Step::Later(delay) => return Action::Wait(shorter(wait, Some(delay))),
            Step::Busy => return Action::Wait(wait),
            Step::Failed => return Action::Done(Phase::Failed),
        }
    }
    let mut running = false;
    let mut failed = false;
    for container in &pod.containers {
        match step(pod.restart, container, seen) {
            Step::Act(action) => return action,
            Step::Later(delay) => (running, wait) = (true, shorter(wait, Some(delay))),
            Step::Busy => running = true,
            Step::Over => {}
            Step::Failed => failed = true,
        }
    }
    match (running, failed) {
        (true, _) => Action::Wait(wait),
        (false, false) => Action::Done(Phase::Succeeded),
        (false, true) => Action::Done(Phase::Failed),
    }
}

/// Whether every container that has to be running, or to have run, is or has.
pub fn started(pod: &Pod, seen: &Seen) -> bool {
    matches!(seen.sandbox, Sandbox::Ready { .. })
        && pod.containers.iter().all(|container| {
            let state = seen.containers.get(&container.name).map(|attempt| attempt.state);
            matches!(state, Some(State::Running | State::Exited { .. }))
        })
}

/// Where one container stands.
enum Step {
    Act(Action),
    /// Wait for its back-off.
    Later(Duration),
    /// Wait for it to end.
    Busy,
    /// Ended with 0, for good.
    Over,
    /// Ended otherwise, for good.
    Failed,
}

fn init_step(pod: &Pod, seen: &Seen, container: &Container) -> Step {
    if !container.sidecar {
        // Never means never; Always, for something that must end, means until it succeeds.
        let restart = if pod.restart == Restart::Never { Restart::Never } else { Restart::OnFailure };
        return step(restart, container, seen);
    }
    match step(Restart::Always, container, seen) {
        Step::Busy => Step::Over, // running is all that the next one waits for
        other => other,
    }
}

fn step(restart: Restart, container: &Container, seen: &Seen) -> Step {
    let Some(attempt) = seen.containers.get(&container.name) else {
        return Step::Act(Action::Run(container.name.clone()));
    };
    match attempt.state {
        State::Created => Step::Act(Action::Start(container.name.clone())),
        State::Running => Step::Busy,
        State::Exited { code, ran, since } => {
            let again = match restart {
                Restart::Always => true,
                Restart::OnFailure => code != 0,
                Restart::Never => false,
            };
            let delay = back_off(attempt.number, ran).saturating_sub(since);
            match (again, code) {
                (true, _) if delay.is_zero() => Step::Act(Action::Run(container.name.clone())),
                (true, _) => Step::Later(delay),
                (false, 0) => Step::Over,
                (false, _) => Step::Failed,
            }
        }
    }
}

/// Delay before the restart that follows attempt `number`.
fn back_off(number: u32, ran: Duration) -> Duration {
    if number == 0 || ran >= RAN_WELL {
        return Duration::ZERO;
    }
    BACK_OFF.saturating_mul(2_u32.saturating_pow(number - 1)).min(BACK_OFF_MAX)
}

/// Without a sandbox nothing runs; whether that is the end depends on the policy.
fn dead(pod: &Pod, seen: &Seen, id: &str) -> Action {
    let codes: Vec<Option<i32>> = pod
        .containers
        .iter()
        .map(|container| match seen.containers.get(&container.name)?.state {
            State::Exited { code, .. } => Some(code),
            State::Created | State::Running => None,
        })
        .collect();
    let succeeded = codes.iter().all(|code| *code == Some(0));
    match pod.restart {
        Restart::Never if succeeded => Action::Done(Phase::Succeeded),
        Restart::Never => Action::Done(Phase::Failed),
        Restart::OnFailure if succeeded => Action::Done(Phase::Succeeded),
        Restart::OnFailure | Restart::Always => Action::RemoveSandbox(id.to_owned()),
    }
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Manifest;

    fn pod(policy: &str, init: &str) -> Pod {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{restartPolicy: {policy}, initContainers: [{init}], \
             containers: [{{name: a, image: i}}, {{name: b, image: i}}]}}"
        );
        Manifest::read("test", &text).expect("good").remove(0).pod
    }

    fn ended(code: i32) -> State {
        State::Exited { code, ran: Duration::from_secs(1), since: Duration::from_secs(1) }
    }

    fn seen(states: &[(&str, u32, State)]) -> Seen {
        let attempt = |&(name, number, state): &(&str, u32, State)| {
            (name.to_owned(), Attempt { id: format!("id-{name}"), number, state })
        };
        Seen {
            sandbox: Sandbox::Ready { id: "s".into() },
            containers: states.iter().map(attempt).collect(),
            age: Duration::from_secs(5),
        }
    }

    fn run(name: &str) -> Action {
        Action::Run(name.into())
    }

    const WAIT: Action = Action::Wait(None);

    #[test]
    fn containers_follow_their_policy() {
        use State::{Created, Running};
        let (ok, bad) = (Action::Done(Phase::Succeeded), Action::Done(Phase::Failed));
        for (policy, states, want) in [
            ("Never", vec![], run("a")),
            ("Never", vec![("a", 0, Created)], Action::Start("a".into())),
            ("Never", vec![("a", 0, Running)], run("b")),
            ("Never", vec![("a", 0, Running), ("b", 0, Running)], WAIT),
            ("Never", vec![("a", 0, ended(0)), ("b", 0, Running)], WAIT),
            ("Never", vec![("a", 0, ended(0)), ("b", 0, ended(0))], ok.clone()),
            ("Never", vec![("a", 0, ended(7)), ("b", 0, ended(0))], bad.clone()),
            ("OnFailure", vec![("a", 0, ended(0)), ("b", 0, ended(7))], run("b")),
            ("OnFailure", vec![("a", 0, ended(0)), ("b", 0, ended(0))], ok),
            ("Always", vec![("a", 0, ended(0)), ("b", 0, Running)], run("a")),
            ("Always", vec![("a", 1, ended(0)), ("b", 0, Running)], Action::Wait(Some(Duration::from_secs(9)))),
            ("Always", vec![("a", 2, ended(0)), ("b", 3, ended(0))], Action::Wait(Some(Duration::from_secs(19)))),
        ] {
            assert_eq!(next(&pod(policy, ""), &seen(&states)), want, "{policy} {states:?}");
        }
    }

    #[test]
    fn init_containers_go_first_and_sidecars_stay() {
        use State::Running;
        let init = "{name: s, image: i, restartPolicy: Always}, {name: i, image: i}";
        for (policy, states, want) in [
            ("Never", vec![], run("s")),
            ("Never", vec![("s", 0, Running)], run("i")),
            ("Never", vec![("s", 0, Running), ("i", 0, Running)], WAIT),
            ("Never", vec![("s", 0, Running), ("i", 0, ended(1))], Action::Done(Phase::Failed)),
            ("Always", vec![("s", 0, Running), ("i", 0, ended(1))], run("i")),
            ("Always", vec![("s", 0, Running), ("i", 0, ended(0))], run("a")),
            ("Never", vec![("s", 0, ended(0)), ("i", 0, ended(0))], run("s")),
            (
                "Never",
                vec![("s", 0, Running), ("i", 0, ended(0)), ("a", 0, ended(0)), ("b", 0, ended(0))],
                Action::Done(Phase::Succeeded),
            ),
        ] {
            assert_eq!(next(&pod(policy, init), &seen(&states)), want, "{policy} {states:?}");
        }
    }

    #[test]
    fn a_lost_sandbox_is_replaced_unless_the_policy_is_never() {
        let dead = |states: &[(&str, u32, State)]| Seen { sandbox: Sandbox::Dead { id: "s".into() }, ..seen(states) };
        for (policy, states, want) in [
            ("Never", vec![], Action::Done(Phase::Failed)),
            ("Never", vec![("a", 0, ended(0)), ("b", 0, ended(0))], Action::Done(Phase::Succeeded)),
            ("OnFailure", vec![("a", 0, ended(0)), ("b", 0, ended(255))], Action::RemoveSandbox("s".into())),
            ("Always", vec![("a", 0, ended(0)), ("b", 0, ended(0))], Action::RemoveSandbox("s".into())),
        ] {
            assert_eq!(next(&pod(policy, ""), &dead(&states)), want, "{policy} {states:?}");
        }
        assert_eq!(next(&pod("Never", ""), &Seen::default()), Action::MakeSandbox);
    }

    #[test]
    fn the_active_deadline_ends_a_pod() {
        let mut pod = pod("Always", "");
        let running = seen(&[("a", 0, State::Running), ("b", 0, State::Running)]);
        pod.active_deadline = Some(Duration::from_secs(8));
        assert_eq!(next(&pod, &running), Action::Wait(Some(Duration::from_secs(3))));
        pod.active_deadline = Some(Duration::from_secs(5));
        assert_eq!(next(&pod, &running), Action::Done(Phase::Failed));
    }

    #[test]
    fn restarts_slow_down_and_recover() {
        let short = Duration::from_secs(1);
        for (number, ran, want) in
            [(0, short, 0), (1, short, 10), (2, short, 20), (6, short, 300), (99, short, 300), (9, RAN_WELL, 0)]
        {
            assert_eq!(back_off(number, ran), Duration::from_secs(want), "{number} {ran:?}");
        }
    }

    #[test]
    fn a_pod_has_started_when_all_its_containers_have() {
        let pod = pod("Never", "");
        assert!(!started(&pod, &Seen::default()));
        assert!(!started(&pod, &seen(&[("a", 0, State::Running)])));
        assert!(started(&pod, &seen(&[("a", 0, State::Running), ("b", 0, ended(1))])));
    }
}
