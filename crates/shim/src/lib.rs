//! The face a sandbox shows to container engines: containerd's shim protocol,
//! version 2 (one process per pod, ttrpc over a Unix socket, events pushed back).
//!
//! ```text
//!  engine ──start──► bootstrap ──re-exec──► daemon: service ──► osc_runtime::sandbox
//!     ▲                                        │ ▲
//!     └────────────── events ◄─────────────────┘ └── io: pipes of the engine ⇄ agent
//! ```
//!
//! What a sandbox is and does is decided in `osc-runtime`; this crate translates.

pub mod args;
pub mod bootstrap;
pub mod error;
pub mod events;
pub mod io;
pub mod logging;
pub mod options;
pub mod service;
pub mod sys;
