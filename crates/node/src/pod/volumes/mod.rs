//! Volumes on the host. Their layout is the kubelet's, by which the runtime
//! recognises what kind of volume a directory is:
//!
//! ```text
//! <state>/pods/<uid>/volumes/kubernetes.io~empty-dir/<name>
//! <state>/pods/<uid>/volumes/kubernetes.io~configmap/<name>
//! <state>/pods/<uid>/volume-subpaths/<container>/<n>
//! <state>/pods/<uid>/etc-hosts
//! ```
//!
//! Containers can write to volumes while others are set up: a path within one is
//! only followed by the kernel's own bounded lookup.

mod atomic;
mod files;
mod usage;

use std::{
    collections::HashMap,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use k8s_cri::v1;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MsFlags, mount},
    sys::stat::{Mode, mkdirat},
};
use osc_agent_protocol::kind::chain;

use super::{
    cluster::{Claimed, Cluster},
    error::{PodError, io},
    model::{Container, HostPathType, Pod, Source, Volume, VolumeMount},
};
use crate::engine::{below, unmount_below};

pub use usage::overfull;

/// What the claims of a pod are bound to, by the name of the volume.
pub type Claims = HashMap<String, Claimed>;

/// Makes all volumes of a pod. Idempotent.
///
/// # Errors
/// [`PodError::Volume`] names the first that cannot be had.
pub async fn prepare(dir: &Path, pod: &Pod, cluster: Option<&Cluster>) -> Result<Claims, PodError> {
    fs::create_dir_all(dir).map_err(io("create", dir))?;
    fs::set_permissions(dir, Permissions::from_mode(0o750)).map_err(io("protect", dir))?;
    let claims = claims(pod, cluster).await?;
    for volume in &pod.volumes {
        let at = place(dir, volume, &claims);
        let made = match &volume.source {
            Source::EmptyDir(_) => empty_dir(&at, pod.fs_group),
            Source::Memory(limit) => memory_dir(&at, *limit, pod.fs_group),
            Source::HostPath(path, kind) => host_path(path, *kind),
            Source::Claim(_) => claimed(&at, pod.fs_group),
            // Secrets never reach the disk.
            Source::Files(files) if files.is_secret() => memory_dir(&at, None, None),
            Source::Files(_) => fs::create_dir_all(&at),
        };
        made.map_err(failed(volume, &at))?;
    }
    refresh(dir, pod, cluster).await?;
    Ok(claims)
}

/// Brings volumes of files up to date with the objects they are made of.
///
/// # Errors
/// As [`prepare`]; what is there stays.
pub async fn refresh(dir: &Path, pod: &Pod, cluster: Option<&Cluster>) -> Result<(), PodError> {
    for volume in &pod.volumes {
        if let Source::Files(source) = &volume.source {
            let at = place(dir, volume, &Claims::new());
            let content = files::collect(pod, source, cluster).await.map_err(|error| PodError::Volume {
                volume: volume.name.clone(),
                reason: chain(&error),
                source: None,
            })?;
            atomic::write(&at, &content, pod.fs_group).map_err(failed(volume, &at))?;
        }
    }
    Ok(())
}

fn failed(volume: &Volume, at: &Path) -> impl FnOnce(io::Error) -> PodError {
    let (volume, reason) = (volume.name.clone(), format!("cannot be provided at {}", at.display()));
    move |source| PodError::Volume { volume, reason, source: Some(source) }
}

async fn claims(pod: &Pod, cluster: Option<&Cluster>) -> Result<Claims, PodError> {
    let mut claims = Claims::new();
    for volume in &pod.volumes {
        if let (Source::Claim(name), Some(cluster)) = (&volume.source, cluster) {
            let claimed = cluster.claim(&pod.namespace, name).await.map_err(|error| PodError::Volume {
                volume: volume.name.clone(),
                reason: chain(&error),
                source: None,
            })?;
            claims.insert(volume.name.clone(), claimed);
        }
    }
    Ok(claims)
}

/// Where a volume lies on the host.
fn place(dir: &Path, volume: &Volume, claims: &Claims) -> PathBuf {
    match &volume.source {
        Source::EmptyDir(_) | Source::Memory(_) => dir.join("volumes/kubernetes.io~empty-dir").join(&volume.name),
        Source::HostPath(path, _) => path.clone(),
        Source::Claim(_) => claims.get(&volume.name).map(|claimed| claimed.path.clone()).unwrap_or_default(),
        Source::Files(files) => dir.join("volumes").join(files.plugin).join(&volume.name),
    }
}

/// A directory that outlives the pod; its top is the pod's group's.
fn claimed(path: &Path, group: Option<u32>) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.is_dir() && group.is_some_and(|group| group != found.gid()) {
        give_to_group(path, group)?;
    }
    Ok(())
}

/// The raw block devices of one container.
pub fn devices(pod: &Pod, container: &Container, claims: &Claims) -> Vec<v1::Device> {
    let device = |(volume, path): &(String, String)| {
        let volume = pod.volumes.iter().find(|known| known.name == *volume)?;
        let host_path = match &volume.source {
            Source::Claim(_) => claims.get(&volume.name).filter(|claimed| claimed.block)?.path.clone(),
            _ => return None,
        };
        Some(v1::Device {
            container_path: path.clone(),
            host_path: host_path.to_string_lossy().into_owned(),
            permissions: "mrw".into(),
        })
    };
    container.devices.iter().filter_map(device).collect()
}

fn empty_dir(path: &Path, group: Option<u32>) -> io::Result<()> {
    if path.exists() {
        return Ok(()); // containers may have changed it since
    }
    fs::create_dir_all(path)?;
    give_to_group(path, group)
}

fn memory_dir(path: &Path, limit: Option<u64>, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if below(path).is_empty() {
        let options = limit.map(|bytes| format!("size={bytes}"));
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options.as_deref())?;
        give_to_group(path, group)?;
    }
    Ok(())
}

/// Everybody may write, as in Kubernetes; new files belong to `group`.
fn give_to_group(path: &Path, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        chown(path, None, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(if group.is_some() { 0o2777 } else { 0o777 }))
}

fn host_path(path: &Path, kind: HostPathType) -> io::Result<()> {
    match kind {
        HostPathType::DirectoryOrCreate => fs::create_dir_all(path)?,
        HostPathType::FileOrCreate => File::options().append(true).create(true).open(path).map(drop)?,
        _ => {}
    }
    if kind == HostPathType::Unchecked {
        return Ok(());
    }
    let found = fs::metadata(path)?.file_type();
    let good = match kind {
        HostPathType::DirectoryOrCreate | HostPathType::Directory => found.is_dir(),
        HostPathType::FileOrCreate | HostPathType::File => found.is_file(),
        HostPathType::Socket => found.is_socket(),
        HostPathType::CharDevice => found.is_char_device(),
        HostPathType::BlockDevice => found.is_block_device(),
        HostPathType::Unchecked => true,
    };
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not of type {kind:?}", path.display()));
    if good { Ok(()) } else { Err(wrong()) }
}

/// The mounts of one container, sub-paths bound to places of their own.
///
/// # Errors
/// [`PodError::Volume`].
pub fn mounts(dir: &Path, pod: &Pod, container: &Container, claims: &Claims) -> Result<Vec<v1::Mount>, PodError> {
    let mut mounts = Vec::new();
    for (n, wanted) in container.mounts.iter().enumerate() {
        let volume = pod.volumes.iter().find(|volume| volume.name == wanted.volume);
        let Some(volume) = volume else { continue }; // checked with the manifest
        let source = place(dir, volume, claims);
        let host_path = if wanted.sub_path.as_os_str().is_empty() {
            source
        } else {
            let target = dir.join("volume-subpaths").join(&container.name).join(n.to_string());
            bind_sub_path(&source, wanted, &target, pod.fs_group).map_err(|source| PodError::Volume {
                volume: volume.name.clone(),
                reason: format!("sub-path {} cannot be bound", wanted.sub_path.display()),
                source: Some(source),
            })?;
            target
        };
        mounts.push(v1::Mount {
            container_path: wanted.path.clone(),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: wanted.read_only,
            propagation: wanted.propagation,
            ..Default::default()
        });
    }
    Ok(mounts)
}

/// Binds what `sub_path` names within `volume` to `target`, by descriptor, so
/// that nobody can exchange it in between.
fn bind_sub_path(volume: &Path, wanted: &VolumeMount, target: &Path, group: Option<u32>) -> io::Result<()> {
    if !below(target).is_empty() {
        return Ok(()); // bound for an earlier attempt of the container
    }
    let found = open_or_make(&File::open(volume)?.into(), &wanted.sub_path, group)?;
    let found = File::from(found);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if found.metadata()?.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        File::create(target)?;
    }
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Opens `path` below `root`, making directories that are missing.
fn open_or_make(root: &OwnedFd, path: &Path, group: Option<u32>) -> io::Result<OwnedFd> {
    let mut current = root.try_clone()?;
    for part in path.components().filter(|part| !matches!(part, std::path::Component::CurDir)) {
        let part = Path::new(part.as_os_str());
        match open_beneath(&current, part) {
            Err(Errno::ENOENT) => {
                mkdirat(&current, part, Mode::from_bits_truncate(0o755))?;
                let made = open_beneath(&current, part)?;
                let by_descriptor = format!("/proc/self/fd/{}", made.as_raw_fd());
                // A new directory is as open as the one it is in.
                let above = File::from(current.try_clone()?).metadata()?;
                chown(&by_descriptor, Some(above.uid()), group.or(Some(above.gid())))?;
                fs::set_permissions(&by_descriptor, Permissions::from_mode(above.mode() & 0o7777))?;
                current = made;
            }
            found => current = found?,
        }
    }
    Ok(current)
}

/// One step down; a symbolic link may not lead out of the directory.
fn open_beneath(dir: &impl AsFd, part: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(dir, part, how)
}

/// Writes the pod's `/etc/hosts`; returns its path.
///
/// # Errors
/// When it cannot be written.
pub fn write_hosts(dir: &Path, text: &str) -> Result<PathBuf, PodError> {
    let file = dir.join("etc-hosts");
    fs::write(&file, text).map_err(io("write", &file))?;
    Ok(file)
}

/// Removes everything a pod had on the host. What is mounted there, host paths
/// above all, is detached first; as long as something is, nothing is deleted.
/// Idempotent.
///
/// # Errors
/// When something cannot be detached or deleted.
pub fn remove(dir: &Path) -> io::Result<()> {
    unmount_below(dir)?;
    if !below(dir).is_empty() {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "something is still mounted there"));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::pod::Manifest;

    const SPEC: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  securityContext: {fsGroup: 2000}
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: mem, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: host, hostPath: {path: HOST, type: Directory}}
  containers:
  - name: c
    image: i
    volumeMounts:
    - {name: disk, mountPath: /disk, subPath: a/b}
    - {name: mem, mountPath: /mem, readOnly: true}
    - {name: host, mountPath: /host, subPath: sub}
";

    fn pod(host: &Path) -> Pod {
        let text = SPEC.replace("HOST", &host.to_string_lossy());
        Manifest::read("test", &text).expect("good").remove(0).pod
    }

    #[tokio::test]
    async fn volumes_are_made_mounted_and_removed_without_touching_the_host() {
        let root = tempfile::tempdir().expect("tempdir");
        let host = root.path().join("host");
        fs::create_dir_all(host.join("sub")).expect("mkdir");
        fs::write(host.join("sub/precious"), "x").expect("write");
        let (dir, pod) = (root.path().join("pod"), pod(&host));
        prepare(&dir, &pod, None).await.expect("prepare");
        let claims = prepare(&dir, &pod, None).await.expect("again");
        let mounts = mounts(&dir, &pod, &pod.containers[0], &claims).expect("mounts");
        let sub = Path::new(&mounts[0].host_path);
        fs::write(sub.join("file"), "y").expect("the sub-path is a directory");
        let disk = dir.join("volumes/kubernetes.io~empty-dir/disk");
        assert!(disk.join("a/b/file").exists());
        assert_eq!(fs::metadata(&disk).expect("stat").gid(), 2000);
        assert_eq!(fs::metadata(disk.join("a/b")).expect("stat").gid(), 2000);
        assert!(mounts[1].readonly && !below(Path::new(&mounts[1].host_path)).is_empty());
        assert!(Path::new(&mounts[2].host_path).join("precious").exists());
        remove(&dir).expect("remove");
        remove(&dir).expect("again");
        assert!(host.join("sub/precious").exists() && !dir.exists() && below(root.path()).is_empty());
    }

    #[test]
    fn a_link_cannot_lead_a_sub_path_out_of_its_volume() {
        let root = tempfile::tempdir().expect("tempdir");
        symlink("/etc", root.path().join("out")).expect("link");
        symlink("inside", root.path().join("in")).expect("link");
        fs::create_dir(root.path().join("inside")).expect("mkdir");
        let top: OwnedFd = File::open(root.path()).expect("open").into();
        for (path, good) in [("out", false), ("out/passwd", false), ("in", true), ("in/new", true), ("inside", true)] {
            assert_eq!(open_or_make(&top, Path::new(path), None).is_ok(), good, "{path}");
        }
    }

    #[test]
    fn host_paths_must_be_of_their_type() {
        let root = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| root.path().join(name);
        for (path, kind, good) in [
            (at("d"), HostPathType::Directory, false),
            (at("d"), HostPathType::DirectoryOrCreate, true),
            (at("d"), HostPathType::Directory, true),
            (at("d"), HostPathType::File, false),
            (at("f"), HostPathType::FileOrCreate, true),
            (at("f"), HostPathType::File, true),
            ("/dev/null".into(), HostPathType::CharDevice, true),
            ("/dev/null".into(), HostPathType::BlockDevice, false),
            (at("missing"), HostPathType::Unchecked, true),
        ] {
            assert_eq!(host_path(&path, kind).is_ok(), good, "{path:?} {kind:?}");
        }
    }
}
