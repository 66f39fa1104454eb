//! What a virtual machine consists of, before any QEMU argument exists.

use std::{
    fmt,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::config::Mib;

/// Everything needed to start one machine. The caller has checked the values
/// against its configuration; [`VmSpec`] knows nothing of files or annotations.
#[derive(Debug)]
pub struct VmSpec {
    /// Sandbox identifier; the machine is called `sandbox-<name>`.
    pub name: String,
    /// Directory of the sandbox; holds `qmp.sock`, `console.sock` and `pid`.
    pub dir: PathBuf,
    /// The QEMU executable.
    pub binary: PathBuf,
    /// How guest instructions are executed.
    pub accelerator: Accelerator,
    /// Extra properties of the machine, comma separated, possibly empty.
    pub machine_accelerators: String,
    /// CPU features to add or drop (`pmu=off`), comma separated, possibly empty.
    pub cpu_features: String,
    /// Processors.
    pub cpus: Cpus,
    /// Guest memory.
    pub memory: Memory,
    /// Kernel and root file system.
    pub boot: Boot,
    /// Firmware in place of QEMU's own.
    pub firmware: Option<PathBuf>,
    /// Socket device to the agent.
    pub vsock: Option<VsockDevice>,
    /// Shared file system.
    pub share: Option<SharedFs>,
    /// Network cards present at boot.
    pub nics: Vec<Nic>,
    /// Bridges with room for 30 hot-plugged devices each, 0 to 5.
    pub bridges: u8,
    /// Where the guest's entropy device reads; no device when `None`.
    pub entropy: Option<PathBuf>,
    /// Argument of `-sandbox`, possibly empty.
    pub seccomp: String,
    /// Network namespace QEMU is started in.
    pub netns: Option<PathBuf>,
    /// SELinux label of the QEMU process.
    pub selinux_label: Option<String>,
    /// Log the guest's console line by line.
    pub log_console: bool,
}

impl VmSpec {
    /// Identity of the machine, the same for the same sandbox.
    pub fn uuid(&self) -> Uuid {
        Uuid::named(&self.name)
    }

    /// Control socket.
    pub fn qmp_socket(&self) -> PathBuf {
        self.dir.join("qmp.sock")
    }

    /// Guest console, for people; any number may connect.
    pub fn console_socket(&self) -> PathBuf {
        self.dir.join("console.sock")
    }

    /// File QEMU writes its process id to.
    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }
}

/// How guest instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// Translated in software, with `tb_size` MiB of room for translations.
    Tcg {
        /// Size of the translation buffer; 0 leaves it to QEMU.
        tb_size: Mib,
    },
}

impl Accelerator {
    /// Software emulation with a translation buffer that suits one small pod: a boot
    /// fills it once. QEMU's own default takes 40 MiB more per sandbox and gains 0.2 s
    /// of boot; a smaller one is filled, and its content translated anew, more often.
    pub const TCG: Self = Self::Tcg { tb_size: Mib(28) };
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg { .. } => "tcg",
        })
    }
}

/// Processors of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// Present at boot, at least 1.
    pub boot: u32,
    /// Most there can ever be.
    pub max: u32,
}

/// Memory of the machine.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Present at boot.
    pub boot: Mib,
    /// Most there can ever be; equal to `boot` when nothing is ever added.
    pub max: Mib,
    /// How many times memory can be added.
    pub slots: u8,
    /// Where the pages come from.
    pub backend: MemoryBackend,
    /// Touch every page at start.
    pub prealloc: bool,
}

/// Where the pages of guest memory come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryBackend {
    /// Anonymous shared memory. Not limited by the size of `/dev/shm`.
    Memfd,
    /// Huge pages of the host.
    Hugepages(PathBuf),
    /// A file, or a new file in a directory.
    File(PathBuf),
}

/// Kernel and root file system.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Uncompressed kernel with a PVH entry, or a bzImage.
    pub kernel: PathBuf,
    /// What the kernel mounts as its root.
    pub root: Root,
    /// The complete kernel command line.
    pub command_line: String,
}

/// Root file system of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// An initial RAM file system that is also the final one.
    Initrd(PathBuf),
    /// A disk image, shown read-only as `/dev/vda`.
    Image(PathBuf),
}

impl Root {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Initrd(path) | Self::Image(path) => path,
        }
    }
}

/// Socket device to the agent.
#[derive(Debug)]
pub enum VsockDevice {
    /// The kernel's vhost-vsock, with the CID already claimed.
    Kernel {
        /// Open `/dev/vhost-vsock`.
        fd: OwnedFd,
        /// Context identifier of the guest, 3 or more.
        cid: u32,
    },
    /// A vhost-user back end listening on a socket.
    User {
        /// Socket of the back end.
        socket: PathBuf,
    },
}

/// Shared file system served by virtiofsd.
#[derive(Clone, Debug)]
pub struct SharedFs {
    /// vhost-user socket of the daemon.
    pub socket: PathBuf,
    /// Name the guest mounts.
    pub tag: String,
    /// Requests in flight.
    pub queue_size: u16,
}

/// A network card backed by a tap device.
#[derive(Debug)]
pub struct Nic {
    /// Name of the device and its back end, `network-<tap name>`.
    pub id: String,
    /// One open tap queue per queue pair.
    pub taps: Vec<OwnedFd>,
    /// As many open `/dev/vhost-net`, or none.
    pub vhosts: Vec<OwnedFd>,
    /// Hardware address in the guest.
    pub mac: [u8; 6],
    /// MTU the guest is told.
    pub mtu: Option<u16>,
}

/// A 128-bit machine identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// The identity that belongs to a name (RFC 9562 version 8: SHA-256).
    pub fn named(name: &str) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Sha256::digest(name)[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a device sits, seen from the guest: slot numbers from the root bus
/// down, written `02/01`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciPath(Vec<u8>);

impl PciPath {
    /// A device in `slot` of the bridge in `bridge`.
    pub fn behind(bridge: u8, slot: u8) -> Self {
        Self(vec![bridge, slot])
    }

    /// A device on the root bus.
    pub fn root(slot: u8) -> Self {
        Self(vec![slot])
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, slot) in self.0.iter().enumerate() {
            write!(f, "{}{slot:02x}", if at == 0 { "" } else { "/" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_always_gives_the_same_identity() {
        let uuid = Uuid::named("pod").to_string();
        assert_eq!(uuid, Uuid::named("pod").to_string());
        assert_ne!(uuid, Uuid::named("pod2").to_string());
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"));
    }

    #[test]
    fn pci_paths_are_hexadecimal_slots() {
        assert_eq!(PciPath::behind(2, 17).to_string(), "02/11");
        assert_eq!(PciPath::root(3).to_string(), "03");
    }
}
