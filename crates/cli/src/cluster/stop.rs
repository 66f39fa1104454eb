//! Ending a cluster: first who would start things again, then what it started.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use osc_agent_protocol::Kind;
use osc_node::{engine::Engine, pod::Store, proxy};
use osc_runtime::deadline::Deadline;

use super::{instance::Instance, layout::Layout};
use crate::{Context, Failure, node, progress::Progress};

/// How long the process may take to end by itself.
const POLITE: Duration = Duration::from_secs(20);
/// How long it may take when killed.
const FORCED: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// What was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Nodes.
    pub nodes: usize,
    /// Pods on them.
    pub pods: usize,
}

/// Stops the cluster of this root, its pods and its engines; with `purge` it also
/// forgets objects and images. Works from any half-way point.
///
/// # Errors
/// The first step that failed, after all were tried.
pub async fn stop(context: &Context, purge: bool, progress: &Progress) -> Result<Stopped, Failure> {
    let layout = Layout::new(&context.dirs);
    let mut failed = end_process(&layout, progress).await.err();
    let names = layout.node_names();
    let mut stopped = Stopped { nodes: names.len(), pods: 0 };
    for name in &names {
        progress.step(format_args!("stopping node {name}"));
        let engine = Engine::new(layout.node(name));
        stopped.pods += Store::new(engine.paths()).list().len();
        if let Err(failure) = stop_node(&engine, purge).await {
            failed.get_or_insert(failure);
        }
    }
    if let Err(error) = proxy::remove(&layout.service_table()).await {
        failed.get_or_insert(Failure::new(error.kind(), error));
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    if purge {
        for dir in [layout.control_plane(), layout.node_dir()] {
            match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        for file in [layout.kubeconfig(), layout.log(), layout.instance()] {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(stopped)
}

async fn end_process(layout: &Layout, progress: &Progress) -> Result<(), Failure> {
    for (signal, limit) in [(Signal::SIGTERM, POLITE), (Signal::SIGKILL, FORCED)] {
        let Some(instance) = Instance::running(&layout.instance()) else { return Ok(()) };
        progress.step(format_args!("stopping the control plane, process {}", instance.pid));
        // The lock is held by that very process, so the number is still its own.
        let _ = kill(Pid::from_raw(instance.pid), signal);
        let by = Deadline::after(limit);
        while Instance::running(&layout.instance()).is_some() && !by.passed() {
            tokio::time::sleep(LOOK).await;
        }
    }
    match Instance::running(&layout.instance()) {
        None => Ok(()),
        Some(instance) => {
            Err(Failure::new(Kind::Timeout, format!("process {} of the cluster does not end", instance.pid)))
        }
    }
}

async fn stop_node(engine: &Engine, purge: bool) -> Result<(), Failure> {
    let mut deleted = Ok(());
    if let Some(pods) = node::running(engine) {
        deleted = pods.delete_unknown().await;
    }
    node::end(engine, purge, deleted).await
}
