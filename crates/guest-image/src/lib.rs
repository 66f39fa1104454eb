//! Builds the guest image: kernel and initramfs of every sandbox.
//!
//! ```text
//!  apt ──► linux-image-…-cloud-amd64.deb ──► bzImage ──► vmlinux ────────┐
//!   │                    └──► *.ko, closed over their dependencies ─┐    │
//!   └────► busybox-static.deb ──► /bin/busybox ─────────────────────┤    │
//!          kata-agent (static) ──► /init ───────────────────────────┴► initrd.img
//!                                       versions, digests, sizes ──► manifest.json
//! ```
//!
//! Everything comes from the distribution's signed packages and one static
//! agent binary. Same inputs, same bytes: the archive is sorted, carries no
//! times and no owners, so that two machines can compare digests.
//!
//! Every byte of the initramfs is guest RAM of every sandbox, and every module
//! loaded at boot is paid for in boot time. So only what each sandbox needs is
//! loaded ([`modules::BOOT`]); the rest waits, compressed, for `modprobe`
//! ([`modules::ON_DEMAND`]).

mod apt;
mod command;
pub mod cpio;
mod deb;
mod error;
mod kernel;
mod manifest;
pub mod modules;
mod rootfs;
mod sparse;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

pub use apt::Package;
pub use error::{BuildError, ManifestError};
pub use manifest::{Agent, Artifact, FORMAT, Kernel, Manifest};

/// File of the uncompressed kernel in an image directory.
pub const KERNEL: &str = "vmlinux";
/// File of the initramfs in an image directory.
pub const INITRD: &str = "initrd.img";
/// File of the manifest in an image directory.
pub const MANIFEST: &str = "manifest.json";
/// Metapackage that names the newest kernel made for virtual machines.
pub const DEFAULT_KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

const BUSYBOX_PACKAGE: &str = "busybox-static";

/// What to build an image from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The static agent binary that becomes `/init`.
    pub agent: PathBuf,
    /// Kernel package, or a metapackage that depends on one.
    pub kernel_package: String,
    /// Modules to carry for `modprobe` besides [`modules::ON_DEMAND`].
    pub extra_modules: Vec<String>,
    /// Where downloaded packages are kept for the next build.
    pub cache: PathBuf,
}

/// What a build is doing, for progress output.
#[derive(Clone, Debug)]
pub enum Step {
    /// Asking apt which version of a package to take.
    Resolve(String),
    /// Fetching a package that is not in the cache.
    Download(Package),
    /// Reading the content of a package.
    Unpack(Package),
    /// Decompressing the kernel.
    Extract(String),
    /// Writing the initramfs and the manifest.
    Write(PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(name) => write!(f, "looking up {name}"),
            Self::Download(package) => write!(f, "downloading {package}"),
            Self::Unpack(package) => write!(f, "unpacking {package}"),
            Self::Extract(release) => write!(f, "extracting kernel {release}"),
            Self::Write(path) => write!(f, "writing {}", path.display()),
        }
    }
}

/// Builds an image and installs it as directory `out`, replacing a previous
/// one in one step. Sandboxes that run keep the files they opened.
///
/// Blocks on apt and the disk for seconds to minutes.
///
/// # Errors
/// [`BuildError`]; `out` is untouched then.
pub fn build(recipe: &Recipe, out: &Path, progress: &dyn Fn(Step)) -> Result<Manifest, BuildError> {
    let agent = rootfs::read_agent(&recipe.agent)?;
    let agent_version = manifest::agent_version(&recipe.agent);

    let kernel_package = apt::resolve_kernel(&recipe.kernel_package, progress)?;
    let busybox_package = apt::resolve(BUSYBOX_PACKAGE, progress)?;
    let kernel_deb = apt::fetch(&kernel_package, &recipe.cache, progress)?;
    let busybox_deb = apt::fetch(&busybox_package, &recipe.cache, progress)?;

    progress(Step::Unpack(kernel_package.clone()));
    let kernel = deb::read_kernel(&kernel_deb, &kernel_package.name)?;
    progress(Step::Unpack(busybox_package.clone()));
    let busybox = deb::read_file(&busybox_deb, "bin/busybox")?;

    progress(Step::Extract(kernel.release.clone()));
    let vmlinux = kernel::vmlinux(&kernel.image, &kernel_package.name)?;
    let modules = modules::select(&kernel.modules, modules::BOOT, modules::ON_DEMAND, &recipe.extra_modules)?;
    let initrd = rootfs::archive(&rootfs::Content {
        agent: &agent,
        busybox: &busybox,
        release: &kernel.release,
        modules: &modules,
        builtin: &kernel.builtin,
    });

    let manifest = Manifest {
        format: FORMAT,
        kernel: Kernel { release: kernel.release, package: kernel_package },
        busybox: busybox_package,
        agent: Agent { version: agent_version, file: Artifact::of(&agent) },
        vmlinux: Artifact::of(&vmlinux),
        initrd: Artifact::of(&initrd),
        boot_modules: modules.boot_names(),
        on_demand_modules: modules.on_demand_names(),
    };
    progress(Step::Write(out.to_owned()));
    install(out, &vmlinux, &initrd, &manifest)?;
    Ok(manifest)
}

/// Writes the three files beside `out` and swaps the directories.
fn install(out: &Path, vmlinux: &[u8], initrd: &[u8], manifest: &Manifest) -> Result<(), BuildError> {
    let failed = |source| BuildError::Install { path: out.to_owned(), source };
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(failed)?;
    let new = tempfile::Builder::new()
        .prefix(".guest-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(parent)
        .map_err(failed)?;
    for (name, content) in [(KERNEL, vmlinux), (INITRD, initrd), (MANIFEST, &manifest.to_json())] {
        write_synced(&new.path().join(name), content).map_err(failed)?;
    }
    swap(new.path(), out).map_err(failed)
    // `new` now holds the previous image, or nothing, and is removed.
}

fn write_synced(path: &Path, content: &[u8]) -> std::io::Result<()> {
    fs::write(path, content)?;
    fs::File::open(path)?.sync_all()
}

fn swap(new: &Path, out: &Path) -> std::io::Result<()> {
    if !out.exists() {
        return fs::rename(new, out);
    }
    match renameat2(AT_FDCWD, new, AT_FDCWD, out, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(()),
        // Not every file system exchanges; two renames leave a moment without
        // an image, but never a mixed one.
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::EXDEV) => {
            let aside = new.with_extension("old");
            fs::rename(out, &aside)?;
            fs::rename(new, out)?;
            fs::remove_dir_all(&aside)
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Manifest {
        let package =
            Package { name: "p".into(), version: text.into(), architecture: "amd64".into(), sha256: "00".into() };
        Manifest {
            format: FORMAT,
            kernel: Kernel { release: "6.1".into(), package: package.clone() },
            busybox: package,
            agent: Agent { version: None, file: Artifact::of(b"agent") },
            vmlinux: Artifact::of(text.as_bytes()),
            initrd: Artifact::of(b"initrd"),
            boot_modules: vec![],
            on_demand_modules: vec![],
        }
    }

    #[test]
    fn an_image_is_replaced_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/guest");
        for text in ["first", "second"] {
            install(&out, text.as_bytes(), b"initrd", &sample(text)).unwrap();
            assert_eq!(fs::read(out.join(KERNEL)).unwrap(), text.as_bytes());
            assert_eq!(Manifest::read(&out).unwrap().kernel.package.version, text);
            let beside: Vec<_> = fs::read_dir(dir.path().join("a")).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(beside, ["guest"]);
        }
    }
}
