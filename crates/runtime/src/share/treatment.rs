//! What becomes of each mount of a container. A pure function of what is known about it.

use std::path::{Component, Path};

use oci_spec::runtime::Mount;

use super::source::FileKind;

/// What becomes of one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// The guest makes it itself, as it stands.
    Keep,
    /// Memory of the guest instead of memory of the host.
    Memory,
    /// Huge pages of the guest.
    HugePages,
    /// A directory of the guest.
    Local,
    /// Shared, and copied inside the guest so that changes are noticed.
    Watched,
    /// Shared.
    Shared,
    /// A disk, which cannot be shared.
    Disk,
}

/// What is known about the source of a bind mount.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'f> {
    /// Path as written.
    pub path: &'f Path,
    /// What is there.
    pub kind: FileKind,
    /// File system mounted exactly there, if any is.
    pub mounted: Option<&'f str>,
}

/// Whether `mount` brings files of the host.
pub(super) fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    mount.typ().as_deref() == Some("bind") || options.iter().any(|option| option == "bind" || option == "rbind")
}

/// Whether `mount` is the container's shared memory, of whatever make.
pub(super) fn is_shm(mount: &Mount) -> bool {
    mount.destination() == Path::new("/dev/shm") && (is_bind(mount) || mount.typ().as_deref() == Some("tmpfs"))
}

/// Whether `path` shows the kernel or its devices: the guest has its own.
pub(super) fn is_system(path: &Path) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|system| path.starts_with(system))
}

/// Decides about a bind mount that is neither shared memory nor of the system.
pub(super) fn treat(source: Facts<'_>, kubelet_root: &Path, guest_empty_dir: bool) -> Treatment {
    match source.kind {
        FileKind::Block => return Treatment::Disk,
        FileKind::Character => return Treatment::Keep,
        FileKind::File => return Treatment::Shared,
        FileKind::Directory => {}
    }
    match (kubelet_volume(source.path, kubelet_root), source.mounted) {
        (Some("empty-dir"), Some("tmpfs")) => Treatment::Memory,
        (Some("empty-dir"), Some("hugetlbfs")) => Treatment::HugePages,
        (Some("empty-dir"), _) if guest_empty_dir => Treatment::Local,
        (Some("configmap" | "secret"), _) => Treatment::Watched,
        _ => Treatment::Shared,
    }
}

/// The kind of volume kubelet made at `path`:
/// `<root>/pods/<uid>/volumes/kubernetes.io~<kind>/<name>`.
fn kubelet_volume<'p>(path: &'p Path, kubelet_root: &Path) -> Option<&'p str> {
    let mut parts = path.strip_prefix(kubelet_root).ok()?.components().map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let mut next = || parts.next().flatten();
    let (pods, _uid, volumes, kind, _name) = (next()?, next()?, next()?, next()?, next()?);
    if pods != "pods" || volumes != "volumes" || parts.next().is_some() {
        return None;
    }
    kind.strip_prefix("kubernetes.io~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_volumes_are_known_by_their_path() {
        let volume = |kind: &str| format!("/var/lib/kubelet/pods/u1/volumes/kubernetes.io~{kind}/v");
        use {FileKind::*, Treatment::*};
        for (path, kind, mounted, guest_empty_dir, want) in [
            (volume("empty-dir"), Directory, Some("tmpfs"), false, Memory),
            (volume("empty-dir"), Directory, Some("hugetlbfs"), false, HugePages),
            // kubelet's root itself may be in memory: only a mount right there counts.
            (volume("empty-dir"), Directory, None, false, Shared),
            (volume("empty-dir"), Directory, None, true, Local),
            (volume("empty-dir"), Directory, Some("ext4"), false, Shared),
            (volume("empty-dir") + "/sub", Directory, Some("tmpfs"), false, Shared),
            (volume("configmap"), Directory, None, false, Watched),
            (volume("secret"), Directory, Some("tmpfs"), false, Watched),
            (volume("projected"), Directory, Some("tmpfs"), false, Shared),
            (volume("secret"), File, None, false, Shared),
            ("/srv/kubernetes.io~empty-dir/v".into(), Directory, Some("tmpfs"), true, Shared),
            ("/srv/pods/u1/volumes/kubernetes.io~empty-dir/v".into(), Directory, Some("tmpfs"), true, Shared),
            ("/srv/disk".into(), Block, None, false, Disk),
            ("/srv/fuse".into(), Character, None, false, Keep),
        ] {
            let facts = Facts { path: Path::new(&path), kind, mounted };
            assert_eq!(
                treat(facts, Path::new("/var/lib/kubelet"), guest_empty_dir),
                want,
                "{path} {kind:?} {mounted:?}"
            );
        }
    }

    #[test]
    fn system_paths_stay_in_the_guest() {
        for (path, want) in
            [("/proc/sys", true), ("/sys", true), ("/dev/x", true), ("/process", false), ("/srv", false)]
        {
            assert_eq!(is_system(Path::new(path)), want, "{path}");
        }
    }
}
