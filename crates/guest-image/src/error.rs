//! What can go wrong while an image is built or read.

use std::{io, path::PathBuf, time::Duration};

use osc_agent_protocol::Kind;

/// Why no image was built.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum BuildError {
    /// The agent binary cannot be read.
    #[error("cannot read the agent {}: build it with `make build`, or name it with --agent", path.display())]
    AgentMissing { path: PathBuf, source: io::Error },
    /// The agent would not run as the only program of a guest.
    #[error("{} is not a static x86-64 program: build the agent with RUSTFLAGS='-C target-feature=+crt-static'", path.display())]
    AgentNotStatic { path: PathBuf },
    /// A tool this build calls is not installed.
    #[error("cannot run {program}: install it (guest images are built from Debian packages, on a Debian machine)")]
    ToolMissing { program: String, source: io::Error },
    /// A tool did not finish.
    #[error("{program} did not finish within {limit:?}: is the package mirror reachable?")]
    ToolSilent { program: String, limit: Duration },
    /// A tool said more than it may.
    #[error("{program} wrote more than {limit} bytes: the package is not what it claims to be")]
    ToolTooLoud { program: String, limit: u64 },
    /// A tool reported failure.
    #[error("{program} failed ({status}): {stderr}")]
    ToolFailed { program: String, status: String, stderr: String },
    /// apt has no package lists at all.
    #[error("apt knows no packages, so {package} cannot be found: run `apt-get update` first")]
    NoPackageLists { package: String },
    /// apt does not know this package.
    #[error(
        "apt does not know package {package}: check the name, run `apt-get update`, and see that the component it is in is enabled"
    )]
    PackageUnknown { package: String },
    /// apt's description of a package lacks what we need.
    #[error("apt describes package {package} without its {field}: run `apt-get update` and try again")]
    PackageIncomplete { package: String, field: &'static str },
    /// A downloaded package is not the one the signed lists promise.
    #[error("package file {} has digest {found}, the signed lists say {wanted}: remove it, run `apt-get update` and try again", path.display())]
    PackageDigest { path: PathBuf, wanted: String, found: String },
    /// A package lacks a file.
    #[error("package file {} has no {wanted}: choose another package", path.display())]
    PackageContent { path: PathBuf, wanted: String },
    /// The content of a package cannot be read.
    #[error("cannot read package file {}: remove it and try again", path.display())]
    PackageRead { path: PathBuf, source: io::Error },
    /// The kernel image is not one we can take apart.
    #[error("kernel of package {package} cannot be unpacked, {problem}: choose another with --kernel-package")]
    KernelImage { package: String, problem: &'static str },
    /// The kernel image does not decompress.
    #[error("kernel of package {package} does not decompress: remove the cached package and try again")]
    KernelCorrupt { package: String, source: io::Error },
    /// A module that was asked for does not exist.
    #[error("kernel has no module {module}{}: leave it out or choose another kernel", wanted_by.as_ref().map(|by| format!(" (needed by {by})")).unwrap_or_default())]
    ModuleUnknown { module: String, wanted_by: Option<String> },
    /// A module file is not one.
    #[error("{file} is not a kernel module: remove the cached package and try again")]
    ModuleCorrupt { file: String, source: object::Error },
    /// The cache directory cannot be used.
    #[error("cannot use package cache {}: free space or choose another directory", path.display())]
    Cache { path: PathBuf, source: io::Error },
    /// The image could not be put in place.
    #[error("cannot install the guest image in {}: check space and permissions", path.display())]
    Install { path: PathBuf, source: io::Error },
}

impl BuildError {
    /// The kind of this failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::AgentMissing { .. } | Self::PackageUnknown { .. } | Self::ModuleUnknown { .. } => Kind::NotFound,
            Self::AgentNotStatic { .. } | Self::KernelImage { .. } | Self::PackageContent { .. } => Kind::Invalid,
            Self::ToolMissing { .. } | Self::ToolFailed { .. } | Self::NoPackageLists { .. } => Kind::Unavailable,
            Self::ToolSilent { .. } => Kind::Timeout,
            Self::ToolTooLoud { .. }
            | Self::PackageIncomplete { .. }
            | Self::PackageDigest { .. }
            | Self::PackageRead { .. }
            | Self::KernelCorrupt { .. }
            | Self::ModuleCorrupt { .. } => Kind::Invalid,
            Self::Cache { source, .. } | Self::Install { source, .. } => Kind::of_io(source),
        }
    }
}

/// Why an installed image cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum ManifestError {
    /// There is no image.
    #[error("no guest image in {}: run `osc guest build`", dir.display())]
    Missing { dir: PathBuf, source: io::Error },
    /// The manifest is not one of ours.
    #[error("{} is not a manifest this version reads: run `osc guest build`", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
    /// The manifest has another format.
    #[error("{} has format {found}, this version reads {}: run `osc guest build`", path.display(), crate::FORMAT)]
    Format { path: PathBuf, found: u32 },
    /// A file is not there.
    #[error("guest image file {} cannot be read: run `osc guest build`", path.display())]
    FileMissing { path: PathBuf, source: io::Error },
    /// A file is not the one that was built.
    #[error("guest image file {} has digest {found}, its manifest says {wanted}: run `osc guest build`", path.display())]
    FileChanged { path: PathBuf, wanted: String, found: String },
}

impl ManifestError {
    /// The kind of this failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } | Self::FileMissing { .. } => Kind::NotFound,
            Self::Unreadable { .. } | Self::Format { .. } | Self::FileChanged { .. } => Kind::Invalid,
        }
    }
}
