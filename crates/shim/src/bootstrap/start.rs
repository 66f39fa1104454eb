//! `start`: one serving process per pod.

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::{net::UnixListener, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use osc_runtime::{
    id::ContainerId,
    spec::{self, PodKind},
};

use super::{
    ADDRESS_FILE, PID_FILE, SOCKET_VARIABLE, Surroundings,
    address::{Address, Bound},
};
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
    if !matches!(kind, PodKind::Container { .. }) {
        let bound = address.bind().with_context(|| format!("cannot listen on {url}"))?;
        if let Bound::Listening(listener) = bound {
            let spawned = spawn(args, around, &listener);
            let pid = spawned.inspect_err(|_| drop(address.remove())).context("cannot start the serving process")?;
            replace(&around.bundle.join(PID_FILE), &pid.to_string())?;
        }
    }
    replace(&around.bundle.join(ADDRESS_FILE), &url)?;
    Ok(url)
}

fn spawn(args: &Args, around: &Surroundings, listener: &UnixListener) -> io::Result<u32> {
    // The child takes the socket over under its number here.
    fcntl(listener, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("containerd-shim-kata-v2");
    command.args(["-namespace", &args.namespace, "-address", &args.address, "-id", &args.id]);
    command.args(args.debug.then_some("-debug"));
    command.current_dir(&around.bundle).env(SOCKET_VARIABLE, listener.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Ok(command.spawn()?.id())
}

/// Replaces a file whole: the engine may read it at any time.
fn replace(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().display()));
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
