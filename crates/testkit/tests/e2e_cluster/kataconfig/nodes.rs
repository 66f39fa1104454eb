//! What there is of a node on the disk of this machine.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use osc_testkit::cluster::Cluster;

/// The files of one node.
pub struct Node {
    /// Its root directory.
    pub root: PathBuf,
}

impl Node {
    pub fn of(cluster: &Cluster, name: &str) -> Self {
        Self { root: cluster.root.join("var/lib/sandboxed-containers/nodes").join(name) }
    }

    /// By which its engine offers the runtime.
    pub fn drop_in(&self) -> PathBuf {
        self.root.join("etc/containerd/conf.d/99-kata.toml")
    }

    /// The version new pods use.
    pub fn current(&self) -> Option<String> {
        let link = fs::read_link(self.payloads().join("current")).ok()?;
        Some(link.to_string_lossy().into_owned())
    }

    /// Versions that are installed, wholly or in part.
    pub fn versions(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.payloads()).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    pub fn payloads(&self) -> PathBuf {
        self.root.join("opt/sandboxed-containers")
    }

    /// Whether an update is under way.
    pub fn is_changing(&self) -> bool {
        self.root.join("etc/machine-config-daemon/journal").exists()
    }

    /// Whether it has recorded a configuration of the pool of sandboxes.
    pub fn has_arrived(&self) -> bool {
        self.has_recorded("rendered-kata-oc-")
    }

    /// Whether it has recorded a configuration with such a name.
    pub fn has_recorded(&self, name: &str) -> bool {
        let record = fs::read_to_string(self.root.join("etc/machine-config-daemon/currentconfig"));
        record.is_ok_and(|text| text.contains(name))
    }

    /// Process of its engine.
    pub fn engine(&self) -> i32 {
        let file = self.root.join("run/sandboxed-containers/containerd.pid");
        fs::read_to_string(&file).unwrap().trim().parse().unwrap()
    }

    /// Files and links outside the directories of engine and pods, the daemon's own
    /// record left out.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for dir in ["etc", "opt", "usr/local"] {
            collect(&self.root.join(dir), &mut found);
        }
        found.retain(|path| !path.ends_with("etc/machine-config-daemon/currentconfig"));
        found
    }
}

fn collect(dir: &Path, into: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), into);
        } else {
            into.insert(entry.path());
        }
    }
}
