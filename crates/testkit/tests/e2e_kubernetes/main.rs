//! The end-to-end suite against a real Kubernetes 1.20.2: its API server and etcd, its
//! controllers, its scheduler, its kubelets. `make e2e-kubernetes`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Instant;

mod clients;
#[allow(dead_code, reason = "nobody serves services here")]
#[path = "../e2e_cluster/commands.rs"]
mod commands;
mod delivery;
mod installation;
mod kata_config;
mod kubernetes;
#[allow(dead_code, reason = "as above")]
#[path = "../e2e_cluster/manifests.rs"]
mod manifests;
#[path = "../e2e_cluster/streams.rs"]
mod streams;
mod writes;

/// Does a step, and says for the summary at the end that it was done.
#[track_caller]
fn show<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = step();
    println!("shown: {what:<66} {:>6.1}", began.elapsed().as_secs_f64());
    done
}
