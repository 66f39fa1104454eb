//! Removing a sandbox knowing its id and, if it was written, its record: after a
//! crash at any point, and as the last step of every ordinary end.

use std::{fs, io, path::PathBuf, time::Duration};

use osc_agent_protocol::Kind;

use super::{
    cgroup::{self, Cgroups},
    identity::Identity,
    links,
    record::Record,
};
use crate::{
    deadline::Deadline,
    dirs::Dirs,
    id::SandboxId,
    network::{self, NetworkError},
    share::{Share, ShareError},
};

/// Pause before failed steps are tried again.
const RETRY: Duration = Duration::from_millis(10);

/// A step of a clean-up that failed; the others were tried all the same.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A process does not end.
    #[error("{what} (process {pid}) of sandbox {id} does not end: look at what it waits for")]
    Process {
        /// The sandbox.
        id: SandboxId,
        /// What the process is.
        what: &'static str,
        /// Its number.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// The shared tree stays.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The network namespace of the pod is not as it was.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A control group stays.
    #[error("control group {} of sandbox {id} cannot be removed: look at what runs in it", path.display())]
    Cgroup {
        /// The sandbox.
        id: SandboxId,
        /// The group.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The sandbox directory stays.
    #[error("directory {} cannot be removed", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CleanupError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Process { source, .. } | Self::Cgroup { source, .. } | Self::Directory { source, .. } => {
                Kind::of_io(source)
            }
            Self::Share(error) => error.kind(),
            Self::Network(error) => error.kind(),
        }
    }
}

/// Kills the process that owns sandbox `id`, so that nothing is made while it is
/// removed. Success when it is gone or was never written down.
///
/// # Errors
/// When it does not end in time.
pub async fn kill_recorded_shim(dirs: &Dirs, id: &SandboxId, by: Deadline) -> io::Result<()> {
    match Record::load(dirs, id).and_then(|record| record.shim) {
        Some(shim) if shim.pid() != std::process::id() => shim.kill(by).await,
        _ => Ok(()),
    }
}

/// Removes whatever is left of sandbox `id`, again and again until `by`, and returns
/// what could not be. Idempotent. The calling process must have left the sandbox's
/// control groups.
pub async fn cleanup(dirs: &Dirs, id: &SandboxId, by: Deadline) -> Vec<CleanupError> {
    loop {
        let failures = sweep(dirs, id, by).await;
        if failures.is_empty() || by.passed() {
            return failures;
        }
        // A killed process may be somebody else's to reap, and keeps its control
        // group until then; nothing tells us when.
        tokio::time::sleep(RETRY.min(by.left())).await;
    }
}

async fn sweep(dirs: &Dirs, id: &SandboxId, by: Deadline) -> Vec<CleanupError> {
    let record = Record::load(dirs, id);
    let (groups, parents) = match &record {
        Some(record) => (record.cgroups.clone(), record.cgroup_parents.clone()),
        None => (vec![cgroup::overhead_group(dirs, id)], Vec::new()),
    };
    let mut failures = kill_processes(id, record.as_ref(), &groups, by).await;
    let own = links::own_path(dirs, id);
    if let Some(netns) = record.and_then(|record| record.netns).filter(|netns| *netns != own) {
        failures.extend(network::cleanup(&netns, by).await.err().map(CleanupError::from));
    }
    let (dirs, id) = (dirs.clone(), id.clone());
    let removed = tokio::task::spawn_blocking(move || {
        let failures = remove_files(&dirs, &id, &groups);
        for parent in parents {
            // Busy as long as another sandbox is in it, which then removes it.
            let _ = Cgroups::detect().remove(&parent);
        }
        failures
    });
    failures.extend(removed.await.unwrap_or_default());
    failures
}

/// Ends what runs for the sandbox: the processes written down, then whatever is in
/// its control groups, which hold nothing else.
async fn kill_processes(
    id: &SandboxId,
    record: Option<&Record>,
    groups: &[PathBuf],
    by: Deadline,
) -> Vec<CleanupError> {
    let cgroups = Cgroups::detect();
    let recorded = record.into_iter().flat_map(|r| [("hypervisor", r.hypervisor), ("file server", r.virtiofsd)]);
    let members = groups.iter().flat_map(|group| cgroups.members(group)).filter(|pid| *pid != std::process::id());
    let members = members.map(|pid| ("process", Identity::of(pid).ok()));
    let mut failures = Vec::new();
    for (what, process) in recorded.chain(members) {
        let Some(process) = process else { continue };
        if let Err(source) = process.kill(by).await {
            failures.push(CleanupError::Process { id: id.clone(), what, pid: process.pid(), source });
        }
    }
    failures
}

fn remove_files(dirs: &Dirs, id: &SandboxId, groups: &[PathBuf]) -> Vec<CleanupError> {
    let mut failures: Vec<CleanupError> = Share::cleanup(dirs, id).err().map(CleanupError::from).into_iter().collect();
    let netns = links::own_path(dirs, id);
    if let Err(source) = links::remove(&netns) {
        failures.push(CleanupError::Directory { path: netns, source });
    }
    let cgroups = Cgroups::detect();
    for path in groups {
        if let Err(source) = cgroups.remove(path) {
            failures.push(CleanupError::Cgroup { id: id.clone(), path: path.clone(), source });
        }
    }
    // The record goes last: as long as anything is left, the next clean-up needs it.
    if failures.is_empty() {
        let path = dirs.sandbox(id);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                failures.push(CleanupError::Directory { path, source });
            }
            _ => {}
        }
    }
    failures
}
