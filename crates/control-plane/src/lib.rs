//! The embedded Kubernetes API server.
//!
//! ```text
//!  TLS ── server ─┐
//!                 ├─► api ─► request ─► handlers ─► write ─► admission ─► store
//!  in-process ────┘    │                  │  └► streams ─► node agents
//!                      └─ access          └► render, discovery, openapi ◄─ resources ◄─ crds
//! ```
//!
//! [`ControlPlane::open`] starts everything; stock clients come in over TLS,
//! parts of the same process through [`ControlPlane::service`]. Objects are JSON
//! values from the body of the request to the bytes in the store; what a kind is
//! comes from `osc-api` or from its CustomResourceDefinition.

pub mod admission;
mod api;
mod bootstrap;
mod call;
mod config;
mod crds;
mod discovery;
mod handlers;
mod health;
mod kinds;
mod load;
mod metrics;
mod objects;
mod openapi;
mod paths;
mod plane;
mod quota;
mod reader;
mod render;
pub mod request;
pub mod resources;
mod response;
mod rights;
mod server;
mod services;
pub mod streams;
mod write;

pub use config::Config;
pub use plane::{ControlPlane, StartError};
pub use reader::Reader;
pub use response::Body;
pub use server::{InProcess, Limits};
pub use services::Network;
