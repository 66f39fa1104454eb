//! Reads files out of Debian packages. `dpkg-deb` takes the outer format and
//! its compression apart; the tar stream inside is read here.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::{
    command::{self, Limits},
    error::BuildError,
};

/// The largest kernel packages unpack to about 400 MB.
const UNPACK: Limits = Limits { time: Duration::from_secs(300), output: 1 << 30 };

/// What a kernel package holds, as far as a guest needs it.
pub struct KernelFiles {
    /// Release as `uname -r` prints it.
    pub release: String,
    /// The boot image.
    pub image: Vec<u8>,
    /// Module files by their path below `lib/modules/<release>`.
    pub modules: BTreeMap<String, Vec<u8>>,
    /// `modules.builtin`: what the kernel has without a module.
    pub builtin: Vec<u8>,
}

/// Reads a kernel package.
pub fn read_kernel(deb: &Path, package: &str) -> Result<KernelFiles, BuildError> {
    const IMAGE: &str = "boot/vmlinuz-";
    let mut files = read(deb, |path| path.starts_with(IMAGE) || path.contains("lib/modules/"))?;
    let missing = |wanted: &str| BuildError::PackageContent { path: deb.to_owned(), wanted: wanted.to_owned() };
    let image = files.keys().find(|path| path.starts_with(IMAGE)).cloned().ok_or_else(|| missing(IMAGE))?;
    let release = image.strip_prefix(IMAGE).expect("found by this prefix").to_owned();
    let image = files.remove(&image).expect("the key was just listed");

    // Newer releases of the distribution keep modules below /usr.
    let mut modules = BTreeMap::new();
    let mut builtin = Vec::new();
    let below = format!("lib/modules/{release}/");
    for (path, content) in files {
        let path = path.strip_prefix("usr/").unwrap_or(&path);
        match path.strip_prefix(&below) {
            Some("modules.builtin") => builtin = content,
            Some(path) if is_module(path) => {
                modules.insert(path.to_owned(), content);
            }
            _ => {}
        }
    }
    if modules.is_empty() {
        return Err(missing(&below));
    }
    tracing::debug!(package, release, modules = modules.len(), "kernel package read");
    Ok(KernelFiles { release, image, modules, builtin })
}

fn is_module(path: &str) -> bool {
    path.ends_with(".ko")
}

/// Reads one regular file.
pub fn read_file(deb: &Path, wanted: &str) -> Result<Vec<u8>, BuildError> {
    let files = read(deb, |path| path.strip_prefix("usr/").unwrap_or(path) == wanted)?;
    files
        .into_values()
        .next()
        .ok_or_else(|| BuildError::PackageContent { path: deb.to_owned(), wanted: wanted.to_owned() })
}

/// Regular files of the package whose path, without leading `./`, is wanted.
fn read(deb: &Path, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(deb);
    let tar = command::output(&mut unpack, b"", &UNPACK)?;
    pick(&tar, wanted).map_err(|source| BuildError::PackageRead { path: deb.to_owned(), source })
}

fn pick(tar: &[u8], wanted: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        if wanted(&path) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.insert(path, content);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Stdio};

    use super::*;

    /// A real package made by the real tool.
    fn package(dir: &Path, files: &[(&str, &str)]) -> std::path::PathBuf {
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control = "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: n <n@example.com>\nDescription: d\n";
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        for (path, content) in files {
            fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), content).unwrap();
        }
        let deb = dir.join("p.deb");
        let mut build = Command::new("dpkg-deb");
        build.arg("--build").arg(&tree).arg(&deb).stdout(Stdio::null());
        assert!(build.status().unwrap().success());
        deb
    }

    #[test]
    fn a_kernel_package_gives_image_and_modules() {
        for usr in ["", "usr/"] {
            let dir = tempfile::tempdir().unwrap();
            let module = format!("{usr}lib/modules/6.1-x/kernel/fs/a.ko");
            let builtin = format!("{usr}lib/modules/6.1-x/modules.builtin");
            let deb = package(dir.path(), &[("boot/vmlinuz-6.1-x", "image"), (&module, "a"), (&builtin, "b")]);
            let kernel = read_kernel(&deb, "p").unwrap();
            assert_eq!((kernel.release.as_str(), kernel.image.as_slice()), ("6.1-x", &b"image"[..]));
            assert_eq!(kernel.modules.keys().collect::<Vec<_>>(), ["kernel/fs/a.ko"]);
            assert_eq!(kernel.builtin, b"b");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let deb = package(dir.path(), &[("boot/vmlinuz-6.1-x", "image")]);
        let Err(error) = read_kernel(&deb, "p") else { panic!("no modules, no kernel") };
        assert!(error.to_string().contains("lib/modules/6.1-x/"), "{error}");
        let Err(error) = read_file(&deb, "bin/busybox") else { panic!("there is no such file") };
        assert!(error.to_string().contains("bin/busybox"), "{error}");
        assert!(matches!(read_file(&dir.path().join("none"), "x"), Err(BuildError::ToolFailed { .. })));
    }
}
