//! What the host may want to know before it relies on it.

use std::{fs, path::Path};

use osc_agent_protocol::agent::{AgentDetails, GuestDetailsRequest, GuestDetailsResponse};

use super::{GuestError, Result, read};
use crate::{device, storage};

const MEMORY: &str = "sys/devices/system/memory";

/// Answers the questions of the request; `init` says whether the agent is the
/// guest's first process.
///
/// # Errors
/// [`GuestError`] when the kernel's answer cannot be read.
pub fn details(request: &GuestDetailsRequest, init: bool) -> Result<GuestDetailsResponse> {
    let memory = Path::new("/").join(MEMORY);
    let mut response = GuestDetailsResponse::new();
    if request.mem_block_size {
        response.mem_block_size_bytes = block_size(&memory)?;
    }
    response.support_mem_hotplug_probe = request.mem_hotplug_probe && memory.join("probe").exists();
    response.agent_details = Some(AgentDetails {
        version: env!("CARGO_PKG_VERSION").into(),
        init_daemon: init,
        device_handlers: device::TYPES.iter().map(|name| (*name).to_owned()).collect(),
        storage_handlers: storage::DRIVERS.iter().map(|name| (*name).to_owned()).collect(),
        supports_seccomp: fs::exists("/proc/sys/kernel/seccomp").unwrap_or(false),
        ..Default::default()
    })
    .into();
    Ok(response)
}

/// Size of the unit in which memory can be plugged; 0 where it cannot.
fn block_size(memory: &Path) -> Result<u64> {
    let path = memory.join("block_size_bytes");
    if !path.exists() {
        return Ok(0);
    }
    let text = read(&path)?;
    u64::from_str_radix(text.trim(), 16).map_err(|_| GuestError::Invalid {
        field: "block_size_bytes",
        value: text,
        wanted: "the kernel should give a hexadecimal number",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_size_is_hexadecimal() {
        let dir = std::env::temp_dir().join(format!("agent-details-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(block_size(&dir).unwrap(), 0);
        fs::write(dir.join("block_size_bytes"), "8000000\n").unwrap();
        assert_eq!(block_size(&dir).unwrap(), 128 << 20);
        fs::write(dir.join("block_size_bytes"), "what").unwrap();
        assert!(block_size(&dir).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
