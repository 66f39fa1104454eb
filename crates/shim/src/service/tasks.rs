//! The processes an engine knows in this shim, with their streams.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use osc_runtime::{id::ContainerId, sandbox::ProcessId};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    error::ShimError,
    io::{Stdio, Streams},
};

/// Size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub rows: u32,
    pub columns: u32,
}

/// One process.
#[derive(Debug)]
pub(super) struct Task {
    pub stdio: Stdio,
    /// Set once it was started.
    pub streams: OnceLock<Streams>,
    /// A size asked for before there was a terminal.
    pub early_size: Mutex<Option<Size>>,
    /// The task that publishes the end; it is waited for before the process is
    /// deleted.
    pub watcher: Mutex<Option<JoinHandle<()>>>,
    /// Nobody wants to hear of the end any more.
    pub forgotten: CancellationToken,
    starting: watch::Sender<bool>,
}

impl Task {
    pub(super) fn new(stdio: Stdio) -> Arc<Self> {
        Arc::new(Self {
            stdio,
            streams: OnceLock::new(),
            early_size: Mutex::default(),
            watcher: Mutex::default(),
            forgotten: CancellationToken::new(),
            starting: watch::Sender::new(false),
        })
    }

    /// Marks the beginning and the end of a start, so that its end is published
    /// after it.
    pub(super) fn set_starting(&self, starting: bool) {
        self.starting.send_replace(starting);
    }

    /// Waits while a start is under way. Cancel-safe.
    pub(super) async fn settled(&self) {
        // The sender lives in this very task.
        let _ = self.starting.subscribe().wait_for(|starting| !starting).await;
    }
}

/// What is made on the host for one container.
#[derive(Clone, Debug)]
pub(super) struct Bundle {
    pub dir: PathBuf,
    pub rootfs: PathBuf,
    /// The sandbox was made for this container and goes with it.
    pub owner: bool,
}

/// Everything the engine created and has not deleted. Locks are held for a look-up
/// only.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    tasks: Mutex<HashMap<ProcessId, Arc<Task>>>,
    bundles: Mutex<HashMap<ContainerId, Bundle>>,
}

impl Tasks {
    pub(super) fn insert_container(&self, id: &ContainerId, bundle: Bundle, task: Arc<Task>) -> Result<(), ShimError> {
        let mut bundles = locked(&self.bundles);
        if bundles.contains_key(id) {
            return Err(ShimError::Exists(id.to_string()));
        }
        bundles.insert(id.clone(), bundle);
        locked(&self.tasks).insert(ProcessId::init(id.clone()), task);
        Ok(())
    }

    pub(super) fn insert_exec(&self, id: &ProcessId, task: Arc<Task>) {
        locked(&self.tasks).insert(id.clone(), task);
    }

    pub(super) fn task(&self, id: &ProcessId) -> Result<Arc<Task>, ShimError> {
        locked(&self.tasks).get(id).cloned().ok_or_else(|| ShimError::NotFound(format!("process {id}")))
    }

    pub(super) fn bundle(&self, id: &ContainerId) -> Result<Bundle, ShimError> {
        locked(&self.bundles).get(id).cloned().ok_or_else(|| ShimError::NotFound(format!("container {id}")))
    }

    /// Forgets a process, and with the first one its container.
    pub(super) fn remove(&self, id: &ProcessId) {
        locked(&self.tasks).remove(id);
        if id.exec.is_none() {
            locked(&self.bundles).remove(&id.container);
            locked(&self.tasks).retain(|other, task| {
                let keep = other.container != id.container;
                if !keep {
                    task.forgotten.cancel();
                }
                keep
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        locked(&self.bundles).is_empty()
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
