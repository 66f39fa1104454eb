//! A played node, and a process that ends where a test wants it to.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;

use super::{
    actions::{ActionError, NodeActions, Verb},
    engine::Engine,
    host::{Entry, Host},
    update::Updater,
    wanted::Capabilities,
};

/// Environment variable: the step before which this process ends at once.
pub(super) const ABORT_AT: &str = "OSC_TEST_ABORT_AT";

pub(crate) fn step() {
    static LEFT: OnceLock<AtomicI64> = OnceLock::new();
    let asked = || std::env::var(ABORT_AT).ok().and_then(|text| text.parse().ok()).unwrap_or(i64::MAX);
    if LEFT.get_or_init(|| AtomicI64::new(asked())).fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::abort();
    }
}

/// A node whose services are files: `enabled/<unit>`, and `seen`, which is what
/// the engine and units read when they were told to.
pub(super) struct Played {
    root: PathBuf,
}

impl Played {
    fn fails(&self, what: &str) -> Result<(), ActionError> {
        let broken = self.root.join("broken").join(what).exists();
        if broken { Err(ActionError::Engine(format!("{what} is broken"))) } else { Ok(()) }
    }

    fn look(&self) {
        step();
        let etc = super::tests::snapshot(&self.root.join("etc"));
        fs::write(self.root.join("seen"), format!("{etc:#?}")).unwrap();
        step();
    }
}

#[async_trait]
impl NodeActions for Played {
    fn capabilities(&self) -> Capabilities {
        Capabilities { units: true, reboot: true }
    }

    async fn engine(&self, _: Verb) -> Result<(), ActionError> {
        self.fails("engine")?;
        self.look();
        Ok(())
    }

    async fn reload_units(&self) -> Result<(), ActionError> {
        step();
        Ok(())
    }

    async fn is_enabled(&self, unit: &str) -> Result<bool, ActionError> {
        Ok(self.root.join("enabled").join(unit).exists())
    }

    async fn enable(&self, unit: &str, enabled: Option<bool>) -> Result<(), ActionError> {
        self.fails(unit)?;
        step();
        let link = self.root.join("enabled").join(unit);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        match enabled {
            Some(true) => fs::write(link, "").unwrap(),
            _ => drop(fs::remove_file(link)),
        }
        step();
        Ok(())
    }

    async fn restart_unit(&self, _: &str) -> Result<(), ActionError> {
        self.look();
        Ok(())
    }

    async fn reload_unit(&self, _: &str) -> Result<(), ActionError> {
        self.look();
        Ok(())
    }

    async fn update_trust(&self) -> Result<(), ActionError> {
        Ok(())
    }

    async fn update_boot_loader(&self) -> Result<(), ActionError> {
        self.look();
        Ok(())
    }

    async fn reboot(&self) -> Result<(), ActionError> {
        let file = self.root.join("reboots");
        let count: u32 = fs::read_to_string(&file).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        fs::write(file, (count + 1).to_string()).unwrap();
        Ok(())
    }
}

/// A node below `root` with CRI-O, played services and, if given, a payload.
pub(super) fn updater(root: &Path, payload: Option<&Path>) -> Updater {
    Updater {
        host: Host::new(root),
        engine: Engine::Crio,
        payload: payload.map(Path::to_owned),
        rules: Vec::new(),
        policy: Vec::new(),
        actions: Arc::new(Played { root: root.into() }),
    }
}

/// Writes a file of the node.
pub(super) fn put(root: &Path, path: &str, text: &str) {
    Host::new(root).put(Path::new(path), &Entry::file(text, 0o644)).unwrap();
}
