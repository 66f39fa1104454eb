//! Kernel modules a sandbox asks for.

use std::{process::Command, time::Duration};

use osc_agent_protocol::agent::KernelModule;

use super::{Result, SandboxError};
use crate::{boot::SEARCH_PATH, container::reaper::Reaper};

const MODPROBE: &str = "/sbin/modprobe";
/// Longest time one module and those it needs may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Loads the modules in order.
pub(super) async fn load_all(reaper: &Reaper, modules: &[KernelModule]) -> Result<()> {
    for module in modules {
        load(reaper, module).await?;
    }
    Ok(())
}

async fn load(reaper: &Reaper, module: &KernelModule) -> Result<()> {
    let name = || module.name.clone();
    // A name that looks like an option would be one.
    if module.name.is_empty() || module.name.starts_with('-') {
        return Err(SandboxError::Module { name: name(), said: "that is not the name of a module".into() });
    }
    let mut command = Command::new(MODPROBE);
    command.arg("-v").arg(&module.name).args(&module.parameters).env_clear().env("PATH", SEARCH_PATH);
    let finished = reaper.run(command, &[], PATIENCE).await;
    let finished = finished.map_err(|source| SandboxError::Modprobe { name: name(), source })?;
    if finished.status == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&finished.stderr).trim().chars().take(500).collect();
    Err(SandboxError::Module { name: name(), said })
}
