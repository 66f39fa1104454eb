//! Names and places of one private engine, all derived from its root.

use std::path::{Path, PathBuf};

use osc_runtime::dirs::Dirs;
use sha2::{Digest, Sha256};

/// Longest socket path containerd accepts, 104, less the `.ttrpc` it appends.
const SOCKET_PATH_MAX: usize = 98;

/// Where a private engine keeps everything, and the names it uses outside its
/// own directories (bridge, network, cgroup). Two roots never share a name.
#[derive(Clone, Debug)]
pub struct Paths {
    dirs: Dirs,
    tag: String,
}

impl Paths {
    /// The layout below `dirs`.
    pub fn new(dirs: Dirs) -> Self {
        let root = std::path::absolute(dirs.root()).unwrap_or_else(|_| dirs.root().to_owned());
        let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
        Self { tag: hex::encode(&digest[..4]), dirs: Dirs::new(root) }
    }

    /// The directories this layout is built on.
    pub fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// Eight hexadecimal digits that stand for the root.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// containerd's persistent directory: content and snapshots.
    pub fn content(&self) -> PathBuf {
        self.dirs.state().join("containerd")
    }

    /// containerd's run-time directory: bundles, fifos, network namespaces.
    pub fn live(&self) -> PathBuf {
        self.dirs.run().join("containerd")
    }

    /// Bundles of running tasks; directory names are container ids.
    pub fn bundles(&self) -> PathBuf {
        self.live().join("io.containerd.runtime.v2.task/k8s.io")
    }

    /// containerd's configuration, which also identifies its process.
    pub fn config(&self) -> PathBuf {
        self.dirs.run().join("containerd.toml")
    }

    /// Directory of drop-ins for that configuration, written by a daemon of the node.
    pub fn drop_ins(&self) -> PathBuf {
        self.dirs.root().join("etc/containerd/conf.d")
    }

    /// Where such a daemon links the shim.
    pub fn shims(&self) -> PathBuf {
        self.dirs.root().join("usr/local/bin")
    }

    /// What containerd writes to its standard output and error.
    pub fn log(&self) -> PathBuf {
        self.dirs.state().join("containerd.log")
    }

    /// Process id of containerd.
    pub fn pid_file(&self) -> PathBuf {
        self.dirs.run().join("containerd.pid")
    }

    /// Lock held while the engine is started or stopped.
    pub fn lock(&self) -> PathBuf {
        self.dirs.run().join("engine.lock")
    }

    /// Symbolic link to the run directory, made when that one is too deep for a
    /// socket path.
    pub fn short_run(&self) -> PathBuf {
        PathBuf::from(format!("/run/sandboxed-containers-{}", self.tag))
    }

    /// containerd's socket, by a path short enough for `sun_path`.
    pub fn socket(&self) -> PathBuf {
        let direct = self.dirs.run().join("containerd.sock");
        if direct.as_os_str().len() <= SOCKET_PATH_MAX { direct } else { self.short_run().join("containerd.sock") }
    }

    /// Whether [`Self::socket`] goes through [`Self::short_run`].
    pub fn needs_short_run(&self) -> bool {
        !self.socket().starts_with(self.dirs.run())
    }

    /// Network configuration of this engine.
    pub fn cni_conf(&self) -> PathBuf {
        self.dirs.run().join("cni/net.d")
    }

    /// Address leases; they do not survive a reboot, as the pods do not either.
    pub fn cni_leases(&self) -> PathBuf {
        self.dirs.run().join("cni/leases")
    }

    /// The subnets chosen for this root.
    pub fn subnets(&self) -> PathBuf {
        self.dirs.state().join("subnets.json")
    }

    /// Configuration the kata shim is started with: the one that is installed, or
    /// the place where ours goes. `config.d` beside it is the administrator's.
    pub fn kata_config(&self) -> PathBuf {
        let installed = self.dirs.configurations().into_iter().find(|file| file.exists());
        installed.unwrap_or_else(|| self.dirs.root().join("etc/kata-containers/configuration.toml"))
    }

    /// Records and volumes of pods.
    pub fn pods(&self) -> PathBuf {
        self.dirs.state().join("pods")
    }

    /// Logs of pods.
    pub fn pod_logs(&self) -> PathBuf {
        self.dirs.root().join("var/log/pods")
    }

    /// Links to the logs of containers, under the names log collectors expect.
    pub fn log_links(&self) -> PathBuf {
        self.dirs.root().join("var/log/containers")
    }

    /// Network name, also the key of CNI's result cache.
    pub fn network(&self) -> String {
        format!("osc-{}", self.tag)
    }

    /// Bridge of the pod network; 11 of the 15 characters a link name may have.
    pub fn bridge(&self) -> String {
        format!("osc{}", self.tag)
    }

    /// cgroup that holds all pods, below the root of every hierarchy.
    pub fn cgroup(&self) -> PathBuf {
        if self.dirs.root() == Path::new("/") {
            PathBuf::from("/sandboxed-containers")
        } else {
            PathBuf::from(format!("/sandboxed-containers-{}", self.tag))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_root_still_gets_a_short_socket() {
        let deep = format!("/tmp/{}", "d/".repeat(80));
        let below = "/run/sandboxed-containers/containerd.sock".len();
        let [just, over] = [98, 99].map(|length: usize| format!("/{}", "x".repeat(length - below - 1)));
        for (root, short) in [("/", false), ("/tmp/x", false), (&*just, false), (&*over, true), (&*deep, true)] {
            let paths = Paths::new(Dirs::new(root));
            assert_eq!(paths.needs_short_run(), short, "{root}");
            assert!(format!("{}.ttrpc", paths.socket().display()).len() <= 104, "{root}");
        }
    }

    #[test]
    fn names_differ_between_roots() {
        let (a, b) = (Paths::new(Dirs::new("/")), Paths::new(Dirs::new("/tmp/x")));
        assert_ne!(a.bridge(), b.bridge());
        assert_ne!(a.cgroup(), b.cgroup());
        assert!(a.bridge().len() <= 15);
    }
}
