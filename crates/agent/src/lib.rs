//! The service inside a guest: it makes the sandbox a pod's containers live in
//! and serves the host runtime over ttrpc.
//!
//! ```text
//!   host runtime ── vsock 1024 ──► rpc ──┬─► sandbox ── storage, device, network
//!                                        ├─► container (own process: `kata-agent init`)
//!                                        └─► guest state: files, metrics, hot-plug, clock
//! ```
//!
//! As process 1 of the guest the agent first prepares the machine (`boot`);
//! started by anything else it only serves. Attackers it faces: workloads, which
//! control everything below their root file systems and volumes, and the host,
//! which is trusted to run the guest but whose messages are still bounded and
//! checked.

pub mod boot;
pub mod config;
mod console;
pub mod container;
pub mod device;
pub mod guest;
pub mod log;
pub mod metrics;
pub mod network;
mod relay;
pub mod rpc;
mod run;
pub mod sandbox;
pub mod storage;
mod sys;

pub use run::{RunError, run};
