//! Pods that outlive the command, and the process that looks after each.

use std::{
    fs::OpenOptions,
    process::{Command, Stdio},
    time::Duration,
};

use osc_agent_protocol::Kind;
use osc_node::{
    engine::Engine,
    pod::{Goal, Hold, PodError, Pods, Record},
};
use osc_runtime::{deadline::Deadline, dirs::ROOT_VARIABLE};
use tokio::signal::unix::{SignalKind, signal};

use super::Planned;
use crate::{Context, Failure, node, output, progress::Progress};

/// How long the command that started a pod takes to let go of it.
const HANDED_OVER: Duration = Duration::from_secs(30);

/// Starts pods one after the other and returns when all their containers run; a
/// pod that does not start is deleted again. One that exists just like that is
/// left as it is.
pub(super) async fn start(
    context: &Context,
    pods: &Pods,
    planned: Vec<Planned>,
    progress: Progress,
) -> Result<u8, Failure> {
    for planned in planned {
        let name = planned.manifest.pod.full_name();
        progress.step(format_args!("starting pod {name}"));
        match pods.admit(&planned.manifest, &planned.handler).await {
            Ok((record, hold)) => start_one(context, pods, &record, hold).await?,
            Err(PodError::Exists { differs: false, .. }) => again(context, pods, &planned).await?,
            Err(error) => return Err(error.into()),
        }
        output::line(name)?;
    }
    Ok(0)
}

/// The same pod was asked for before. If it does not run, after a reboot for
/// instance, it is started anew.
async fn again(context: &Context, pods: &Pods, planned: &Planned) -> Result<(), Failure> {
    let record = pods.store().get(&planned.manifest.pod.uid)?;
    if pods.summary(&record).await?.status != "Running" {
        pods.take_and_delete(&record).await?;
        let (record, hold) = pods.admit(&planned.manifest, &planned.handler).await?;
        return start_one(context, pods, &record, hold).await;
    }
    match pods.store().try_hold(&record.uid)? {
        // Whoever looked after it was killed.
        Some(hold) => {
            drop(hold);
            hand_over(context, &record.uid)
        }
        None => Ok(()),
    }
}

async fn start_one(context: &Context, pods: &Pods, record: &Record, hold: Hold) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut supervisor = pods.supervisor(record)?;
    let mut quiet = |_| ();
    let started = tokio::select! {
        started = supervisor.run(Goal::Started, &mut quiet) => started.map_err(Failure::from),
        _ = interrupt.recv() => Err(Failure::new(osc_agent_protocol::Kind::Unavailable, "interrupted")),
    };
    if let Err(failure) = started {
        pods.delete(record, hold).await?;
        return Err(failure);
    }
    drop(hold);
    hand_over(context, &record.uid)
}

/// Starts the process that looks after the pod from now on, in a session of its
/// own, so that it survives the terminal.
fn hand_over(context: &Context, uid: &str) -> Result<(), Failure> {
    let log = context.dirs.state().join("supervise.log");
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    Command::new("setsid")
        .arg(std::env::current_exe()?)
        .args(["run", "--supervise", uid])
        .env(ROOT_VARIABLE, context.dirs.root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(())
}

/// Looks after a pod until it is over, or somebody else takes it over, which
/// `SIGTERM` asks for.
pub(super) async fn supervise(context: &Context, uid: &str) -> Result<u8, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let gone = || Failure::new(Kind::NotFound, "the engine of this root does not run any more");
    let pods = node::running(&Engine::new(context.dirs.clone())).ok_or_else(gone)?;
    let record = pods.store().get(uid)?;
    let _hold = pods.store().hold(&record, Deadline::after(HANDED_OVER)).await?;
    let mut supervisor = pods.supervisor(&record)?;
    let mut quiet = |_| ();
    tokio::select! {
        result = supervisor.run(Goal::Done, &mut quiet) => drop(result?),
        _ = terminate.recv() => return Ok(0),
    }
    pods.retire(&record, supervisor.pod()).await?;
    Ok(0)
}
