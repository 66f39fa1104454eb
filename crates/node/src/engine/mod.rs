//! A private containerd: own root, state, socket, network and cgroup, all named
//! after the root directory. Another containerd on the machine is never touched,
//! and engines of several roots run side by side.
//!
//! ```text
//! start ──► running? ──yes──────────────► adopt
//!             │no                            ▲
//!             ▼                              │
//!      directories, subnets, files ──► spawn, wait for the CRI ──► pause image
//!
//! stop ──► end containerd ──► sweep: processes, mounts, links, cgroups, files
//! ```
//!
//! Pods outlive a crash of containerd: the next start adopts them.

mod config;
mod error;
mod filter;
mod images;
mod kata;
mod mounts;
mod network;
mod paths;
mod pause;
mod process;
mod sweep;

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use nix::fcntl::{Flock, FlockArg};
use osc_runtime::{deadline::Deadline, dirs::Dirs};

use crate::cri::{Client, CriError};
pub use config::PAUSE_IMAGE;
pub use error::EngineError;
pub use kata::{Kata, Parts};
pub(crate) use mounts::{below, unmount_below};
pub use network::Subnets;
pub use paths::Paths;
pub(crate) use process::which;
pub(crate) use sweep::{cgroup_roots, remove_cgroup};

use error::io;

/// How long containerd gets from its start to its first useful answer. It loads
/// all snapshots and adopts running shims before that.
const START: Duration = Duration::from_secs(60);
/// How long another osc may hold the engine.
const LOCK: Duration = Duration::from_secs(90);
/// How long containerd gets to end.
const STOP: Duration = Duration::from_secs(20);
/// Pace of questions that have no event to wait for.
const POLL: Duration = Duration::from_millis(25);

/// One private engine; running or not.
#[derive(Clone, Debug)]
pub struct Engine {
    paths: Paths,
    subnet: Option<Ipv4Addr>,
}

impl Engine {
    /// The engine of `dirs`. Nothing is touched yet.
    pub fn new(dirs: Dirs) -> Self {
        Self { paths: Paths::new(dirs), subnet: None }
    }

    /// Gives its pods addresses of this /24 network, unless it has one already.
    pub fn with_subnet(self, subnet: Option<Ipv4Addr>) -> Self {
        Self { subnet, ..self }
    }

    /// The networks its pods get addresses of.
    ///
    /// # Errors
    /// When none is free or the choice cannot be stored.
    pub fn subnets(&self) -> Result<Subnets, EngineError> {
        network::subnets(&self.paths, self.subnet)
    }

    /// Where it keeps things.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// A client of the engine if it runs.
    pub fn running(&self) -> Option<Client> {
        process::find(&self.paths).map(|_| Client::new(&self.paths.socket()))
    }

    /// Adopts the running engine, or starts it. With `kata` it offers that runtime;
    /// its configuration is brought up to date in both cases: shims read it when a pod
    /// starts. Without, the runtime is there once a drop-in offers it.
    ///
    /// # Errors
    /// [`EngineError`]; a containerd started in vain is ended again.
    pub async fn start(&self, kata: Option<&Kata>) -> Result<Client, EngineError> {
        let _lock = self.prepared().await?;
        if let Some(kata) = kata {
            self.write_kata(kata)?;
        }
        match self.running() {
            Some(client) => Ok(client),
            None => self.launch(kata).await,
        }
    }

    /// Ends the engine if it runs, and starts it with what is configured now. Pods
    /// go on.
    ///
    /// # Errors
    /// As [`Self::start`], and when the old one does not end.
    pub async fn restart(&self, kata: Option<&Kata>) -> Result<Client, EngineError> {
        let _lock = self.prepared().await?;
        self.end().await?;
        self.launch(kata).await
    }

    /// The directories, and the lock.
    async fn prepared(&self) -> Result<Flock<fs::File>, EngineError> {
        for dir in [self.paths.dirs().run(), self.paths.dirs().state(), self.paths.pods(), self.paths.pod_logs()] {
            fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        }
        self.lock().await
    }

    async fn launch(&self, kata: Option<&Kata>) -> Result<Client, EngineError> {
        self.write_files(kata)?;
        let linked = self.paths.shims();
        let shims = kata.map_or(Some(linked.as_path()), |kata| kata.shim.parent());
        let mut child = process::start(&self.paths, shims).await?;
        let client = Client::new(&self.paths.socket());
        let started = match self.wait_ready(&mut child, &client).await {
            Ok(()) => self.import_pause(&client).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            let _ = child.kill().await; // it may have ended by itself
            let _ = fs::remove_file(self.paths.pid_file());
            return Err(error);
        }
        tracing::info!(socket = %self.paths.socket().display(), "engine started");
        Ok(client)
    }

    /// Loads images from an archive (OCI layout or `docker save`); returns their names.
    ///
    /// # Errors
    /// [`EngineError::Tool`] with what `ctr` said.
    pub async fn import(&self, client: &Client, archive: &std::path::Path) -> Result<Vec<String>, EngineError> {
        images::import(&self.paths, client, archive).await
    }

    /// Ends containerd and removes what it and its pods left outside the state
    /// directory; with `purge`, that directory too. Delete pods before: what
    /// still runs is killed. Idempotent, and indifferent to how far an earlier
    /// start or stop got.
    ///
    /// # Errors
    /// [`EngineError::Left`] names everything that could not be removed.
    pub async fn stop(&self, purge: bool) -> Result<(), EngineError> {
        if !self.paths.dirs().run().exists() && !self.paths.dirs().state().exists() {
            return Ok(());
        }
        fs::create_dir_all(self.paths.dirs().run()).map_err(io("create", self.paths.dirs().run()))?;
        let lock = self.lock().await?;
        self.end().await?;
        sweep::sweep(&self.paths, purge).await?;
        drop(lock);
        Ok(())
    }

    async fn end(&self) -> Result<(), EngineError> {
        match process::find(&self.paths) {
            Some(pid) if !process::end(pid, Deadline::after(STOP)).await => {
                Err(EngineError::Left(vec![format!("containerd, process {pid}")]))
            }
            _ => Ok(()),
        }
    }

    async fn lock(&self) -> Result<Flock<fs::File>, EngineError> {
        let path = self.paths.lock();
        let deadline = Deadline::after(LOCK);
        let mut file = fs::File::create(&path).map_err(io("create", &path))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err(_) if deadline.passed() => return Err(EngineError::Locked { lock: path, waited: LOCK }),
                Err((back, _)) => file = back,
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Installs the kata configuration, or brings ours up to date. One that
    /// somebody else wrote is used as it is.
    fn write_kata(&self, kata: &Kata) -> Result<(), EngineError> {
        let file = self.paths.kata_config();
        if file.exists() && !kata::is_ours(&file) {
            return Ok(());
        }
        let dir = file.with_file_name("config.d");
        fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        fs::write(&file, &kata.configuration).map_err(io("write", &file))
    }

    fn write_files(&self, kata: Option<&Kata>) -> Result<(), EngineError> {
        let paths = &self.paths;
        for dir in [paths.content(), paths.live(), paths.cni_conf(), paths.cni_leases()] {
            fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        }
        if paths.needs_short_run() {
            let link = paths.short_run();
            let _ = fs::remove_file(&link); // left by an engine that was killed
            std::os::unix::fs::symlink(paths.dirs().run(), &link).map_err(io("link", &link))?;
        }
        let subnets = self.subnets()?;
        let conflist = paths.cni_conf().join("10-pods.conflist");
        fs::write(&conflist, network::conflist(paths, &subnets)).map_err(io("write", &conflist))?;
        let cni_bin =
            ["/usr/lib/cni", "/opt/cni/bin"].map(PathBuf::from).into_iter().find(|d| d.join("bridge").exists());
        let machine = config::Machine {
            cni_bin: cni_bin
                .ok_or(EngineError::Missing { program: "CNI plugin bridge", package: "containernetworking-plugins" })?,
            snapshotter: if mounts::overlay_works(&paths.content()) { "overlayfs" } else { "native" },
            shim: kata.map(|kata| kata.shim.clone()),
            lowers_oom_score: process::has_capability(process::CAP_SYS_RESOURCE),
        };
        fs::write(paths.config(), config::render(paths, &machine)).map_err(io("write", paths.config()))
    }

    async fn wait_ready(&self, child: &mut tokio::process::Child, client: &Client) -> Result<(), EngineError> {
        let deadline = Deadline::after(START);
        loop {
            let answer = client.unmet_conditions().await;
            match answer {
                Ok(unmet) if unmet.is_empty() => return Ok(()),
                _ if deadline.passed() => return Err(self.not_ready(answer)),
                _ => {}
            }
            tokio::select! {
                status = child.wait() => return Err(EngineError::Exited {
                    status: status.map(|status| status.to_string()).unwrap_or_default(),
                    log: self.paths.log(),
                    tail: process::tail(&self.paths.log()),
                }),
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    fn not_ready(&self, answer: Result<Vec<String>, CriError>) -> EngineError {
        if let Ok(unmet) = &answer {
            tracing::warn!(?unmet, "engine answers but is not ready");
        }
        EngineError::NotReady { waited: START, log: self.paths.log(), source: answer.err() }
    }

    async fn import_pause(&self, client: &Client) -> Result<(), EngineError> {
        if client.image(PAUSE_IMAGE).await?.is_some() {
            return Ok(());
        }
        let file = self.paths.dirs().run().join("pause.tar");
        let archive = pause::archive()
            .map_err(|cause| EngineError::Tool { command: "assemble pause image".into(), output: cause.to_string() })?;
        fs::write(&file, archive).map_err(io("write", &file))?;
        let imported = images::import(&self.paths, client, &file).await;
        let _ = fs::remove_file(&file); // removed by the next stop otherwise
        imported.map(drop)
    }
}
