//! Where the parts of the `kata` runtime are installed.

use std::path::{Path, PathBuf};

use osc_runtime::{
    config::{DefaultPaths, default_toml},
    dirs::Dirs,
};

use super::process::which;

/// What the `kata` runtime of the engine needs.
#[derive(Clone, Debug)]
pub struct Kata {
    /// The shim executable.
    pub shim: PathBuf,
    /// Text of the configuration file it is started with.
    pub configuration: String,
}

/// The files a sandbox needs.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The shim executable.
    pub shim: PathBuf,
    /// The emulator; it stays where the distribution put it.
    pub qemu: PathBuf,
    /// The daemon of the shared file system.
    pub virtiofsd: PathBuf,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// The guest's initial RAM file system.
    pub initrd: PathBuf,
}

impl Kata {
    /// The parts that belong to this program, where they are.
    pub fn installed(dirs: &Dirs) -> Self {
        let parts = Parts::installed(dirs);
        Self { configuration: parts.configuration(), shim: parts.shim }
    }
}

impl Parts {
    /// The parts that belong to this program: beside it, as `make build` leaves
    /// them, or where packages put them. A part that is nowhere gets its usual
    /// place, so that the runtime can name it when a pod needs it.
    pub fn installed(dirs: &Dirs) -> Self {
        let exe = std::env::current_exe().unwrap_or_default();
        let beside = exe.parent().unwrap_or(Path::new("/"));
        let shim = "containerd-shim-kata-v2";
        let shims = [Some(beside.join(shim)), which(shim), Some(PathBuf::from("/usr/local/bin").join(shim))];
        let daemon = "virtiofsd";
        let usual = PathBuf::from("/usr/libexec/virtiofsd");
        let daemons = [
            Some(beside.join(daemon)),
            Some(beside.join("../tools/bin/virtiofsd")),
            Some(usual.clone()),
            Some("/usr/lib/qemu/virtiofsd".into()),
            which(daemon),
            Some(usual),
        ];
        let guest = dirs.guest();
        Self {
            shim: first(shims),
            qemu: which("qemu-system-x86_64").unwrap_or_else(|| "/usr/bin/qemu-system-x86_64".into()),
            virtiofsd: first(daemons),
            kernel: guest.join("vmlinux"),
            initrd: guest.join("initrd.img"),
        }
    }

    /// The configuration of a shim that uses them.
    pub fn configuration(&self) -> String {
        let Self { qemu, kernel, initrd, virtiofsd, .. } = self.clone();
        default_toml(&DefaultPaths { qemu, kernel, initrd, virtiofsd })
    }
}

/// Whether a configuration is one this project wrote: they all begin alike.
pub(super) fn is_ours(file: &Path) -> bool {
    let nowhere = || PathBuf::new();
    let ours =
        default_toml(&DefaultPaths { qemu: nowhere(), kernel: nowhere(), initrd: nowhere(), virtiofsd: nowhere() });
    std::fs::read_to_string(file).is_ok_and(|text| text.lines().next() == ours.lines().next())
}

/// The first that exists, else the last.
fn first<const N: usize>(candidates: [Option<PathBuf>; N]) -> PathBuf {
    let candidates: Vec<PathBuf> = candidates.into_iter().flatten().collect();
    let found = candidates.iter().find(|path| path.is_file()).or(candidates.last());
    found.map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_exists_is_taken_and_cleaned() {
        let missing = || Some(PathBuf::from("/nowhere/a"));
        assert_eq!(first([missing(), Some("/proc/../etc/passwd".into())]), Path::new("/etc/passwd"));
        assert_eq!(first([missing(), None, Some("/nowhere/b".into())]), Path::new("/nowhere/b"));
    }
}
