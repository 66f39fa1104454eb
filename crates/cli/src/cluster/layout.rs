//! Where a cluster keeps what it has.

use std::path::{Path, PathBuf};

use osc_node::{engine::Engine, proxy};
use osc_runtime::dirs::Dirs;

/// Paths of the cluster of one root.
#[derive(Clone, Debug)]
pub struct Layout {
    dirs: Dirs,
}

impl Layout {
    /// The cluster of `dirs`.
    pub fn new(dirs: &Dirs) -> Self {
        Self { dirs: dirs.clone() }
    }

    /// Store, keys and certificates of the control plane.
    pub fn control_plane(&self) -> PathBuf {
        self.dirs.state().join("control-plane")
    }

    /// What the administrator's clients read; easy to find below a root of its own.
    pub fn kubeconfig(&self) -> PathBuf {
        if self.dirs.root() == Path::new("/") {
            self.dirs.state().join("kubeconfig")
        } else {
            self.dirs.root().join("kubeconfig")
        }
    }

    /// Who serves, and how far it is.
    pub fn instance(&self) -> PathBuf {
        self.dirs.run().join("cluster.json")
    }

    /// How many nodes somebody asked the serving process to have.
    pub fn wanted_nodes(&self) -> PathBuf {
        self.dirs.run().join("cluster-nodes")
    }

    /// What the serving process writes.
    pub fn log(&self) -> PathBuf {
        self.dirs.state().join("control-plane.log")
    }

    /// The table of the packet filter with the rules of Services.
    pub fn service_table(&self) -> String {
        proxy::table(Engine::new(self.dirs.clone()).paths().tag())
    }

    /// Parent of everything of the nodes.
    pub fn node_dir(&self) -> PathBuf {
        self.dirs.state().join("nodes")
    }

    /// Everything of one node.
    pub fn node(&self, name: &str) -> Dirs {
        Dirs::new(self.node_dir().join(name))
    }

    /// Names of the nodes there have been.
    pub fn node_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.node_dir()).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// Name of the worker with this number, counted from 1.
pub fn worker(number: u32) -> String {
    format!("worker-{number}")
}
