//! Where things live on the host.

use std::path::{Path, PathBuf};

use crate::id::SandboxId;

/// Environment variable that moves every path below one directory.
pub const ROOT_VARIABLE: &str = "SANDBOXED_CONTAINERS_ROOT";

/// All host paths, moved together by one prefix so that several instances and
/// tests live side by side. Below a prefix, Unix socket paths easily outgrow
/// the 107 bytes of `sun_path`: bind and connect by way of a directory
/// descriptor (`/proc/self/fd/N/name`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    root: PathBuf,
}

impl Dirs {
    /// Paths below `root`; `/` is the system itself.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The prefix.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// What survives a reboot: guest image, containerd content, caches.
    pub fn state(&self) -> PathBuf {
        self.at("var/lib/sandboxed-containers")
    }

    /// Sockets and pid files of `osc` and the engine it runs.
    pub fn run(&self) -> PathBuf {
        self.at("run/sandboxed-containers")
    }

    /// The installed guest image: `vmlinux`, `initrd.img`, `manifest.json`.
    pub fn guest(&self) -> PathBuf {
        self.state().join("guest")
    }

    /// Machines that have booted before, unless the configuration says otherwise.
    pub fn templates(&self) -> PathBuf {
        self.state().join("templates")
    }

    /// Parent of all sandbox directories.
    pub fn sandboxes(&self) -> PathBuf {
        self.at("run/kata")
    }

    /// State file, sockets and pid files of one sandbox.
    pub fn sandbox(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// The tree shared into one sandbox, with its staging directories.
    pub fn share(&self, id: &SandboxId) -> PathBuf {
        self.at("run/kata-containers/shared/sandboxes").join(id)
    }

    /// Configuration files in order of preference.
    pub fn configurations(&self) -> Vec<PathBuf> {
        ["etc/kata-containers", "usr/share/defaults/kata-containers", "opt/kata/share/defaults/kata-containers"]
            .into_iter()
            .flat_map(|dir| ["runtime-rs/configuration.toml", "configuration.toml"].map(|file| self.at(dir).join(file)))
            .collect()
    }
}

impl Default for Dirs {
    fn default() -> Self {
        Self::new("/")
    }
}
