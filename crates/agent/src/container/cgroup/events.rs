//! Changes of control group files, told by inotify.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
    unistd::read,
};
use tokio::{io::unix::AsyncFd, sync::mpsc};

use super::{Cgroup, flat_keyed};
use crate::container::{reaper::ExitWatch, sys};

/// Tells when a file changes or goes away.
#[derive(Debug)]
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Watches `path`; changes from now on count.
    ///
    /// # Errors
    /// When the file is not there or watches run out.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(path, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DELETE_SELF)?;
        Ok(Self(sys::pollable(inotify.into())?))
    }

    /// Waits for the next change; several may be reported as one. Cancel-safe.
    ///
    /// # Errors
    /// When inotify fails.
    pub async fn changed(&mut self) -> io::Result<()> {
        // Which change it was does not matter: whoever waits looks at the file again.
        let mut events = [0; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|inotify| Ok(read(inotify.get_ref(), &mut events)?)) {
                Ok(result) => return result.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}

/// Sends `id` to `events` for each look that finds processes killed for want of
/// memory, until `exit` or until nobody listens.
pub fn watch_oom(cgroup: &Cgroup, id: String, exit: ExitWatch, events: mpsc::Sender<String>) {
    let Some(dir) = cgroup.dir() else { return };
    let file = dir.join("memory.events");
    match Watch::new(&file) {
        Ok(watch) => drop(tokio::spawn(report_oom(watch, file, id, exit, events))),
        Err(error) => tracing::debug!(container.id = id, error = %error, "no memory events for this container"),
    }
}

async fn report_oom(mut watch: Watch, file: PathBuf, id: String, mut exit: ExitWatch, events: mpsc::Sender<String>) {
    let mut known = 0;
    // A missing file means the control group, and so the container, is gone.
    while let Ok(kills) = oom_kills(&file) {
        if kills > known {
            known = kills;
            // A full queue already holds news of want of memory; more adds nothing.
            if let Err(mpsc::error::TrySendError::Closed(_)) = events.try_send(id.clone()) {
                return;
            }
        }
        if exit.now().is_some() {
            return;
        }
        tokio::select! {
            changed = watch.changed() => if changed.is_err() { return },
            // One more look: the exit may be what the kill led to.
            _ = exit.wait() => {}
            () = events.closed() => return,
        }
    }
}

fn oom_kills(file: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    Ok(flat_keyed(&text).find(|(key, _)| *key == "oom_kill").map_or(0, |(_, count)| count))
}
