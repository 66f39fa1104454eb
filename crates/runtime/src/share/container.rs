//! The files of one container: its root and its volumes, as the guest will find them.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::statfs;
use oci_spec::runtime::{LinuxDeviceType, Mount, Spec};
use osc_agent_protocol::{
    agent::Storage,
    names::{self, GUEST_SANDBOX_DIR, GUEST_SHARE_DIR},
    oci as proto,
};

use super::{
    error::ShareError,
    mount::Exposure,
    mountinfo::{MountEntry, mounts},
    source::Source,
    treatment::{Facts, Treatment, is_bind, is_shm, is_system, treat},
    tree::{Share, WATCHABLE},
};
use crate::{
    config::{Config, Mib},
    id::ContainerId,
    spec::{SHM_MOUNT_POINT, mount_to_proto},
};

/// What decides how volumes reach the guest.
#[derive(Clone, Debug)]
pub struct VolumeRules {
    /// Where kubelet keeps pods.
    pub kubelet_root: PathBuf,
    /// Make emptyDir volumes inside the guest.
    pub guest_empty_dir: bool,
    /// Memory of the virtual machine: no volume in memory is larger.
    pub memory: Mib,
}

impl VolumeRules {
    /// The rules `config` makes for a machine with `memory`.
    pub fn new(config: &Config, memory: Mib) -> Self {
        Self {
            kubelet_root: config.runtime.kubelet_root.clone(),
            guest_empty_dir: !config.runtime.disable_guest_empty_dir,
            memory,
        }
    }
}

/// What the agent has to be told about the files of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFiles {
    /// Path of the root file system in the guest.
    pub rootfs: String,
    /// All mounts of the container, with sources in the guest.
    pub mounts: Vec<proto::Mount>,
    /// What the agent mounts for them first.
    pub storages: Vec<Storage>,
}

impl Share {
    /// Exposes `rootfs` and the volumes of `spec` as the files of `container`. On error
    /// nothing of it is left. Blocking.
    ///
    /// # Errors
    /// A root file system or volume that is gone, one that cannot be shared, or a mount that
    /// fails.
    pub fn add_container(
        &self,
        container: &ContainerId,
        rootfs: &Path,
        spec: &Spec,
        rules: &VolumeRules,
    ) -> Result<ContainerFiles, ShareError> {
        let added = self.expose_rootfs(container, rootfs).and_then(|()| self.add_volumes(container, spec, rules));
        // A container of this name that is there already must keep its files.
        if added.is_err()
            && !matches!(added, Err(ShareError::Exists { .. }))
            && let Err(left) = self.remove_container(container)
        {
            tracing::warn!(
                sandbox.id = %self.sandbox(), container.id = %container, error = %left,
                "files of a failed container are left behind"
            );
        }
        added
    }

    fn add_volumes(
        &self,
        container: &ContainerId,
        spec: &Spec,
        rules: &VolumeRules,
    ) -> Result<ContainerFiles, ShareError> {
        let mut devices = spec.linux().iter().flat_map(|linux| linux.devices().iter().flatten());
        if let Some(device) = devices.find(|device| device.typ() == LinuxDeviceType::B) {
            // Made in the guest by its number, it would be another disk there.
            return Err(ShareError::BlockDevice { path: device.path().clone() });
        }
        let host = mounts().map_err(ShareError::io("read", "/proc/thread-self/mountinfo"))?;
        let mut volumes =
            Volumes { share: self, container, rules, spec, host: &host, files: ContainerFiles::default() };
        for mount in spec.mounts().iter().flatten() {
            volumes.add(mount)?;
        }
        let rootfs = format!("{GUEST_SHARE_DIR}{container}/rootfs");
        Ok(ContainerFiles { rootfs, ..volumes.files })
    }
}

/// The volumes of one container on their way into the tree.
struct Volumes<'v> {
    share: &'v Share,
    container: &'v ContainerId,
    rules: &'v VolumeRules,
    spec: &'v Spec,
    host: &'v [MountEntry],
    files: ContainerFiles,
}

impl Volumes<'_> {
    fn add(&mut self, mount: &Mount) -> Result<(), ShareError> {
        if is_shm(mount) {
            self.bind(mount, SHM_MOUNT_POINT.to_owned());
            return Ok(());
        }
        let path = match mount.source() {
            Some(path) if is_bind(mount) && !is_system(path) => path,
            _ => {
                self.files.mounts.push(mount_to_proto(mount));
                return Ok(());
            }
        };
        let destination = || mount.destination().display().to_string();
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(ShareError::IdMapped { destination: destination() });
        }
        let source = Source::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ShareError::SourceGone { path: path.clone(), destination: destination() },
            _ => ShareError::io("open", path)(error),
        })?;
        self.add_source(mount, path, &source)
    }

    fn add_source(&mut self, mount: &Mount, path: &Path, source: &Source) -> Result<(), ShareError> {
        let real = source.real_path().map_err(ShareError::io("resolve", path))?;
        let mounted = self.host.iter().rfind(|entry| entry.point == real);
        let facts = Facts { path, kind: source.kind, mounted: mounted.map(|entry| entry.fs.as_str()) };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match treat(facts, &self.rules.kubelet_root, self.rules.guest_empty_dir) {
            Treatment::Keep => self.files.mounts.push(mount_to_proto(mount)),
            Treatment::Disk => return Err(ShareError::BlockDevice { path: path.to_owned() }),
            Treatment::Memory => {
                let options = self.memory_options(source, mounted);
                self.store(mount, names::storage::EPHEMERAL, "tmpfs", ephemeral(&name), options);
            }
            Treatment::HugePages => {
                let options = self.huge_page_options(path, source)?;
                self.store(mount, names::storage::EPHEMERAL, "hugetlbfs", ephemeral(&name), options);
            }
            Treatment::Local => {
                let sandbox = self.share.sandbox();
                let point = format!("{GUEST_SHARE_DIR}{sandbox}/rootfs/local/{name}");
                self.store(mount, names::storage::LOCAL, "local", point, permissions(source));
            }
            Treatment::Watched => self.watch(mount, source)?,
            Treatment::Shared => {
                let shared = self.expose(mount, source)?;
                self.bind(mount, format!("{GUEST_SHARE_DIR}{shared}"));
            }
        }
        Ok(())
    }

    /// The mount of the specification, with another source.
    fn bind(&mut self, mount: &Mount, source: String) {
        let mut changed = mount_to_proto(mount);
        changed.source = source;
        // Shared memory may have been a file system of its own, whose options no bind knows.
        if !is_bind(mount) {
            changed.options = vec!["rbind".to_owned()];
        }
        changed.type_ = "bind".to_owned();
        self.files.mounts.push(changed);
    }

    /// Lets the agent make the volume at `point`.
    fn store(&mut self, mount: &Mount, driver: &str, fs: &str, point: String, options: Vec<String>) {
        let source = if driver == names::storage::LOCAL { point.clone() } else { fs.to_owned() };
        self.files.storages.push(Storage {
            driver: driver.to_owned(),
            source,
            fstype: fs.to_owned(),
            options,
            mount_point: point.clone(),
            ..Storage::default()
        });
        self.bind(mount, point);
    }

    fn watch(&mut self, mount: &Mount, source: &Source) -> Result<(), ShareError> {
        let name = self.expose(mount, source)?;
        let point = format!("{GUEST_SHARE_DIR}{WATCHABLE}/{name}");
        self.files.storages.push(Storage {
            driver: WATCHABLE_BIND.to_owned(),
            source: format!("{GUEST_SHARE_DIR}{name}"),
            fstype: "bind".to_owned(),
            options: mount.options().clone().unwrap_or_default(),
            mount_point: point.clone(),
            ..Storage::default()
        });
        self.bind(mount, point);
        Ok(())
    }

    /// Mounts the source under a new name of the tree and returns the name.
    fn expose(&self, mount: &Mount, source: &Source) -> Result<String, ShareError> {
        let name = volume_name(self.container, mount.destination())
            .map_err(ShareError::io("draw a random name for", mount.destination()))?;
        let options = mount.options().as_deref().unwrap_or_default();
        let has = |words: &[&str]| options.iter().any(|option| words.contains(&option.as_str()));
        let how = Exposure {
            read_only: has(&["ro", "rro"]),
            read_only_below: has(&["rro"]),
            recursive: !has(&["bind"]) || has(&["rbind"]),
            follow_host: has(&["slave", "rslave", "shared", "rshared"]),
        };
        self.share.expose(source, &name, how)?;
        Ok(name)
    }

    /// Options of a tmpfs as large as the host's, and never larger than the machine.
    fn memory_options(&self, source: &Source, mounted: Option<&MountEntry>) -> Vec<String> {
        let size = mounted.and_then(|entry| option_bytes(&entry.super_options, "size"));
        let size = size.unwrap_or(u64::MAX).min(self.rules.memory.bytes());
        let mut options = permissions(source);
        options.push(format!("size={size}"));
        options
    }

    fn huge_page_options(&self, path: &Path, source: &Source) -> Result<Vec<String>, ShareError> {
        let page = statfs(&source.path()).map_err(ShareError::io("look at", path))?.block_size();
        let page = u64::try_from(page).unwrap_or_default();
        let resources = self.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let limits = resources.iter().flat_map(|r| r.hugepage_limits().iter().flatten());
        let size = limits
            .filter(|limit| page_size(limit.page_size()) == Some(page))
            .find_map(|limit| u64::try_from(limit.limit()).ok().filter(|limit| *limit > 0))
            .unwrap_or_else(|| self.rules.memory.bytes());
        Ok(vec![format!("pagesize={page}"), format!("size={size}")])
    }
}

/// Driver of volumes the agent watches (`Storage.driver`).
const WATCHABLE_BIND: &str = "watchable-bind";

fn ephemeral(name: &str) -> String {
    format!("{GUEST_SANDBOX_DIR}/ephemeral/{name}")
}

/// The permissions kubelet gave the host's directory, for the guest's.
fn permissions(source: &Source) -> Vec<String> {
    let mut options = vec![format!("mode={:04o}", source.mode)];
    // kubelet sets the group and its bit for pods with an fsGroup.
    if source.gid != 0 {
        options.push(format!("fsgid={}", source.gid));
    }
    options
}

/// A tmpfs option in bytes; the kernel prints kibibytes.
fn option_bytes(options: &str, name: &str) -> Option<u64> {
    let value = options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))?;
    match value.strip_suffix('k') {
        Some(kib) => kib.parse::<u64>().ok()?.checked_mul(1 << 10),
        None => value.parse().ok(),
    }
}

/// Bytes of a page size as the OCI specification writes it: `2MB`, `1GB`, `64KB`.
fn page_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let shift = match &text[digits..] {
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `<container>-<16 hex digits>-<last part of the destination>`, no longer than a file name.
fn volume_name(container: &ContainerId, destination: &Path) -> io::Result<String> {
    const LONGEST: usize = 255;
    let mut random = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    let base = destination.file_name().unwrap_or_default().to_string_lossy();
    let mut name = format!("{container}-{}-{base}", hex::encode(random));
    let mut end = name.len().min(LONGEST);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_names_fit_a_directory_entry() {
        let id = ContainerId::new("c".repeat(128)).unwrap();
        for (destination, end) in [("/etc/hosts", "-hosts"), ("/", "-"), ("/a/..", "-")] {
            let name = volume_name(&id, Path::new(destination)).unwrap();
            assert!(name.ends_with(end) && name.len() == 128 + 18 + end.len() - 1, "{name}");
        }
        let name = volume_name(&id, Path::new(&format!("/{}", "é".repeat(127)))).unwrap();
        assert!(name.len() == 255 || name.len() == 254, "{}", name.len());
        assert_ne!(volume_name(&id, Path::new("/a")).unwrap(), volume_name(&id, Path::new("/a")).unwrap());
    }

    #[test]
    fn sizes_are_read_as_the_kernel_and_the_engine_write_them() {
        assert_eq!(option_bytes("rw,size=64k,mode=755", "size"), Some(64 << 10));
        assert_eq!(option_bytes("rw,mode=755", "size"), None);
        assert_eq!(page_size("2MB"), Some(2 << 20));
        assert_eq!(page_size("1GB"), Some(1 << 30));
        assert_eq!(page_size("2M"), None);
    }
}
