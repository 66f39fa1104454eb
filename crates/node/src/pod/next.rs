//! What to do next for a pod: a pure function of what it should be and what the
//! engine says it is.
//!
//! ```text
//! no sandbox ──► MakeSandbox ──► init containers one by one, sidecars stay
//!                                   │
//! StopSandbox, back-off, ◄──┐       ▼
//! RemoveSandbox        died └── containers ──► all ended for good ──► Done
//! ```

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    model::{Container, Pod, Restart},
    probe::Health,
};

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
    /// Containers that could not be made, and how long to wait before trying again.
    pub held: HashMap<String, Duration>,
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
    /// How its probes see it.
    pub health: Health,
    /// What else the engine knows about it.
    pub detail: Arc<Detail>,
    /// The same about the attempt before it, if the engine still has it.
    pub previous: Option<Arc<Detail>>,
}

/// What the engine knows about a container besides its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// The container's id.
    pub id: String,
    /// The image's name.
    pub image: String,
    /// The image's digest.
    pub image_id: String,
    /// When it was started, in nanoseconds since 1970; 0 if it was not.
    pub started: i64,
    /// When it ended.
    pub finished: i64,
    /// Its exit code.
    pub code: i32,
    /// Why it ended, in one word.
    pub reason: String,
    /// Why it ended.
    pub message: String,
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
    /// Stop a dead sandbox: the engine takes some of its containers for running.
    StopSandbox(String),
    /// Remove a dead sandbox, so that a new one can be made.
    RemoveSandbox(String),
    /// Make and start the next attempt of a container.
    Run(String),
    /// Start a container that was made by somebody who did not live to start it.
    Start(String),
    /// Stop a container that a probe has found wanting.
    Stop(String),
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
    for container in &pod.ephemeral {
        match step(Restart::Never, container, seen) {
            Step::Act(action) => return action,
            Step::Later(delay) => wait = shorter(wait, Some(delay)),
            Step::Busy | Step::Over | Step::Failed => {}
        }
    }
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
        return step(policy(pod, container), container, seen);
    }
    let started = seen.containers.get(&container.name).is_some_and(|attempt| attempt.health.started);
    match step(Restart::Always, container, seen) {
        Step::Busy if started => Step::Over, // that is all the next one waits for
        other => other,
    }
}

fn step(restart: Restart, container: &Container, seen: &Seen) -> Step {
    let held = seen.held.get(&container.name).copied().unwrap_or_default();
    let run = |delay: Duration| match delay.max(held) {
        Duration::ZERO => Step::Act(Action::Run(container.name.clone())),
        delay => Step::Later(delay),
    };
    let Some(attempt) = seen.containers.get(&container.name) else { return run(Duration::ZERO) };
    match attempt.state {
        State::Created => Step::Act(Action::Start(container.name.clone())),
        State::Running if attempt.health.failed.is_some() => Step::Act(Action::Stop(container.name.clone())),
        State::Running => Step::Busy,
        State::Exited { code, .. } => match (pause(restart, attempt), code) {
            (Some(delay), _) => run(delay),
            (None, 0) => Step::Over,
            (None, _) => Step::Failed,
        },
    }
}

/// The policy that holds for one container of a pod.
pub fn policy(pod: &Pod, container: &Container) -> Restart {
    let init = pod.init.iter().any(|init| init.name == container.name);
    match (init, container.sidecar, pod.restart) {
        _ if pod.is_ephemeral(&container.name) => Restart::Never,
        (true, true, _) => Restart::Always,
        // Always, for something that must end, means until it succeeds.
        (true, false, Restart::Always) => Restart::OnFailure,
        (_, _, policy) => policy,
    }
}

/// How long an attempt that has ended still keeps the next one waiting; `None`
/// where there will be no next one.
pub fn pause(restart: Restart, attempt: &Attempt) -> Option<Duration> {
    let State::Exited { code, ran, since } = attempt.state else { return None };
    let again = match restart {
        Restart::Always => true,
        Restart::OnFailure => code != 0,
        Restart::Never => false,
    };
    again.then(|| back_off(attempt.number, ran).saturating_sub(since))
}

/// Delay before the restart that follows attempt `number`.
pub fn back_off(number: u32, ran: Duration) -> Duration {
    if number == 0 || ran >= RAN_WELL {
        return Duration::ZERO;
    }
    BACK_OFF.saturating_mul(2_u32.saturating_pow(number - 1)).min(BACK_OFF_MAX)
}

/// Without a sandbox nothing runs; whether that is the end depends on the policy.
fn dead(pod: &Pod, seen: &Seen, id: &str) -> Action {
    if seen.containers.is_empty() {
        return Action::RemoveSandbox(id.to_owned()); // it never did anything
    }
    if seen.containers.values().any(|attempt| attempt.state == State::Running) {
        // When and how they ended is known only then.
        return Action::StopSandbox(id.to_owned());
    }
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
        Restart::OnFailure | Restart::Always => match soonest(pod, seen) {
            Duration::ZERO => Action::RemoveSandbox(id.to_owned()),
            delay => Action::Wait(Some(delay)),
        },
    }
}

/// When the first container is to be started again: a machine that dies over and over
/// is not made anew before that.
fn soonest(pod: &Pod, seen: &Seen) -> Duration {
    let containers = pod.init.iter().chain(&pod.containers);
    let pauses = containers.filter_map(|c| pause(policy(pod, c), seen.containers.get(&c.name)?));
    pauses.min().unwrap_or_default()
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
    use crate::pod::{Manifest, probe::Failed};

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
            let id = format!("id-{name}");
            let attempt = Attempt { id, number, state, health: Health::WELL, detail: Arc::default(), previous: None };
            (name.to_owned(), attempt)
        };
        Seen {
            sandbox: Sandbox::Ready { id: "s".into() },
            containers: states.iter().map(attempt).collect(),
            age: Duration::from_secs(5),
            held: HashMap::new(),
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
            ("Never", vec![], Action::RemoveSandbox("s".into())),
            ("Never", vec![("a", 0, ended(0))], Action::Done(Phase::Failed)),
            ("Never", vec![("a", 0, ended(0)), ("b", 0, ended(0))], Action::Done(Phase::Succeeded)),
            ("OnFailure", vec![("a", 0, ended(0)), ("b", 0, ended(255))], Action::RemoveSandbox("s".into())),
            ("Always", vec![("a", 0, ended(0)), ("b", 0, ended(0))], Action::RemoveSandbox("s".into())),
            ("Always", vec![("a", 0, ended(255)), ("b", 0, State::Running)], Action::StopSandbox("s".into())),
            ("Always", vec![("a", 1, ended(255)), ("b", 0, ended(255))], Action::RemoveSandbox("s".into())),
            ("Always", vec![("a", 1, ended(255)), ("b", 2, ended(255))], Action::Wait(Some(Duration::from_secs(9)))),
            ("OnFailure", vec![("a", 0, ended(0)), ("b", 2, ended(1))], Action::Wait(Some(Duration::from_secs(19)))),
        ] {
            assert_eq!(next(&pod(policy, ""), &dead(&states)), want, "{policy} {states:?}");
        }
        assert_eq!(next(&pod("Never", ""), &Seen::default()), Action::MakeSandbox);
    }

    #[test]
    fn ephemeral_containers_run_once_and_decide_nothing() {
        use State::Running;
        let mut pod = pod("Never", "");
        let mut debugger = pod.containers[0].clone();
        debugger.name = "e".into();
        pod.ephemeral.push(debugger);
        let over = [("a", 0, ended(0)), ("b", 0, ended(0))];
        for (states, want) in [
            (vec![("a", 0, Running), ("b", 0, Running)], run("e")),
            (vec![("a", 0, Running), ("b", 0, Running), ("e", 0, Running)], WAIT),
            (vec![("a", 0, Running), ("b", 0, Running), ("e", 0, ended(1))], WAIT),
            ([&over[..], &[("e", 0, Running)]].concat(), Action::Done(Phase::Succeeded)),
            ([&over[..], &[("e", 0, ended(1))]].concat(), Action::Done(Phase::Succeeded)),
        ] {
            assert_eq!(next(&pod, &seen(&states)), want, "{states:?}");
        }
    }

    #[test]
    fn what_cannot_be_made_does_not_hold_up_the_others() {
        let held = |name: &str, states: &[(&str, u32, State)]| {
            let mut seen = seen(states);
            seen.held.insert(name.into(), Duration::from_secs(7));
            seen
        };
        let wait = Action::Wait(Some(Duration::from_secs(7)));
        assert_eq!(next(&pod("Always", ""), &held("a", &[])), run("b"));
        assert_eq!(next(&pod("Always", ""), &held("a", &[("b", 0, State::Running)])), wait);
        let init = pod("Always", "{name: i, image: i}");
        assert_eq!(next(&init, &held("i", &[])), wait, "an init container does");
    }

    #[test]
    fn probes_stop_containers_and_hold_back_what_follows_a_sidecar() {
        let mut running = seen(&[("a", 0, State::Running), ("b", 0, State::Running), ("s", 0, State::Running)]);
        let sidecar = pod("Always", "{name: s, image: i, restartPolicy: Always}");
        assert_eq!(next(&sidecar, &running), WAIT);
        let change = |seen: &mut Seen, name: &str, change: fn(&mut Health)| {
            change(&mut seen.containers.get_mut(name).expect("there").health);
        };
        change(&mut running, "b", |health| health.failed = Some(Failed { probe: "liveness", grace: None }));
        assert_eq!(next(&sidecar, &running), Action::Stop("b".into()));
        let mut starting = seen(&[("s", 0, State::Running)]);
        assert_eq!(next(&sidecar, &starting), run("a"));
        change(&mut starting, "s", |health| health.started = false);
        assert_eq!(next(&sidecar, &starting), WAIT);
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
