//! Containers as they really run: a busybox root file system, real namespaces
//! and control groups. Needs root.

#![allow(clippy::unwrap_used, missing_docs, reason = "a failed unwrap is a failed test")]

mod exec;
mod filesystem;
mod hooks;
mod identity;
mod lifecycle;
mod resources;
mod sharing;
mod signals;
mod streams;
mod support;
