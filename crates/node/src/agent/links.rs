//! Links to the logs of containers, under the names log collectors expect:
//! `<pod>_<namespace>_<container>-<id>.log`.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::pod::Record;

/// The directory of links.
#[derive(Clone, Debug)]
pub(super) struct Links {
    dir: PathBuf,
}

impl Links {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Links to the log of a container that was just started.
    pub(super) fn link(&self, record: &Record, container: &str, id: &str, log: Option<&Path>) {
        let Some(log) = log else { return };
        let name = format!("{}_{}_{container}-{id}.log", record.name, record.namespace);
        let made = fs::create_dir_all(&self.dir).and_then(|()| symlink(log, self.dir.join(name)));
        if let Err(error) = made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!(container.id = id, error = %error, "log is not linked");
        }
    }

    /// Removes links to logs that are gone.
    pub(super) fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if fs::metadata(entry.path()).is_err() {
                let _ = fs::remove_file(entry.path()); // somebody else may sweep too
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Manifest;

    #[test]
    fn links_live_as_long_as_their_logs() {
        let dir = tempfile::tempdir().expect("tempdir");
        let links = Links::new(dir.path().join("links"));
        let log = dir.path().join("0.log");
        fs::write(&log, "x").expect("write");
        let text = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}";
        let record = Record::new(&Manifest::read("test", text).expect("good")[0], "runc");
        links.link(&record, "c", "id", Some(&log));
        links.link(&record, "c", "id", Some(&log));
        let link = dir.path().join("links/p_default_c-id.log");
        assert_eq!(fs::read(&link).expect("read"), b"x");
        links.sweep();
        assert!(link.exists());
        fs::remove_file(&log).expect("remove");
        links.sweep();
        assert!(fs::symlink_metadata(&link).is_err());
    }
}
