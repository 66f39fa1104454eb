//! Pools: which node belongs to which, who is updated next, and what to report.
//!
//! Everything here is a pure function of what was read from the API.
//!
//! ```text
//! nodes ──► NodeView ──owner──► pool ──┬── rollout::next ──► nodes to start now
//!                                      └── status::compute ──► counts, conditions
//! ```

mod member;
mod node;
pub mod rollout;
pub mod status;

pub use member::{Membership, PoolView, custom, owner};
pub use node::{NodeView, State};

#[cfg(test)]
pub(crate) mod testing;
