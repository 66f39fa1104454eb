//! Everything that is wrong with a manifest, reported at once.

use std::fmt;

use osc_agent_protocol::Kind;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `spec.containers[0].image`.
    pub path: String,
    /// Why it cannot be used, with the value and what is allowed.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// A manifest that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("manifest {name} cannot be used:{}", list(.problems))]
pub struct ManifestError {
    /// The file, or the pod once that much is known.
    pub name: String,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl ManifestError {
    /// Always [`Kind::Invalid`].
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// Collects problems, and fields whose effect will not be missed much.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) found: Vec<Problem>,
    pub(super) ignored: Vec<String>,
    /// Whether the pod is an API's, which has checked it, rather than a file's.
    pub(super) in_cluster: bool,
}

impl Problems {
    pub(super) fn add(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.found.push(Problem { path: path.into(), reason: reason.into() });
    }

    /// Adds a problem unless `good`.
    pub(super) fn unless(&mut self, good: bool, path: impl Into<String>, reason: impl Into<String>) {
        if !good {
            self.add(path, reason);
        }
    }

    /// The value `text` names in `table`.
    pub(super) fn choice<T: Copy>(&mut self, path: &str, text: &str, table: &[(&str, T)]) -> Option<T> {
        let found = table.iter().find(|(name, _)| *name == text).map(|&(_, value)| value);
        if found.is_none() {
            let names: Vec<_> = table.iter().map(|(name, _)| *name).collect();
            self.add(path, format!("{text:?} is not one of {}", names.join(", ")));
        }
        found
    }
}
