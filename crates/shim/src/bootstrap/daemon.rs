//! The serving process.

use std::{
    ffi::CStr,
    io::{self, Read},
    os::unix::net::UnixListener,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl::set_name, signal::Signal},
};
use osc_agent_protocol::kind::chain;
use osc_runtime::{
    deadline::Deadline,
    id::ContainerId,
    spec::{self, PodKind},
};
use tokio_util::sync::CancellationToken;
use ttrpc::asynchronous::{Server, transport::Listener};

use super::{GO, Surroundings, address::Address, template};
use crate::{
    args::Args,
    events::Events,
    logging,
    service::{Environment, Pod, services},
    sys,
};

/// What lists of processes show, cut to 15 bytes by the kernel.
const NAME: &CStr = c"containerd-shim-kata-v2";
/// Worker threads: enough to keep serving while one is busy, few enough to idle
/// cheaply.
const WORKERS: usize = 2;
/// Threads for blocking work, mounts and files mostly.
const BLOCKING: usize = 4;
/// Stack of each thread; nothing recurses.
const STACK: usize = 512 << 10;
/// How long the last answers and events may take to leave.
const FAREWELL: Duration = Duration::from_secs(6);

/// How long a shim without any container waits for one, or for its end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks meanwhile.
const LOOKS: u32 = 3;

/// Serves the pod of container `args.id` until it is shut down.
///
/// Must be called before any thread exists: the mount namespace is left here.
///
/// # Errors
/// When the process cannot be set up.
pub fn serve(args: &Args, around: Surroundings) -> Result<()> {
    sys::frugal_allocator();
    // Started by way of /proc/self/exe, it would be called `exe` in lists of processes.
    set_name(NAME).context("cannot set the process name")?;
    let socket = around.socket.context("no socket was passed: this program is started by a container engine")?;
    let listener = UnixListener::from(sys::inherited(socket).context("the passed socket is not open")?);
    // Whoever started us died before the engine learned of us, unless it says go.
    if io::stdin().read(&mut [0; GO.len()]).context("cannot read standard input")? == 0 {
        return withdraw(&listener).context("cannot remove the socket");
    }
    let id = ContainerId::new(args.id.as_str())?;
    let spec = spec::load(&around.bundle)?;
    let kind = PodKind::classify(spec.annotations().as_ref().unwrap_or(&Default::default()))?;
    let sandbox = kind.sandbox_id(&id)?;
    drop(spec);
    let log = around.dirs.sandbox(&sandbox).join("shim.log");
    logging::start(sandbox.as_str(), &around.bundle, log, args.debug);
    own_mounts().context("cannot make a mount namespace")?;
    disregard_signals().context("cannot set signal handlers")?;
    if around.own_cores
        && let Err(error) = sys::own_core_cookie()
    {
        tracing::warn!(error = chain(&error), "no core scheduling on this host");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let outcome = runtime.block_on(run(args, around, listener));
    let address = Address::of(&args.address, &args.namespace, sandbox.as_str());
    if let Err(error) = address.remove() {
        tracing::warn!(error = chain(&error), "socket not removed");
    }
    // Whatever blocks in a thread must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn run(args: &Args, around: Surroundings, listener: UnixListener) -> Result<()> {
    let exit = CancellationToken::new();
    let silent = around.events.is_none();
    let (events, publisher) = Events::start(around.events, &args.namespace);
    let environment = Environment {
        namespace: args.namespace.clone(),
        dirs: around.dirs,
        config_file: around.config_file,
        silent,
        maker: Some(template::maker(args)),
    };
    let pod = Pod::new(environment, events, exit.clone());
    let listener = Listener::try_from(listener).context("the passed socket is not usable")?;
    let mut server = Server::new().add_listener(listener).register_service(services(&pod));
    server.start().await.context("cannot serve")?;
    tracing::debug!("serving");
    tokio::select! {
        () = exit.cancelled() => {}
        () = deserted(&pod) => tracing::warn!("no container is left and nobody asks for one: the engine has lost this shim"),
    }

    let by = Deadline::after(FAREWELL);
    let _ = by.run(server.shutdown()).await;
    drop((server, pod));
    let _ = by.run(publisher).await;
    Ok(())
}

/// Takes a socket away that nobody was told of, if it was bound already.
fn withdraw(listener: &UnixListener) -> io::Result<()> {
    match listener.local_addr()?.as_pathname() {
        Some(path) => std::fs::remove_file(path),
        None => Ok(()),
    }
}

/// Returns once it is clear that nobody knows of this shim: the engine asks for the
/// first container at once, and for the end after the last. It does neither if `start`
/// was killed before it had told the address, or the engine in a deletion.
async fn deserted(pod: &Pod) {
    let mut empty = 0;
    while empty < LOOKS {
        tokio::time::sleep(PATIENCE / LOOKS).await;
        empty = if pod.is_empty() { empty + 1 } else { 0 };
    }
}

/// A mount namespace of our own that still learns of the host's new mounts, and
/// hands ours on to the file server: what is mounted for a pod ends with it even
/// when nobody cleans up.
fn own_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    for kind in [MsFlags::MS_SLAVE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | kind, None::<&str>)?;
    }
    Ok(())
}

/// Service managers signal whole groups when the engine restarts; pods stay.
fn disregard_signals() -> nix::Result<()> {
    for number in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        sys::disregard(number)?;
    }
    Ok(())
}
