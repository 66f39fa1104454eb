//! The controller and the daemon against the embedded API server, in one process.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod changes;
mod drains;
mod kit;
mod nodes;
mod pools;
mod services;
mod settings;
mod tuning;
