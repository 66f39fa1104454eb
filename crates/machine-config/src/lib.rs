//! Node configuration compatible with OpenShift's Machine Config Operator: a
//! controller for the cluster and a daemon for every node.
//!
//! On OpenShift the platform has both, and ours must never run there. Everywhere
//! else they read and write the same objects, labels, annotations and conditions:
//! clients cannot tell the difference, except that a change takes seconds. A node
//! is not restarted unless kernel arguments change; its engine is, and its pods
//! go on.
//!
//! ```text
//!  MachineConfig ─┐                       ┌─► desiredConfig of a node ─► daemon
//!  pool ──────────┼─► render ─► rollout ──┤                                │
//!  node ──────────┘      (controller)     └─► conditions of the pool ◄─────┘
//! ```

pub mod controller;
pub mod daemon;
pub mod ignition;
pub mod names;
pub mod payload;
pub mod pools;
pub mod reconcile;
pub mod render;
pub mod rights;
pub mod selector;
pub mod spec;
