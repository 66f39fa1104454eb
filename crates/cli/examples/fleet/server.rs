//! The API server, and what it counted.

use std::path::Path;

use anyhow::Result;
use kube::Client;
use osc_control_plane::{Config, ControlPlane};

use crate::process;

/// Serves until the parent ends.
pub(crate) async fn run(directory: &Path) -> Result<()> {
    let plane = ControlPlane::open(Config::new(directory.join("plane"))).await?;
    let access = process::kubeconfig(directory);
    // In one step: who waits for it reads it.
    std::fs::write(access.with_extension("new"), plane.administrator()?)?;
    std::fs::rename(access.with_extension("new"), access)?;
    process::until_parent_ends().cancelled().await;
    plane.shutdown().await;
    Ok(())
}

/// Requests answered so far.
pub(crate) async fn requests(client: &Client) -> Result<u64> {
    let text = client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let counts = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}
