//! What can go wrong with a virtual machine.

use std::{fmt, io, path::PathBuf, time::Duration};

use osc_agent_protocol::Kind;

use super::{process::Exit, qmp::QmpError};
use crate::config::Mib;

/// A machine that did not come up. Whatever was started is gone again.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file the machine is made of is missing.
    #[error("{what} {} is not there: {cure}", path.display())]
    Missing {
        /// Which file.
        what: &'static str,
        /// Where it was expected.
        path: PathBuf,
        /// What to do.
        cure: &'static str,
    },
    /// A path cannot be written on QEMU's command line.
    #[error("path {} is not UTF-8: QEMU cannot be given it, rename it", .0.display())]
    Path(PathBuf),
    /// The kernel could not be put into guest memory.
    #[error("cannot load kernel {} into guest memory: check the file and the memory of the host", path.display())]
    Kernel {
        /// The kernel.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A socket of the machine could not be made or reached.
    #[error("cannot {action} {}: check that the sandbox directory exists and the daemon behind it runs", path.display())]
    Socket {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The pod's network namespace could not be entered.
    #[error("cannot enter network namespace {}: check that the pod sandbox still exists", path.display())]
    Netns {
        /// The namespace.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process could not be started or set up.
    #[error("cannot start {}: {cure}", binary.display())]
    Spawn {
        /// The executable.
        binary: PathBuf,
        /// What to do.
        cure: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The process could not be put into its cgroup.
    #[error("cannot place QEMU process {pid} in its cgroup: check the pod's cgroup")]
    Place {
        /// The process, killed meanwhile.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// QEMU ended before the machine ran.
    #[error("QEMU of sandbox {name} ended while starting ({exit}): {}{evidence}", exit.advice())]
    Ended {
        /// The sandbox.
        name: String,
        /// How it ended.
        exit: Exit,
        /// What it left behind.
        evidence: Box<Evidence>,
    },
    /// The machine does not run in time.
    #[error(
        "QEMU of sandbox {name} not running after {waited:?}: host overloaded or pod CPU limit too small?{evidence}"
    )]
    Slow {
        /// The sandbox.
        name: String,
        /// How long it was given.
        waited: Duration,
        /// What it left behind.
        evidence: Box<Evidence>,
    },
    /// A device could not be added to a machine that was to go on from a saved state.
    #[error("QEMU of sandbox {name} does not take a device{evidence}")]
    Device {
        /// The sandbox.
        name: String,
        /// What it left behind.
        evidence: Box<Evidence>,
        /// Why.
        source: Box<HotplugError>,
    },
    /// QEMU's control socket misbehaved.
    #[error("QEMU of sandbox {name} refuses control{evidence}")]
    Control {
        /// The sandbox.
        name: String,
        /// What it left behind.
        evidence: Box<Evidence>,
        /// Why.
        source: QmpError,
    },
}

impl BootError {
    /// The kind every caller decides by.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } => Kind::NotFound,
            Self::Path(_) => Kind::Invalid,
            Self::Kernel { source, .. }
            | Self::Socket { source, .. }
            | Self::Netns { source, .. }
            | Self::Spawn { source, .. } => Kind::of_io(source),
            Self::Place { .. } | Self::Ended { .. } => Kind::Unavailable,
            Self::Slow { .. } => Kind::Timeout,
            Self::Device { source, .. } => source.kind(),
            Self::Control { source, .. } => source.kind(),
        }
    }
}

/// The last words of QEMU and of the guest's console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Last lines QEMU wrote.
    pub stderr: Vec<String>,
    /// Last lines of the guest's console.
    pub console: Vec<String>,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, lines) in [("QEMU says", &self.stderr), ("guest console ends", &self.console)] {
            if !lines.is_empty() {
                write!(f, "; {name}: {}", lines.join(" | "))?;
            }
        }
        Ok(())
    }
}

/// A running machine that could not be changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum HotplugError {
    /// QEMU refused or did not answer.
    #[error("cannot {action} {device}")]
    Qmp {
        /// What was tried.
        action: &'static str,
        /// The device.
        device: String,
        /// Why not.
        source: QmpError,
    },
    /// The guest keeps the device.
    #[error("guest did not let go of {device} within {waited:?}: it may still be in use inside")]
    Held {
        /// The device.
        device: String,
        /// How long it was given.
        waited: Duration,
    },
    /// No processor left to add.
    #[error("{wanted} more processors asked for, only {left} can be added: raise default_maxvcpus")]
    Cpus {
        /// How many were asked for.
        wanted: u32,
        /// How many there are.
        left: u32,
    },
    /// No memory can be added.
    #[error("cannot add {wanted}: {left} below the limit, {slots} slots free; raise default_maxmemory or memory_slots")]
    Memory {
        /// How much was asked for.
        wanted: Mib,
        /// How much there is.
        left: Mib,
        /// Free slots.
        slots: u8,
    },
    /// All bridges are full.
    #[error("no free PCI slot for {0}: raise default_bridges")]
    Slots(String),
    /// The name is taken.
    #[error("device {0} is there already")]
    Present(String),
    /// Nothing has the name.
    #[error("device {0} is not there")]
    Absent(String),
}

impl HotplugError {
    /// The kind every caller decides by.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Qmp { source, .. } => source.kind(),
            Self::Held { .. } => Kind::Timeout,
            Self::Cpus { .. } | Self::Memory { .. } | Self::Slots(_) => Kind::Invalid,
            Self::Present(_) => Kind::Busy,
            Self::Absent(_) => Kind::NotFound,
        }
    }
}

/// A machine that could not be stopped cleanly.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The process survived SIGKILL for the time given.
    #[error(
        "QEMU process {pid} still there {waited:?} after SIGKILL: it hangs in the kernel, look at its stack in /proc/{pid}/stack"
    )]
    Undead {
        /// The process.
        pid: i32,
        /// How long it was given.
        waited: Duration,
    },
    /// A file of the machine could not be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl StopError {
    /// The kind every caller decides by.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Undead { .. } => Kind::Timeout,
            Self::Remove { source, .. } => Kind::of_io(source),
        }
    }
}
