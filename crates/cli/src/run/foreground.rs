//! Pods that end with the command.

use std::sync::{Arc, OnceLock};

use futures::future::join_all;
use nix::sys::signal::Signal;
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
    let stop = Stop::default();
    stop.on_signals()?;
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
    Ok(stop.exit_code().unwrap_or(code))
}

/// Asks pods to end before they are over.
#[derive(Clone, Default)]
pub struct Stop {
    asked: CancellationToken,
    signal: Arc<OnceLock<Signal>>,
}

impl Stop {
    /// Ends everything, as if the command had got `signal`; the first one counts.
    pub fn ask(&self, signal: Signal) {
        let _ = self.signal.set(signal); // not the first
        self.asked.cancel();
    }

    /// Listens to the signals that ask to end.
    fn on_signals(&self) -> Result<(), Failure> {
        for number in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut signals = signal(SignalKind::from_raw(number as i32))?;
            let stop = self.clone();
            tokio::spawn(async move {
                if signals.recv().await.is_some() {
                    stop.ask(number);
                }
            });
        }
        Ok(())
    }

    /// What a shell answers for a command that died of the signal.
    fn exit_code(&self) -> Option<u8> {
        self.signal.get().map(|&signal| exit_code(128 + signal as i32))
    }
}

async fn one(pods: &Pods, record: &Record, many: bool, progress: Option<Progress>, stop: &Stop) -> Result<u8, Failure> {
    let mut supervisor = pods.supervisor(record)?;
    let mut streams = Streams::new(pods.client().clone(), &supervisor, many, stop.clone(), progress);
    let mut tell = |event| streams.tell(event);
    let result = tokio::select! {
        result = supervisor.run(Goal::Done, &mut tell) => Some(result),
        () = stop.asked.cancelled() => None,
    };
    let Some(result) = result else { return Ok(0) };
    tokio::select! {
        () = streams.finish() => {}
        () = stop.asked.cancelled() => {}
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
