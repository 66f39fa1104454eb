//! The contract between a host runtime and the agent inside a guest.
//!
//! Messages and services are those of Kata Containers' agent protocol
//! (`grpc.AgentService`, `grpc.Health`), carried by ttrpc over a stream socket,
//! so that either side may be replaced by the upstream one. The crate holds
//! messages, framing limits, names both sides agree on and the error kinds that
//! cross the guest boundary; it never decides anything.

pub mod kind;
pub mod names;

pub use kind::Kind;

#[allow(missing_docs, unsafe_code, clippy::all, clippy::pedantic, clippy::unwrap_used)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::{agent, agent_ttrpc, csi, health, health_ttrpc, oci, types};

/// Most bytes one ttrpc frame may carry; the same limit holds on both sides.
pub const MAX_FRAME: usize = 4 << 20;
