//! How much pods put into volumes that have a limit nobody enforces at once.
//!
//! As in Kubernetes the limit of an `emptyDir` on disk is looked at every now and
//! then, and a pod that is above it is evicted. What a sandbox keeps in its guest
//! is limited by the guest's size and not seen here.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Claims, place};
use crate::pod::model::{Pod, Source};

/// How often usage is looked at, as by a kubelet.
const LOOK: Duration = Duration::from_secs(10);
/// Bytes of a block, whatever the file system's own are (stat(2)).
const BLOCK: u64 = 512;
/// So many entries of one volume are counted at most: more would keep the disk busy.
const MOST: usize = 1 << 20;

/// Waits until a volume of the pod in `dir` holds more than it may; what to say
/// then. For ever for a pod without limits. Cancel-safe.
pub async fn overfull(dir: &Path, pod: &Pod) -> String {
    let limits: Vec<(String, PathBuf, u64)> = limits(dir, pod);
    if limits.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let limits = limits.clone();
        let looked = tokio::task::spawn_blocking(move || above(&limits)).await;
        if let Ok(Some(volume)) = looked {
            return volume;
        }
    }
}

fn limits(dir: &Path, pod: &Pod) -> Vec<(String, PathBuf, u64)> {
    let limited = pod.volumes.iter().filter_map(|volume| match volume.source {
        Source::EmptyDir(Some(limit)) => Some((volume.name.clone(), place(dir, volume, &Claims::new()), limit)),
        _ => None,
    });
    limited.collect()
}

/// Says which volume is above its limit, if one is.
fn above(limits: &[(String, PathBuf, u64)]) -> Option<String> {
    let (name, _, limit) = limits.iter().find(|(_, path, limit)| used(path).is_ok_and(|used| used > *limit))?;
    Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit of {limit} bytes."))
}

/// Bytes on disk below `dir`. A file with several names counts once; links are not
/// followed, nor are other file systems entered.
fn used(dir: &Path) -> io::Result<u64> {
    let device = fs::symlink_metadata(dir)?.dev();
    let (mut seen, mut bytes, mut entries) = (HashSet::new(), 0, 0);
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        // What goes while it is counted does not count.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            entries += 1;
            if found.dev() != device || (found.nlink() > 1 && !found.is_dir() && !seen.insert(found.ino())) {
                continue;
            }
            bytes += found.blocks() * BLOCK;
            if entries > MOST {
                return Ok(bytes);
            }
            if found.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_the_disk_counts_once() {
        let root = tempfile::tempdir().expect("tempdir");
        let dir = root.path().join("a/b");
        fs::create_dir_all(&dir).expect("mkdir");
        let before = used(root.path()).expect("used");
        fs::write(dir.join("file"), [7; 1 << 20]).expect("write");
        fs::hard_link(dir.join("file"), dir.join("again")).expect("link");
        std::os::unix::fs::symlink("/", dir.join("out")).expect("symlink");
        let written = used(root.path()).expect("used") - before;
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&written), "{written}");

        let limits = |limit| vec![("v".to_owned(), root.path().to_owned(), limit)];
        assert_eq!(above(&limits(2 << 20)), None);
        assert!(above(&limits(1 << 19)).expect("above").contains("\"v\" exceeds"));
        assert_eq!(above(&[("gone".into(), root.path().join("gone"), 1)]), None);
    }
}
