//! Control groups of containers, version 2.
//!
//! In a guest of ours the unified hierarchy carries every controller. On a
//! machine that keeps its controllers in version 1, what the unified hierarchy
//! can do without them still works (killing and freezing whole containers), and
//! without any unified hierarchy containers simply have no control group.

mod devices;
mod limits;
mod stats;

pub mod events;

use std::{
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use osc_agent_protocol::{agent::StatsContainerResponse, oci};

use self::events::Watch;
use super::{Error, Result};

/// Controllers containers are limited and measured with, where they exist.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];
/// How long to wait for news of processes before killing again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long a control group may stay busy after its last process was killed.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);

/// Where the unified hierarchy is mounted.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    root: Option<PathBuf>,
    /// What to write into `cgroup.subtree_control`, such as `+cpu +memory`.
    enable: String,
}

impl Hierarchy {
    /// Finds it.
    ///
    /// # Errors
    /// [`Error::Cgroup`] when the mount table cannot be read.
    pub fn locate() -> Result<Self> {
        let table = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(table).map_err(|source| failed("look for", table, source))?;
        let Some(root) = unified_root(&text) else {
            tracing::warn!("no unified control group hierarchy: containers run without limits");
            return Ok(Self { root: None, enable: String::new() });
        };
        let present = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let wanted = CONTROLLERS.into_iter().filter(|name| present.split_whitespace().any(|word| word == *name));
        let enable = wanted.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
        Ok(Self { root: Some(root), enable })
    }

    /// Makes the control group `spec` names and sets its limits.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path that leaves the hierarchy, [`Error::Cgroup`]
    /// when the kernel refuses; nothing is left behind then.
    pub fn create(&self, id: &str, spec: &oci::Spec) -> Result<Cgroup> {
        let Some(root) = &self.root else { return Ok(Cgroup { place: None }) };
        let dir = root.join(relative_path(&spec.Linux.CgroupsPath, id)?);
        self.make(root, &dir)?;
        let cgroup = Cgroup { place: Some(Arc::new(Place { root: root.clone(), dir })) };
        if let Some(resources) = spec.Linux.Resources.as_ref() {
            let limited = cgroup.apply(resources).and_then(|()| cgroup.restrict_devices(resources));
            limited.inspect_err(|_| cgroup.remove_dirs_logged())?;
        }
        Ok(cgroup)
    }

    fn make(&self, root: &Path, dir: &Path) -> Result<()> {
        let mut at = root.to_path_buf();
        for component in dir.strip_prefix(root).into_iter().flat_map(Path::components) {
            self.delegate(&at);
            at.push(component);
            match fs::create_dir(&at) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("make", &at, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets children of `dir` use our controllers.
    fn delegate(&self, dir: &Path) {
        if self.enable.is_empty() {
            return;
        }
        let file = dir.join("cgroup.subtree_control");
        if write(&file, &self.enable).is_ok() {
            return;
        }
        // One refused controller fails the whole write.
        for controller in self.enable.split(' ') {
            if let Err(error) = write(&file, controller) {
                tracing::warn!(controller, path = %file.display(), error = %error, "controller not available");
            }
        }
    }
}

/// The preferred unified mount of a mount table: the one at the usual place.
fn unified_root(table: &str) -> Option<PathBuf> {
    let mounts = table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == "cgroup2").then(|| left.split(' ').nth(4)).flatten()
    });
    mounts.min_by_key(|path| *path != "/sys/fs/cgroup").map(PathBuf::from)
}

/// The place below the hierarchy: a systemd-style `slice:prefix:name` is read as
/// a path, an empty one means the container's id.
fn relative_path(path: &str, id: &str) -> Result<PathBuf> {
    let path = path.replace(':', "/");
    let mut relative = PathBuf::new();
    for component in Path::new(&path).components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let reason = "a path without '..'";
                return Err(Error::Invalid { field: "Linux.CgroupsPath", value: path, reason });
            }
        }
    }
    if relative.as_os_str().is_empty() {
        relative.push(id);
    }
    Ok(relative)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Cgroup { action, path: path.into(), source }
}

/// The control group of one container; cheap to clone.
#[derive(Clone, Debug)]
pub struct Cgroup {
    place: Option<Arc<Place>>,
}

#[derive(Debug)]
struct Place {
    root: PathBuf,
    dir: PathBuf,
}

impl Cgroup {
    /// Its directory, where there is one.
    pub fn dir(&self) -> Option<&Path> {
        self.place.as_ref().map(|place| place.dir.as_path())
    }

    /// Moves a process in.
    ///
    /// # Errors
    /// [`Error::Cgroup`].
    pub fn attach(&self, pid: i32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let Some(dir) = self.dir() else { return Ok(()) };
        let path = dir.join(file);
        write(&path, value).map_err(|source| failed("write", &path, source))
    }

    /// Applies limits; those whose controller does not exist here are skipped.
    /// Device rules are fixed once the group is made.
    ///
    /// # Errors
    /// [`Error::Cgroup`] when the kernel refuses a value.
    pub fn apply(&self, resources: &oci::LinuxResources) -> Result<()> {
        self.dir().map_or(Ok(()), |dir| limits::apply(dir, resources))
    }

    fn restrict_devices(&self, resources: &oci::LinuxResources) -> Result<()> {
        self.dir().map_or(Ok(()), |dir| devices::restrict(dir, resources))
    }

    /// What its processes use; all zero without a control group.
    ///
    /// # Errors
    /// [`Error::Cgroup`] when it is gone.
    pub fn stats(&self) -> Result<StatsContainerResponse> {
        self.dir().map_or_else(|| Ok(StatsContainerResponse::new()), stats::read)
    }

    /// Ids of its processes, those of control groups below it included.
    ///
    /// # Errors
    /// [`Error::Cgroup`] when it is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        if let Some(dir) = self.dir() {
            collect_pids(dir, &mut pids).map_err(|source| failed("list processes of", dir, source))?;
        }
        Ok(pids)
    }

    /// Kills every process; `false` when there is no control group to tell which.
    ///
    /// # Errors
    /// [`Error::Cgroup`].
    pub fn kill(&self) -> Result<bool> {
        let Some(dir) = self.dir() else { return Ok(false) };
        let path = dir.join("cgroup.kill");
        match write(&path, "1") {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Gone altogether, or a kernel before 5.14.
                if dir.exists() { self.kill_frozen().map(|()| true) } else { Ok(true) }
            }
            Err(source) => Err(failed("kill processes of", &path, source)),
        }
    }

    /// Kills while nothing can fork: a frozen process still dies.
    fn kill_frozen(&self) -> Result<()> {
        self.write("cgroup.freeze", "1")?;
        let killed = self.pids().map(|pids| {
            for pid in pids {
                // One that is gone already needs no killing.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        });
        self.write("cgroup.freeze", "0")?;
        killed
    }

    /// Freezes or thaws all processes and waits until it is so.
    ///
    /// # Errors
    /// [`Error::Cgroup`]; kind `Timeout` when `limit` passed first.
    pub async fn freeze(&self, frozen: bool, limit: Duration) -> Result<()> {
        let Some(dir) = self.dir() else {
            let source = io::Error::new(io::ErrorKind::Unsupported, "no unified hierarchy is mounted");
            return Err(failed("freeze", Path::new(""), source));
        };
        let events = dir.join("cgroup.events");
        let mut watch = Watch::new(&events).map_err(|source| failed("watch", &events, source))?;
        let value = if frozen { "1" } else { "0" };
        self.write("cgroup.freeze", value)?;
        let settled = async {
            while flat_value(&events, "frozen")? != u64::from(frozen) {
                watch.changed().await.map_err(|source| failed("watch", &events, source))?;
            }
            Ok(())
        };
        match tokio::time::timeout(limit, settled).await {
            Ok(result) => result,
            Err(_) => Err(failed("freeze or thaw", dir, io::ErrorKind::TimedOut.into())),
        }
    }

    /// Kills what is left in it and deletes it; one that is gone already is fine.
    /// Takes as long as the processes take to die.
    ///
    /// # Errors
    /// [`Error::Cgroup`].
    pub async fn destroy(&self) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        let events = place.dir.join("cgroup.events");
        while let Err(error) = remove_dirs(&place.dir) {
            if error.raw_os_error() != Some(Errno::EBUSY as i32) {
                return Err(failed("delete", &place.dir, error));
            }
            let mut watch = Watch::new(&events).map_err(|source| failed("watch", &events, source))?;
            // Somebody may have been on the way in when the rest was killed.
            self.kill()?;
            match tokio::time::timeout(RETRY_AFTER, watch.changed()).await {
                Ok(changed) => changed.map_err(|source| failed("watch", &events, source))?,
                Err(_) => continue,
            }
        }
        place.remove_empty_parents();
        Ok(())
    }

    /// Kills and deletes after a failed creation; failures are logged.
    pub async fn discard(&self) {
        match tokio::time::timeout(EMPTY_LIMIT, self.destroy()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "control group of failed container not deleted"),
            Err(_) => tracing::warn!(path = ?self.dir(), "control group of failed container still busy"),
        }
    }

    fn remove_dirs_logged(&self) {
        if let Some(dir) = self.dir()
            && let Err(error) = remove_dirs(dir)
        {
            tracing::warn!(path = %dir.display(), error = %error, "control group of failed container not deleted");
        }
    }
}

impl Place {
    /// Parents nobody uses any more go too; one still in use ends the walk.
    fn remove_empty_parents(&self) {
        for parent in self.dir.ancestors().skip(1).take_while(|parent| *parent != self.root) {
            if fs::remove_dir(parent).is_err() {
                return;
            }
        }
    }
}

/// Writes a file of the hierarchy, which cannot be made by writing it.
fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn collect_pids(dir: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect_pids(&entry.path(), pids)?;
        }
    }
    Ok(())
}

/// Deletes `dir` and what the container made below it, deepest first.
fn remove_dirs(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_dirs(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// One value of a `key value` file.
fn flat_value(path: &Path, key: &str) -> Result<u64> {
    let text = fs::read_to_string(path).map_err(|source| failed("read", path, source))?;
    Ok(flat_keyed(&text).find(|(name, _)| *name == key).map_or(0, |(_, value)| value))
}

/// The pairs of a `key value` file.
fn flat_keyed(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_place_wins() {
        let line = |path: &str, kind: &str| format!("30 24 0:27 / {path} rw,nosuid shared:9 - {kind} none rw\n");
        let v1 = line("/sys/fs/cgroup/cpu", "cgroup");
        let (hybrid, pure) = (line("/sys/fs/cgroup/unified", "cgroup2"), line("/sys/fs/cgroup", "cgroup2"));
        for (table, want) in [
            (v1.clone(), None),
            (format!("{v1}{hybrid}"), Some("/sys/fs/cgroup/unified")),
            (format!("{hybrid}{pure}"), Some("/sys/fs/cgroup")),
        ] {
            assert_eq!(unified_root(&table), want.map(PathBuf::from), "{table}");
        }
    }

    #[test]
    fn paths_stay_below_the_hierarchy() {
        for (path, want) in [
            ("", Some("c1")),
            ("/", Some("c1")),
            ("/kubepods/pod1/c1", Some("kubepods/pod1/c1")),
            ("kubepods.slice:cri-containerd:c1", Some("kubepods.slice/cri-containerd/c1")),
            ("/a/../../b", None),
        ] {
            assert_eq!(relative_path(path, "c1").ok(), want.map(PathBuf::from), "{path}");
        }
    }
}
