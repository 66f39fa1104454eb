//! What a sandbox may leave behind on a host, as sets that can be compared.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    command::until,
    processes::{self, Process},
};

/// Everything of one root (and the shared parts of the host) at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// `pid command` of processes that name the root.
    pub processes: BTreeSet<String>,
    /// Mount points below the root or of pods.
    pub mounts: BTreeSet<String>,
    /// Network interfaces of the host.
    pub links: BTreeSet<String>,
    /// Named network namespaces.
    pub netns: BTreeSet<String>,
    /// Tables of the packet filter with rules of services.
    pub tables: BTreeSet<String>,
    /// Control groups of ours.
    pub cgroups: BTreeSet<PathBuf>,
    /// Files and sockets of sandboxes and shims.
    pub files: BTreeSet<PathBuf>,
}

impl Snapshot {
    /// Looks at the host now. `root` is the prefix the engine under test uses.
    pub fn take(root: &Path) -> Self {
        let name = root.to_str().unwrap();
        Self {
            processes: running(name).into_iter().map(|p| format!("{} {}", p.pid, p.command)).collect(),
            mounts: mounts(name),
            links: names("/sys/class/net"),
            netns: names("/run/netns"),
            tables: tables(),
            cgroups: cgroups(),
            files: files(root),
        }
    }

    /// What is in `self` and was not in `before`.
    pub fn beyond(&self, before: &Self) -> Self {
        Self {
            processes: &self.processes - &before.processes,
            mounts: &self.mounts - &before.mounts,
            links: &self.links - &before.links,
            netns: &self.netns - &before.netns,
            tables: &self.tables - &before.tables,
            cgroups: &self.cgroups - &before.cgroups,
            files: &self.files - &before.files,
        }
    }

    /// Fails the test unless, within `limit`, nothing is there that was not in
    /// `self` before. Some ends (a process being reaped) are asynchronous.
    #[track_caller]
    pub fn nothing_new(&self, root: &Path, limit: Duration) {
        let mut new = Self::default();
        let clean = until(limit, || {
            new = Self::take(root).beyond(self);
            new == Self::default()
        });
        assert!(clean, "left behind: {new:#?}");
    }
}

/// Processes that name `root`. As long as its engine runs, templates may be made; those
/// who make them end with it.
fn running(root: &str) -> Vec<Process> {
    let engine = !processes::with(&["containerd", root, "--config"]).is_empty();
    if engine { processes::of_sandboxes(&[root]) } else { processes::with(&[root]) }
}

fn names(dir: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn tables() -> BTreeSet<String> {
    let listed = Command::new("nft").args(["list", "tables"]).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().filter(|line| line.contains("osc-services")).map(str::to_owned).collect()
}

fn mounts(root: &str) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with(root) || point.starts_with("/run/netns/")).map(str::to_owned).collect()
}

fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    // containerd's namespaces: runc makes these and leaves them, for all to come.
    let namespace = |path: &Path| path.ends_with("default") || path.ends_with("k8s.io");
    walk(Path::new("/sys/fs/cgroup"), 8, &mut |path| {
        if path.is_dir() && !namespace(path) {
            found.insert(path.to_owned());
        }
    });
    found
}

/// Sandbox directories, share trees and shim sockets; the directories they lie in
/// stay. The engine's own content (images, snapshots, logs) is not looked at.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let shares = root.join("run/kata-containers/shared/sandboxes");
    for place in [root.join("run/kata"), shares, PathBuf::from("/run/containerd/s")] {
        walk(&place, 4, &mut |path| {
            found.insert(path.to_owned());
        });
    }
    found
}

fn walk(dir: &Path, depth: usize, see: &mut impl FnMut(&Path)) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        see(&path);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, depth, see);
        }
    }
}
