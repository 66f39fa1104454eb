//! What process 1 of a guest does before it can serve.
//!
//! ```text
//!   root ──► mounts ──► modules ──► settings          … serve …          power
//!   made     proc sys   boot.list   hostname, memory                  sync and off
//!   pivotable dev run cgroup        reserve
//! ```
//!
//! Under software emulation every system call costs ten times its usual price,
//! so nothing here starts a process and nothing is mounted that only some
//! workload might want. A step that fails is reported and the next one tried: a
//! guest that answers and can say what is wrong beats one that does not come up.

mod modules;
mod mounts;
mod power;
mod root;
mod settings;

use std::path::PathBuf;

use nix::errno::Errno;
use osc_agent_protocol::Kind;

pub use power::power_off;

/// Search path of everything the agent starts. Fixed: the kernel's idea of an
/// environment is whatever the boot loader passed.
pub const SEARCH_PATH: &str = "/bin:/sbin/:/usr/bin/:/usr/sbin/";

/// A step of the start-up that failed.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The root could not be made a mount that containers can pivot away from.
    #[error("cannot make the root pivotable: containers will not start on this kernel")]
    Root(#[source] Errno),
    /// A file system could not be mounted.
    #[error("cannot mount {fstype} at {}: is it built into the guest kernel?", target.display())]
    Mount {
        /// File system type.
        fstype: &'static str,
        /// Where.
        target: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A kernel module could not be loaded.
    #[error("cannot load kernel module {}: does it belong to the running kernel?", path.display())]
    Module {
        /// The `.ko` file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A kernel setting could not be written.
    #[error("cannot set {setting}: the default stays in force")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl BootError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Root(errno) | Self::Mount { source: errno, .. } => Kind::of_io(&(*errno).into()),
            Self::Module { source, .. } | Self::Setting { source, .. } => Kind::of_io(source),
        }
    }
}

/// Turns a freshly booted kernel into a machine that can run containers and
/// returns everything that went wrong on the way. Called once, by process 1,
/// while it has a single thread.
pub fn prepare() -> Vec<BootError> {
    let mut failures = Vec::new();
    failures.extend(root::make_pivotable().err());
    failures.extend(mounts::mount_all());
    failures.extend(modules::load_listed());
    failures.extend(settings::apply());
    // Fails only if process 1 leads a session already, which is what is wanted.
    let _ = nix::unistd::setsid();
    failures
}
