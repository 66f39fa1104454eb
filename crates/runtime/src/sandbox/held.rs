//! What of a sandbox lives in this process: its machine, its daemons, its place.

use std::{fs, io, path::Path, process::ExitStatus, time::Duration};

use osc_agent_protocol::{agent::OnlineCPUMemRequest, kind::chain, types::Interface};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Request,
    agent::Agent,
    cgroup::{Cgroups, Home},
    error::SandboxError,
    links,
};
use crate::{
    config::Mib,
    deadline::Deadline,
    network::{Forward, Network},
    qemu::{self, Accelerator, Machine, Running},
    share::{DaemonError, Virtiofsd},
    spec::Size,
    template::Order,
    vsock::Vsock,
};

/// How long one growth step of the machine may take.
const GROWTH: Duration = Duration::from_secs(10);
/// How long the end of one process may take to show when another's, which it caused,
/// has been seen.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(300);

/// Everything the owner holds; filled as the boot goes along.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub groups: Groups,
    pub virtiofsd: Option<Virtiofsd>,
    pub network: Option<Network>,
    pub vsock: Option<Vsock>,
    pub forward: Option<Forward>,
    /// A template to be made once the sandbox runs.
    pub order: Option<Order>,
    machine: Option<Machine<Running>>,
    vcpus: u32,
    accelerator: Option<Accelerator>,
}

/// The end of a process of the sandbox.
pub(super) enum End {
    Hypervisor(watch::Receiver<Option<qemu::Exit>>),
    FileServer(watch::Receiver<Option<ExitStatus>>),
    /// There is no such process.
    Never,
}

impl End {
    /// Waits for it; how it came. Cancel-safe.
    pub(super) async fn wait(&mut self) -> String {
        match self {
            Self::Hypervisor(exit) => describe(exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit)),
            Self::FileServer(exit) => {
                let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
                status.map_or_else(|| "its end was not seen".into(), |status| status.to_string())
            }
            Self::Never => std::future::pending().await,
        }
    }
}

/// Replaces `error` when the file server ended early: QEMU then only says that it
/// found nobody.
pub(super) async fn blame(error: SandboxError, daemon: Option<&Virtiofsd>) -> SandboxError {
    let Some(daemon) = daemon else { return error };
    match daemon.ready(Deadline::after(LAST_WORDS)).await {
        Err(ended @ DaemonError::Ended { .. }) => ended.into(),
        _ => error,
    }
}

/// How QEMU ended, in words.
pub(super) fn describe(exit: Option<qemu::Exit>) -> String {
    exit.map_or_else(|| "its end was not seen".into(), |exit| exit.to_string())
}

impl Held {
    /// Takes over a machine with `vcpus` processors executed by `accelerator`.
    pub(super) fn own(&mut self, machine: Machine<Running>, vcpus: u32, accelerator: Accelerator) {
        (self.machine, self.vcpus, self.accelerator) = (Some(machine), vcpus, Some(accelerator));
    }

    pub(super) fn hypervisor_end(&self) -> End {
        self.machine.as_ref().map_or(End::Never, |machine| End::Hypervisor(machine.exited()))
    }

    pub(super) fn file_server_end(&self) -> End {
        self.virtiofsd.as_ref().map_or(End::Never, |daemon| End::FileServer(daemon.exited()))
    }

    /// Makes the machine at least as large as `size`. It never shrinks.
    pub(super) async fn grow(&mut self, size: Size, agent: &Agent) -> Result<(), SandboxError> {
        let Some(machine) = &mut self.machine else { return Ok(()) };
        let missing = size.vcpus.saturating_sub(self.vcpus);
        if missing > 0 && self.accelerator != Some(Accelerator::Kvm) {
            // QEMU 7.2 hands the room for translations out to the processors there
            // are; one that comes when it is used up ends the machine.
            tracing::warn!(missing, "emulated machines get no more processors: static sizing gives them at boot");
        } else if missing > 0 {
            self.vcpus = machine.add_cpus(missing, Deadline::after(GROWTH)).await?;
            online(agent, missing, true).await?;
        }
        loop {
            let missing = Mib(size.memory.0.saturating_sub(machine.memory().0));
            if missing.0 == 0 || machine.add_memory(missing, Deadline::after(GROWTH)).await?.0 == 0 {
                return Ok(());
            }
            online(agent, 0, false).await?;
        }
    }

    /// Interfaces whose cards the machine got after its start, with their places: all
    /// of them when it went on from a template, else those hooks have made meanwhile.
    /// `cards` are the names of the cards it was described with.
    pub(super) async fn late_interfaces(
        &mut self,
        request: &Request,
        cards: &[String],
    ) -> Result<Option<Vec<Interface>>, SandboxError> {
        let (Some(network), Some(machine)) = (&mut self.network, &mut self.machine) else { return Ok(None) };
        let late = links::plug_late(request, network, machine).await?;
        if late.is_some() {
            return Ok(late);
        }
        let places: Option<Vec<_>> = cards.iter().map(|card| machine.place(card)).collect();
        let Some(places) = places.filter(|places| !places.is_empty()) else { return Ok(None) };
        let mut interfaces = network.interfaces().to_vec();
        for (interface, place) in interfaces.iter_mut().zip(places) {
            interface.devicePath = place.to_string();
        }
        Ok(Some(interfaces))
    }

    /// Threads of the hypervisor that execute the guest.
    pub(super) fn vcpu_threads(&self) -> Vec<u32> {
        let Some(machine) = &self.machine else { return Vec::new() };
        let tasks = fs::read_dir(format!("/proc/{}/task", machine.pid())).into_iter().flatten().flatten();
        let vcpu = |task: &fs::DirEntry| {
            // QEMU names its threads when asked to: `CPU 0/KVM`.
            fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("CPU "))
        };
        tasks.filter(vcpu).filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
    }

    /// Ends the machine and its daemons, and leaves the control groups meanwhile.
    pub(super) async fn release(&mut self, cgroups: &Cgroups, by: Deadline) {
        let mut groups = std::mem::take(&mut self.groups);
        tokio::join!(groups.leave(cgroups), self.release_processes(by));
    }

    pub(super) async fn release_processes(&mut self, by: Deadline) {
        self.forward = None;
        if let Some(machine) = self.machine.take()
            && let Err(failures) = machine.stop(by).await
        {
            for failure in failures {
                tracing::warn!(error = chain(&failure), "hypervisor not stopped");
            }
        }
        if let Some(daemon) = self.virtiofsd.take()
            && daemon.stop(by).await.is_none()
        {
            tracing::warn!("file server not stopped");
        }
        if let Some(mut network) = self.network.take()
            && let Err(error) = network.detach(by).await
        {
            tracing::warn!(error = chain(&error), "network not given back");
        }
        self.vsock = None;
    }
}

/// The control groups this process is in. Moving takes the kernel many milliseconds,
/// so a thread does it.
#[derive(Debug, Default)]
pub(super) struct Groups {
    home: Option<Home>,
    moving: Option<JoinHandle<io::Result<()>>>,
}

impl Groups {
    /// Moves the process into `group`.
    pub(super) async fn enter(&mut self, cgroups: &Cgroups, group: &Path) -> io::Result<()> {
        // A second attempt to boot starts inside.
        self.home.get_or_insert_with(|| cgroups.home());
        let (cgroups, group) = (cgroups.clone(), group.to_owned());
        let moving = self.moving.insert(tokio::task::spawn_blocking(move || cgroups.enter(&group)));
        let moved = moving.await.map_err(io::Error::other)?;
        self.moving = None;
        moved
    }

    /// Where the process was before it entered a group.
    pub(super) fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    /// Goes back to where the process was before the sandbox.
    async fn leave(&mut self, cgroups: &Cgroups) {
        // A boot given up half way may still be entering.
        if let Some(moving) = self.moving.take() {
            let _ = moving.await;
        }
        if let Some(home) = self.home.take() {
            let cgroups = cgroups.clone();
            let _ = tokio::task::spawn_blocking(move || cgroups.leave(&home)).await;
        }
    }
}

async fn online(agent: &Agent, cpus: u32, cpu_only: bool) -> Result<(), SandboxError> {
    // Hot-plugged devices reach the guest kernel a moment after the host is told.
    let request = OnlineCPUMemRequest { wait: true, nb_cpus: cpus, cpu_only, ..Default::default() };
    agent.online_cpu_mem(request).await?;
    Ok(())
}
