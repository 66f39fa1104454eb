//! Making a template, in a process of its own.
//!
//! The process that serves a sandbox lives in the pod's control group and ends with the
//! pod; so it starts another one by [`Maker`], with an [`Order`] as its last argument.
//! That one goes back to where containers engines are accounted, boots the machine and
//! saves it. It is the first process of a pid namespace: killed at any moment, the
//! kernel ends its machine with it. What stays is a directory nobody believes in; the
//! next maker, or the next sandbox, removes it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::statvfs::statvfs,
};
use osc_agent_protocol::Kind;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    memory,
    shape::Shape,
    store::{Look, MEMORY, MOST_MEMORY, STATE, Store},
};
use crate::{
    deadline::Deadline,
    qemu::{self, BootError, Machine, QmpError, Running},
    sandbox::{Cgroups, Home},
};

/// How long QEMU may take to start, and a guest until its agent serves. Long: the maker
/// gets what processor time everybody else leaves, and nobody waits for it.
const BOOT: Duration = Duration::from_secs(300);
/// What the agent writes on the console when it serves.
const SERVES: &str = "agent serves";
/// A kernel measures its clock for a second after its boot: done here, no sandbox has to.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long saving may take.
const SAVE: Duration = Duration::from_secs(60);
/// How long the machine may take to end.
const STOP: Duration = Duration::from_secs(10);
/// Memory of the machine while it boots.
const RAM: &str = "ram";
/// Room there must be: for the memory of the machine and its copy, and as much again
/// for whoever needs it more.
const ROOM: u64 = 1 << 30;
/// The thread that waits for a maker calls nothing that needs more.
const STACK: usize = 128 << 10;

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
}

impl MakeError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Order(_) => Kind::Invalid,
            Self::Store { source, .. } => Kind::of_io(source),
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
    /// Starts the process in a pid namespace of its own and leaves it alone. It is
    /// reaped as long as we live, and outlives us.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(&self, order: &Order) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(serde_json::to_string(order)?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir("/").process_group(0);
        let (answer, started) = oneshot::channel();
        // What a thread starts after `unshare` is in the new namespace; the thread ends with it.
        let launch = move || match spawn_apart(command) {
            Ok(mut child) => {
                let _ = answer.send(Ok(()));
                let _ = child.wait();
            }
            // Nobody listens any more when the sandbox was given up.
            Err(error) => drop(answer.send(Err(error))),
        };
        thread::Builder::new().name("template".into()).stack_size(STACK).spawn(launch)?;
        started.await.unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
    }
}

fn spawn_apart(mut command: Command) -> io::Result<Child> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    command.spawn()
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
    store.sweep(SystemTime::now());
    if !matches!(store.look(&order.shape, SystemTime::now()), Look::Wanted) {
        return Ok(());
    }
    let build = store.build_dir().map_err(failed("make a directory", &store))?;
    let made = match enough_room(&build) {
        Ok(()) => build_in(&store, &build, &order.shape).await,
        Err(error) => Err(failed("make a template", &store)(error)),
    };
    store.remove(&build);
    made.inspect_err(|error| store.reject(&order.shape, &osc_agent_protocol::kind::chain(error)))
}

fn enough_room(dir: &Path) -> io::Result<()> {
    let free = statvfs(dir)?;
    let free = free.blocks_available().saturating_mul(free.fragment_size());
    if free < ROOM { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

async fn build_in(store: &Store, build: &Path, shape: &Shape) -> Result<(), MakeError> {
    let create = |name: &str| {
        let file = File::options().create_new(true).read(true).write(true).mode(0o600).open(build.join(name));
        file.map_err(failed("make a file", store))
    };
    let (ram, state) = (create(RAM)?, create(STATE)?);
    ram.set_len(shape.memory().bytes()).map_err(failed("make a file", store))?;
    let machine = qemu::launch(shape.machine(build, build.join(RAM)), |_| Ok(())).await?;
    let machine = machine.connect(Deadline::after(BOOT)).await?;
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
