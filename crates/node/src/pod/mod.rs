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

mod cgroup;
mod check;
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
mod problem;
mod quantity;
mod record;
mod resources;
mod supervise;
mod volumes;

pub use error::PodError;
pub use manifest::Manifest;
pub use next::{Attempt, Phase, Sandbox, Seen, State};
pub use pods::{Pods, Summary, forget_all};
pub use problem::{ManifestError, Problem};
pub use record::{Hold, Record, Store};
pub use resources::{Qos, qos};
pub use supervise::{Event, Goal, Supervisor};
