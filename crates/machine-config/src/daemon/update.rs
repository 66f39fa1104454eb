//! One update of one node: prepare, apply, or recover one that did not end.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

use osc_fault::chain;
use serde_json::Value;

use super::{
    actions::{ActionError, NodeActions, Verb},
    drift::{self, Drift},
    engine::Engine,
    host::{Entry, Host, HostError},
    journal::{Enablement, Journal, JournalError, Phase, UnitChange},
    plan::{Change, plan},
    record::{Record, RecordError},
    rules::{self, Action, Changed, Rule},
    wanted::{self, UNITS, Wanted, WantedError},
};
use crate::{
    payload::{Collected, Manifest, PayloadError, Store},
    reconcile::Refusal,
    spec::{Spec, SpecError},
};

/// Why an update did not happen. Unless it says otherwise, the node is what it was.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The target asks for something this node cannot become.
    #[error("this node cannot change to {to}: {}", list(.refusals))]
    Unreconcilable {
        /// Name of the target.
        to: String,
        /// What is impossible.
        refusals: Vec<Refusal>,
    },
    /// Somebody changed what is managed.
    #[error("managed files were changed: {}; restore them or create {}", list(.0), crate::reconcile::FORCE_FILE)]
    Drifted(Vec<Drift>),
    /// A configuration makes no sense.
    #[error("configuration {name} cannot be read")]
    Spec {
        /// Its name.
        name: String,
        /// Why.
        source: SpecError,
    },
    /// The payload cannot be installed.
    #[error("the payload for sandboxes cannot be installed")]
    Payload(#[from] PayloadError),
    /// The configuration has no meaning here.
    #[error("the configuration cannot be translated for this node")]
    Wanted(#[from] WantedError),
    /// A file operation failed before anything was changed.
    #[error("the node cannot be read or written")]
    Host(#[from] HostError),
    /// The record of the node is unusable.
    #[error("the node does not know what it runs")]
    Record(#[from] RecordError),
    /// The journal is unusable.
    #[error("an earlier update cannot be ended")]
    Journal(#[from] JournalError),
    /// The service manager cannot be asked.
    #[error("the state of units is unknown")]
    Units(#[source] ActionError),
    /// A step failed; all steps before it were undone.
    #[error("a step failed and the update was undone")]
    Undone(#[source] StepError),
    /// A step failed, and so did undoing. The journal stays; undoing is repeated.
    #[error("a step failed ({}), and undoing the update failed too; it is repeated", chain(.step))]
    NotUndone {
        /// The first failure.
        step: StepError,
        /// What kept it from being undone.
        source: StepError,
    },
    /// An earlier update is still to be undone.
    #[error("an earlier update cannot be undone yet; it is repeated")]
    Recovery(#[source] StepError),
    /// A task of ours died.
    #[error("the update was cut off; it is repeated")]
    Cut(#[from] tokio::task::JoinError),
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A file operation.
    #[error("files")]
    Host(#[from] HostError),
    /// Something outside the file system.
    #[error("services")]
    Action(#[from] ActionError),
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

impl UpdateError {
    /// Whether only another target helps.
    pub fn unreconcilable(&self) -> bool {
        matches!(self, Self::Unreconcilable { .. })
    }
}

/// An update that is ready to be applied; nothing but unused payload files is
/// changed yet.
#[derive(Debug)]
pub struct Prepared {
    journal: Journal,
    /// Whether the node must be drained before.
    pub drain: bool,
}

impl Prepared {
    /// Whether the machine is restarted in the end.
    pub fn reboots(&self) -> bool {
        self.journal.actions.contains(&Action::Reboot)
    }
}

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The node runs the target.
    Done,
    /// It will once the machine has restarted, which was asked for.
    Rebooting,
}

/// What was found of an earlier update, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// There was none.
    Nothing,
    /// All its steps were done.
    Finished,
    /// It was undone.
    Undone,
    /// The machine is still to be restarted, which was asked for again.
    Rebooting,
}

/// Updates one node.
#[derive(Clone)]
pub struct Updater {
    /// Its file system.
    pub host: Host,
    /// Its engine.
    pub engine: Engine,
    /// Where the payload comes from, if there is one.
    pub payload: Option<PathBuf>,
    /// Rules of this node, which override all others.
    pub rules: Vec<Rule>,
    /// Rules of the cluster, which override the built-in ones.
    pub policy: Vec<Rule>,
    /// What it can do.
    pub actions: Arc<dyn NodeActions>,
}

impl Updater {
    /// Finds out everything that must change for `to`, whose `spec` this is. With
    /// `force`, changes somebody made to managed files are overwritten and the
    /// engine is restarted in any case.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn prepare(&self, record: &Record, to: &str, spec: &Value, force: bool) -> Result<Prepared, UpdateError> {
        let read = |name: &str, spec: &Value| {
            Spec::parse(spec).map_err(|source| UpdateError::Spec { name: name.into(), source })
        };
        let (old, new) = (read(&record.name, &record.spec)?, read(to, spec)?);
        self.possible(&old, &new, to)?;
        let (updater, before) = (self.clone(), record.clone());
        let new_spec = new.clone();
        let (wanted, changes) =
            tokio::task::spawn_blocking(move || updater.compare(&before, &new_spec, force)).await??;
        let units = self.units(&old, &new, &wanted, &changes).await.map_err(UpdateError::Units)?;
        let mut after = self.consequences(&changes);
        if force {
            after.actions.insert(Action::RestartEngine);
        }
        let mut record = Record::new(to, spec.clone());
        record.payload = wanted.payload;
        record.owned = wanted.entries.iter().map(|(path, entry)| (path.clone(), entry.print())).collect();
        let journal = Journal::new(changes, units, after.actions.into_iter().collect(), record);
        Ok(Prepared { journal, drain: after.drain })
    }

    fn possible(&self, old: &Spec, new: &Spec, to: &str) -> Result<(), UpdateError> {
        let mut refusals = wanted::refusals(old, new, self.actions.capabilities());
        if wanted::sandboxes(new) && self.payload.is_none() {
            let why = "this node was given no payload for sandboxes; start its daemon with one".into();
            refusals.push(Refusal { part: "extensions".into(), why });
        }
        if refusals.is_empty() { Ok(()) } else { Err(UpdateError::Unreconcilable { to: to.into(), refusals }) }
    }

    fn compare(&self, record: &Record, new: &Spec, force: bool) -> Result<(Wanted, Vec<Change>), UpdateError> {
        let drift = drift::find(record, &self.host);
        if !force && !drift.is_empty() {
            return Err(UpdateError::Drifted(drift));
        }
        let version = match self.payload.as_ref().filter(|_| wanted::sandboxes(new)) {
            Some(source) => Some(Store::new(&self.host).install(source)?.version),
            None => None,
        };
        let wanted = wanted::wanted(new, version.as_deref(), &self.host, &self.engine, record)?;
        let changes = plan(record, &wanted, &self.host)?;
        Ok((wanted, changes))
    }

    fn consequences(&self, changes: &[Change]) -> rules::Consequences {
        fn bytes(entry: &Entry) -> Option<&[u8]> {
            match entry {
                Entry::File { bytes, .. } => Some(bytes),
                _ => None,
            }
        }
        let changed: Vec<_> = changes
            .iter()
            .map(|change| Changed { path: &change.path, before: bytes(&change.before), after: bytes(&change.after) })
            .collect();
        let own = [self.rules.as_slice(), &self.policy].concat();
        rules::consequences(&changed, &own, &rules::defaults(&self.engine))
    }

    /// Units whose text or enablement changes.
    async fn units(
        &self,
        old: &Spec,
        new: &Spec,
        wanted: &Wanted,
        changes: &[Change],
    ) -> Result<Vec<UnitChange>, ActionError> {
        let names: BTreeSet<&String> = old.ignition.units.keys().chain(new.ignition.units.keys()).collect();
        let mut out = Vec::new();
        for name in names {
            let own = PathBuf::from(UNITS).join(name);
            let drop_ins = PathBuf::from(UNITS).join(format!("{name}.d"));
            let text = changes.iter().any(|change| change.path == own || change.path.starts_with(&drop_ins));
            let (was, is) = (old.ignition.units.get(name), new.ignition.units.get(name));
            if !text && was.map(|unit| unit.enabled) == is.map(|unit| unit.enabled) {
                continue;
            }
            let masked = is.is_some_and(|unit| unit.mask == Some(true));
            let ours = was.is_some_and(|unit| unit.contents.is_some());
            let after = match wanted.units.get(name) {
                Some(Some(true)) => Enablement::On,
                Some(Some(false)) => Enablement::Off,
                Some(None) => Enablement::Preset,
                None if masked || (is.is_none() && ours) => Enablement::Off,
                None => Enablement::Keep,
            };
            let before = self.actions.is_enabled(name).await?;
            out.push(UnitChange { name: name.clone(), before, after, text });
        }
        Ok(out)
    }

    /// Carries out an update. On failure everything is undone.
    ///
    /// # Errors
    /// [`UpdateError::Undone`], or [`UpdateError::NotUndone`]: call
    /// [`recover`](Self::recover) until it succeeds.
    pub async fn apply(&self, prepared: Prepared) -> Result<Ended, UpdateError> {
        let mut journal = prepared.journal;
        self.write(&journal).await?;
        match self.carry_out(&mut journal).await {
            Ok(ended) => {
                self.forget(ended).await?;
                Ok(ended)
            }
            Err(step) => match self.undo(&journal).await {
                Ok(()) => Err(UpdateError::Undone(step)),
                Err(source) => Err(UpdateError::NotUndone { step, source }),
            },
        }
    }

    async fn carry_out(&self, journal: &mut Journal) -> Result<Ended, StepError> {
        for unit in journal.units.iter().filter(|unit| unit.before && unit.text) {
            self.actions.enable(&unit.name, Some(false)).await?;
        }
        let (host, changes) = (self.host.clone(), journal.changes.clone());
        blocking(move || changes.iter().try_for_each(|change| host.put(&change.path, &change.after))).await?;
        journal.phase = Phase::Acting;
        self.write(journal).await?;
        self.announce_units(journal).await?;
        for action in journal.actions.iter().filter(|action| **action != Action::Reboot) {
            self.act(action).await?;
        }
        if journal.actions.contains(&Action::Reboot) {
            journal.phase = Phase::Rebooting { boot: boot(&self.host) };
            self.write(journal).await?;
        }
        let (host, record) = (self.host.clone(), journal.to.clone());
        blocking(move || record.store(&host)).await?;
        if !journal.actions.contains(&Action::Reboot) {
            return Ok(Ended::Done);
        }
        self.actions.reboot().await?;
        Ok(Ended::Rebooting)
    }

    async fn announce_units(&self, journal: &Journal) -> Result<(), ActionError> {
        if journal.units.is_empty() {
            return Ok(());
        }
        self.actions.reload_units().await?;
        for unit in &journal.units {
            let wanted = match unit.after {
                Enablement::On => Some(Some(true)),
                Enablement::Off => Some(Some(false)),
                Enablement::Preset => Some(None),
                // It was disabled only to have its text replaced.
                Enablement::Keep => (unit.before && unit.text).then_some(Some(true)),
            };
            if let Some(enabled) = wanted {
                self.actions.enable(&unit.name, enabled).await?;
            }
            if unit.text && unit.after == Enablement::On {
                self.actions.restart_unit(&unit.name).await?;
            }
        }
        Ok(())
    }

    async fn act(&self, action: &Action) -> Result<(), ActionError> {
        match action {
            Action::ReloadUnits => self.actions.reload_units().await,
            Action::ReloadService(unit) => self.actions.reload_unit(unit).await,
            Action::RestartService(unit) => self.actions.restart_unit(unit).await,
            Action::UpdateTrust => self.actions.update_trust().await,
            Action::UpdateBootLoader => self.actions.update_boot_loader().await,
            Action::ReloadEngine => self.actions.engine(Verb::Reload).await,
            Action::RestartEngine => self.actions.engine(Verb::Restart).await,
            Action::Reboot => self.actions.reboot().await,
        }
    }

    /// Ends an update that was cut off: what is complete is finished, anything
    /// else undone. Call it before anything else.
    ///
    /// # Errors
    /// [`UpdateError`]; repeat it later.
    pub async fn recover(&self) -> Result<Recovered, UpdateError> {
        let Some(journal) = Journal::load(&self.host)? else { return Ok(Recovered::Nothing) };
        let complete = Record::load(&self.host)?.as_ref() == Some(&journal.to);
        match &journal.phase {
            Phase::Rebooting { boot: asked } if complete && *asked == boot(&self.host) => {
                self.actions.reboot().await.map_err(|error| UpdateError::Recovery(error.into()))?;
                Ok(Recovered::Rebooting)
            }
            // A forced update may have the record it began with: its force file is
            // still there then, and it is repeated.
            _ if complete => {
                self.forget(Ended::Done).await?;
                Ok(Recovered::Finished)
            }
            _ => {
                self.undo(&journal).await.map_err(UpdateError::Recovery)?;
                Ok(Recovered::Undone)
            }
        }
    }

    /// Puts everything back and forgets the update. It may be repeated.
    async fn undo(&self, journal: &Journal) -> Result<(), StepError> {
        let (host, changes) = (self.host.clone(), journal.changes.clone());
        blocking(move || {
            // One that cannot be put back keeps no other from it.
            let each = changes.iter().rev().map(|change| {
                host.tidy(&change.path);
                if host.read(&change.path)? == change.before { Ok(()) } else { host.put(&change.path, &change.before) }
            });
            each.fold(Ok(()), Result::and)
        })
        .await?;
        if !journal.units.is_empty() {
            self.actions.reload_units().await?;
            for unit in &journal.units {
                self.actions.enable(&unit.name, Some(unit.before)).await?;
            }
        }
        if journal.phase != Phase::Applying {
            // They saw the new files, or may have.
            for action in journal.actions.iter().filter(|action| **action != Action::Reboot) {
                self.act(action).await?;
            }
        }
        let host = self.host.clone();
        blocking(move || Journal::remove(&host)).await
    }

    async fn write(&self, journal: &Journal) -> Result<(), HostError> {
        let (host, journal) = (self.host.clone(), journal.clone());
        tokio::task::spawn_blocking(move || journal.store(&host)).await.unwrap_or_else(|error| Err(cut(error)))
    }

    async fn forget(&self, ended: Ended) -> Result<(), UpdateError> {
        if ended == Ended::Rebooting {
            return Ok(()); // the next boot does
        }
        let host = self.host.clone();
        Ok(tokio::task::spawn_blocking(move || Journal::remove(&host)).await??)
    }

    /// Everything that differs from the record.
    ///
    /// # Errors
    /// When the checking task dies.
    pub async fn drift(&self, record: &Record) -> Result<Vec<Drift>, UpdateError> {
        let (host, record) = (self.host.clone(), record.clone());
        Ok(tokio::task::spawn_blocking(move || drift::find(&record, &host)).await?)
    }

    /// Whether the same configuration means something else by now: another version
    /// of the payload, another base of the engine's configuration.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn outdated(&self, record: &Record) -> Result<bool, UpdateError> {
        let (updater, record) = (self.clone(), record.clone());
        let look = move || {
            let spec =
                Spec::parse(&record.spec).map_err(|source| UpdateError::Spec { name: record.name.clone(), source })?;
            if !wanted::sandboxes(&spec) {
                return Ok(false);
            }
            let Some(source) = &updater.payload else { return Ok(false) };
            let version = Manifest::load(source)?.version;
            let wanted = wanted::wanted(&spec, Some(&version), &updater.host, &updater.engine, &record)?;
            let prints = wanted.entries.iter().map(|(path, entry)| (path, entry.print()));
            Ok(!prints.eq(record.owned.iter().map(|(path, print)| (path, print.clone()))))
        };
        tokio::task::spawn_blocking(look).await?
    }

    /// Removes versions of the payload that nobody uses.
    ///
    /// # Errors
    /// [`UpdateError::Payload`]; nothing depends on it.
    pub async fn collect(&self, record: &Record) -> Result<Collected, UpdateError> {
        let (host, keep) = (self.host.clone(), record.payload.clone());
        Ok(tokio::task::spawn_blocking(move || Store::new(&host).collect(keep.as_deref())).await??)
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), HostError> + Send + 'static) -> Result<(), StepError> {
    Ok(tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(cut(error)))?)
}

fn cut(error: tokio::task::JoinError) -> HostError {
    HostError { action: "finish work on", path: "/".into(), source: std::io::Error::other(error) }
}

/// Identifier of this boot of the node.
fn boot(host: &Host) -> String {
    fs::read_to_string(host.real("/proc/sys/kernel/random/boot_id")).unwrap_or_default().trim().to_owned()
}
