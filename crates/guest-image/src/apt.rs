//! Finds and fetches packages of the distribution through apt, which checks
//! them against its signed lists; the digest is checked again here because a
//! cached file may be years old.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    Step,
    command::{self, Limits},
    error::BuildError,
    manifest::sha256,
};

const LISTS: &str = "/var/lib/apt/lists";
const LOOK_UP: Limits = Limits { time: Duration::from_secs(60), output: 4 << 20 };
/// A kernel package is 30 MB: even a slow mirror needs no longer.
const DOWNLOAD: Limits = Limits { time: Duration::from_secs(600), output: 1 << 20 };
const KERNEL_PREFIX: &str = "linux-image-";

/// One exact package of the distribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Name in the distribution.
    pub name: String,
    /// Full version, with epoch and revision.
    pub version: String,
    /// Debian architecture.
    pub architecture: String,
    /// Digest of the package file, in hex.
    pub sha256: String,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl Package {
    /// The file name apt gives the downloaded package.
    fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.architecture)
    }
}

/// The version of `name` apt would install.
pub fn resolve(name: &str, progress: &dyn Fn(Step)) -> Result<Package, BuildError> {
    progress(Step::Resolve(name.to_owned()));
    package(name, &describe(name, name)?)
}

/// Like [`resolve`], following a metapackage to the kernel it stands for.
pub fn resolve_kernel(name: &str, progress: &dyn Fn(Step)) -> Result<Package, BuildError> {
    progress(Step::Resolve(name.to_owned()));
    let description = describe(name, name)?;
    match kernel_dependency(&description) {
        None => package(name, &description),
        Some((kernel, version)) => {
            progress(Step::Resolve(kernel.clone()));
            let exact = version.map_or_else(|| kernel.clone(), |version| format!("{kernel}={version}"));
            package(&kernel, &describe(&kernel, &exact)?)
        }
    }
}

/// The package file, from `cache` when it is there and intact.
pub fn fetch(package: &Package, cache: &Path, progress: &dyn Fn(Step)) -> Result<PathBuf, BuildError> {
    let failed = |source| BuildError::Cache { path: cache.to_owned(), source };
    fs::create_dir_all(cache).map_err(failed)?;
    let cached = cache.join(package.file_name());
    if cached.exists() && digest(&cached)? == package.sha256 {
        return Ok(cached);
    }
    progress(Step::Download(package.clone()));
    let partial = tempfile::Builder::new().prefix(".download-").tempdir_in(cache).map_err(failed)?;
    let mut download = Command::new("apt-get");
    download
        .args(["-qq", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30", "download"])
        .arg(format!("{}:{}={}", package.name, package.architecture, package.version))
        .current_dir(partial.path());
    command::output(&mut download, b"", &DOWNLOAD)?;
    let fresh = partial.path().join(package.file_name());
    let found = digest(&fresh)?;
    if found != package.sha256 {
        return Err(BuildError::PackageDigest { path: fresh, wanted: package.sha256.clone(), found });
    }
    fs::rename(&fresh, &cached).map_err(failed)?;
    Ok(cached)
}

fn digest(path: &Path) -> Result<String, BuildError> {
    let bytes = fs::read(path).map_err(|source| BuildError::PackageRead { path: path.to_owned(), source })?;
    Ok(sha256(&bytes))
}

/// apt's description of the candidate version.
fn describe(name: &str, exact: &str) -> Result<String, BuildError> {
    let mut show = Command::new("apt-cache");
    show.args(["show", "--no-all-versions", "--", exact]);
    match command::output(&mut show, b"", &LOOK_UP) {
        Ok(text) if !text.trim_ascii().is_empty() => Ok(String::from_utf8_lossy(&text).into_owned()),
        Ok(_) | Err(BuildError::ToolFailed { .. }) if !has_lists() => {
            Err(BuildError::NoPackageLists { package: name.to_owned() })
        }
        Ok(_) | Err(BuildError::ToolFailed { .. }) => Err(BuildError::PackageUnknown { package: name.to_owned() }),
        Err(other) => Err(other),
    }
}

fn has_lists() -> bool {
    fs::read_dir(LISTS)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages")))
}

fn field<'a>(description: &'a str, name: &str) -> Option<&'a str> {
    // Only the first paragraph: later ones describe other versions.
    description
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

fn package(name: &str, description: &str) -> Result<Package, BuildError> {
    let want = |field_name: &'static str| {
        field(description, field_name)
            .map(str::to_owned)
            .ok_or_else(|| BuildError::PackageIncomplete { package: name.to_owned(), field: field_name })
    };
    Ok(Package {
        name: want("Package")?,
        version: want("Version")?,
        architecture: want("Architecture")?,
        sha256: want("SHA256")?,
    })
}

/// The kernel a metapackage depends on, with its version when that is exact.
fn kernel_dependency(description: &str) -> Option<(String, Option<String>)> {
    let dependencies = field(description, "Depends")?;
    let dependency = dependencies.split(',').map(str::trim).find(|item| item.starts_with(KERNEL_PREFIX))?;
    let (name, version) = dependency.split_once(' ').unwrap_or((dependency, ""));
    let exact = version.trim().strip_prefix("(= ").and_then(|version| version.strip_suffix(')'));
    Some((name.to_owned(), exact.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = "Package: linux-image-cloud-amd64\nVersion: 6.1.9-2\nArchitecture: amd64\n\
        Depends: foo (>= 1), linux-image-6.1.0-9-cloud-amd64 (= 6.1.9-2)\nSHA256: aa\n\n\
        Package: linux-image-cloud-amd64\nVersion: 5\n";

    #[test]
    fn the_first_paragraph_describes_the_candidate() {
        let found = package("x", META).unwrap();
        assert_eq!((found.version.as_str(), found.sha256.as_str()), ("6.1.9-2", "aa"));
        assert_eq!(found.file_name(), "linux-image-cloud-amd64_6.1.9-2_amd64.deb");
        let missing = package("x", "Package: x\nVersion: 1:2\n");
        assert!(matches!(missing, Err(BuildError::PackageIncomplete { field: "Architecture", .. })));
    }

    #[test]
    fn a_metapackage_leads_to_its_kernel() {
        let kernel = "linux-image-6.1.0-9-cloud-amd64".to_owned();
        for (depends, want) in [
            (META.to_owned(), Some((kernel.clone(), Some("6.1.9-2".to_owned())))),
            (format!("Package: m\nDepends: {kernel}\n"), Some((kernel.clone(), None))),
            (format!("Package: m\nDepends: {kernel} (>= 6)\n"), Some((kernel, None))),
            ("Package: m\nDepends: kmod, linux-base\n".to_owned(), None),
            ("Package: m\n".to_owned(), None),
        ] {
            assert_eq!(kernel_dependency(&depends), want, "{depends}");
        }
    }

    #[test]
    fn an_unknown_package_is_named_and_so_is_the_want_of_lists() {
        let name = "no-such-package-anywhere";
        let error = resolve(name, &|_| ()).unwrap_err();
        let lists = matches!(&error, BuildError::PackageUnknown { package } if package == name);
        let no_lists = matches!(&error, BuildError::NoPackageLists { package } if package == name);
        assert_eq!((lists, no_lists), (has_lists(), !has_lists()), "{error:?}");
    }

    #[test]
    fn a_cached_package_is_used_only_when_intact() {
        let cache = tempfile::tempdir().unwrap();
        let package = Package {
            name: "no-such-package-anywhere".into(),
            version: "1:1".into(),
            architecture: "all".into(),
            sha256: sha256(b"content"),
        };
        let file = cache.path().join("no-such-package-anywhere_1%3a1_all.deb");
        fs::write(&file, b"content").unwrap();
        assert_eq!(fetch(&package, cache.path(), &|_| ()).unwrap(), file);
        fs::write(&file, b"garbage").unwrap();
        assert!(fetch(&package, cache.path(), &|_| ()).is_err(), "a damaged file must be downloaded again");
    }
}
