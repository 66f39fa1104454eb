//! The namespaces all containers of a pod share.

use std::{fs, io, path::Path};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::{Result, SandboxError};
use crate::container::SandboxNamespaces;

/// Where their files are, for those who look for them there.
const DIRECTORY: &str = "/var/run/sandbox-ns";

/// Makes an IPC and a UTS namespace with `hostname` in it. A namespace lives as
/// long as something refers to it: a bind mount each, as no process is in them yet.
pub(super) fn make(hostname: &str) -> Result<SandboxNamespaces> {
    let failed = |action| move |source| SandboxError::Namespace { action, source };
    fs::create_dir_all(DIRECTORY).map_err(failed("make a directory"))?;
    unpin();
    let hostname = hostname.to_owned();
    // A thread of its own, because there is no way back into the old namespaces.
    let thread = std::thread::Builder::new().name("sandbox-ns".into()).spawn(move || pin(&hostname));
    let pinned = thread.map_err(failed("start a thread"))?.join().map_err(|_| SandboxError::Died)?;
    pinned.map_err(failed("make namespaces"))?;
    let file = |name: &str| Some(Path::new(DIRECTORY).join(name));
    Ok(SandboxNamespaces { ipc: file("ipc"), uts: file("uts"), pid: None })
}

fn pin(hostname: &str) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    if !hostname.is_empty() {
        nix::unistd::sethostname(hostname)?;
    }
    for name in ["ipc", "uts"] {
        let file = Path::new(DIRECTORY).join(name);
        fs::write(&file, "")?;
        let namespace = Path::new("/proc/thread-self/ns").join(name);
        mount(Some(&namespace), &file, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
}

/// Lets go of the namespaces; processes in them keep them.
pub(super) fn unpin() {
    for name in ["ipc", "uts"] {
        let file = Path::new(DIRECTORY).join(name);
        match umount2(&file, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => tracing::warn!(path = %file.display(), error = %errno, "namespace stays pinned"),
        }
    }
}
