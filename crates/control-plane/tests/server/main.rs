//! The API server as its clients see it: over TLS, in process, with kubectl and kube-rs, and when it is killed.
#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod bodies;
mod common;
mod crds;
mod crowds;
mod durability;
mod full_disk;
mod hostile;
mod identities;
mod kube_rs;
mod kubectl;
mod objects;
mod process;
mod quotas;
mod streams;
mod watching;
mod websocket;
mod wire;
