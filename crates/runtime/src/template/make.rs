//! Making a template, in a process of its own.
//!
//! The process that serves a sandbox lives in the pod's control group and ends with the
//! pod; so it starts another one by [`Maker`], with an [`Order`] as its last argument.
//! That one goes back to where containers engines are accounted, boots the machine and
//! saves it. Killed at any moment it leaves a directory nobody believes in; the next
//! maker, or the next sandbox, removes it and ends the machine that ran in it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use osc_agent_protocol::Kind;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{
    memory,
    shape::Shape,
    store::{Look, MEMORY, MOST_MEMORY, STATE, Store},
};
use crate::{
    deadline::Deadline,
    qemu::{self, BootError, Machine, QmpError, Running},
    sandbox::{Cgroups, Home, Identity},
};

/// How long a guest may take until its agent serves.
const BOOT: Duration = Duration::from_secs(60);
/// What the agent writes on the console when it serves.
const SERVES: &str = "agent serves";
/// A kernel measures its clock for a second after its boot: done here, no sandbox has to.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long saving may take.
const SAVE: Duration = Duration::from_secs(20);
/// How long the machine may take to end.
const STOP: Duration = Duration::from_secs(10);
/// Memory of the machine while it boots.
const RAM: &str = "ram";

/// What to make, as text on a command line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    store: PathBuf,
    shape: Shape,
    home: Home,
}

/// How to start a process that makes templates; the order becomes its last argument.
#[derive(Clone, Debug)]
pub struct Maker {
    /// The program.
    pub program: PathBuf,
    /// Arguments before the order.
    pub arguments: Vec<OsString>,
}

/// No template came of it.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The order is not one.
    #[error("the order for a template is not understood: it comes from another version of this program")]
    Order(#[source] serde_json::Error),
    /// The store cannot be used.
    #[error("cannot {action} in {}: check space and permissions", store.display())]
    Store {
        /// What was tried.
        action: &'static str,
        /// Directory of the store.
        store: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The machine did not start.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The agent never served, as far as the console tells.
    #[error("the agent of the template said nothing for {BOOT:?}; end of the guest console: {0}")]
    Silent(String),
    /// The machine could not be saved.
    #[error("the machine could not be saved")]
    Save(#[source] QmpError),
    /// A killed maker's machine does not end.
    #[error("process {pid} of an earlier template does not end")]
    Undead {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
}

impl MakeError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Order(_) => Kind::Invalid,
            Self::Store { source, .. } | Self::Undead { source, .. } => Kind::of_io(source),
            Self::Boot(error) => error.kind(),
            Self::Silent(_) => Kind::Timeout,
            Self::Save(error) => error.kind(),
        }
    }
}

impl Order {
    /// An order for a template of `shape` in `store`, made where `home` is accounted.
    pub(crate) fn new(store: &Store, shape: Shape, home: Home) -> Self {
        Self { store: store.dir().to_owned(), shape, home }
    }

    /// Reads what [`Maker::start`] wrote.
    ///
    /// # Errors
    /// [`MakeError::Order`].
    pub fn parse(text: &str) -> Result<Self, MakeError> {
        serde_json::from_str(text).map_err(MakeError::Order)
    }
}

impl Maker {
    /// Starts the process and leaves it alone; Tokio reaps it as long as we live.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, order: &Order) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(serde_json::to_string(order)?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir("/").process_group(0).spawn().map(drop)
    }
}

/// Fulfils `order` unless somebody else does. A failure is remembered in the store.
/// Dropped half way it leaves what the next maker removes.
///
/// # Errors
/// [`MakeError`].
pub async fn make(order: Order) -> Result<(), MakeError> {
    Cgroups::detect().leave(&order.home);
    let store = Store::new(order.store);
    let Some(_lock) = store.lock().map_err(failed("take the lock", &store))? else { return Ok(()) };
    sweep(&store).await?;
    if !matches!(store.look(&order.shape, SystemTime::now()), Look::Wanted) {
        return Ok(());
    }
    let build = store.build_dir().map_err(failed("make a directory", &store))?;
    let made = build_in(&store, &build, &order.shape).await;
    store.remove(&build);
    made.inspect_err(|error| store.reject(&order.shape, &osc_agent_protocol::kind::chain(error)))
}

/// Removes what killed makers left, unless one is at work.
///
/// # Errors
/// [`MakeError::Undead`].
pub async fn sweep_idle(store: &Store) -> Result<(), MakeError> {
    if store.builds().is_empty() {
        return Ok(());
    }
    match store.lock().map_err(failed("take the lock", store))? {
        Some(_lock) => sweep(store).await,
        None => Ok(()),
    }
}

/// Removes what killed makers left. The caller holds the lock.
async fn sweep(store: &Store) -> Result<(), MakeError> {
    for build in store.builds() {
        for process in processes_naming(&build) {
            let pid = process.pid();
            process.kill(Deadline::after(STOP)).await.map_err(|source| MakeError::Undead { pid, source })?;
        }
        store.remove(&build);
    }
    Ok(())
}

/// Processes with a path in `dir` on their command line: the machine made there.
fn processes_naming(dir: &Path) -> Vec<Identity> {
    let mark = format!("{}/", dir.display()).into_bytes();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let identities = pids.filter_map(|pid| Identity::of(pid).ok());
    identities
        .filter(|process| {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap_or_default();
            line.windows(mark.len()).any(|window| window == mark)
        })
        .collect()
}

async fn build_in(store: &Store, build: &Path, shape: &Shape) -> Result<(), MakeError> {
    let create = |name: &str| {
        let file = File::options().create_new(true).read(true).write(true).mode(0o600).open(build.join(name));
        file.map_err(failed("make a file", store))
    };
    let (ram, state) = (create(RAM)?, create(STATE)?);
    ram.set_len(shape.memory().bytes()).map_err(failed("make a file", store))?;
    let machine = qemu::launch(shape.machine(build, build.join(RAM)), |_| Ok(())).await?;
    let machine = machine.connect(Deadline::after(qemu::START_LIMIT)).await?;
    let saved = save(&machine, state).await;
    let stopped = machine.stop(Deadline::after(STOP)).await;
    saved?;
    for error in stopped.err().unwrap_or_default() {
        tracing::warn!(error = %error, "machine of a template not stopped cleanly");
    }
    let memory = create(MEMORY)?;
    let publish = || {
        let bytes = memory::keep(&ram, &memory, MOST_MEMORY.bytes())?;
        fs::remove_file(build.join(RAM))?;
        store.publish(build, shape, bytes, SystemTime::now())
    };
    // Nothing else happens in this process.
    publish().map_err(failed("keep the memory of a machine", store))
}

/// Waits until the guest has booted, and saves it.
async fn save(machine: &Machine<Running>, state: File) -> Result<(), MakeError> {
    let (console, mut exited) = (machine.console(), machine.exited());
    let serves = async {
        tokio::select! {
            () = console.wait_for(SERVES) => true,
            _ = exited.wait_for(Option::is_some) => false,
        }
    };
    if !Deadline::after(BOOT).run(serves).await.unwrap_or(false) {
        return Err(MakeError::Silent(console.lines().join(" | ")));
    }
    tokio::time::sleep(SETTLE).await;
    machine.save(state, Deadline::after(SAVE)).await.map_err(MakeError::Save)
}

fn failed(action: &'static str, store: &Store) -> impl FnOnce(io::Error) -> MakeError {
    let store = store.dir().to_owned();
    move |source| MakeError::Store { action, store, source }
}
