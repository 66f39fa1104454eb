//! Reading `config.json` and the JSON that arrives in requests.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxResources, Process, Spec};
use osc_agent_protocol::Kind;

/// Most bytes of a `config.json`: it has to fit one frame to the agent, where it
/// takes less room than as JSON.
pub const MAX_SPEC: u64 = osc_agent_protocol::MAX_FRAME as u64;

/// A specification that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A specification too large for the agent.
    #[error("{} is larger than {limit} bytes: make arguments, environment or annotations smaller", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Not what the OCI Runtime Specification says.
    #[error("{what} does not follow the OCI Runtime Specification")]
    Format {
        /// File or request.
        what: String,
        /// Where in it.
        source: serde_json::Error,
    },
    /// A part without which no container can be made.
    #[error("{} has no {part}: the engine must write it", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The missing part.
        part: &'static str,
    },
}

impl SpecError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => Kind::of_io(source),
            Self::TooLarge { .. } | Self::Format { .. } | Self::Incomplete { .. } => Kind::Invalid,
        }
    }
}

/// Reads the specification of the container in `bundle`. Blocking.
///
/// # Errors
/// A file that is missing, too large, no specification, or without process, root or
/// Linux part.
pub fn load(bundle: &Path) -> Result<Spec, SpecError> {
    let path = bundle.join("config.json");
    let text = read_bounded(&path, MAX_SPEC)?;
    let spec: Spec = serde_json::from_slice(&text)
        .map_err(|source| SpecError::Format { what: path.display().to_string(), source })?;
    let missing = [
        (spec.process().is_none(), "process"),
        (spec.root().is_none(), "root"),
        (spec.linux().is_none(), "linux part"),
    ];
    match missing.into_iter().find(|(missing, _)| *missing) {
        Some((_, part)) => Err(SpecError::Incomplete { path, part }),
        None => Ok(spec),
    }
}

/// The process of an exec request: JSON of an OCI process.
///
/// # Errors
/// JSON that is no OCI process.
pub fn exec_process(json: &[u8]) -> Result<Process, SpecError> {
    request("process of the exec request", json)
}

/// The limits of an update request: JSON of OCI Linux resources.
///
/// # Errors
/// JSON that is no OCI resources.
pub fn resources(json: &[u8]) -> Result<LinuxResources, SpecError> {
    request("resources of the update request", json)
}

fn request<T: serde::de::DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, SpecError> {
    serde_json::from_slice(json).map_err(|source| SpecError::Format { what: what.to_owned(), source })
}

/// The whole of `path`, if it is not larger than `limit` bytes.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, SpecError> {
    let failed = |source| SpecError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // Read instead of trusting the length: it may grow, and pipes have none.
    File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(SpecError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SMALL: &str = r#"{"ociVersion": "1.0.2", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"}, "linux": {}}"#;

    fn bundle(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), text).unwrap();
        dir
    }

    #[test]
    fn a_bundle_is_read_or_refused() {
        assert!(load(bundle(SMALL).path()).is_ok());
        let large = SMALL.replace("rootfs", &"r".repeat(usize::try_from(MAX_SPEC).unwrap()));
        for (text, kind, word) in [
            ("{", Kind::Invalid, "does not follow"),
            (&SMALL.replace("process", "other"), Kind::Invalid, "no process"),
            (&SMALL.replace("linux", "other"), Kind::Invalid, "no linux part"),
            (&large, Kind::Invalid, "larger than"),
        ] {
            let error = load(bundle(text).path()).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(word), "{error}");
        }
        assert_eq!(load(Path::new("/nonexistent")).unwrap_err().kind(), Kind::NotFound);
    }
}
