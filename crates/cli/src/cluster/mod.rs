//! The embedded cluster of this root: `osc up`, `osc status`, and its part of
//! `osc down`.
//!
//! ```text
//!  osc up ──starts──► osc serve ── control plane ── controllers, operator
//!     │                   │             └──────────── node agents, daemons ─► one engine each
//!     └── waits for ──────┘ instance file, locked while the process lives
//! ```
//!
//! One process is the whole cluster; each node has an engine of its own beside it.
//! Ending the process ends no pod: the next `osc up` finds objects in the store and
//! pods in the engines.

mod access;
mod instance;
mod join;
pub mod layout;
mod nodes;
mod owner;
mod rollout;
mod sandboxing;
mod serve;
pub mod status;
pub mod stop;
mod up;

pub use serve::Serve;
pub use up::Up;
