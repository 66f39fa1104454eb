//! The life of a sandbox, as everybody but its owner sees it.
//!
//! ```text
//!            booted             stop asked, something died
//!  Booting ─────────► Running ────────────────────────────► Stopping ──► Stopped
//!     └──────────────── boot failed, stop asked ────────────────▲
//! ```

use std::{fmt, sync::Arc};

use super::error::SandboxError;

/// Where a sandbox is in its life.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Its virtual machine is being made.
    Booting,
    /// Its agent serves.
    Running {
        /// Process identifier of the hypervisor.
        pid: u32,
    },
    /// It is being taken apart; every process in it counts as ended.
    Stopping(Arc<Cause>),
    /// Nothing of it is left.
    Stopped(Arc<Cause>),
}

/// Why a sandbox ended.
#[derive(Debug)]
pub enum Cause {
    /// Somebody asked for it.
    Requested,
    /// It never came up.
    BootFailed(SandboxError),
    /// The hypervisor ended by itself.
    HypervisorEnded(String),
    /// The file server ended.
    FileServerEnded(String),
    /// The connection to the agent broke, or it stopped answering.
    AgentLost(String),
}

impl Cause {
    /// Exit status of every process that was alive in the sandbox.
    pub fn exit_status(&self) -> u32 {
        match self {
            Self::Requested => 128 + libc::SIGKILL as u32,
            _ => 255,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("was stopped"),
            Self::BootFailed(error) => write!(f, "did not start: {}", osc_agent_protocol::kind::chain(error)),
            Self::HypervisorEnded(how) => write!(f, "has ended: its hypervisor ended ({how})"),
            Self::FileServerEnded(how) => write!(f, "has ended: its file server ended ({how})"),
            Self::AgentLost(how) => write!(f, "has ended: its agent was lost ({how})"),
        }
    }
}

impl Phase {
    /// The hypervisor, while it runs.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Running { pid } => Some(*pid),
            _ => None,
        }
    }

    /// Why it ended, once it has.
    pub fn cause(&self) -> Option<&Arc<Cause>> {
        match self {
            Self::Stopping(cause) | Self::Stopped(cause) => Some(cause),
            _ => None,
        }
    }

    /// Whether the next phase may follow this one: phases only go forward.
    pub(super) fn may_become(&self, next: &Self) -> bool {
        self.rank() < next.rank()
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Booting => 0,
            Self::Running { .. } => 1,
            Self::Stopping(_) => 2,
            Self::Stopped(_) => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_go_forward() {
        let cause = || Arc::new(Cause::Requested);
        let all = [Phase::Booting, Phase::Running { pid: 1 }, Phase::Stopping(cause()), Phase::Stopped(cause())];
        for (i, from) in all.iter().enumerate() {
            for (j, to) in all.iter().enumerate() {
                assert_eq!(from.may_become(to), i < j, "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn only_a_wanted_end_looks_like_a_kill() {
        assert_eq!(Cause::Requested.exit_status(), 137);
        assert_eq!(Cause::HypervisorEnded("signal 9".into()).exit_status(), 255);
        assert_eq!(Cause::AgentLost("reset".into()).exit_status(), 255);
    }
}
