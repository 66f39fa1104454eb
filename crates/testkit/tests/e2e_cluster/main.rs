//! One machine is enough: `osc up`, stock kubectl, pods with and without sandboxes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod clients;
mod commands;
mod delivery;
mod kataconfig;
mod lives;
mod manifests;
mod node_root;
mod streams;
