//! The packet filter, by way of the programs that know its formats.

use std::{io, path::Path, process::Command, time::Duration};

use super::{NetworkError, Result};
use crate::{
    boot::SEARCH_PATH,
    container::reaper::{Finished, Reaper},
};

/// Longest time either program may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds the programs themselves wait for each other's lock.
const LOCK_WAIT: &str = "5";
/// Directories the programs may be in, in this order.
const DIRECTORIES: [&str; 4] = ["/sbin", "/usr/sbin", "/bin", "/usr/bin"];

pub(super) async fn save(reaper: &Reaper, ipv6: bool) -> Result<Vec<u8>> {
    let program = if ipv6 { "ip6tables-save" } else { "iptables-save" };
    Ok(run(reaper, program, &[], &[]).await?.stdout)
}

pub(super) async fn restore(reaper: &Reaper, ipv6: bool, rules: &[u8]) -> Result<Vec<u8>> {
    let program = if ipv6 { "ip6tables-restore" } else { "iptables-restore" };
    Ok(run(reaper, program, &["--wait", LOCK_WAIT], rules).await?.stdout)
}

async fn run(reaper: &Reaper, program: &'static str, arguments: &[&str], input: &[u8]) -> Result<Finished> {
    let path = DIRECTORIES.iter().map(|directory| Path::new(directory).join(program)).find(|path| path.exists());
    let mut command = Command::new(path.ok_or(NetworkError::NoProgram { program })?);
    command.args(arguments).env_clear().env("PATH", SEARCH_PATH);
    let finished =
        reaper.run(command, input, PATIENCE).await.map_err(|source| NetworkError::Run { program, source })?;
    if finished.status != 0 {
        let said = String::from_utf8_lossy(&finished.stderr).trim().chars().take(500).collect();
        return Err(NetworkError::Program { program, status: finished.status, said });
    }
    // Half a rule set must not be mistaken for a whole one.
    if finished.stdout.len() >= crate::container::reaper::OUTPUT_KEPT {
        return Err(NetworkError::Run { program, source: io::ErrorKind::FileTooLarge.into() });
    }
    Ok(finished)
}
