//! What the end-to-end tests stand on: a private container engine with our
//! shim, commands with deadlines, and proof that nothing is left behind.
//!
//! Never shipped. Tests need root and what `make build` makes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

pub mod bare;
pub mod cluster;
pub mod command;
pub mod guest;
pub mod host;
pub mod kubectl;
pub mod leftovers;
pub mod pod;
pub mod processes;
pub mod templates;
pub mod terminal;
