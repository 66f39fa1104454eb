//! Storages mounted for real, in a mount namespace of the test's own thread.

use std::{fs, os::unix::fs::MetadataExt, time::Duration};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use osc_agent_protocol::Kind;

use super::*;
use crate::device::Uevents;

/// Runs `test` where its mounts are invisible to everybody else and vanish with
/// it. Needs root, as the agent does.
fn in_private_mounts<F: Future<Output = ()>>(name: &str, test: impl FnOnce(PathBuf) -> F + Send) {
    let root = std::env::temp_dir().join(format!("agent-storage-{name}-{}", std::process::id()));
    fs::create_dir_all(&root).unwrap();
    std::thread::scope(|scope| {
        let root = root.clone();
        scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            // Its own threads are made from this one and inherit its namespace.
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(root));
        });
    });
    fs::remove_dir_all(&root).unwrap();
}

fn storages() -> Storages {
    Storages::new(Arc::new(Devices::new(Uevents::default(), Duration::from_millis(20))))
}

fn tmpfs(mount_point: &Path) -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "shm".into(),
        fstype: "tmpfs".into(),
        options: ["noexec", "nosuid", "nodev", "mode=1777", "size=1048576"].map(String::from).to_vec(),
        mount_point: mount_point.display().to_string(),
        ..Default::default()
    }
}

fn bind(source: &Path, mount_point: &Path, options: &[&str]) -> Storage {
    Storage {
        driver: "virtio-fs".into(),
        source: source.display().to_string(),
        fstype: "bind".into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        mount_point: mount_point.display().to_string(),
        ..Default::default()
    }
}

fn mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

#[test]
fn the_last_reference_unmounts() {
    in_private_mounts("refs", |root| async move {
        let storages = storages();
        let (source, target) = (root.join("source"), root.join("target"));
        fs::create_dir(&source).unwrap();
        let storage = bind(&source, &target, &["rbind", "ro"]);
        let first = storages.add_all(std::slice::from_ref(&storage), None).await.unwrap();
        let second = storages.add_all(&[storage], Some("c1")).await.unwrap();
        assert_eq!(first, second);
        assert!(fs::write(target.join("x"), "").is_err(), "read-only must hold for bind mounts");
        storages.release_all(&first).await;
        assert!(mounted(&target));
        storages.release_all(&second).await;
        assert!(!mounted(&target) && !target.exists() && source.exists());
        assert!(storages.slots().is_empty());
    });
}

#[test]
fn memory_lives_as_long_as_the_pod() {
    in_private_mounts("memory", |root| async move {
        let storages = storages();
        let target = root.join("shm");
        let storage = tmpfs(&target);
        let held = storages.add_all(std::slice::from_ref(&storage), Some("c1")).await.unwrap();
        fs::write(target.join("state"), "kept").unwrap();
        storages.release_all(&held).await;
        storages.add_all(std::slice::from_ref(&storage), Some("c2")).await.unwrap();
        assert_eq!(fs::read_to_string(target.join("state")).unwrap(), "kept");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o1777);

        let mut larger = storage.clone();
        larger.options = vec!["size=2097152".into()];
        storages.remount_ephemeral(vec![larger]).await.unwrap();
        let seen = nix::sys::statvfs::statvfs(&target).unwrap();
        assert_eq!(seen.blocks() * seen.fragment_size(), 2 << 20);
        storages.clear().await;
        assert!(!mounted(&target));
    });
}

#[test]
fn a_failure_leaves_nothing_mounted() {
    in_private_mounts("undo", |root| async move {
        let storages = storages();
        let good = tmpfs(&root.join("good"));
        let mut local = bind(&root.join("missing"), &root.join("bad"), &["bind"]);
        local.driver = "virtio-fs".into();
        let mut bound = bind(&root, &root.join("bound"), &["bind"]);
        bound.shared = false;
        let error = storages.add_all(&[good, bound, local], None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert!(!mounted(&root.join("bound")));
    });
}

#[test]
fn local_directories_get_mode_and_group() {
    in_private_mounts("local", |root| async move {
        let storage = Storage {
            driver: "local".into(),
            options: vec!["mode=0770".into(), "fsgid=77".into()],
            mount_point: root.join("a/b").display().to_string(),
            ..Default::default()
        };
        storages().add_all(&[storage], None).await.unwrap();
        let seen = fs::metadata(root.join("a/b")).unwrap();
        assert_eq!((seen.mode() & 0o7777, seen.gid()), (0o2770, 77));
    });
}

#[test]
fn an_overlay_can_be_assembled() {
    in_private_mounts("overlay", |root| async move {
        for dir in ["lower", "mnt"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        mount(Some("t"), &root.join("mnt"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::write(root.join("lower/file"), "below").unwrap();
        let dir = |name: &str| root.join(name).display().to_string();
        let storage = Storage {
            driver: "overlayfs".into(),
            source: "none".into(),
            fstype: "overlay".into(),
            driver_options: ["mnt/upper", "mnt/work"]
                .map(|d| format!("io.katacontainers.volume.overlayfs.create_directory={}", dir(d)))
                .to_vec(),
            options: vec![
                format!("lowerdir={}", dir("lower")),
                format!("upperdir={}", dir("mnt/upper")),
                format!("workdir={}", dir("mnt/work")),
            ],
            mount_point: dir("merged"),
            ..Default::default()
        };
        storages().add_all(&[storage], None).await.unwrap();
        fs::write(root.join("merged/new"), "above").unwrap();
        assert_eq!(fs::read_to_string(root.join("merged/file")).unwrap(), "below");
        assert!(root.join("mnt/upper/new").exists() && !root.join("lower/new").exists());
    });
}

#[test]
fn a_watched_directory_is_a_copy_in_memory() {
    in_private_mounts("watch", |root| async move {
        let storages = storages();
        let (source, target) = (root.join("source"), root.join("watchable/config"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("key"), "one").unwrap();
        let mut storage = bind(&source, &target, &[]);
        storage.driver = "watchable-bind".into();
        let held = storages.add_all(&[storage], Some("c1")).await.unwrap();
        assert_eq!(fs::read_to_string(target.join("key")).unwrap(), "one");
        assert!(mounted(&root.join("watchable")) && mounted(&target));
        fs::write(source.join("key"), "two!").unwrap();
        // Two looks at most: one may just have passed.
        tokio::time::timeout(Duration::from_secs(20), async {
            while fs::read_to_string(target.join("key")).unwrap() != "two!" {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .unwrap();
        storages.release_all(&held).await;
        assert!(!mounted(&target));
    });
}

#[test]
fn what_is_not_understood_is_refused() {
    let table = [
        (Storage { driver: "9p".into(), mount_point: "/x".into(), ..Default::default() }, Kind::Unsupported),
        (Storage { driver: "local".into(), mount_point: "/x/../etc".into(), ..Default::default() }, Kind::Invalid),
        (Storage { driver: "local".into(), mount_point: "x".into(), ..Default::default() }, Kind::Invalid),
        (Storage { driver: "local".into(), mount_point: "/".into(), ..Default::default() }, Kind::Invalid),
        (
            Storage { driver: "blk".into(), source: "zz".into(), mount_point: "/x".into(), ..Default::default() },
            Kind::Invalid,
        ),
        (
            Storage { driver: "blk".into(), source: "1e".into(), mount_point: "/x".into(), ..Default::default() },
            Kind::Timeout,
        ),
        (
            Storage {
                driver: "blk".into(),
                source: "1e".into(),
                mount_point: "/x".into(),
                driver_options: vec!["encryption_key=ephemeral".into()],
                ..Default::default()
            },
            Kind::Unsupported,
        ),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (storage, want) in table {
        let error = runtime.block_on(storages().add_all(std::slice::from_ref(&storage), None)).unwrap_err();
        assert_eq!(error.kind(), want, "{storage:?}: {error}");
    }
}
