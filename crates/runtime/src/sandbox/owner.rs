//! The task that owns a sandbox's machine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use osc_agent_protocol::{Kind, agent::GetOOMEventRequest, kind::chain, names};
use tokio::sync::{mpsc, oneshot};

use super::{
    Phase, Request, Shared,
    agent::Agent,
    boot,
    cleanup::cleanup,
    error::SandboxError,
    held::{self, End, Held, LAST_WORDS},
    identity::Identity,
    links::Place,
    monitor,
    phase::Cause,
    record::{Record, Stage},
};
use crate::{config::NetworkModel, deadline::Deadline, id::ContainerId, network::Forward, share::Share, spec::Size};

/// How often the agent is asked whether it serves. A broken connection shows by
/// itself; this finds a guest that hangs.
const HEALTH_PERIOD: Duration = Duration::from_secs(30);
/// How long taking a sandbox apart may take.
const TEARDOWN: Duration = Duration::from_secs(20);
/// How long a sandbox has run when a template of its shape is made: its first
/// containers start undisturbed. One that ends earlier has it made then.
const TEMPLATE_AFTER: Duration = Duration::from_secs(5);
/// How long a clean-up that fails is tried again; engines wait for it.
const PERSISTENCE: Duration = Duration::from_secs(5);

/// What handles ask the owner for.
#[derive(Debug)]
pub(super) enum Command {
    /// Make the machine at least this large; the answer says what was added.
    Grow { size: Size, done: oneshot::Sender<Result<(), SandboxError>> },
}

/// Makes what must exist before the owner runs: the record, then the shared tree.
pub(super) async fn prepare(request: &Request) -> Result<(Record, Share), SandboxError> {
    let wanted = request.clone();
    let work = move || {
        let request = wanted;
        let mut record = Record::new(request.id.clone(), request.bundle.clone());
        record.shim = Identity::of(std::process::id()).ok();
        if !request.names.pod.is_empty() {
            record.pod = Some((request.names.namespace.clone(), request.names.pod.clone()));
        }
        boot::plan(&request, &mut record)?;
        save(&request, &record)?;
        let share = Share::create(&request.dirs, &request.id, &request.config.runtime.bind_mounts)?;
        Ok((record, share))
    };
    let prepared = boot::blocking(work).await;
    if prepared.is_err() {
        take_back(request).await;
    }
    prepared
}

/// Removes whatever is left and says what could not be.
async fn take_back(request: &Request) {
    for failure in cleanup(&request.dirs, &request.id, Deadline::after(PERSISTENCE)).await {
        tracing::warn!(sandbox.id = %request.id, error = chain(&failure), "clean-up step failed");
    }
}

/// Writes the record.
pub(super) fn save(request: &Request, record: &Record) -> Result<(), SandboxError> {
    let path = request.dirs.sandbox(&request.id);
    record.save(&request.dirs).map_err(|source| SandboxError::File { action: "write the state in", path, source })
}

/// Owner of one sandbox.
pub(super) struct Owner {
    shared: Arc<Shared>,
    record: Record,
    held: Held,
    inbox: mpsc::Receiver<Command>,
    oom: mpsc::Sender<ContainerId>,
}

impl Owner {
    pub(super) fn new(
        shared: Arc<Shared>,
        record: Record,
        inbox: mpsc::Receiver<Command>,
        oom: mpsc::Sender<ContainerId>,
    ) -> Self {
        Self { shared, record, held: Held::default(), inbox, oom }
    }

    /// The whole life of the sandbox.
    pub(super) async fn run(mut self) {
        let shared = self.shared.clone();
        let monitor = monitor::serve(&shared);
        let booted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => None,
            booted = boot::boot(&shared, &mut self.record, &mut self.held) => Some(booted),
        };
        let cause = match booted {
            None => Cause::Requested,
            Some(Err(error)) => Cause::BootFailed(held::blame(error, self.held.virtiofsd.as_ref()).await),
            Some(Ok((agent, pid))) => {
                self.announce(agent, pid);
                self.place_vcpus();
                self.forward_ports();
                self.supervise().await
            }
        };
        self.finish(cause).await;
        drop(monitor);
    }

    /// Ends the sandbox: first for whoever waits in it, then on the host.
    pub(super) async fn finish(mut self, cause: Cause) {
        let cause = Arc::new(cause);
        let id = &self.shared.request.id;
        match &*cause {
            Cause::Requested => tracing::debug!(sandbox.id = %id, "sandbox is being taken apart"),
            cause => tracing::warn!(sandbox.id = %id, cause = %cause, "sandbox has ended"),
        }
        // Whoever waits for a process learns of its end before the clean-up.
        self.enter(Phase::Stopping(cause.clone()));
        self.shared.containers.end_all(cause.exit_status());
        self.take_apart().await;
        self.enter(Phase::Stopped(cause));
    }

    fn enter(&self, next: Phase) {
        self.shared.phase.send_if_modified(|phase| {
            let forward = phase.may_become(&next);
            if forward {
                *phase = next;
            }
            forward
        });
    }

    /// From here on the sandbox serves.
    pub(super) fn announce(&mut self, agent: Agent, pid: u32) {
        let _ = self.shared.agent.set(agent);
        self.record.stage = Stage::Running;
        if let Err(error) = save(&self.shared.request, &self.record) {
            tracing::warn!(sandbox.id = %self.shared.request.id, error = chain(&error), "state not written");
        }
        self.enter(Phase::Running { pid });
    }

    /// Charges the virtual processors to the pod when only they are.
    fn place_vcpus(&self) {
        if self.shared.request.config.runtime.sandbox_cgroup_only {
            return;
        }
        let Some(group) = self.record.cgroups.last() else { return };
        if let Err(error) = self.shared.cgroups.place_threads(group, &self.held.vcpu_threads()) {
            tracing::warn!(group = %group.display(), error = chain(&error), "processors are not charged to the pod");
        }
    }

    /// Lets the engine reach the pod's loopback addresses, as far as the pod has a
    /// network an engine can find.
    fn forward_ports(&mut self) {
        let request = &self.shared.request;
        let wired = request.config.runtime.network != NetworkModel::None;
        if let (true, Ok(Place::Given(netns)), Some(vsock)) = (wired, Place::of(request), &self.held.vsock) {
            self.held.forward = Some(Forward::start(netns, vsock.address(names::RELAY_PORT)));
        }
    }

    /// Serves commands until the sandbox has to end; why it has to.
    pub(super) async fn supervise(&mut self) -> Cause {
        let shared = self.shared.clone();
        let agent = shared.agent.get().cloned().expect("set when the machine was announced");
        let mut hypervisor = self.held.hypervisor_end();
        let mut file_server = self.held.file_server_end();
        let guest = watch_agent(agent.clone(), self.oom.clone());
        let health = check_health(agent);
        let template = tokio::time::sleep(TEMPLATE_AFTER);
        tokio::pin!(guest, health, template);
        loop {
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Cause::Requested,
                how = hypervisor.wait() => return Cause::HypervisorEnded(how),
                // A dead machine takes its file server and its agent along, and says more.
                how = file_server.wait() => return unless_machine(&mut hypervisor, Cause::FileServerEnded(how)).await,
                how = &mut guest => return unless_machine(&mut hypervisor, Cause::AgentLost(how)).await,
                how = &mut health => return Cause::AgentLost(how),
                () = &mut template, if self.held.order.is_some() => self.order_template().await,
                command = self.inbox.recv() => match command { // cancel-safe
                    Some(command) => self.obey(command).await,
                    None => return Cause::Requested,
                },
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        let shared = self.shared.clone();
        match command {
            Command::Grow { size, done } => {
                let agent = shared.agent.get().cloned().expect("set when the machine was announced");
                let grown = tokio::select! {
                    biased;
                    () = shared.stop.cancelled() => return,
                    grown = self.held.grow(size, &agent) => grown,
                };
                self.place_vcpus();
                // Whoever asked may have gone.
                let _ = done.send(grown);
            }
        }
    }

    /// Has a template made for the sandboxes to come.
    async fn order_template(&mut self) {
        let (Some(order), Some(maker)) = (self.held.order.take(), &self.shared.request.maker) else { return };
        if let Err(error) = maker.start(&order).await {
            tracing::warn!(program = %maker.program.display(), error = %error, "template not made");
        }
    }

    /// Undoes everything. The same sweep as after a crash comes last, so that
    /// nothing depends on how far the boot came.
    async fn take_apart(&mut self) {
        let request = &self.shared.request;
        self.record.stage = Stage::Stopping;
        if let Err(error) = save(request, &self.record) {
            tracing::warn!(sandbox.id = %request.id, error = chain(&error), "state not written");
        }
        let began = Instant::now();
        let elapsed = |step: &str| {
            let elapsed_ms = began.elapsed().as_millis() as u64;
            tracing::debug!(sandbox.id = %request.id, step, elapsed_ms, "taking apart");
        };
        self.held.release(&self.shared.cgroups, Deadline::after(TEARDOWN)).await;
        elapsed("machine and daemons ended");
        take_back(request).await;
        elapsed("cleaned up");
        if matches!(&*self.shared.phase.borrow(), Phase::Stopping(cause) if matches!(**cause, Cause::Requested)) {
            self.order_template().await;
        }
        self.shared.tasks.close();
    }
}

/// `cause`, unless the machine turns out to have ended.
async fn unless_machine(hypervisor: &mut End, cause: Cause) -> Cause {
    let end = Deadline::after(LAST_WORDS).run(hypervisor.wait()).await;
    end.map_or(cause, Cause::HypervisorEnded)
}

/// Passes memory limit events on until the connection to the agent breaks; how it
/// broke. The long poll doubles as the watch over the connection.
async fn watch_agent(agent: Agent, oom: mpsc::Sender<ContainerId>) -> String {
    loop {
        match agent.get_oom_event(GetOOMEventRequest::new()).await {
            Ok(event) => match ContainerId::new(event.container_id) {
                Ok(id) => {
                    let _ = oom.send(id).await;
                }
                Err(error) => tracing::warn!(error = chain(&error), "memory event of a strange container"),
            },
            Err(error) if error.kind() == Kind::Unavailable => return chain(&error),
            Err(error) => {
                // An agent that cannot report still runs containers; its health
                // is watched by the check.
                tracing::warn!(error = chain(&error), "memory events are not reported");
                return std::future::pending().await;
            }
        }
    }
}

async fn check_health(agent: Agent) -> String {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + HEALTH_PERIOD, HEALTH_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = agent.check().await {
            return chain(&error);
        }
    }
}
