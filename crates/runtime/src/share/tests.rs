//! Real mounts and a real virtiofsd, in a mount namespace of the test's own.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        stat::{Mode, SFlag, makedev, mknod},
    },
    unistd::Pid,
};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{mountinfo::mounts_below, *};
use crate::{
    config::{BindMount, CacheMode, Mib, VirtioFs},
    deadline::Deadline,
    dirs::Dirs,
    id::{ContainerId, SandboxId},
};

/// Runs `test` on a thread with its own mount namespace, so that nothing outlives it.
fn isolated(test: impl FnOnce(&Place) + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        test(&Place::new());
    };
    thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// A host with files to share.
struct Place {
    root: TempDir,
    dirs: Dirs,
    id: SandboxId,
    container: ContainerId,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("rootfs/bin")).unwrap();
        fs::write(root.path().join("rootfs/bin/sh"), "shell").unwrap();
        let dirs = Dirs::new(root.path());
        Self { root, dirs, id: SandboxId::new("s1").unwrap(), container: ContainerId::new("c1").unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn dir(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn share(&self) -> Share {
        Share::create(&self.dirs, &self.id, &[]).unwrap()
    }

    fn rules(&self) -> VolumeRules {
        VolumeRules { kubelet_root: self.path("kubelet"), guest_empty_dir: false, memory: Mib(512) }
    }

    fn add(&self, share: &Share, mounts: Value) -> Result<ContainerFiles, ShareError> {
        share.add_container(&self.container, &self.path("rootfs"), &spec(mounts), &self.rules())
    }

    /// Host path of a file the guest finds at `guest`.
    fn seen(&self, share: &Share, guest: &str) -> PathBuf {
        share.shared_dir().join(guest.strip_prefix("/run/kata-containers/shared/containers/").unwrap())
    }

    fn assert_nothing_left(&self) {
        let share = fs::canonicalize(self.root.path()).unwrap().join("run/kata-containers/shared/sandboxes/s1");
        assert_eq!(mounts_below(&share).unwrap(), []);
        assert!(!share.exists());
    }
}

fn spec(mounts: Value) -> Spec {
    serde_json::from_value(json!({"ociVersion": "1.0.2", "mounts": mounts})).unwrap()
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"type": "bind", "source": source, "destination": destination, "options": options})
}

fn tmpfs(path: &Path, options: &str) {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
}

fn by() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

#[test]
fn a_container_sees_its_root_and_volumes_and_nothing_else() {
    isolated(|place| {
        let (data, config) = (place.dir("data"), place.file("config.txt", "setting"));
        let share = place.share();
        let mounts = json!([
            {"type": "proc", "source": "proc", "destination": "/proc", "options": ["nosuid"]},
            bind(&data, "/data", &["rbind", "rw"]),
            bind(&data, "/frozen", &["rbind", "ro"]),
            bind(&config, "/etc/config.txt", &["rbind", "ro"]),
            bind(Path::new("/sys/fs"), "/host-sys", &["rbind"]),
            {"type": "tmpfs", "source": "shm", "destination": "/dev/shm", "options": ["nosuid", "size=64k"]},
        ]);
        let files = place.add(&share, mounts).unwrap();
        assert_eq!(files.rootfs, "/run/kata-containers/shared/containers/c1/rootfs");
        assert_eq!(fs::read_to_string(place.seen(&share, &files.rootfs).join("bin/sh")).unwrap(), "shell");
        let sources: Vec<_> = files.mounts.iter().map(|mount| mount.source.as_str()).collect();
        assert_eq!((sources[0], sources[4], sources[5]), ("proc", "/sys/fs", "/run/kata-containers/sandbox/shm"));
        assert_eq!((files.mounts[5].type_.as_str(), &files.mounts[5].options[..]), ("bind", &["rbind".to_owned()][..]));
        let [data_seen, frozen, config_seen] = [1, 2, 3].map(|n| place.seen(&share, sources[n]));
        fs::write(data_seen.join("new"), "from the guest").unwrap();
        assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "from the guest");
        assert_eq!(fs::read_to_string(config_seen.clone()).unwrap(), "setting");
        // What the guest must not be able to change, even if it owns virtiofsd.
        for path in [frozen.join("new"), config_seen, share.shared_dir().join("x")] {
            let error = fs::write(&path, "x").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{}", path.display());
        }
        share.remove().unwrap();
        place.assert_nothing_left();
        assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "from the guest");
    });
}

#[test]
fn removing_a_container_unmounts_nothing_on_the_host() {
    isolated(|place| {
        // A shared mount with a mount on it is what host directories look like.
        let host = place.dir("host");
        tmpfs(&host, "size=64k");
        mount(None::<&str>, &host, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        let below = place.dir("host/below");
        tmpfs(&below, "size=64k");
        fs::write(below.join("file"), "x").unwrap();
        let share = place.share();
        let files = place
            .add(&share, json!([bind(&host, "/a", &["rbind"]), bind(&host, "/b", &["rbind", "rslave", "ro"])]))
            .unwrap();
        let seen: Vec<_> = files.mounts.iter().map(|mount| place.seen(&share, &mount.source)).collect();
        assert!(seen.iter().all(|path| path.join("below/file").exists()));
        // Only the second follows what the host mounts later.
        let later = place.dir("host/later");
        tmpfs(&later, "size=64k");
        fs::write(later.join("file"), "x").unwrap();
        assert_eq!(seen.iter().map(|path| path.join("later/file").exists()).collect::<Vec<_>>(), [false, true]);
        share.remove_container(&place.container).unwrap();
        assert!(below.join("file").exists() && later.join("file").exists());
        assert!(seen.iter().all(|path| !path.exists()));
        share.remove_container(&place.container).unwrap();
        // The name is free again.
        place.add(&share, json!([])).unwrap();
        share.remove().unwrap();
        place.assert_nothing_left();
        assert!(below.join("file").exists());
        umount2(&host, MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn nothing_mounted_on_the_guests_side_comes_back() {
    isolated(|place| {
        let share = place.share();
        let seen = share.shared_dir().join("watchable");
        tmpfs(&seen, "size=64k");
        fs::write(seen.join("file"), "x").unwrap();
        assert!(!share.mounts().join("watchable/file").exists());
        share.remove().unwrap();
        place.assert_nothing_left();
    });
}

#[test]
fn recursively_read_only_includes_mounts_below() {
    isolated(|place| {
        let host = place.dir("host");
        tmpfs(&place.dir("host/below"), "size=64k");
        let share = place.share();
        let files = place
            .add(&share, json!([bind(&host, "/a", &["rbind", "ro"]), bind(&host, "/b", &["rbind", "rro"])]))
            .unwrap();
        let write = |n: usize| fs::write(place.seen(&share, &files.mounts[n].source).join("below/x"), "x").is_ok();
        assert_eq!((write(0), write(1)), (true, false));
        share.remove().unwrap();
        place.assert_nothing_left();
    });
}

#[test]
fn kubelet_volumes_are_made_in_the_guest_where_that_is_better() {
    isolated(|place| {
        let volume = |kind: &str| place.dir(&format!("kubelet/pods/u1/volumes/kubernetes.io~{kind}/v"));
        let (memory, disk, secret) = (volume("empty-dir"), volume("empty-dir").with_file_name("d"), volume("secret"));
        fs::create_dir(&disk).unwrap();
        tmpfs(&memory, "size=1m,mode=2775,gid=7");
        fs::write(secret.join("key"), "value").unwrap();
        let share = place.share();
        let files = place
            .add(
                &share,
                json!([
                    bind(&memory, "/m", &["rbind"]),
                    bind(&disk, "/d", &["rbind"]),
                    bind(&secret, "/s", &["rbind", "ro"])
                ]),
            )
            .unwrap();
        let [in_memory, watched] = &files.storages[..] else { panic!("{:?}", files.storages) };
        assert_eq!((in_memory.driver.as_str(), in_memory.fstype.as_str()), ("ephemeral", "tmpfs"));
        assert_eq!(in_memory.options, ["mode=2775", "fsgid=7", "size=1048576"]);
        assert_eq!(in_memory.mount_point, "/run/kata-containers/sandbox/ephemeral/v");
        assert_eq!(files.mounts[0].source, in_memory.mount_point);
        assert!(place.seen(&share, &files.mounts[1].source).exists());
        assert_eq!((watched.driver.as_str(), &files.mounts[2].source), ("watchable-bind", &watched.mount_point));
        assert!(watched.mount_point.starts_with("/run/kata-containers/shared/containers/watchable/c1-"));
        assert_eq!(fs::read_to_string(place.seen(&share, &watched.source).join("key")).unwrap(), "value");
        let guest = VolumeRules { guest_empty_dir: true, ..place.rules() };
        let other = ContainerId::new("c2").unwrap();
        let files =
            share.add_container(&other, &place.path("rootfs"), &spec(json!([bind(&disk, "/d", &["rbind"])])), &guest);
        let files = files.unwrap();
        assert_eq!(files.storages[0].driver, "local");
        assert_eq!(files.storages[0].mount_point, "/run/kata-containers/shared/containers/s1/rootfs/local/d");
        share.remove().unwrap();
        place.assert_nothing_left();
    });
}

#[test]
fn a_container_that_cannot_be_shared_leaves_nothing() {
    isolated(|place| {
        let share = place.share();
        let good = bind(&place.dir("good"), "/good", &["rbind"]);
        let disk = place.path("disk");
        mknod(&disk, SFlag::S_IFBLK, Mode::S_IRUSR, makedev(7, 99)).unwrap();
        let mapped = json!({"type": "bind", "source": place.dir("good"), "destination": "/m",
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}]});
        for (mounts, word) in [
            (json!([good, bind(&place.path("absent"), "/a", &["rbind"])]), "does not exist"),
            (json!([good, bind(&disk, "/a", &["rbind"])]), "is a block device"),
            (json!([good, mapped]), "id mapping"),
        ] {
            let error = place.add(&share, mounts).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            let left: Vec<_> = fs::read_dir(share.mounts()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["watchable"]);
        }
        let mut privileged = spec(json!([]));
        let devices = json!({"devices": [{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]});
        privileged.set_linux(Some(serde_json::from_value(devices).unwrap()));
        let error = share.add_container(&place.container, &place.path("rootfs"), &privileged, &place.rules());
        assert!(matches!(error, Err(ShareError::BlockDevice { .. })), "{error:?}");
        let error = share.add_container(&place.container, &place.path("gone"), &spec(json!([])), &place.rules());
        assert!(matches!(error, Err(ShareError::RootfsGone { .. })), "{error:?}");
        place.add(&share, json!([])).unwrap();
        assert!(matches!(place.add(&share, json!([])), Err(ShareError::Exists { .. })));
        assert!(share.shared_dir().join("c1/rootfs/bin/sh").exists(), "the first one keeps its files");
        share.remove().unwrap();
        place.assert_nothing_left();
    });
}

#[test]
fn clean_up_works_from_any_state() {
    isolated(|place| {
        let clean = || {
            Share::cleanup(&place.dirs, &place.id).unwrap();
            place.assert_nothing_left();
        };
        clean();
        let base = place.dirs.share(&place.id);
        fs::create_dir_all(base.join("mounts/c1/rootfs")).unwrap();
        clean();
        // Stopped between mounting for the guest and taking the staging copy away, twice.
        let share = place.share();
        place.add(&share, json!([])).unwrap();
        let staging = base.join("private/left");
        fs::create_dir(&staging).unwrap();
        for _ in 0..2 {
            mount(Some(&place.path("rootfs")), &staging, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        }
        clean();
        assert!(place.path("rootfs/bin/sh").exists());
        // A new sandbox of the same id takes over whatever is there.
        place.add(&place.share(), json!([])).unwrap();
        place.add(&place.share(), json!([])).unwrap();
        clean();
    });
}

#[test]
fn clean_up_leaves_foreign_files_alone() {
    isolated(|place| {
        let outside = place.file("outside/file", "");
        let base = place.dirs.share(&place.id);
        fs::create_dir_all(base.join("mounts/c1")).unwrap();
        symlink(outside.parent().unwrap(), base.join("mounts/c1/rootfs")).unwrap();
        fs::write(base.join("mounts/c1/notes"), "by hand").unwrap();
        fs::write(base.join("mounts/empty"), "").unwrap();
        let error = Share::cleanup(&place.dirs, &place.id).unwrap_err().to_string();
        assert!(error.contains("c1/rootfs") && error.contains("c1/notes"), "{error}");
        assert!(outside.exists() && base.join("mounts/c1/notes").exists() && !base.join("mounts/empty").exists());
        // The whole tree replaced by a link: nothing behind it is touched.
        fs::remove_dir_all(&base).unwrap();
        symlink(outside.parent().unwrap(), &base).unwrap();
        Share::cleanup(&place.dirs, &place.id).unwrap_err();
        assert!(outside.exists());
    });
}

#[test]
fn configured_directories_are_in_every_sandbox() {
    isolated(|place| {
        let entry = |name: &str, read_only| BindMount { path: place.dir(name), read_only };
        let entries = [entry("tools", true), entry("scratch", false)];
        let share = Share::create(&place.dirs, &place.id, &entries).unwrap();
        let at = |name: &str| share.shared_dir().join("sandbox-mounts").join(name).join("x");
        assert!(fs::write(at("tools"), "").is_err());
        fs::write(at("scratch"), "").unwrap();
        share.remove().unwrap();
        place.assert_nothing_left();
        let absent = [BindMount { path: place.path("absent"), read_only: true }];
        Share::create(&place.dirs, &place.id, &absent).unwrap_err();
        place.assert_nothing_left();
    });
}

fn virtiofsd() -> PathBuf {
    let named = std::env::var_os("OSC_VIRTIOFSD").map(PathBuf::from);
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/virtiofsd");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join("virtiofsd"));
    let mut all = named.into_iter().chain([tools, "/usr/libexec/virtiofsd".into()]).chain(in_path);
    all.find(|path| path.exists()).expect("no virtiofsd: install it, or name it in OSC_VIRTIOFSD")
}

/// Runs `test` with a shared container and the configuration of a real virtiofsd.
fn with_daemon(extra: &[&str], test: impl AsyncFnOnce(&Place, &Share, DaemonSpec<'_>) + Send + 'static) {
    let extra_args = extra.iter().map(|arg| (*arg).to_owned()).collect();
    isolated(move |place| {
        let share = place.share();
        let config = VirtioFs { daemon: virtiofsd(), cache: CacheMode::Auto, queue_size: 1024, extra_args };
        let spec = DaemonSpec {
            sandbox: &place.id,
            config: &config,
            shared_dir: share.shared_dir(),
            socket: place.path("virtiofsd.sock"),
            debug: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(place, &share, spec));
        drop(runtime);
        share.remove().unwrap();
        place.assert_nothing_left();
    });
}

/// Processes of the group `pid` leads.
fn group(pid: u32) -> Vec<i32> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        if fields[0] != "Z" && fields[2] == pid.to_string() {
            members.push(entry.file_name().to_str().unwrap().parse().unwrap());
        }
    }
    members
}

async fn until_empty(pid: u32) {
    let by = by();
    while !group(pid).is_empty() {
        assert!(!by.passed(), "virtiofsd left {:?} behind", group(pid));
        tokio::task::yield_now().await;
    }
}

#[test]
fn virtiofsd_serves_what_is_mounted_later() {
    with_daemon(&["--thread-pool-size=1"], async |place, share, spec| {
        let daemon = Virtiofsd::start(&spec).unwrap();
        daemon.ready(by()).await.unwrap();
        place.add(share, json!([])).unwrap();
        let members = group(daemon.pid());
        assert_eq!(members.len(), 2);
        // The second process has the shared directory as its root.
        let inner = members.iter().find(|pid| **pid != daemon.pid().cast_signed()).unwrap();
        let root = PathBuf::from(format!("/proc/{inner}/root"));
        assert_eq!(fs::read_to_string(root.join("c1/rootfs/bin/sh")).unwrap(), "shell");
        share.remove_container(&place.container).unwrap();
        assert!(!root.join("c1").exists(), "an unmounted container must not stay busy");
        assert!(memory(&members) <= 5 << 10, "{} KiB", memory(&members));
        let socket = place.path("virtiofsd.sock");
        assert_ne!(fs::metadata(&socket).unwrap().mode() & 0o170_000, 0o100_000);
        assert!(daemon.stop(by()).await.is_some());
        until_empty(daemon.pid()).await;
        assert!(!socket.exists());
        assert!(daemon.stop(by()).await.is_some(), "idempotent");
    });
}

/// Memory of `pids` in KiB, each shared page counted in parts.
fn memory(pids: &[i32]) -> u64 {
    let one = |pid: &i32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    pids.iter().map(one).sum()
}

#[test]
fn the_end_of_virtiofsd_is_noticed_and_complete() {
    with_daemon(&[], async |_, _, spec| {
        let daemon = Virtiofsd::start(&spec).unwrap();
        daemon.ready(by()).await.unwrap();
        let mut exited = daemon.exited();
        kill(Pid::from_raw(daemon.pid().cast_signed()), Signal::SIGKILL).unwrap();
        let status = by().run(exited.wait_for(Option::is_some)).await.unwrap().unwrap().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        until_empty(daemon.pid()).await;
    });
}

#[test]
fn a_dropped_virtiofsd_is_killed() {
    with_daemon(&[], async |_, _, spec| {
        let daemon = Virtiofsd::start(&spec).unwrap();
        let pid = daemon.pid();
        drop(daemon);
        until_empty(pid).await;
    });
}

#[test]
fn failures_of_virtiofsd_say_why() {
    with_daemon(&["--no-such-option"], async |place, _, spec| {
        let error = Virtiofsd::start(&spec).unwrap().ready(by()).await.unwrap_err();
        assert!(matches!(&error, DaemonError::Ended { .. }) && error.to_string().contains("no-such-option"), "{error}");
        let config = VirtioFs { daemon: place.path("absent"), ..spec.config.clone() };
        let error = Virtiofsd::start(&DaemonSpec { config: &config, ..spec }).unwrap_err();
        assert!(matches!(error, DaemonError::Missing { .. }), "{error}");
        assert!(!place.path("virtiofsd.sock").exists());
    });
}
