//! The node daemon: makes its node what its desired configuration says.
//!
//! ```text
//!  Node.desiredConfig ─┐
//!  managed files ──────┼─► next (pure) ─► adopt, update, report, rest
//!  record, payload ────┘                     │
//!                  prepare ─► drain? ─► journal ─► entries ─► services ─► record ─► Done
//! ```
//!
//! All paths are below a root directory, so that several nodes can live side by
//! side on one machine.
//!
//! Who embeds a daemon beside a containerd of its own gives that containerd
//! - `imports = ["<root>/etc/containerd/conf.d/*.toml"]` in its configuration, and
//!   the daemon that configuration as [`Engine::Containerd`]: without the import the
//!   daemon would edit a file that is written anew at every start;
//! - `<root>/usr/local/bin` first in its `PATH`: not every release obeys
//!   `runtime_path`;
//! - no runtime `kata` of its own, and a restart by [`Embedded`].

pub mod actions;
pub mod drift;
pub mod engine;
pub mod host;
pub mod journal;
mod metrics;
mod next;
mod node;
mod plan;
pub(crate) mod policy;
pub mod record;
mod registries;
pub mod rules;
mod serve;
mod sys;
pub mod update;
mod wanted;
mod watch;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub use actions::{ActionError, Embedded, EngineAnswer, NodeActions, Systemd, Verb};
pub use engine::Engine;
pub use serve::{RunError, run};
pub use wanted::Capabilities;

/// Settings of one daemon.
#[derive(Clone)]
pub struct Options {
    /// Name of the node.
    pub node: String,
    /// Prefix of every path of the node; `/` on a real one.
    pub root: PathBuf,
    /// Directory of a packed payload; none: this node cannot run sandboxes.
    pub payload: Option<PathBuf>,
    /// The engine; none: found by what is installed.
    pub engine: Option<Engine>,
    /// Rules that override the built-in ones.
    pub rules: Vec<rules::Rule>,
    /// What the node does for the daemon.
    pub actions: Arc<dyn NodeActions>,
    /// First delay after a failure; it doubles.
    pub retry: Duration,
    /// Where metrics and health are served.
    pub metrics: Option<SocketAddr>,
}

impl Options {
    /// Settings of a real node.
    pub fn node(name: impl Into<String>, actions: Arc<dyn NodeActions>) -> Self {
        Self {
            node: name.into(),
            root: "/".into(),
            payload: None,
            engine: None,
            rules: Vec::new(),
            actions,
            retry: Duration::from_secs(1),
            metrics: None,
        }
    }
}

/// A point between two steps; tests end the process here.
#[cfg(not(test))]
pub(crate) fn step() {}

#[cfg(test)]
pub(crate) use testing::step;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
