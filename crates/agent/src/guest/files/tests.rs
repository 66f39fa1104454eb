//! Copying into a directory whose content is hostile.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

struct Share(PathBuf);

impl Share {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("agent-files-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("share")).unwrap();
        Self(root)
    }

    fn root(&self) -> PathBuf {
        self.0.join("share")
    }

    fn request(&self, path: &str, mode: u32, data: &[u8]) -> CopyFileRequest {
        CopyFileRequest {
            path: self.root().join(path).display().to_string(),
            file_size: data.len() as i64,
            file_mode: mode,
            dir_mode: 0o750,
            uid: 7,
            gid: 8,
            data: data.to_vec(),
            ..Default::default()
        }
    }

    fn copy(&self, request: &CopyFileRequest) -> Result<()> {
        copy_below(&self.root(), request)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_appears_when_it_is_complete() {
    let share = Share::new("pieces");
    let path = share.root().join("c1/config/key");
    let mut request = share.request("c1/config/key", 0o100_640, b"01234567");
    let whole = std::mem::take(&mut request.data);
    for (offset, piece) in [(0, &whole[..3]), (3, &whole[3..8])] {
        assert!(!path.exists());
        request.offset = offset;
        request.data = piece.to_vec();
        share.copy(&request).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), whole);
    let seen = fs::metadata(&path).unwrap();
    assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (0o640, 7, 8));
    let parent = fs::metadata(path.parent().unwrap()).unwrap();
    assert_eq!((parent.mode() & 0o7777, parent.uid()), (0o750, 7));

    // A shorter version leaves nothing of the longer one.
    share.copy(&share.request("c1/config/key", 0o100_600, b"x")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"x");
}

#[test]
fn directories_and_links_are_made() {
    let share = Share::new("kinds");
    share.copy(&share.request("d", 0o040_711, b"")).unwrap();
    assert_eq!(fs::metadata(share.root().join("d")).unwrap().mode() & 0o7777, 0o711);
    for target in ["..rev1", "..rev2"] {
        share.copy(&share.request("d/..data", 0o120_777, target.as_bytes())).unwrap();
        assert_eq!(fs::read_link(share.root().join("d/..data")).unwrap(), Path::new(target));
    }
    assert_eq!(fs::symlink_metadata(share.root().join("d/..data")).unwrap().uid(), 7);
}

#[test]
fn nothing_is_written_outside() {
    let share = Share::new("escape");
    let victim = share.0.join("victim");
    fs::create_dir(&victim).unwrap();
    symlink(&victim, share.root().join("link")).unwrap();
    symlink(victim.join("file"), share.root().join("direct.tmp")).unwrap();
    for path in ["link/file", "../victim/file", "direct", "a/../../victim/file"] {
        assert!(share.copy(&share.request(path, 0o100_644, b"x")).is_err(), "{path}");
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "{path}");
    }
    let mut elsewhere = share.request("x", 0o100_644, b"x");
    for path in ["/etc/x", "x", "", &share.root().display().to_string()] {
        elsewhere.path = path.into();
        assert!(matches!(share.copy(&elsewhere), Err(GuestError::Invalid { field: "path", .. })), "{path}");
    }
}

#[test]
fn a_replaced_name_does_not_write_through_its_link() {
    let share = Share::new("replace");
    let victim = share.0.join("victim");
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, share.root().join("name")).unwrap();
    share.copy(&share.request("name", 0o100_644, b"new")).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::read_to_string(share.root().join("name")).unwrap(), "new");
}

#[test]
fn odd_requests_are_refused() {
    let share = Share::new("odd");
    let base = share.request("x", 0o100_644, b"abc");
    for request in [
        CopyFileRequest { file_mode: 0o020_644, ..base.clone() },
        CopyFileRequest { offset: -1, ..base.clone() },
        CopyFileRequest { offset: 1, ..base.clone() },
        CopyFileRequest { file_size: -1, ..base.clone() },
        CopyFileRequest { offset: i64::MAX, file_size: i64::MAX, ..base.clone() },
    ] {
        assert!(matches!(share.copy(&request), Err(GuestError::Invalid { .. })), "{request:?}");
    }
}

#[tokio::test]
async fn last_words_are_cut_and_never_waited_for() {
    let share = Share::new("words");
    let spec = |source: &Path| {
        let mut spec = oci::Spec::new();
        spec.Annotations.insert(MESSAGE_PATH.into(), "/dev/termination-log".into());
        spec.Mounts.push(oci::Mount {
            destination: "/dev/termination-log".into(),
            source: source.display().to_string(),
            ..Default::default()
        });
        spec
    };
    let file = share.0.join("log");
    fs::write(&file, "x".repeat(5000)).unwrap();
    assert_eq!(termination_message(spec(&file)).await.unwrap().len(), 4096);
    let pipe = share.0.join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    assert!(termination_message(spec(&pipe)).await.is_err());
    symlink("/etc/passwd", share.0.join("link")).unwrap();
    assert!(termination_message(spec(&share.0.join("link"))).await.is_err());
    assert_eq!(termination_message(oci::Spec::new()).await.unwrap(), "");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}
