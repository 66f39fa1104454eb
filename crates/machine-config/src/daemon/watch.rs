//! Tells when managed files may have changed: inotify on their directories.
//!
//! Watches are made anew each time before the files are compared, so that a change
//! is either compared or told.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;

use super::{host::Host, record::Record, sys};
use crate::reconcile::FORCE_FILE;

/// How often is looked where the kernel grants no watches.
const POLL: Duration = Duration::from_secs(4);

/// A set of watched names.
pub(super) struct Watch {
    kernel: Option<Kernel>,
}

struct Kernel {
    inotify: Inotify,
    /// The same descriptor, to wait for.
    ready: AsyncFd<OwnedFd>,
    names: Names,
}

/// Names that matter, by watched directory.
type Names = HashMap<WatchDescriptor, HashSet<OsString>>;

impl Watch {
    /// Watches everything `record` manages, and the force file.
    pub(super) fn new(host: &Host, record: Option<&Record>) -> Self {
        let managed = record.into_iter().flat_map(|record| record.owned.keys().map(PathBuf::as_path));
        let mut wanted: HashMap<PathBuf, HashSet<OsString>> = HashMap::new();
        for path in managed.chain([Path::new(FORCE_FILE)]) {
            let (dir, name) = nearest(&host.real(path));
            wanted.entry(dir).or_default().insert(name);
        }
        let kernel = watches(wanted);
        if let Err(error) = &kernel {
            tracing::warn!(%error, "no inotify watches: raise fs.inotify.max_user_watches; managed files are polled");
        }
        Self { kernel: kernel.ok() }
    }

    /// Waits until something managed may have changed. Cancel-safe.
    pub(super) async fn changed(&self) {
        let Some(Kernel { inotify, ready, names }) = &self.kernel else { return tokio::time::sleep(POLL).await };
        loop {
            let Ok(mut ready) = ready.readable().await else { return tokio::time::sleep(POLL).await };
            match inotify.read_events() {
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(_) => return tokio::time::sleep(POLL).await,
                Ok(events) => {
                    // An event without a name is about the directory itself.
                    let matters = |event: &nix::sys::inotify::InotifyEvent| match (&event.name, names.get(&event.wd)) {
                        (Some(name), Some(known)) => known.contains(name),
                        _ => true,
                    };
                    if events.iter().any(matters) {
                        return;
                    }
                }
            }
        }
    }
}

/// The nearest directory that exists above a path, and the name below it that
/// leads to the path.
fn nearest(path: &Path) -> (PathBuf, OsString) {
    let mut at = path;
    while let (Some(dir), Some(name)) = (at.parent(), at.file_name()) {
        if dir.is_dir() {
            return (dir.to_owned(), name.to_owned());
        }
        at = dir;
    }
    ("/".into(), OsString::new())
}

fn watches(wanted: HashMap<PathBuf, HashSet<OsString>>) -> std::io::Result<Kernel> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    let mut names = Names::new();
    for (dir, below) in wanted {
        // Two paths may lead to one directory.
        names.entry(inotify.add_watch(&dir, flags)?).or_default().extend(below);
    }
    let ready = sys::async_fd(inotify.as_fd().try_clone_to_owned()?)?;
    Ok(Kernel { inotify, ready, names })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::host::Entry;

    #[tokio::test]
    async fn rows_18_and_19_managed_names_are_told_and_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        let mut record = Record::baseline();
        for path in ["/etc/a", "/etc/not/yet/there"] {
            record.owned.insert(path.into(), Entry::file("x", 0o644).print());
        }
        host.put(Path::new("/etc/a"), &Entry::file("x", 0o644)).unwrap();
        let within = |seconds| Duration::from_millis(seconds);
        for (path, entry, told) in [
            ("/etc/neighbour", Entry::file("y", 0o644), false),
            ("/etc/a", Entry::file("y", 0o644), true),
            ("/etc/a", Entry::Absent, true),
            ("/etc/not/yet/there", Entry::file("z", 0o644), true),
            (FORCE_FILE, Entry::file("", 0o644), true),
        ] {
            let watch = Watch::new(&host, Some(&record));
            host.put(Path::new(path), &entry).unwrap();
            let limit = if told { within(5000) } else { within(50) };
            assert_eq!(tokio::time::timeout(limit, watch.changed()).await.is_ok(), told, "{path}");
        }
    }
}
