//! Hooks that run inside the container's namespaces.

use std::{
    fs, io,
    io::Write,
    os::fd::AsFd,
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use osc_agent_protocol::oci;

use super::{Result, SetupError};
use crate::container::{
    hooks::{self, Stage, State},
    sys,
    wire::Header,
};

/// Runs the hooks of a stage, one after the other; the first failure ends it.
pub fn run_all(header: &Header, spec: &oci::Spec, stage: Stage, status: &'static str) -> Result<()> {
    for hook in stage.of(spec) {
        let state = State::new(&header.id, status, outside_pid(), &header.bundle, spec);
        let failed = |reason: String| SetupError::from(hooks::failure(stage, hook, reason));
        let ended = run(hook, &state.json()).map_err(|error| failed(error.to_string()))?;
        if !ended.success() {
            return Err(failed(ended.to_string()));
        }
    }
    Ok(())
}

/// Our id where hooks would look for it; 0, which is left out, once /proc is the
/// container's.
fn outside_pid() -> i32 {
    let name = fs::read_link("/proc/self").ok();
    name.and_then(|name| name.to_str()?.parse().ok()).filter(|pid| *pid != 1).unwrap_or(0)
}

fn run(hook: &oci::Hook, state: &[u8]) -> io::Result<ExitStatus> {
    let mut command = hooks::command(hook);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // The state fits into a pipe; a hook that does not read it is no failure.
        let _ = stdin.write_all(state);
    }
    if ended_within(&child, hooks::limit(hook))? {
        return child.wait();
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("still running after {:?}", hooks::limit(hook))))
}

fn ended_within(child: &Child, limit: Duration) -> io::Result<bool> {
    let pidfd = sys::pidfd_open(child.id() as i32)?;
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
