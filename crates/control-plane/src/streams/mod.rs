//! Logs, exec, attach and port-forward: what only the pod's node can give.
//!
//! ```text
//!  client ══ upgraded connection ══ here ══ upgraded connection ══ streaming server of the runtime
//!                                     └ asks the node (NodeAccess) where that is, then copies bytes
//! ```
//!
//! The runtime speaks SPDY and the older WebSocket subprotocols. What it does not
//! speak is answered with 400, upon which `kubectl` falls back to SPDY.

mod log;
mod node;
mod options;
mod splice;

pub(crate) use log::log;
pub use node::{ByteStream, NodeAccess, NodeError, Nodes};
pub use options::{ExecOptions, LogOptions};
pub(crate) use splice::upgrade;
