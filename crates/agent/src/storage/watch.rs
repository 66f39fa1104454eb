//! Volumes whose changes a workload wants to be told of.
//!
//! Changes the host makes to a shared directory raise no inotify event in the
//! guest. For the small directories Kubernetes rewrites under running containers
//! (config maps, secrets) the agent therefore keeps a copy in memory and brings it
//! up to date every two seconds, by renaming, so that watchers see what they
//! would see on a node. Larger ones, and single files, are plain bind mounts.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use osc_agent_protocol::agent::Storage;
use tokio::task::{AbortHandle, spawn_blocking};

use super::{StorageError, Undo, mount};

/// How often sources are looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// What is worth copying: beyond this the memory costs more than the events help.
const WORTH_COPYING: Limits = Limits { entries: 16, bytes: 1 << 20 };
/// How far a copy may grow later; a container that uses it cannot be given
/// another mount, so this is roomier than the first decision.
const ROOM_TO_GROW: Limits = Limits { entries: 256, bytes: 4 << 20 };
/// Options of the memory file system: room for old and new content at once.
const MEMORY: &str = "mode=0755,size=12m,nr_inodes=1024";
/// Name of the directory of the share below which the host puts the copies; the
/// share itself may be read-only, so it is covered by memory first.
const SCRATCH: &str = "watchable";

#[derive(Clone, Copy)]
struct Limits {
    entries: usize,
    bytes: u64,
}

/// Keeps copies up to date.
#[derive(Default)]
pub(super) struct Watcher {
    tasks: Mutex<HashMap<PathBuf, AbortHandle>>,
}

impl Watcher {
    /// Makes the storage and starts watching its source if it is small.
    pub(super) async fn add(&self, storage: &Storage, mount_point: &Path) -> Result<Undo, StorageError> {
        let (storage, target) = (storage.clone(), mount_point.to_path_buf());
        let made = spawn_blocking(move || make(&storage, &target)).await.map_err(|_| StorageError::Died)??;
        let Some(mirror) = made else { return Ok(Undo::Unmount) };
        let task = tokio::spawn(keep_up_to_date(Arc::new(Mutex::new(mirror))));
        self.tasks().insert(mount_point.to_path_buf(), task.abort_handle());
        Ok(Undo::Unwatch)
    }

    /// Stops watching.
    pub(super) fn remove(&self, mount_point: &Path) {
        if let Some(task) = self.tasks().remove(mount_point) {
            task.abort();
        }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.tasks().values().for_each(AbortHandle::abort);
    }
}

async fn keep_up_to_date(copy: Arc<Mutex<Mirror>>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let copy = Arc::clone(&copy);
        let updated = spawn_blocking(move || {
            let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
            let result = copy.update();
            result.map_err(|error| (copy.source.clone(), error))
        });
        match updated.await {
            Ok(Ok(())) => {}
            // The host rewrites the directory while it is read; the next look will do.
            Ok(Err((path, error))) if error.kind() == io::ErrorKind::NotFound => {
                tracing::debug!(path = %path.display(), error = %error, "watched volume changed while being read");
            }
            Ok(Err((path, error))) => {
                tracing::warn!(path = %path.display(), error = %error, "watched volume is no longer updated");
                return;
            }
            Err(_) => return,
        }
    }
}

/// Makes a copy at `mount_point`, or a bind mount and nothing to watch.
fn make(storage: &Storage, mount_point: &Path) -> Result<Option<Mirror>, StorageError> {
    let source = Path::new(&storage.source);
    let failed = |action| move |error| StorageError::File { action, path: source.into(), source: error };
    cover_scratch(mount_point)?;
    let tree = if source.is_dir() { read_tree(source, WORTH_COPYING).map_err(failed("read"))? } else { None };
    if tree.is_none() {
        let mut bind = storage.clone();
        bind.options.push("bind".into());
        mount::mount(&bind, &storage.source, mount_point)?;
        return Ok(None);
    }
    mount_memory(mount_point)?;
    let mode = fs::metadata(source).map_err(failed("read the mode of"))?.mode();
    mount::set_mode(mount_point, mode & 0o7777)?;
    let mut copy = Mirror { source: source.into(), target: mount_point.into(), known: Tree::new() };
    copy.update().map_err(failed("copy"))?;
    Ok(Some(copy))
}

/// Covers the directory copies live below with memory, once.
fn cover_scratch(mount_point: &Path) -> Result<(), StorageError> {
    let scratch = mount_point.ancestors().skip(1).find(|path| path.file_name().is_some_and(|name| name == SCRATCH));
    match scratch {
        Some(path) if !is_mount_point(path) => mount_memory(path),
        _ => Ok(()),
    }
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|m| m.dev()).ok();
    device(path).is_some() && path.parent().is_some_and(|parent| device(parent) != device(path))
}

fn mount_memory(path: &Path) -> Result<(), StorageError> {
    let storage = Storage { fstype: "tmpfs".into(), options: vec![MEMORY.into()], ..Default::default() };
    mount::mount(&storage, "tmpfs", path).map(drop)
}

/// What a directory entry is, as far as a copy can differ from it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Directory { mode: u32 },
    File { mode: u32, size: u64, changed: (i64, i64) },
    Link { to: PathBuf },
}

/// Entries by path relative to the root; parents come before what they hold.
type Tree = BTreeMap<PathBuf, Entry>;

struct Mirror {
    source: PathBuf,
    target: PathBuf,
    known: Tree,
}

impl Mirror {
    /// Brings the target up to date: directories and files first, then links,
    /// through which Kubernetes makes new content visible all at once, then what
    /// is no longer there.
    fn update(&mut self) -> io::Result<()> {
        let seen = read_tree(&self.source, ROOM_TO_GROW)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::QuotaExceeded, "it outgrew its copy"))?;
        if seen == self.known {
            return Ok(());
        }
        let changed: Vec<_> = seen.iter().filter(|(path, entry)| self.known.get(*path) != Some(*entry)).collect();
        let is_link = |entry: &Entry| matches!(entry, Entry::Link { .. });
        for (path, entry) in
            changed.iter().filter(|(_, e)| !is_link(e)).chain(changed.iter().filter(|(_, e)| is_link(e)))
        {
            self.put(path, entry)?;
        }
        for path in self.known.keys().rev().filter(|path| !seen.contains_key(*path)) {
            remove(&self.target.join(path))?;
        }
        self.known = seen;
        Ok(())
    }

    fn put(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let target = self.target.join(path);
        let kind_changed =
            fs::symlink_metadata(&target).is_ok_and(|m| m.is_dir() != matches!(entry, Entry::Directory { .. }));
        if kind_changed {
            remove(&target)?;
        }
        match entry {
            Entry::Directory { mode } => {
                fs::create_dir_all(&target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(*mode))
            }
            Entry::File { mode, size, .. } => {
                let draft = draft(&target);
                // The size was checked; a file that grew since must not fill memory.
                let mut source = fs::File::open(self.source.join(path))?.take(*size);
                io::copy(&mut source, &mut fs::File::create(&draft)?)?;
                fs::set_permissions(&draft, fs::Permissions::from_mode(*mode))?;
                fs::rename(&draft, &target)
            }
            Entry::Link { to } => {
                let draft = draft(&target);
                remove(&draft)?;
                symlink(to, &draft)?;
                fs::rename(&draft, &target)
            }
        }
    }
}

/// Where new content waits for its rename, beside `path`.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".~new");
    path.with_file_name(name)
}

fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(seen) if seen.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Everything below `root`, or `None` when it is more than `limits` allow.
fn read_tree(root: &Path, limits: Limits) -> io::Result<Option<Tree>> {
    let mut tree = Tree::new();
    let mut bytes = 0;
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let path = directory.join(entry?.file_name());
            let seen = fs::symlink_metadata(root.join(&path))?;
            let mode = seen.mode() & 0o7777;
            let entry = if seen.is_dir() {
                pending.push(path.clone());
                Entry::Directory { mode }
            } else if seen.is_symlink() {
                Entry::Link { to: fs::read_link(root.join(&path))? }
            } else if seen.is_file() {
                bytes += seen.size();
                Entry::File { mode, size: seen.size(), changed: (seen.mtime(), seen.mtime_nsec()) }
            } else {
                continue;
            };
            tree.insert(path, entry);
            if tree.len() > limits.entries || bytes > limits.bytes {
                return Ok(None);
            }
        }
    }
    Ok(Some(tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene(PathBuf);

    impl Scene {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("agent-watch-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("source")).unwrap();
            fs::create_dir_all(root.join("target")).unwrap();
            Self(root)
        }

        fn copy(&self) -> Mirror {
            Mirror { source: self.0.join("source"), target: self.0.join("target"), known: Tree::new() }
        }

        /// Publishes a revision the way Kubernetes does.
        fn publish(&self, revision: &str, old: Option<&str>, text: &str) {
            let source = self.0.join("source");
            fs::create_dir_all(source.join(revision)).unwrap();
            fs::write(source.join(revision).join("key"), text).unwrap();
            symlink(revision, source.join("..data_tmp")).unwrap();
            fs::rename(source.join("..data_tmp"), source.join("..data")).unwrap();
            if let Some(old) = old {
                fs::remove_dir_all(source.join(old)).unwrap();
            } else {
                symlink("..data/key", source.join("key")).unwrap();
            }
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_config_map_is_followed() {
        let scene = Scene::new("config");
        let mut copy = scene.copy();
        scene.publish("..rev1", None, "one");
        copy.update().unwrap();
        let key = scene.0.join("target/key");
        assert_eq!(fs::read_to_string(&key).unwrap(), "one");
        scene.publish("..rev2", Some("..rev1"), "two");
        copy.update().unwrap();
        assert_eq!(fs::read_to_string(&key).unwrap(), "two");
        let mut left: Vec<_> = fs::read_dir(scene.0.join("target"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["..data", "..rev2", "key"]);
    }

    #[test]
    fn kinds_may_change_and_modes_are_kept() {
        let scene = Scene::new("kinds");
        let mut copy = scene.copy();
        let source = scene.0.join("source/x");
        fs::write(&source, "file").unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
        copy.update().unwrap();
        assert_eq!(fs::metadata(scene.0.join("target/x")).unwrap().mode() & 0o7777, 0o640);
        fs::remove_file(&source).unwrap();
        fs::create_dir(&source).unwrap();
        fs::write(source.join("y"), "deep").unwrap();
        copy.update().unwrap();
        assert_eq!(fs::read_to_string(scene.0.join("target/x/y")).unwrap(), "deep");
        fs::remove_dir_all(&source).unwrap();
        copy.update().unwrap();
        assert_eq!(fs::read_dir(scene.0.join("target")).unwrap().count(), 0);
    }

    #[test]
    fn large_volumes_are_not_copied() {
        let scene = Scene::new("large");
        let source = scene.0.join("source");
        for n in 0..17 {
            fs::write(source.join(n.to_string()), "").unwrap();
        }
        assert!(read_tree(&source, WORTH_COPYING).unwrap().is_none(), "entries");
        for n in 0..17 {
            fs::remove_file(source.join(n.to_string())).unwrap();
        }
        fs::write(source.join("big"), vec![0; (1 << 20) + 1]).unwrap();
        assert!(read_tree(&source, WORTH_COPYING).unwrap().is_none(), "bytes");
        assert!(read_tree(&source, ROOM_TO_GROW).unwrap().is_some());
    }
}
