//! Programs of the guest image that run at points of a container's life.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use osc_agent_protocol::oci;

/// The hooks found in the guest, by stage.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GuestHooks {
    prestart: Vec<PathBuf>,
    poststart: Vec<PathBuf>,
    poststop: Vec<PathBuf>,
}

/// Looks for executable files in the directories `prestart`, `poststart` and
/// `poststop` below `root`; an empty `root` has none.
pub(super) fn scan(root: &str) -> GuestHooks {
    if root.is_empty() {
        return GuestHooks::default();
    }
    let stage = |name: &str| executables(&Path::new(root).join(name));
    GuestHooks { prestart: stage("prestart"), poststart: stage("poststart"), poststop: stage("poststop") }
}

/// In order of their names, so that an image can say which comes first.
fn executables(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

impl GuestHooks {
    /// Adds the hooks to those of a container.
    pub(super) fn add_to(&self, spec: &mut oci::Spec) {
        if *self == Self::default() {
            return;
        }
        let hooks = spec.Hooks.mut_or_insert_default();
        for (paths, stage, list) in [
            (&self.prestart, "prestart", &mut hooks.Prestart),
            (&self.poststart, "poststart", &mut hooks.Poststart),
            (&self.poststop, "poststop", &mut hooks.Poststop),
        ] {
            list.extend(paths.iter().map(|path| hook(path, stage)));
        }
    }
}

fn hook(path: &Path, stage: &str) -> oci::Hook {
    let path = path.display().to_string();
    oci::Hook { Args: vec![path.clone(), stage.into()], Path: path, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_files_become_hooks() {
        let root = std::env::temp_dir().join(format!("agent-hooks-{}", std::process::id()));
        fs::create_dir_all(root.join("prestart/dir")).unwrap();
        for (name, mode) in [("20-b", 0o755), ("10-a", 0o700), ("readme", 0o644)] {
            let path = root.join("prestart").join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut spec = oci::Spec::new();
        scan(root.to_str().unwrap()).add_to(&mut spec);
        let names: Vec<_> = spec.Hooks.Prestart.iter().map(|h| h.Path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["10-a", "20-b"]);
        assert_eq!(spec.Hooks.Prestart[0].Args[1], "prestart");
        assert!(spec.Hooks.Poststart.is_empty());

        let mut untouched = oci::Spec::new();
        scan("").add_to(&mut untouched);
        assert!(untouched.Hooks.is_none());
        fs::remove_dir_all(&root).unwrap();
    }
}
