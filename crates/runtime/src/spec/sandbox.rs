//! What the agent needs to know about the sandbox as a whole.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use oci_spec::runtime::{Mount, Spec};
use osc_agent_protocol::{agent::Storage, names};

use super::load::{SpecError, read_bounded};

/// Where the guest mounts the memory its containers share as `/dev/shm`.
pub const SHM_MOUNT_POINT: &str = "/run/kata-containers/sandbox/shm";
/// Size of `/dev/shm` when nobody says otherwise.
const DEFAULT_SHM: u64 = 64 << 20;
/// The kernel takes no longer host name.
const MAX_HOSTNAME: usize = 64;
/// More than any resolver reads.
const MAX_RESOLV_CONF: u64 = 64 << 10;

/// Host name of the sandbox, cut to what a kernel accepts.
pub fn hostname(spec: &Spec) -> String {
    let name = spec.hostname().as_deref().unwrap_or_default();
    let mut end = name.len().min(MAX_HOSTNAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// Lines of the file the engine mounts at `/etc/resolv.conf`; none without such a mount.
/// Blocking.
///
/// # Errors
/// A file that is mounted but cannot be read.
pub fn dns(spec: &Spec) -> Result<Vec<String>, SpecError> {
    let Some(mount) = mount_at(spec, "/etc/resolv.conf") else { return Ok(Vec::new()) };
    let Some(source) = mount.source() else { return Ok(Vec::new()) };
    let text = read_bounded(source, MAX_RESOLV_CONF)?;
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

/// Bytes of shared memory the containers of this sandbox get: the size of the mount the
/// engine made for it, 64 MiB otherwise. Blocking.
pub fn shm_size(spec: &Spec) -> u64 {
    let Some(mount) = mount_at(spec, "/dev/shm") else { return DEFAULT_SHM };
    let options = mount.options().as_deref().unwrap_or_default();
    if let Some(size) = options.iter().find_map(|option| bytes(option.strip_prefix("size=")?)) {
        return size;
    }
    if mount.typ().as_deref() == Some("tmpfs") {
        return DEFAULT_SHM;
    }
    let size = mount.source().as_deref().and_then(host_size).filter(|size| *size > 0);
    size.unwrap_or(DEFAULT_SHM)
}

fn host_size(path: &Path) -> Option<u64> {
    // A plain directory would give the size of the disk it is on.
    const DEV_SHM_AT_MOST: u64 = 1 << 40;
    let stat = statvfs(path).ok()?;
    Some(stat.blocks().saturating_mul(stat.fragment_size())).filter(|size| *size <= DEV_SHM_AT_MOST)
}

/// A tmpfs size: bytes, or with a unit.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match &text[digits..] {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift).filter(|size| *size > 0)
}

fn mount_at<'s>(spec: &'s Spec, destination: &str) -> Option<&'s Mount> {
    // Later mounts cover earlier ones.
    spec.mounts().iter().flatten().rfind(|mount| mount.destination() == Path::new(destination))
}

/// What the agent mounts when the sandbox is created: the shared tree and shared memory.
pub fn sandbox_storages(shm_size: u64) -> Vec<Storage> {
    let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let share = Storage {
        driver: names::storage::VIRTIO_FS.to_owned(),
        source: names::SHARE_TAG.to_owned(),
        fstype: "virtiofs".to_owned(),
        options: texts(&["nodev"]),
        mount_point: names::GUEST_SHARE_DIR.to_owned(),
        ..Storage::default()
    };
    let mut options: Vec<String> = texts(&["noexec", "nosuid", "nodev", "mode=1777"]);
    options.push(format!("size={shm_size}"));
    let shm = Storage {
        driver: names::storage::EPHEMERAL.to_owned(),
        source: "shm".to_owned(),
        fstype: "tmpfs".to_owned(),
        options,
        mount_point: SHM_MOUNT_POINT.to_owned(),
        ..Storage::default()
    };
    vec![share, shm]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mounts: &str) -> Spec {
        serde_json::from_str(&format!(r#"{{"ociVersion": "1.0.2", "hostname": "h", "mounts": [{mounts}]}}"#)).unwrap()
    }

    #[test]
    fn shared_memory_is_as_large_as_the_engine_made_it() {
        for (mount, want) in [
            (r#"{"destination": "/tmp", "type": "tmpfs", "options": ["size=1k"]}"#, DEFAULT_SHM),
            (r#"{"destination": "/dev/shm", "type": "tmpfs", "options": ["nosuid", "size=65536k"]}"#, 64 << 20),
            (r#"{"destination": "/dev/shm", "type": "tmpfs", "options": ["size=4096"]}"#, 4096),
            (r#"{"destination": "/dev/shm", "type": "tmpfs", "options": ["size=zero"]}"#, DEFAULT_SHM),
            (r#"{"destination": "/dev/shm", "type": "tmpfs"}"#, DEFAULT_SHM),
            (r#"{"destination": "/dev/shm", "type": "bind", "source": "/nonexistent"}"#, DEFAULT_SHM),
        ] {
            assert_eq!(shm_size(&spec(mount)), want, "{mount}");
        }
    }

    #[test]
    fn name_servers_come_from_the_mounted_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "search a.b\nnameserver 10.0.0.10\n").unwrap();
        let mount =
            format!(r#"{{"destination": "/etc/resolv.conf", "type": "bind", "source": "{}"}}"#, file.path().display());
        assert_eq!(dns(&spec(&mount)).unwrap(), ["search a.b", "nameserver 10.0.0.10"]);
        assert!(dns(&spec("")).unwrap().is_empty());
        drop(file);
        assert!(dns(&spec(&mount)).is_err());
    }

    #[test]
    fn long_host_names_are_cut_between_characters() {
        let mut spec = spec("");
        for (given, want) in [("web", 3), (&"a".repeat(70), 64), (&format!("{}é", "a".repeat(63)), 63)] {
            spec.set_hostname(Some((*given).to_owned()));
            assert_eq!(hostname(&spec).len(), want, "{given}");
        }
    }
}
