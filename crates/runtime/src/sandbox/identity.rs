//! Processes that outlive whoever started them, named so that a number that was
//! used again is never mistaken for them.

use std::{
    fs, io,
    os::fd::AsFd,
    sync::atomic::{AtomicU32, Ordering},
};

use serde::{Deserialize, Serialize};

use super::sys;
use crate::deadline::Deadline;

/// A process number together with when that process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pid: u32,
    /// Clock ticks since the host booted: field 22 of `/proc/<pid>/stat`.
    started: u64,
}

impl Identity {
    /// The process that has the number `pid` now.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, started: start_time(pid)? })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether this very process still runs; one that is dead but not reaped
    /// does not.
    pub fn alive(&self) -> bool {
        start_time(self.pid).is_ok_and(|started| started == self.started)
    }

    /// Kills the process and waits until it is gone. Success when it already is.
    ///
    /// # Errors
    /// When it cannot be signalled or does not go in time (uninterruptible I/O).
    pub async fn kill(&self, by: Deadline) -> io::Result<()> {
        let pidfd = match sys::pidfd_open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            Err(error) => return Err(error),
        };
        // Checked after the descriptor was opened: from here on the number
        // cannot change its owner unnoticed.
        if !self.alive() {
            return Ok(());
        }
        match sys::pidfd_kill(pidfd.as_fd()) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
            _ => {}
        }
        let gone = sys::watch(pidfd)?;
        match by.run(gone.readable()).await {
            Ok(ready) => ready.map(drop),
            Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
        }
    }
}

fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "unexpected format of /proc/<pid>/stat");
    let (_, fields) = stat.rsplit_once(')').ok_or_else(odd)?;
    let mut fields = fields.split_whitespace();
    match fields.next() {
        Some("Z" | "X") => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        Some(_) => fields.nth(18).and_then(|ticks| ticks.parse().ok()).ok_or_else(odd),
        None => Err(odd()),
    }
}

/// Number of a process of the sandbox, which may be started anew while it boots.
#[derive(Debug, Default)]
pub(super) struct LatestPid(AtomicU32);

impl LatestPid {
    /// The number, once there was such a process.
    pub fn get(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }

    /// From now on it is this one.
    pub fn set(&self, pid: u32) {
        self.0.store(pid, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::*;

    #[tokio::test]
    async fn only_the_same_process_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        let impostor = Identity { started: identity.started + 1, ..identity };
        impostor.kill(Deadline::after(Duration::from_secs(5))).await.unwrap();
        assert!(identity.alive(), "a process with another start time must be spared");
        identity.kill(Deadline::after(Duration::from_secs(5))).await.unwrap();
        assert!(!identity.alive());
        child.wait().unwrap();
        identity.kill(Deadline::after(Duration::from_secs(5))).await.unwrap();
    }
}
