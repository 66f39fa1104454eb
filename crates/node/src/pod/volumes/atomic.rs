//! Files that change all at once, laid out as a kubelet does it:
//!
//! ```text
//! volume/key  -> ..data/key
//! volume/..data -> ..2026_01_02_03_04_05.000000006
//! volume/..2026_01_02_03_04_05.000000006/key
//! ```
//!
//! A reader who keeps `..data` open sees the old files or the new ones, never both.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;

/// Content and mode of each file, by its path in the volume.
pub type Content = BTreeMap<PathBuf, (Vec<u8>, u32)>;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes the volume in `dir` hold exactly `content`. Whether anything changed.
///
/// # Errors
/// When something cannot be written; what was there before stays in effect.
pub fn write(dir: &Path, content: &Content, group: Option<u32>) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    let old = fs::read_link(dir.join(DATA)).ok();
    if old.as_ref().is_some_and(|old| read(&dir.join(old)).is_ok_and(|found| found == plain(content))) {
        return Ok(false);
    }
    let version = format!("..{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%N"));
    let fresh = dir.join(&version);
    let written = write_files(&fresh, content, group).and_then(|()| switch(dir, &version));
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&fresh); // the next attempt has a name of its own
        return Err(error);
    }
    link_names(dir, content)?;
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

fn plain(content: &Content) -> BTreeMap<PathBuf, Vec<u8>> {
    content.iter().map(|(path, (bytes, _))| (path.clone(), bytes.clone())).collect()
}

fn write_files(dir: &Path, content: &Content, group: Option<u32>) -> io::Result<()> {
    // The group of the pod may read what its owner may.
    let shared = |mode: u32| if group.is_some() { mode | 0o040 } else { mode };
    let make_dir = |dir: &Path| -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(0o755))
    };
    make_dir(dir)?;
    for (path, (bytes, mode)) in content {
        let file = dir.join(path);
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            make_dir(&dir.join(above))?;
        }
        let mut opened = File::create(&file)?;
        opened.write_all(bytes)?;
        if group.is_some() {
            chown(&file, None, group)?;
        }
        opened.set_permissions(Permissions::from_mode(shared(*mode)))?;
    }
    Ok(())
}

/// The moment of change.
fn switch(dir: &Path, version: &str) -> io::Result<()> {
    let draft = dir.join(NEW_DATA);
    let _ = fs::remove_file(&draft); // left by a writer that was killed
    symlink(version, &draft)?;
    fs::rename(&draft, dir.join(DATA))
}

/// Names people see, one for each first component.
fn link_names(dir: &Path, content: &Content) -> io::Result<()> {
    let first = |path: &PathBuf| match path.components().next() {
        Some(Component::Normal(name)) => Some(name.to_owned()),
        _ => None,
    };
    let wanted: BTreeSet<_> = content.keys().filter_map(first).collect();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b"..") && !wanted.contains(&name) {
            fs::remove_file(dir.join(name))?;
        }
    }
    for name in wanted {
        if fs::symlink_metadata(dir.join(&name)).is_err() {
            symlink(Path::new(DATA).join(&name), dir.join(&name))?;
        }
    }
    Ok(())
}

fn read(dir: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(below) = dirs.pop() {
        for entry in fs::read_dir(dir.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path, fs::read(entry.path())?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn content(files: &[(&str, &str)]) -> Content {
        files.iter().map(|(path, text)| (path.into(), (text.as_bytes().to_vec(), 0o400))).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).expect("list").flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_change_together_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = content(&[("a", "1"), ("b/c", "2")]);
        assert!(write(dir.path(), &first, Some(7)).expect("write"));
        assert!(!write(dir.path(), &first, Some(7)).expect("nothing to do"));
        assert_eq!(fs::read_to_string(dir.path().join("b/c")).expect("read"), "2");
        let found = fs::metadata(dir.path().join("a")).expect("stat");
        assert_eq!((found.mode() & 0o777, found.gid()), (0o440, 7));
        let old = fs::read_link(dir.path().join(DATA)).expect("link");

        assert!(write(dir.path(), &content(&[("a", "3")]), None).expect("write"));
        assert_eq!(fs::read_to_string(dir.path().join("a")).expect("read"), "3");
        assert!(!dir.path().join(old).exists() && !dir.path().join("b").exists());
        let now = fs::read_link(dir.path().join(DATA)).expect("link").to_string_lossy().into_owned();
        assert_eq!(names(dir.path()), [now, DATA.to_owned(), "a".to_owned()]);
    }

    #[test]
    fn a_killed_writer_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("tempdir");
        symlink("..gone", dir.path().join(NEW_DATA)).expect("link");
        assert!(write(dir.path(), &content(&[]), None).expect("an empty volume is one too"));
        assert!(write(dir.path(), &content(&[("a", "1")]), None).expect("write"));
        assert_eq!(fs::read_to_string(dir.path().join("a")).expect("read"), "1");
    }
}
