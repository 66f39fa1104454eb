//! Stores that are not opened, and are left as they are.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::path::Path;

use common::{key, open, put, small};
use osc_store::{Entry, Expect, Kind, OpenError, Page, Prefix, Store};
use redb::{Database, TableDefinition};

const FILE: &str = "objects.redb";

/// Makes a store with some history. Gives the file as it is when closed and as a crash would leave it.
async fn images() -> (Vec<Entry>, Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    for round in 0..3 {
        for n in 0..20 {
            store.write(vec![put(&key("a", &format!("x{n}")), Expect::Any)]).await.unwrap();
            if round == 1 {
                let gone = osc_store::Change::delete(key("a", &format!("x{n}")), Expect::Any, |_| "gone".into());
                store.write(vec![gone]).await.unwrap();
            }
        }
    }
    let entries = objects(&store).await;
    let crashed = std::fs::read(dir.path().join(FILE)).unwrap();
    store.close().await;
    (entries, std::fs::read(dir.path().join(FILE)).unwrap(), crashed)
}

async fn objects(store: &Store) -> Vec<Entry> {
    let listing = store.list(&Prefix::resource("", "pods").unwrap(), Page::default()).await.unwrap();
    assert_eq!(listing.entries.len(), 20);
    listing.entries
}

/// Opens a file that may be damaged: it is refused and left as it is, or nothing that matters is damaged.
async fn refused(dir: &Path, bytes: &[u8], entries: &[Entry]) -> Option<OpenError> {
    std::fs::write(dir.join(FILE), bytes).unwrap();
    match Store::open(dir, small()) {
        Ok(store) => {
            assert_eq!(objects(&store).await, entries);
            assert_eq!(store.revision().unwrap().get(), 80);
            store.close().await;
            None
        }
        Err(error) => {
            assert!(std::fs::read(dir.join(FILE)).unwrap() == bytes, "{error}, but the file was changed");
            Some(error)
        }
    }
}

/// Damages a good file in many places, one at a time, all but `except`.
async fn damage(image: &[u8], entries: &[Entry], except: &[usize]) {
    let dir = tempfile::tempdir().unwrap();
    assert!(refused(dir.path(), image, entries).await.is_none());
    let mut found = 0;
    // The header as far as it is used, the rest in steps that meet all parts of a page.
    let positions = (0..64).chain((64..320).step_by(3)).chain((320..image.len()).step_by(4099));
    for at in positions.filter(|at| !except.contains(at)) {
        let mut damaged = image.to_vec();
        damaged[at] ^= 0x41;
        if let Some(error) = refused(dir.path(), &damaged, entries).await {
            assert!(matches!(error, OpenError::Corrupt { .. }), "byte {at}: {error:?}");
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
    for len in [0, 1, 64, 319, 4096, image.len() / 2, image.len() - 4096, image.len() - 1] {
        let error = refused(dir.path(), &image[..len], entries).await;
        assert!(matches!(error, Some(OpenError::Corrupt { .. })), "cut to {len}: {error:?}");
    }
}

#[tokio::test]
async fn damage_to_a_closed_store_is_found_or_does_not_matter() {
    let (entries, closed, _) = images().await;
    damage(&closed, &entries, &[]).await;
}

#[tokio::test]
async fn damage_to_a_crashed_store_is_found_or_does_not_matter() {
    let (entries, _, crashed) = images().await;
    // This byte tells which of the last two commits counts: no checksum can cover it, as it is what a commit flips.
    damage(&crashed, &entries, &[9]).await;
}

#[tokio::test]
async fn what_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for bytes in [&noise[..], b"hello", &[0; 8192]] {
        let error = refused(dir.path(), bytes, &[]).await.expect("must not open");
        assert_eq!(error.kind(), Kind::Denied, "{error:?}");
        assert!(error.to_string().contains(FILE) && error.to_string().contains("left as it is"), "{error}");
    }
    // A database of somebody else.
    let path = dir.path().join(FILE);
    std::fs::remove_file(&path).unwrap();
    Database::create(&path).unwrap().close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(matches!(refused(dir.path(), &bytes, &[]).await, Some(OpenError::Corrupt { .. })));
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (entries, closed, _) = images().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    std::fs::write(&path, closed).unwrap();
    let database = Database::open(&path).unwrap();
    let commit = database.begin_write().unwrap();
    commit.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 2).unwrap();
    commit.commit().unwrap();
    database.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let error = refused(dir.path(), &bytes, &entries).await;
    assert!(matches!(error, Some(OpenError::Newer { found: 2, known: 1, .. })), "{error:?}");
}

#[tokio::test]
async fn the_second_to_open_is_told_who_was_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    let error = Store::open(dir.path(), small()).err().expect("must not open");
    let own = std::process::id();
    assert!(matches!(error, OpenError::InUse { owner: Some(owner), .. } if owner == own), "{error:?}");
    assert!(error.to_string().contains(&format!("in use by pid {own}")), "{error}");
    store.close().await;
    open(dir.path(), small()).close().await;
}

#[tokio::test]
async fn an_unfinished_new_store_is_made_again_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep/store");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("objects.redb.new"), "half").unwrap();
    open(&dir, small()).close().await;
    let mode = std::fs::metadata(dir.join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.join("objects.redb.new").exists());
}
