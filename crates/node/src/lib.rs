//! Runs Kubernetes Pods on one machine through the container runtime interface.
//!
//! ```text
//!  manifest ──► pod::check ──► record (intent on disk) ──► supervise
//!                                                             │ CRI
//!                              engine (private containerd) ◄──┘
//!                                 │ shim v2: kata or runc
//! ```
//!
//! `agent` makes the machine a node of a cluster: then objects of the API come in
//! instead of manifests, and take the same way.
//!
//! `engine` owns a containerd that shares nothing with any other on the machine.
//! `cri` talks to it, `stream` carries terminals, `pod` turns manifests into
//! calls and keeps them true until the pod is deleted, `logs` reads what the
//! containers wrote, `proxy` leads connections to Services to pods, `names` says where
//! they are.

pub mod agent;
pub mod cri;
pub mod engine;
pub mod logs;
pub mod names;
pub mod pod;
pub mod proxy;
pub mod stream;
