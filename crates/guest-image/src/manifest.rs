//! The manifest beside an image: what it was made of.

use std::{fs, path::Path, process::Command, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    INITRD, KERNEL, MANIFEST,
    apt::Package,
    command::{self, Limits},
    error::ManifestError,
};

/// Format of the manifest; changes when a reader must.
pub const FORMAT: u32 = 1;

/// Size and digest of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

impl Artifact {
    /// Describes `content`.
    pub fn of(content: &[u8]) -> Self {
        Self { bytes: content.len() as u64, sha256: sha256(content) }
    }
}

/// The kernel of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Release as `uname -r` prints it.
    pub release: String,
    /// The package it comes from.
    pub package: Package,
}

/// The agent of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// What `kata-agent --version` prints; absent when it cannot run here.
    pub version: Option<String>,
    /// The binary.
    pub file: Artifact,
}

/// What an image is made of. Equal manifests mean equal images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The kernel.
    pub kernel: Kernel,
    /// The package busybox comes from.
    pub busybox: Package,
    /// The agent.
    pub agent: Agent,
    /// The file [`KERNEL`].
    pub vmlinux: Artifact,
    /// The file [`INITRD`].
    pub initrd: Artifact,
    /// Modules loaded at boot, in order.
    pub boot_modules: Vec<String>,
    /// Modules carried for `modprobe`.
    pub on_demand_modules: Vec<String>,
}

impl Manifest {
    /// Reads the manifest of the image in `dir`.
    ///
    /// # Errors
    /// [`ManifestError`] when there is no image, or one of another format.
    pub fn read(dir: &Path) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let path = dir.join(MANIFEST);
        let text = fs::read(&path).map_err(|source| ManifestError::Missing { dir: dir.to_owned(), source })?;
        let unreadable = |source| ManifestError::Unreadable { path: path.clone(), source };
        // Format first: another one need not have our fields.
        let Format { format } = serde_json::from_slice(&text).map_err(unreadable)?;
        if format != FORMAT {
            return Err(ManifestError::Format { path: path.clone(), found: format });
        }
        serde_json::from_slice(&text).map_err(unreadable)
    }

    /// Checks that the files in `dir` are the ones described here. Reads all of
    /// them: some tens of megabytes.
    ///
    /// # Errors
    /// [`ManifestError`] names the first file that is not.
    pub fn verify(&self, dir: &Path) -> Result<(), ManifestError> {
        for (name, wanted) in [(KERNEL, &self.vmlinux), (INITRD, &self.initrd)] {
            let path = dir.join(name);
            let content =
                fs::read(&path).map_err(|source| ManifestError::FileMissing { path: path.clone(), source })?;
            let found = sha256(&content);
            if found != wanted.sha256 {
                return Err(ManifestError::FileChanged { path, wanted: wanted.sha256.clone(), found });
            }
        }
        Ok(())
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a manifest has only plain fields");
        json.push(b'\n');
        json
    }
}

/// SHA-256 in hex.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// The version line the agent prints.
pub(crate) fn agent_version(agent: &Path) -> Option<String> {
    let limits = Limits { time: Duration::from_secs(10), output: 64 << 10 };
    // A bare file name would be searched for in PATH.
    let agent = fs::canonicalize(agent).ok()?;
    match command::output(Command::new(&agent).arg("--version"), b"", &limits) {
        Ok(text) => String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned()),
        Err(error) => {
            tracing::warn!(agent = %agent.display(), %error, "agent does not tell its version");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(dir: &Path) -> Manifest {
        let package = Package { name: "p".into(), version: "1".into(), architecture: "all".into(), sha256: "0".into() };
        fs::write(dir.join(KERNEL), "kernel").unwrap();
        fs::write(dir.join(INITRD), "initrd").unwrap();
        let manifest = Manifest {
            format: FORMAT,
            kernel: Kernel { release: "6.1".into(), package: package.clone() },
            busybox: package,
            agent: Agent { version: Some("kata-agent 1".into()), file: Artifact::of(b"agent") },
            vmlinux: Artifact::of(b"kernel"),
            initrd: Artifact::of(b"initrd"),
            boot_modules: vec!["virtio".into()],
            on_demand_modules: vec![],
        };
        fs::write(dir.join(MANIFEST), manifest.to_json()).unwrap();
        manifest
    }

    #[test]
    fn a_manifest_survives_its_file_and_notices_changes() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = image(dir.path());
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
        manifest.verify(dir.path()).unwrap();
        fs::write(dir.path().join(INITRD), "other").unwrap();
        assert!(
            matches!(manifest.verify(dir.path()), Err(ManifestError::FileChanged { path, .. }) if path.ends_with(INITRD))
        );
        fs::remove_file(dir.path().join(KERNEL)).unwrap();
        assert!(matches!(manifest.verify(dir.path()), Err(ManifestError::FileMissing { .. })));
    }

    #[test]
    fn other_formats_are_told_apart_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Manifest::read(dir.path()), Err(ManifestError::Missing { .. })));
        fs::write(dir.path().join(MANIFEST), r#"{"format": 7}"#).unwrap();
        assert!(matches!(Manifest::read(dir.path()), Err(ManifestError::Format { found: 7, .. })));
        fs::write(dir.path().join(MANIFEST), "{").unwrap();
        assert!(matches!(Manifest::read(dir.path()), Err(ManifestError::Unreadable { .. })));
    }
}
