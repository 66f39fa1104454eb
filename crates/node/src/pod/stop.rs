//! Ending containers: hooks, signals, grace.

use std::{net::IpAddr, time::Duration};

use osc_agent_protocol::kind::chain;

use super::{
    error::PodError,
    model::{Hook, Pod},
    next::{Attempt, Seen, State},
    probe::http_get,
};
use crate::cri::Client;

/// A hook may take this long.
const HOOK: Duration = Duration::from_secs(60);

/// Stops all running containers, sidecars after all others.
///
/// # Errors
/// When the engine refuses.
pub async fn all(
    client: &Client,
    seen: &Seen,
    pod: Option<&Pod>,
    address: Option<IpAddr>,
    grace: Duration,
) -> Result<(), PodError> {
    let begun = tokio::time::Instant::now();
    let is_sidecar = |name: &str| pod.and_then(|pod| pod.container(name)).is_some_and(|c| c.sidecar);
    for sidecars in [false, true] {
        let left = grace.saturating_sub(begun.elapsed());
        let running = seen
            .containers
            .iter()
            .filter(|(name, attempt)| attempt.state == State::Running && is_sidecar(name) == sidecars);
        let stops = running.map(|(name, attempt)| {
            let hook = pod.and_then(|pod| pod.container(name)).and_then(|container| container.pre_stop.as_ref());
            one(client, attempt, hook, address, left)
        });
        for result in futures::future::join_all(stops).await {
            result?;
        }
    }
    Ok(())
}

/// Stops one container. The hook's time counts against the grace, as in
/// Kubernetes.
///
/// # Errors
/// When the engine refuses.
pub async fn one(
    client: &Client,
    attempt: &Attempt,
    hook: Option<&Hook>,
    address: Option<IpAddr>,
    grace: Duration,
) -> Result<(), PodError> {
    let begun = tokio::time::Instant::now();
    // Without any time there is none for the hook.
    if let Some(hook) = hook.filter(|_| !grace.is_zero()) {
        match tokio::time::timeout(grace, run_hook(client, &attempt.id, hook, address)).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::warn!(container.id = attempt.id, reason, "preStop hook failed"),
            Err(_) => tracing::warn!(container.id = attempt.id, "preStop hook takes too long"),
        }
    }
    let left = grace.saturating_sub(begun.elapsed());
    match client.stop_container(&attempt.id, left).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs a hook; the reason if it failed.
pub async fn run_hook(client: &Client, id: &str, hook: &Hook, address: Option<IpAddr>) -> Result<(), String> {
    match (hook, address) {
        (Hook::Sleep(span), _) => {
            tokio::time::sleep(*span).await;
            Ok(())
        }
        (Hook::Exec(command), _) => match client.exec_sync(id, command.clone(), HOOK).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => Err(format!("exit code {}", answer.exit_code)),
            Err(error) => Err(chain(&error)),
        },
        (Hook::Http(get), Some(address)) => {
            let silent = |_| Err(format!("no answer within {HOOK:?}"));
            tokio::time::timeout(HOOK, http_get(get, address)).await.unwrap_or_else(silent)
        }
        (Hook::Http(_), None) => Err("the pod has no address".into()),
    }
}
