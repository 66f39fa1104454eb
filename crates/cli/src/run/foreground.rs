//! Pods that end with the command.

use futures::future::join_all;
use osc_agent_protocol::Kind;
use osc_node::pod::{Goal, Hold, Phase, PodError, Pods, Record, State, Supervisor};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Planned, output::Streams};
use crate::{
    Failure,
    exec::exit_code,
    progress::Progress,
    terminal::{self, Raw},
};

/// What a shell answers for a command that cannot be executed.
const NOT_STARTED: u8 = 127;

/// Runs pods side by side until all are over; deletes them in any case.
pub(super) async fn run(pods: &Pods, planned: Vec<Planned>, progress: Progress) -> Result<u8, Failure> {
    let stop = CancellationToken::new();
    let signalled = watch_signals(&stop)?;
    let wants_keys = planned.iter().flat_map(|p| &p.manifest.pod.containers).any(|c| c.tty && c.stdin);
    let many = planned.len() > 1;
    progress.step("checking images");
    let mut admitted = Vec::new();
    for planned in planned {
        match pods.admit(&planned.manifest, &planned.handler).await {
            Ok(held) => admitted.push(held),
            Err(error) => {
                delete_all(pods, admitted).await?;
                return Err(error.into());
            }
        }
    }
    progress.step("starting the sandbox");
    let raw = if wants_keys && terminal::is_interactive() { Some(Raw::enter()?) } else { None };
    let mut progress = Some(progress);
    let runs = admitted.iter().map(|(record, _)| one(pods, record, many, progress.take(), &stop));
    let results = join_all(runs).await;
    drop(raw);
    let deleted = delete_all(pods, admitted).await;
    let mut code = 0;
    for result in results {
        let one = result?;
        code = if code == 0 { one } else { code };
    }
    deleted?;
    let signal = signalled.get().copied();
    Ok(signal.map_or(code, |number| 128 + number))
}

type Signalled = std::sync::Arc<std::sync::OnceLock<u8>>;

/// Cancels `stop` at the first signal that asks to end; its number is kept.
fn watch_signals(stop: &CancellationToken) -> Result<Signalled, Failure> {
    let seen = Signalled::default();
    for (kind, number) in [(SignalKind::interrupt(), 2), (SignalKind::terminate(), 15), (SignalKind::hangup(), 1)] {
        let mut signal = signal(kind)?;
        let (stop, seen) = (stop.clone(), seen.clone());
        tokio::spawn(async move {
            if signal.recv().await.is_some() {
                let _ = seen.set(number); // the first one counts
                stop.cancel();
            }
        });
    }
    Ok(seen)
}

async fn one(
    pods: &Pods,
    record: &Record,
    many: bool,
    progress: Option<Progress>,
    stop: &CancellationToken,
) -> Result<u8, Failure> {
    let mut supervisor = pods.supervisor(record)?;
    let changed = supervisor.changed();
    let mut streams = Streams::new(pods.client().clone(), supervisor.pod(), many, changed, progress);
    let mut tell = |event| streams.tell(event);
    let result = tokio::select! {
        result = supervisor.run(Goal::Done, &mut tell) => Some(result),
        () = stop.cancelled() => None,
    };
    let Some(result) = result else { return Ok(0) };
    tokio::select! {
        () = streams.finish() => {}
        () = stop.cancelled() => {}
    }
    match result {
        Ok(phase) => outcome(&supervisor, phase),
        Err(error @ PodError::Start { .. }) => {
            Failure::from(error).report();
            Ok(NOT_STARTED)
        }
        Err(error) => Err(error.into()),
    }
}

/// The exit code of the first container that failed.
fn outcome(supervisor: &Supervisor, phase: Option<Phase>) -> Result<u8, Failure> {
    if phase != Some(Phase::Failed) {
        return Ok(0);
    }
    let state = |name: &str| supervisor.seen().containers.get(name).map(|attempt| attempt.state);
    let pod = supervisor.pod();
    let codes = pod.containers.iter().chain(&pod.init).map(|container| state(&container.name));
    let failed = codes.flatten().find_map(|state| match state {
        State::Exited { code, .. } if code != 0 => Some(exit_code(code)),
        _ => None,
    });
    failed.ok_or_else(|| {
        let name = pod.full_name();
        Failure::new(Kind::Unavailable, format!("pod {name} failed: its sandbox was lost or its time was up"))
    })
}

async fn delete_all(pods: &Pods, admitted: Vec<(Record, Hold)>) -> Result<(), Failure> {
    let results =
        join_all(admitted.into_iter().map(|(record, hold)| async move { pods.delete(&record, hold).await })).await;
    Ok(results.into_iter().collect::<Result<(), _>>()?)
}
