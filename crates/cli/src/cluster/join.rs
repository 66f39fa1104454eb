//! Asking a running cluster for more nodes.
//!
//! ```text
//!  osc up ── writes how many, sends SIGHUP ──► osc serve: takes the request, adds nodes
//!     └────── waits: request taken, nodes there or a failure told ◄── instance file
//! ```

use std::{fs, io::ErrorKind, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use osc_agent_protocol::Kind;
use osc_runtime::deadline::Deadline;

use super::{instance::Instance, layout::Layout};
use crate::{Failure, progress::Progress};

/// How long nodes may take to join.
const LIMIT: Duration = Duration::from_secs(120);
/// How often the instance file is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Has the cluster, which is `instance` now, grow to `nodes`; what it is then.
///
/// # Errors
/// When a node does not join; the others do, and asking again goes on.
pub(super) async fn ask(
    layout: &Layout,
    mut instance: Instance,
    nodes: u32,
    progress: &Progress,
) -> Result<Instance, Failure> {
    if instance.nodes.len() >= nodes as usize {
        return Ok(instance);
    }
    let request = layout.wanted_nodes();
    let fresh = request.with_extension("new");
    fs::write(&fresh, nodes.to_string())?;
    fs::rename(&fresh, &request)?;
    // The lock was held by that very process a moment ago.
    kill(Pid::from_raw(instance.pid), Signal::SIGHUP).map_err(std::io::Error::from)?;
    let by = Deadline::after(LIMIT);
    loop {
        let Some(seen) = Instance::running(&layout.instance()) else {
            let text = format!("the cluster ended while it grew: see {}", layout.log().display());
            return Err(Failure::new(Kind::Unavailable, text));
        };
        if seen.joining != instance.joining && !seen.joining.is_empty() {
            progress.step(&seen.joining);
        }
        instance = seen;
        // Before the request is taken, what is told is about an older one.
        let answered = !request.exists() && instance.joining.is_empty();
        if answered && instance.nodes.len() >= nodes as usize {
            return Ok(instance);
        }
        if answered && !instance.failed.is_empty() {
            let text = format!("the cluster did not grow: {} (more in {})", instance.failed, layout.log().display());
            return Err(Failure::new(Kind::Unavailable, text));
        }
        if by.passed() {
            let text = format!("the cluster has not grown after {LIMIT:?}: see {}", layout.log().display());
            return Err(Failure::new(Kind::Timeout, text));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The request, which is then taken: how many nodes there shall be.
pub(super) fn take(layout: &Layout) -> Option<u32> {
    let request = layout.wanted_nodes();
    let wanted = fs::read_to_string(&request).ok()?.trim().parse().ok();
    forget(layout);
    wanted
}

/// Drops a request nobody took: who made it is gone.
pub(super) fn forget(layout: &Layout) {
    match fs::remove_file(layout.wanted_nodes()) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(error = %error, "the request for nodes stays");
        }
        _ => {}
    }
}
