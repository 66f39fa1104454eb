//! Ports, paths and driver names both sides agree on.

/// vsock port of the agent's ttrpc server.
pub const AGENT_PORT: u32 = 1024;
/// vsock port the agent serves its JSON log stream on, when asked to.
pub const LOG_PORT: u32 = 1025;
/// vsock port of the debug console, when enabled.
pub const DEBUG_CONSOLE_PORT: u32 = 1026;
/// vsock port of the relay into the pod's loopback addresses, for port-forward.
/// An extension: other agents do not serve it, and runtimes do without.
///
/// The host sends a TCP port, two bytes, most significant first. The guest answers
/// [`RELAY_CONNECTED`] once something of the pod took the connection, after which
/// bytes go both ways and each end may be done before the other; any other answer
/// is a refusal, and the stream ends.
pub const RELAY_PORT: u32 = 1030;
/// The relay's answer when the connection stands.
pub const RELAY_CONNECTED: u8 = 0;
/// The relay's answer when nothing of the pod listens on the port.
pub const RELAY_REFUSED: u8 = 1;

/// virtio-fs tag of the tree the host shares with the guest.
pub const SHARE_TAG: &str = "kataShared";
/// Where the guest mounts the shared tree.
pub const GUEST_SHARE_DIR: &str = "/run/kata-containers/shared/containers/";
/// Sandbox-wide guest directory: pod shm, ephemeral volumes, resolv.conf.
pub const GUEST_SANDBOX_DIR: &str = "/run/kata-containers/sandbox";
/// List of kernel modules the agent loads at start when it is the guest's init:
/// one absolute path of an uncompressed `.ko` a line, in load order.
pub const GUEST_MODULE_LIST: &str = "/lib/modules/boot.list";
/// Root of per-container bundles in the guest.
pub const GUEST_RUN_DIR: &str = "/run/kata-containers";

/// Storage drivers (field `Storage.driver`).
pub mod storage {
    /// Shared file system from the host.
    pub const VIRTIO_FS: &str = "virtio-fs";
    /// tmpfs, shm or hugetlbfs of the guest.
    pub const EPHEMERAL: &str = "ephemeral";
    /// Plain directory of the guest.
    pub const LOCAL: &str = "local";
    /// virtio-blk disk, by PCI path.
    pub const BLK: &str = "blk";
    /// virtio-scsi disk, by `id:lun`.
    pub const SCSI: &str = "scsi";
}

/// Identifiers of sandboxes, containers and execs: 1 to 128 characters,
/// letters, digits, `_`, `.`, `-`, beginning with a letter or digit. They become
/// path components on both sides, so both sides check them.
pub fn valid_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_cannot_leave_their_directory() {
        for (id, want) in [("a", true), ("a.b-c_1", true), ("", false), ("..", false), ("a/b", false), ("-a", false)] {
            assert_eq!(valid_id(id), want, "{id}");
        }
        assert!(!valid_id(&"a".repeat(129)));
    }
}
