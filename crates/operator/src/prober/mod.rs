//! Which nodes can run sandboxes, where nobody else says so.
//!
//! ```text
//!  pod on each node:  ask ──► verdict ──► readiness of the pod (kubelet)
//!                                               │ watch
//!  operator:                       mark ──► label on the node
//! ```
//!
//! The label, `feature.node.kubernetes.io/runtime.kata=true`, is the one node feature
//! discovery sets. A prober talks to nobody: its verdict is the readiness of its pod, and
//! the kubelet of a node can report only on pods of that node. So probers need no rights,
//! and whoever takes over a node can lie about that node alone.

mod ask;
mod mark;

pub use ask::Prober;
pub(crate) use mark::mark_always;

/// Label of the probers' pods, and name of their DaemonSet and container.
pub(crate) const PROBER: &str = "sandboxed-containers-prober";
/// Path that answers once there is a verdict.
pub(crate) const STARTED: &str = "/startedz";
/// Path that answers where sandboxes can run.
pub(crate) const READY: &str = "/readyz";
