//! What can be wrong with a configuration.

use std::{fmt, path::PathBuf};

use osc_agent_protocol::Kind;

/// One wrong setting: where, what, and what would have been right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key, or the name of an annotation.
    pub path: String,
    /// The value found.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.path, self.value, self.allowed)
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file where one was asked for.
    #[error("configuration {} is not there: create it or correct its path", path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// `KATA_CONF_FILE` names a file that is not an installed one.
    #[error("configuration {} named by KATA_CONF_FILE is not below {}: move it there", path.display(), Paths(allowed))]
    Foreign {
        /// The resolved file.
        path: PathBuf,
        /// Directories it may live in.
        allowed: Vec<PathBuf>,
    },
    /// A file could not be read.
    #[error("cannot read configuration {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not TOML.
    #[error("configuration {} is not TOML: correct it", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where in it.
        source: Box<toml::de::Error>,
    },
    /// Settings are wrong; all of them are listed.
    #[error("configuration ({}) has {} wrong setting(s): {}", Paths(files), problems.len(), Listed(problems))]
    Invalid {
        /// The merged files.
        files: Vec<PathBuf>,
        /// Every problem found.
        problems: Vec<Problem>,
    },
    /// A pod asks for a setting it may not change.
    #[error(
        "annotation {annotation} = {value:?} is not allowed: remove it from the pod, or list {name:?} in \
         enable_annotations of {}; listed now: {listed}",
        Paths(files)
    )]
    NotEnabled {
        /// Full name of the annotation.
        annotation: String,
        /// Its value.
        value: String,
        /// What the list would have to contain.
        name: String,
        /// What it contains.
        listed: String,
        /// Configuration files.
        files: Vec<PathBuf>,
    },
    /// Annotations with unusable values; all of them are listed.
    #[error("the pod has {} wrong annotation(s): {}", problems.len(), Listed(problems))]
    Annotation {
        /// Every problem found.
        problems: Vec<Problem>,
    },
    /// A file does not have the digest the pod demands.
    #[error("{} has SHA-512 {found}, the pod's annotation {annotation} demands {wanted}", path.display())]
    Digest {
        /// The annotation.
        annotation: String,
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The digest demanded.
        wanted: String,
    },
}

impl ConfigError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } => Kind::NotFound,
            Self::Foreign { .. } | Self::NotEnabled { .. } | Self::Digest { .. } => Kind::Denied,
            Self::Read { source, .. } => Kind::of_io(source),
            Self::Syntax { .. } | Self::Invalid { .. } | Self::Annotation { .. } => Kind::Invalid,
        }
    }
}

struct Paths<'a>(&'a [PathBuf]);

impl fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("built-in defaults");
        }
        for (n, path) in self.0.iter().enumerate() {
            write!(f, "{}{}", if n > 0 { ", " } else { "" }, path.display())?;
        }
        Ok(())
    }
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if n > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}
