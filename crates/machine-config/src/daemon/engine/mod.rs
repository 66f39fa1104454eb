//! How a container engine learns about the runtime `kata`.

pub(super) mod containerd;
mod crio;

use std::path::{Path, PathBuf};

use super::host::{Entry, Host, HostError};

/// A container engine of a node and where its configuration is, as paths of the
/// node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// containerd 1.6 or newer.
    Containerd {
        /// Its configuration file.
        config: PathBuf,
        /// Directory for drop-ins; used if `config` imports from it.
        drop_ins: PathBuf,
    },
    /// CRI-O.
    Crio,
}

/// The runtime as the engine has to know it; paths as the engine sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// The shim.
    pub shim: PathBuf,
    /// The configuration it is started with.
    pub config: PathBuf,
    /// Level at which the engine logs, and with it the shims it starts; none, and it
    /// stays what it is.
    pub log_level: Option<String>,
}

/// An engine that cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Its files cannot be read.
    #[error("the configuration of the engine is out of reach")]
    Host(#[from] HostError),
    /// Its configuration cannot be understood.
    #[error("{} is not TOML: correct it", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        source: Box<toml::de::Error>,
    },
    /// Its configuration has a shape nobody knows.
    #[error("{}: {problem}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl Engine {
    /// containerd where packages put it.
    pub fn containerd() -> Self {
        Self::Containerd { config: "/etc/containerd/config.toml".into(), drop_ins: "/etc/containerd/conf.d".into() }
    }

    /// The engine of a node, by what is installed.
    pub fn of(host: &Host) -> Self {
        let crio = host.real("/etc/crio").is_dir() || host.real("/usr/bin/crio").is_file();
        if crio { Self::Crio } else { Self::containerd() }
    }

    /// Name of its systemd unit.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Containerd { .. } => "containerd.service",
            Self::Crio => "crio.service",
        }
    }

    /// Files, or directories with a slash, whose change it only sees when restarted.
    pub(super) fn restart_paths(&self) -> Vec<String> {
        match self {
            Self::Containerd { config, drop_ins } => {
                vec![config.display().to_string(), format!("{}/", drop_ins.display())]
            }
            Self::Crio => vec!["/etc/crio/crio.conf.d/".into(), "/etc/containers/storage.conf".into()],
        }
    }

    /// The same for what it reads again when told so.
    pub(super) fn reload_paths(&self) -> Vec<String> {
        match self {
            Self::Containerd { .. } => Vec::new(),
            Self::Crio => vec!["/etc/crio/policies/".into()],
        }
    }

    /// The file, and its content, by which the engine offers the runtime. `base`
    /// reads a file as it would be without the runtime.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn drop_in(
        &self,
        host: &Host,
        base: &dyn Fn(&Path) -> Result<Entry, HostError>,
        runtime: &Runtime,
    ) -> Result<(PathBuf, Entry), EngineError> {
        let (path, text) = match self {
            Self::Containerd { config, drop_ins } => {
                let base = containerd::Base::read(host, config, drop_ins, base)?;
                containerd::offer(&base, runtime)?
            }
            Self::Crio => crio::offer(runtime),
        };
        Ok((path, Entry::file(text, 0o644)))
    }
}
