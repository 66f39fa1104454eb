//! The configuration file we ship.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::keys::{KEYS, Use};

/// Paths the shipped file names; everything else in it is a default.
#[derive(Clone, Debug)]
pub struct DefaultPaths {
    /// QEMU binary.
    pub qemu: PathBuf,
    /// Guest kernel.
    pub kernel: PathBuf,
    /// Guest initial RAM file system.
    pub initrd: PathBuf,
    /// Daemon of the shared file system.
    pub virtiofsd: PathBuf,
}

/// Text of a complete `configuration.toml`: every key we obey, explained, at its default.
pub fn default_toml(paths: &DefaultPaths) -> String {
    let mut text = String::from(
        "# Configuration of the Sandboxed Containers runtime.\n\
         #\n\
         # Every setting stands here with its default. To change some, write only those into a file\n\
         # config.d/NAME.toml beside this one: it survives upgrades.\n",
    );
    let mut section = "";
    for key in KEYS.iter().filter(|key| !key.doc.is_empty()) {
        if key.section != section {
            section = key.section;
            let _ = write!(text, "\n[{section}]\n");
        }
        for line in key.doc.lines() {
            let _ = writeln!(text, "# {line}");
        }
        match (path_of(paths, &key.path()), key.usage) {
            (Some(path), _) => {
                let value = toml::Value::from(path.to_string_lossy().as_ref());
                let _ = writeln!(text, "{} = {value}", key.name);
            }
            (None, Use::Obeyed(default)) => {
                let _ = writeln!(text, "{} = {}", key.name, default.to_toml());
            }
            (None, Use::Optional(shown)) => {
                let _ = writeln!(text, "#{} = {}", key.name, shown.to_toml());
            }
            (None, Use::Only(_) | Use::Idle) => {}
        }
    }
    text
}

fn path_of<'p>(paths: &'p DefaultPaths, key: &str) -> Option<&'p Path> {
    match key {
        "hypervisor.qemu.path" => Some(&paths.qemu),
        "hypervisor.qemu.kernel" => Some(&paths.kernel),
        "hypervisor.qemu.initrd" => Some(&paths.initrd),
        "hypervisor.qemu.virtio_fs_daemon" => Some(&paths.virtiofsd),
        _ => None,
    }
}
