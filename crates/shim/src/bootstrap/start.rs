//! `start`: one serving process per pod.

use std::{
    fs,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use osc_runtime::{
    id::ContainerId,
    spec::{self, PodKind},
};

use super::{ADDRESS_FILE, GO, PID_FILE, SOCKET_VARIABLE, Surroundings, address::Address};
use crate::args::Args;

/// Starts a shim for the pod of container `args.id`, unless one serves already, and
/// returns its address for the engine.
///
/// # Errors
/// When the bundle cannot be read or the process not started.
pub fn start(args: &Args, around: &Surroundings) -> Result<String> {
    let id = ContainerId::new(args.id.as_str())?;
    let spec = spec::load(&around.bundle)?;
    let kind = PodKind::classify(spec.annotations().as_ref().unwrap_or(&Default::default()))?;
    let sandbox = kind.sandbox_id(&id)?;
    let address = Address::of(&args.address, &args.namespace, sandbox.as_str());
    let url = address.url();
    replace(&around.bundle.join(ADDRESS_FILE), &url)?;
    if !matches!(kind, PodKind::Container { .. }) && !address.is_served() {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let mut shim = spawn(args, around, &socket).context("cannot start the serving process")?;
        replace(&around.bundle.join(PID_FILE), &shim.id().to_string())?;
        // Last: until the engine has been told the address, it will not ask us to remove the socket.
        address.bind(&socket).with_context(|| format!("cannot listen on {url}"))?;
        let go = shim.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(GO));
        go.inspect_err(|_| drop(address.remove())).context("the serving process has ended")?;
    }
    Ok(url)
}

/// Starts the process that serves. It waits for [`GO`] and ends without a trace when
/// we end before that.
fn spawn(args: &Args, around: &Surroundings, socket: &OwnedFd) -> io::Result<Child> {
    // The child takes the socket over under its number here.
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("containerd-shim-kata-v2");
    command.args(["-namespace", &args.namespace, "-address", &args.address, "-id", &args.id]);
    command.args(args.debug.then_some("-debug"));
    command.current_dir(&around.bundle).env(SOCKET_VARIABLE, socket.as_raw_fd().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn()
}

/// Replaces a file whole: the engine may read it at any time.
fn replace(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().display()));
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
