//! Root file systems: the mounts an engine lists for a container, made below its
//! bundle. They live in the mount namespace of the shim and end with it.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
};

use containerd_shim_protos::api::Mount;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::chdir,
};
use osc_agent_protocol::Kind;

/// Most bytes of mount options the kernel takes (one page with its end).
const OPTIONS_LIMIT: usize = 4095;

/// A root file system that cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {source_name} ({kind_name}) on {}", target.display())]
pub struct RootfsError {
    target: PathBuf,
    kind_name: String,
    source_name: String,
    source: io::Error,
}

impl RootfsError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        Kind::of_io(&self.source)
    }
}

/// Mounts `mounts` one over the other on `target`. On failure nothing stays
/// mounted. Blocking.
///
/// # Errors
/// [`RootfsError`].
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result<(), RootfsError> {
    let failed = |mount: &Mount, source| RootfsError {
        target: target.to_owned(),
        kind_name: mount.type_.clone(),
        source_name: mount.source.clone(),
        source,
    };
    for entry in mounts {
        let outcome = fs::create_dir_all(target).and_then(|()| mount_one(entry, target));
        if let Err(source) = outcome {
            let _ = unmount_all(target);
            return Err(failed(entry, source));
        }
    }
    Ok(())
}

/// Unmounts everything on `target`. Success when nothing is mounted. Blocking.
///
/// # Errors
/// What the kernel says.
pub fn unmount_all(target: &Path) -> io::Result<()> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point (any more), or not there.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn mount_one(entry: &Mount, target: &Path) -> io::Result<()> {
    let (flags, data) = split(&entry.options);
    if entry.type_ == "overlay" && data.len() > OPTIONS_LIMIT {
        return mount_long_overlay(entry, target, flags, &data);
    }
    let kind = (entry.type_ != "bind").then_some(entry.type_.as_str());
    mount(Some(entry.source.as_str()), target, kind, flags, Some(data.as_str()))?;
    // A bind mount takes other flags only when it is mounted again.
    let again = flags & !(MsFlags::MS_BIND | MsFlags::MS_REC);
    if flags.contains(MsFlags::MS_BIND) && !again.is_empty() {
        let flags = again | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}

/// Flags and the rest, comma-separated, of mount(8) options.
fn split(options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in options {
        match flag(option) {
            Some((flag, true)) => flags |= flag,
            Some((flag, false)) => flags &= !flag,
            None => data.push(option),
        }
    }
    (flags, data.join(","))
}

/// The flag an option sets or clears.
fn flag(option: &str) -> Option<(MsFlags, bool)> {
    Some(match option {
        "defaults" => (MsFlags::empty(), true),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND | MsFlags::MS_REC, true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        _ => return None,
    })
}

/// Mounts an overlay whose options do not fit a page: layers lie side by side, so
/// they are named relative to their common directory, from a thread that is there.
fn mount_long_overlay(entry: &Mount, target: &Path, flags: MsFlags, data: &str) -> io::Result<()> {
    let too_long = || io::Error::new(io::ErrorKind::ArgumentListTooLong, "too many layers: squash the image");
    let common = common_directory(data).ok_or_else(too_long)?;
    let prefix = format!("{}/", common.display());
    let data: Vec<String> = data
        .split(',')
        .map(|option| match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                let short: Vec<&str> = layers.split(':').map(|l| l.strip_prefix(&prefix).unwrap_or(l)).collect();
                format!("lowerdir={}", short.join(":"))
            }
            _ => option.to_owned(),
        })
        .collect();
    let data = data.join(",");
    if data.len() > OPTIONS_LIMIT {
        return Err(too_long());
    }
    let (source, target) = (entry.source.clone(), target.to_owned());
    let work = move || -> nix::Result<()> {
        // The working directory is shared by all threads unless one asks otherwise.
        unshare(CloneFlags::CLONE_FS)?;
        chdir(&common)?;
        mount(Some(source.as_str()), &target, Some("overlay"), flags, Some(data.as_str()))
    };
    let thread = thread::Builder::new().name("mount".into()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the mounting thread died"))?.map_err(io::Error::from)
}

/// The deepest directory all lower layers lie in; `None` for fewer than two.
fn common_directory(data: &str) -> Option<PathBuf> {
    let layers = data.split(',').find_map(|option| option.strip_prefix("lowerdir="))?;
    let mut layers = layers.split(':').map(Path::new);
    let mut common = layers.next()?.parent()?.to_owned();
    for layer in layers {
        while !layer.starts_with(&common) {
            common = common.parent()?.to_owned();
        }
    }
    (common.as_os_str().as_bytes().len() > 1).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            type_: kind.into(),
            source: source.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn options_are_flags_or_data() {
        let options = ["rw", "ro", "nosuid", "lowerdir=/a:/b", "suid", "index=off"].map(str::to_owned);
        assert_eq!(split(&options), (MsFlags::MS_RDONLY, "lowerdir=/a:/b,index=off".into()));
    }

    #[test]
    fn layers_share_a_directory() {
        for (data, want) in [
            ("lowerdir=/s/1/fs:/s/2/fs,upperdir=/u", Some("/s")),
            ("upperdir=/u,lowerdir=/s/1/fs", Some("/s/1")),
            ("lowerdir=/a/fs:/b/fs", None),
            ("upperdir=/u", None),
        ] {
            assert_eq!(common_directory(data), want.map(PathBuf::from), "{data}");
        }
    }

    /// A mount namespace of its own, entered by the thread of the test.
    fn private() -> tempfile::TempDir {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let dir = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        dir
    }

    #[test]
    fn mounts_stack_and_leave_nothing() {
        let dir = private();
        let (lower, target) = (dir.path().join("lower"), dir.path().join("rootfs"));
        fs::create_dir(&lower).unwrap();
        fs::write(lower.join("file"), "x").unwrap();
        let bind = entry("bind", lower.to_str().unwrap(), &["rbind", "ro"]);
        mount_all(&[bind.clone(), bind.clone()], &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "x");
        assert_eq!(fs::write(target.join("new"), "").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        unmount_all(&target).unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        unmount_all(&target).unwrap();
        unmount_all(&dir.path().join("absent")).unwrap();

        let broken = entry("bind", "/no/such/layer", &["rbind"]);
        assert!(mount_all(&[bind, broken], &target).is_err());
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "a failure undoes what came before");
        umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
    }

    #[test]
    fn an_image_of_many_layers_is_mounted() {
        let dir = private();
        let snapshots = dir.path().join("io.containerd.snapshotter.v1.overlayfs").join("snapshots");
        let layers: Vec<String> = (0..150)
            .map(|number| {
                let layer = snapshots.join(number.to_string()).join("fs");
                fs::create_dir_all(&layer).unwrap();
                fs::write(layer.join(number.to_string()), "").unwrap();
                layer.display().to_string()
            })
            .collect();
        let target = dir.path().join("rootfs");
        let overlay = entry("overlay", "overlay", &[&format!("lowerdir={}", layers.join(":"))]);
        mount_all(&[overlay], &target).unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 150);
        unmount_all(&target).unwrap();
        umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
    }
}
