//! Mounts, devices, masks.

use std::{fs, os::unix::fs::symlink, time::Duration};

use osc_agent_protocol::{Kind, oci};

use crate::support::{Place, block_on, mount, outcome, process};

#[test]
fn a_read_only_root_cannot_be_written() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["sh", "-c", "touch /tmp/x; touch /dev/shm/y && echo shm"]);
        spec.Root.mut_or_insert_default().Readonly = true;
        let got = place.run(spec).await;
        assert!(got.stderr.contains("Read-only file system"), "{got:?}");
        assert_eq!(got.stdout, "shm\n");
    });
}

#[test]
fn protected_paths_cannot_be_read_or_written() {
    block_on(async {
        let place = Place::new();
        let script = "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic; \
                      touch /sys/x; mount -t tmpfs none /tmp";
        let got = place.sh(script).await;
        assert_eq!(got.stdout, "0\n0\n");
        assert_eq!(got.stderr.matches("Read-only file system").count(), 2, "{got:?}");
        assert!(got.stderr.contains("permission denied"), "{got:?}");
    });
}

#[test]
fn volumes_of_every_kind_are_mounted() {
    block_on(async {
        let place = Place::new();
        let volume = place.dir.join("volume");
        fs::create_dir_all(volume.join("sub")).unwrap();
        fs::write(volume.join("file"), "from outside\n").unwrap();
        let path = |name: &str| volume.join(name).display().to_string();
        let mut spec = place.spec(&[
            "sh",
            "-c",
            "echo new > /data/sub/made; cat /data/file /etc/one; touch /fixed/x; touch /etc/one; \
             grep -E ' (/data|/fixed|/etc/one|/scratch) ' /proc/self/mounts | cut -d' ' -f2,4 | grep -o '.*r[ow],no[a-z]*\\|.*r[ow]' ; \
             stat -c %a /scratch",
        ]);
        symlink("busybox", place.image().join("bin/cut")).unwrap();
        spec.Mounts.extend([
            mount("/data", "bind", &path(""), &["rbind", "rprivate", "nosuid"]),
            mount("/fixed", "bind", &path("sub"), &["rbind", "ro"]),
            mount("/etc/one", "bind", &path("file"), &["bind", "ro"]),
            mount("/scratch", "tmpfs", "tmpfs", &["size=1m", "mode=0700"]),
        ]);
        let got = place.run(spec).await;
        assert!(got.stdout.starts_with("from outside\nfrom outside\n") && got.stdout.ends_with("700\n"), "{got:?}");
        assert_eq!(got.stderr.matches("Read-only file system").count(), 2, "{got:?}");
        assert!(got.stdout.contains("/data rw,nosuid"), "{got:?}");
        assert_eq!(fs::read_to_string(volume.join("sub/made")).unwrap(), "new\n");
    });
}

#[test]
fn links_in_an_image_cannot_redirect_mounts() {
    block_on(async {
        let place = Place::new();
        let outside = place.dir.join("outside");
        fs::create_dir_all(&outside).unwrap();
        symlink(&outside, place.image().join("data")).unwrap();
        symlink("../../../../..", place.image().join("up")).unwrap();
        let mut spec = place.spec(&["sh", "-c", "ls /data/deep /up/made"]);
        spec.Mounts.push(mount("/data/deep", "tmpfs", "tmpfs", &[]));
        spec.Mounts.push(mount("/up/made", "tmpfs", "tmpfs", &[]));
        place.run(spec).await.ok();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "made outside the root");
        assert!(place.image().join("made").is_dir());
    });
}

#[test]
fn kernel_file_systems_need_plain_directories() {
    block_on(async {
        let place = Place::new();
        fs::remove_dir(place.image().join("proc")).unwrap();
        symlink("tmp", place.image().join("proc")).unwrap();
        let error = place.create("c", place.spec(&["true"])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    });
}

#[test]
fn a_missing_volume_is_named() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["true"]);
        spec.Mounts.push(mount("/data", "bind", "/no/such/volume", &["rbind"]));
        let error = place.create("c", spec).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("/no/such/volume"), "{error}");
    });
}

#[test]
fn devices_and_links_are_there() {
    block_on(async {
        let place = Place::new();
        let script = "echo x > /dev/null; head -c 2 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; \
                      stat -c '%t:%T %a %u' /dev/fuse; for l in fd stdin ptmx; do readlink /dev/$l; done";
        let mut spec = place.spec(&["sh", "-c", script]);
        spec.Linux.mut_or_insert_default().Devices = vec![oci::LinuxDevice {
            Path: "/dev/fuse".into(),
            Type: "c".into(),
            Major: 10,
            Minor: 229,
            FileMode: 0o640,
            UID: 33,
            ..oci::LinuxDevice::default()
        }];
        let want = "2\n4\na:e5 640 33\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n";
        assert_eq!(place.run(spec).await.ok(), want);
    });
}

#[test]
fn parameters_of_namespaces_are_set() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["cat", "/proc/sys/kernel/msgmax", "/proc/sys/fs/mqueue/msg_max"]);
        let linux = spec.Linux.mut_or_insert_default();
        linux.Sysctl.insert("kernel.msgmax".into(), "4242".into());
        linux.Sysctl.insert("fs.mqueue.msg_max".into(), "77".into());
        assert_eq!(place.run(spec).await.ok(), "4242\n77\n");
        assert_ne!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap().trim(), "4242");
        let mut spec = place.spec(&["true"]);
        spec.Linux.mut_or_insert_default().Sysctl.insert("../../etc/passwd".into(), "x".into());
        assert_eq!(place.create("c", spec).await.unwrap_err().kind(), Kind::Invalid);
    });
}

#[test]
fn nothing_of_the_agent_shows() {
    block_on(async {
        let place = Place::new();
        let got = place.sh("cat /proc/self/mountinfo; ls /").await.ok();
        assert!(!got.contains(place.dir.join("run").to_str().unwrap()), "{got}");
        let roots = got.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count();
        assert_eq!(roots, 1, "{got}");
    });
}

#[test]
fn mounts_made_inside_stay_inside() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["sh", "-c", "mount -t tmpfs none /tmp && touch /tmp/inside; read x"]);
        let capabilities = spec.Process.mut_or_insert_default().Capabilities.mut_or_insert_default();
        for set in [&mut capabilities.Bounding, &mut capabilities.Effective, &mut capabilities.Permitted] {
            set.push("CAP_SYS_ADMIN".into());
        }
        let container = place.start("c", spec).await;
        container.exec("e", process(&["sh", "-c", "while ! [ -e /tmp/inside ]; do sleep 0.02; done"])).await.unwrap();
        assert_eq!(outcome(&container, "e").await.status, 0);
        assert!(!place.image().join("tmp/inside").exists());
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("image/tmp"));
        container.remove(Some(Duration::from_secs(10))).await.unwrap();
    });
}
