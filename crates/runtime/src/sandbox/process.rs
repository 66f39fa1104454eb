//! Processes in the guest, as the host keeps track of them.
//!
//! ```text
//!  Creating ──► Created ──► Running ⇄ Paused
//!      │           │           │        │
//!      └───────────┴───► Stopped ◄──────┘
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::SystemTime,
};

use oci_spec::runtime::Hooks;
use osc_agent_protocol::oci;
use tokio::sync::watch;

use super::error::SandboxError;
use crate::{
    id::{ContainerId, ExecId},
    spec::Limits,
};

/// Names a process: the first one of a container, or one added to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The container.
    pub container: ContainerId,
    /// The added process; `None` is the first one.
    pub exec: Option<ExecId>,
}

impl ProcessId {
    /// The first process of `container`.
    pub fn init(container: ContainerId) -> Self {
        Self { container, exec: None }
    }

    /// The exec id the agent knows the process by.
    pub(super) fn agent_exec_id(&self) -> String {
        self.exec.as_ref().map_or_else(|| self.container.to_string(), ExecId::to_string)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exec {
            Some(exec) => write!(f, "{}/{exec}", self.container),
            None => write!(f, "{}", self.container),
        }
    }
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 plus the signal, or 255 when nobody can tell.
    pub status: u32,
    /// When the host learned of it.
    pub at: SystemTime,
}

impl Exit {
    /// An exit noticed now.
    pub fn now(status: u32) -> Self {
        Self { status, at: SystemTime::now() }
    }
}

/// State of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Its container is being made.
    Creating,
    /// It exists and waits to be started.
    Created,
    /// It runs.
    Running,
    /// It is frozen together with its container.
    Paused,
    /// It ended.
    Stopped(Exit),
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "it is being created",
            Self::Created => "it was not started",
            Self::Running => "it is running",
            Self::Paused => "it is paused",
            Self::Stopped(_) => "it has ended",
        })
    }
}

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    /// The guest has made it.
    Created,
    /// It was started.
    Started,
    /// Its container was frozen.
    Paused,
    /// Its container was thawed.
    Resumed,
    /// It ended, or the machine did.
    Ended(Exit),
}

/// The state after `event`; `None` when the event makes no sense, which leaves the
/// state as it is. The first end counts.
pub fn next(state: ProcessState, event: ProcessEvent) -> Option<ProcessState> {
    use ProcessEvent as E;
    use ProcessState as S;
    match (state, event) {
        (S::Stopped(_), _) => None,
        (_, E::Ended(exit)) => Some(S::Stopped(exit)),
        (S::Creating, E::Created) => Some(S::Created),
        (S::Created, E::Started) | (S::Paused, E::Resumed) => Some(S::Running),
        (S::Running, E::Paused) => Some(S::Paused),
        _ => None,
    }
}

/// One process. Its state may be waited for by any number of tasks.
#[derive(Debug)]
pub(super) struct Process {
    state: watch::Sender<ProcessState>,
    /// What to run, for added processes that are not started yet.
    pub spec: Mutex<Option<oci::Process>>,
}

impl Process {
    pub(super) fn new(state: ProcessState, spec: Option<oci::Process>) -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::new(state), spec: Mutex::new(spec) })
    }

    pub(super) fn state(&self) -> ProcessState {
        *self.state.borrow()
    }

    /// Applies `event`; whether it made sense.
    pub(super) fn apply(&self, event: ProcessEvent) -> bool {
        self.state.send_if_modified(|state| match next(*state, event) {
            Some(after) => {
                *state = after;
                true
            }
            None => false,
        })
    }

    /// Waits for the end. Cancel-safe.
    pub(super) async fn ended(&self) -> Exit {
        let mut states = self.state.subscribe();
        loop {
            if let ProcessState::Stopped(exit) = *states.borrow_and_update() {
                return exit;
            }
            if states.changed().await.is_err() {
                return Exit::now(255);
            }
        }
    }
}

/// One container with its processes.
#[derive(Debug)]
pub(super) struct Container {
    pub bundle: PathBuf,
    pub oci_version: String,
    pub hooks: Option<Hooks>,
    /// What it may use; the machine is sized by the sum.
    pub limits: Mutex<Limits>,
    /// Host paths of its volumes and where the guest has them.
    pub volumes: OnceLock<Vec<(PathBuf, String)>>,
    pub init: Arc<Process>,
    execs: Mutex<BTreeMap<ExecId, Arc<Process>>>,
}

impl Container {
    pub(super) fn new(bundle: PathBuf, oci_version: String, hooks: Option<Hooks>, limits: Limits) -> Arc<Self> {
        let init = Process::new(ProcessState::Creating, None);
        Arc::new(Self {
            bundle,
            oci_version,
            hooks,
            limits: Mutex::new(limits),
            volumes: OnceLock::new(),
            init,
            execs: Mutex::default(),
        })
    }

    /// Every process, the first one last, so that its end is seen last.
    pub(super) fn processes(&self) -> Vec<Arc<Process>> {
        locked(&self.execs).values().chain([&self.init]).cloned().collect()
    }
}

/// The containers of a sandbox. Locks here are held for a look-up only.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<BTreeMap<ContainerId, Arc<Container>>>);

impl Table {
    pub(super) fn insert(&self, id: &ContainerId, container: Arc<Container>) -> Result<(), SandboxError> {
        let mut containers = locked(&self.0);
        if containers.contains_key(id) {
            return Err(SandboxError::Exists { what: "container", id: id.to_string() });
        }
        containers.insert(id.clone(), container);
        Ok(())
    }

    pub(super) fn remove(&self, id: &ContainerId) {
        locked(&self.0).remove(id);
    }

    pub(super) fn all(&self) -> Vec<(ContainerId, Arc<Container>)> {
        locked(&self.0).iter().map(|(id, container)| (id.clone(), container.clone())).collect()
    }

    pub(super) fn container(&self, id: &ContainerId) -> Result<Arc<Container>, SandboxError> {
        locked(&self.0).get(id).cloned().ok_or_else(|| SandboxError::NotFound { what: "container", id: id.to_string() })
    }

    pub(super) fn process(&self, id: &ProcessId) -> Result<Arc<Process>, SandboxError> {
        let container = self.container(&id.container)?;
        match &id.exec {
            None => Ok(container.init.clone()),
            Some(exec) => locked(&container.execs)
                .get(exec)
                .cloned()
                .ok_or_else(|| SandboxError::NotFound { what: "process", id: id.to_string() }),
        }
    }

    pub(super) fn add_exec(&self, id: &ProcessId, exec: &ExecId, spec: oci::Process) -> Result<(), SandboxError> {
        let container = self.container(&id.container)?;
        let mut execs = locked(&container.execs);
        if execs.contains_key(exec) {
            return Err(SandboxError::Exists { what: "process", id: id.to_string() });
        }
        execs.insert(exec.clone(), Process::new(ProcessState::Created, Some(spec)));
        Ok(())
    }

    pub(super) fn remove_exec(&self, container: &ContainerId, exec: &ExecId) {
        if let Ok(container) = self.container(container) {
            locked(&container.execs).remove(exec);
        }
    }

    /// Ends everything that has not ended, as when the machine is gone.
    pub(super) fn end_all(&self, status: u32) {
        for (_, container) in self.all() {
            for process in container.processes() {
                process.apply(ProcessEvent::Ended(Exit::now(status)));
            }
        }
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_meets_every_event() {
        use ProcessEvent as E;
        use ProcessState as S;
        let exit = Exit { status: 3, at: SystemTime::UNIX_EPOCH };
        let later = Exit { status: 255, at: SystemTime::UNIX_EPOCH };
        let events = [E::Created, E::Started, E::Paused, E::Resumed, E::Ended(exit)];
        let rows = [
            (S::Creating, [Some(S::Created), None, None, None, Some(S::Stopped(exit))]),
            (S::Created, [None, Some(S::Running), None, None, Some(S::Stopped(exit))]),
            (S::Running, [None, None, Some(S::Paused), None, Some(S::Stopped(exit))]),
            (S::Paused, [None, None, None, Some(S::Running), Some(S::Stopped(exit))]),
            (S::Stopped(later), [None; 5]),
        ];
        for (state, wants) in rows {
            for (event, want) in events.into_iter().zip(wants) {
                assert_eq!(next(state, event), want, "{state:?} × {event:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_the_machine_ends_every_process_once() {
        let table = Table::default();
        let id = ContainerId::new("c1").unwrap();
        let container = Container::new("/b".into(), "1.0".into(), None, Limits::default());
        table.insert(&id, container.clone()).unwrap();
        assert!(table.insert(&id, Container::new("/b".into(), "1.0".into(), None, Limits::default())).is_err());
        let exec = ExecId::new("e1").unwrap();
        let process = ProcessId { container: id.clone(), exec: Some(exec.clone()) };
        table.add_exec(&process, &exec, oci::Process::new()).unwrap();
        table.process(&process).unwrap().apply(ProcessEvent::Ended(Exit::now(7)));
        table.end_all(255);
        assert_eq!(table.process(&process).unwrap().ended().await.status, 7);
        assert_eq!(container.init.ended().await.status, 255);
        table.remove_exec(&id, &exec);
        assert!(matches!(table.process(&process), Err(SandboxError::NotFound { .. })));
        assert_eq!((process.to_string(), process.agent_exec_id()), ("c1/e1".into(), "e1".into()));
        assert_eq!(ProcessId::init(id).agent_exec_id(), "c1");
    }
}
