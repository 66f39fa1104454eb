//! Ignition configurations: the part of them that can be applied to a running node.
//!
//! ```text
//! JSON of 2.2 or 3.0–3.5 ──► raw ──check──► Config ──merge──► Config ──to_value──► JSON of 3.2.0
//! ```
//!
//! Specification: <https://coreos.github.io/ignition/specs/>. Sections that only
//! make sense at first boot (disks, other users …) are not understood but kept in
//! [`Config::first_boot`], so that a change of them can be refused by name.
//! Whoever may create a MachineConfig is root on the nodes; the bounds here guard
//! against accidents, not against that author.

mod check;
mod data_url;
mod merge;
mod raw;
mod write;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde_json::Value;

pub use check::parse;
pub use data_url::encode as data_url;
pub use merge::merge;

/// Version of the configurations we write.
pub const VERSION: &str = "3.2.0";
/// Versions we read.
pub const SUPPORTED: [&str; 7] = ["2.2.0", "3.0.0", "3.1.0", "3.2.0", "3.3.0", "3.4.0", "3.5.0"];
/// Permissions of a file that names none.
pub const DEFAULT_MODE: u32 = 0o644;

/// A checked configuration. Paths are absolute and normal, names are plain file
/// names, and every content is decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Files by path.
    pub files: BTreeMap<PathBuf, File>,
    /// systemd units by name.
    pub units: BTreeMap<String, Unit>,
    /// The user `core`, the only one that can be changed later.
    pub core: Option<Core>,
    /// Sections that only work at first boot, by name (`storage.links`,
    /// `passwd.users.bob` …).
    pub first_boot: BTreeMap<String, Value>,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// What it holds; none: not said, an empty file in the end.
    pub contents: Option<Contents>,
    /// Permission bits, at most `0o777`.
    pub mode: Option<u32>,
    /// Owner.
    pub user: Option<Id>,
    /// Group.
    pub group: Option<Id>,
}

/// Content of a file.
#[derive(Clone, PartialEq)]
pub struct Contents {
    /// As the author wrote it: a data URL, or nothing.
    pub source: String,
    /// Whether `source` is gzip.
    pub gzip: bool,
    /// The bytes of the file.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Contents {
    /// Contents may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// A user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// By number.
    Number(u32),
    /// By name, looked up on the node.
    Name(String),
}

/// One systemd unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Text of the unit file; none: it comes from elsewhere.
    pub contents: Option<String>,
    /// Whether it is enabled; none: what the presets say.
    pub enabled: Option<bool>,
    /// Whether it is linked to `/dev/null`.
    pub mask: Option<bool>,
    /// Drop-ins by file name; an empty text removes one.
    pub dropins: BTreeMap<String, String>,
}

/// The user `core`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Core {
    /// Lines of its `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// Its password as in shadow(5).
    pub password_hash: Option<String>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password_hash.is_some();
        f.debug_struct("Core").field("ssh_keys", &self.ssh_keys.len()).field("password", &password).finish()
    }
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unusable Ignition configuration; correct {}", list(.problems))]
pub struct IgnitionError {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, as in `storage.files[0].mode`.
    pub field: String,
    /// What is wrong with it, and what is allowed.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
