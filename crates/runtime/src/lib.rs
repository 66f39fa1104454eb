//! One sandbox on the host: its configuration, its virtual machine, what is
//! shared into it, its network, and the life of the containers inside.
//!
//! Nothing here knows a container engine (see `osc-shim`) or Kubernetes types.

pub mod config;
pub mod deadline;
pub mod dirs;
mod file;
pub mod id;
pub mod lines;
pub mod network;
pub mod qemu;
pub mod sandbox;
pub mod share;
pub mod socket;
pub mod spec;
pub mod template;
pub mod vsock;
