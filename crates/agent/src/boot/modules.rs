//! Kernel modules the guest cannot do without.

use std::{
    fs::{self, File},
    path::Path,
};

use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
};
use osc_agent_protocol::names::GUEST_MODULE_LIST;

use super::BootError;

/// Loads the modules the image lists, in its order, without a process each. A
/// kernel with everything built in has no list.
pub(super) fn load_listed() -> Vec<BootError> {
    let Ok(list) = fs::read_to_string(GUEST_MODULE_LIST) else { return Vec::new() };
    paths(&list).filter_map(|path| load(path).err()).collect()
}

fn paths(list: &str) -> impl Iterator<Item = &Path> {
    list.lines().map(str::trim).filter(|line| line.starts_with('/')).map(Path::new)
}

fn load(path: &Path) -> Result<(), BootError> {
    let failed = |source| BootError::Module { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(failed)?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        // Built in or loaded before us.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(failed(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_absolute_paths_in_order() {
        let list = "# core\n/lib/modules/6/a.ko\n\n  /lib/modules/6/b.ko\nrelative.ko\n";
        let seen: Vec<_> = paths(list).collect();
        assert_eq!(seen, [Path::new("/lib/modules/6/a.ko"), Path::new("/lib/modules/6/b.ko")]);
    }
}
