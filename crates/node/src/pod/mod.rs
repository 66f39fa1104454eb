//! Pods: from a manifest to running containers and back to nothing.
//!
//! ```text
//! Manifest ─check─► model::Pod ─admit─► Record on disk
//!                                          │
//!            ┌── observe ◄── engine ◄── supervise ──► config ──► engine
//!            └──► next (pure) ─────────────┘
//! ```
//!
//! A record is written before anything is made and removed after everything is
//! gone; everything made is named after the pod's identity. So any process can
//! take over a pod from any other, dead or alive.

mod auth;
mod cgroup;
mod check;
pub mod cluster;
pub mod config;
mod dns;
mod env;
mod error;
mod fields;
mod images;
mod manifest;
pub mod model;
mod next;
mod observe;
mod pods;
pub mod probe;
mod problem;
mod quantity;
mod record;
mod resources;
mod stop;
mod supervise;
mod volumes;

pub(crate) use dns::host_resolvers;
pub use error::PodError;
pub use manifest::Manifest;
pub use next::{Attempt, Detail, Phase, Sandbox, Seen, State, back_off, pause, policy};
pub use pods::{Pods, Summary, forget_all};
pub use problem::{ManifestError, Problem};
pub use record::{Hold, Record, Store};
pub use resources::{KATA_OVERHEAD, Qos, machine_cpus, machine_memory, pod_requests, qos};
pub use supervise::{Event, Goal, Journal, Membership, Note, Report, Supervisor};
