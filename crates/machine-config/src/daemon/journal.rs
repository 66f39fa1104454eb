//! The update under way, written down before anything is touched.
//!
//! ```text
//!              ┌────────── a step failed, or the daemon was killed ─────────┐
//!              │                                                            ▼
//!  (none) ─► Applying ─► Acting ─► record replaced ─► (none)             undone ─► (none)
//!                           │                            ▲
//!                           └─► Rebooting ─► other boot ─┘
//! ```
//!
//! The record is replaced between the last step and the removal of the journal:
//! a journal whose record is in place has only to be removed, any other is undone.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    host::{Entry, Host, HostError},
    plan::Change,
    record::Record,
    rules::Action,
};

const FILE: &str = "/etc/machine-config-daemon/journal";
const FORMAT: u32 = 1;

/// One update with everything needed to finish or undo it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    format: u32,
    /// How far it got.
    pub phase: Phase,
    /// Entries to change, in order.
    pub changes: Vec<Change>,
    /// Units to handle, in order.
    pub units: Vec<UnitChange>,
    /// What follows once all entries are in place.
    pub actions: Vec<Action>,
    /// What the node runs once it is done.
    pub to: Record,
}

/// How far an update got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Entries are being changed.
    Applying,
    /// Entries are in place; services are told.
    Acting,
    /// All is done but for a restart of the machine, asked for during this boot.
    Rebooting {
        /// Identifier of the boot.
        boot: String,
    },
}

/// What happens to one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitChange {
    /// Its name.
    pub name: String,
    /// Whether it was enabled.
    pub before: bool,
    /// What becomes of that.
    pub after: Enablement,
    /// Whether its text changes.
    pub text: bool,
}

/// What becomes of the enablement of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enablement {
    /// It is enabled.
    On,
    /// It is disabled.
    Off,
    /// As its preset says.
    Preset,
    /// It stays as it is.
    Keep,
}

/// A journal that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("the journal of this node is out of reach")]
    Host(#[from] HostError),
    /// It is there but means nothing: it is written in one piece, so this is not
    /// what a crash leaves.
    #[error("{FILE} is damaged: compare the files of the configuration by hand, then remove it")]
    Damaged(#[source] serde_json::Error),
    /// It was written by another release.
    #[error("{FILE} has format {0}, this daemon knows {FORMAT}: let the release that wrote it finish")]
    Format(u32),
}

impl Journal {
    /// A journal of an update that has not begun.
    pub fn new(changes: Vec<Change>, units: Vec<UnitChange>, actions: Vec<Action>, to: Record) -> Self {
        Self { format: FORMAT, phase: Phase::Applying, changes, units, actions, to }
    }

    /// The journal of an update that did not end; usually there is none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn load(host: &Host) -> Result<Option<Self>, JournalError> {
        let Entry::File { bytes, .. } = host.read(Path::new(FILE))? else { return Ok(None) };
        let journal: Self = serde_json::from_slice(&bytes).map_err(JournalError::Damaged)?;
        if journal.format == FORMAT { Ok(Some(journal)) } else { Err(JournalError::Format(journal.format)) }
    }

    /// Writes it down.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn store(&self, host: &Host) -> Result<(), HostError> {
        let text = serde_json::to_vec(self).unwrap_or_default(); // strings as keys only: it cannot fail
        host.put(Path::new(FILE), &Entry::file(text, 0o600))
    }

    /// Forgets it: the update has ended, one way or the other.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn remove(host: &Host) -> Result<(), HostError> {
        host.put(Path::new(FILE), &Entry::Absent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        assert_eq!(Journal::load(&host).unwrap(), None);
        let change = Change { path: "/etc/x".into(), before: Entry::Absent, after: Entry::file(vec![0, 200], 0o600) };
        let unit = UnitChange { name: "a.service".into(), before: true, after: Enablement::Off, text: true };
        let mut journal = Journal::new(vec![change], vec![unit], vec![Action::RestartEngine], Record::baseline());
        journal.phase = Phase::Rebooting { boot: "b".into() };
        journal.store(&host).unwrap();
        assert_eq!(Journal::load(&host).unwrap(), Some(journal));
        Journal::remove(&host).unwrap();
        assert_eq!(Journal::load(&host).unwrap(), None);
        host.put(Path::new(FILE), &Entry::file("{", 0o600)).unwrap();
        assert!(matches!(Journal::load(&host), Err(JournalError::Damaged(_))));
    }
}
