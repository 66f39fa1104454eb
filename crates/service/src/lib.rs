//! What every program of a cluster needs that stays: of several replicas one acts, it
//! tells how it is, it logs, and it ends when it is told to.
//!
//! ```text
//!  SIGTERM ─► stop ─► Leader::lead(work) ─► release
//!                         │
//!                  Tells ─┴─► /metrics /healthz /readyz
//! ```

pub mod exposition;
pub mod leader;
pub mod program;
pub mod web;
