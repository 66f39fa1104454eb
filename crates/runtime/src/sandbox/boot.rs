//! From a record to a machine whose agent serves.
//!
//! ```text
//!  enter cgroup ─┬─ virtiofsd ───┐
//!                ├─ network ─────┤         ┌─ QMP, hooks ───┐
//!                ├─ vsock ───────┼─► QEMU ─┤                ├─► late network ─► guest prepared
//!                └─ accelerator ─┘         └─ agent answers ┘
//! ```
//!
//! With a template of the machine's shape QEMU goes on from there instead of booting,
//! see [`restore`]; should that fail, all of it is undone and done again without.
//!
//! Whatever is made is put into [`Held`] or the record before the next step, so that
//! a boot that fails or is given up half way leaves nothing unknown.

use std::{
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use osc_agent_protocol::{kind::chain, names};
use ttrpc::asynchronous::transport::Socket;

use super::{
    Request, Shared,
    agent::{Agent, Limits},
    cgroup::{self, Cgroups},
    error::SandboxError,
    guest,
    held::{Held, LAST_WORDS, describe},
    hooks::{self, Point},
    identity::Identity,
    links::{self, Place},
    machine::{self, Parts},
    owner::save,
    record::Record,
    restore,
};
use crate::{
    deadline::Deadline,
    qemu::{self, Machine, SharedFs, Spawned, VmSpec},
    share::{DaemonSpec, Virtiofsd},
    spec::{self, Limits as SpecLimits, Size},
    template::Template,
    vsock::{Vsock, VsockError, VsockStream},
};

/// How long giving up a machine that did not go on from a template may take.
const RELEASE: Duration = Duration::from_secs(10);

/// Fills in what the record has to know before anything is made.
pub(super) fn plan(request: &Request, record: &mut Record) -> Result<(), SandboxError> {
    record.netns = Place::of(request)?.path().map(PathBuf::from);
    record.cgroups = groups(request);
    let cgroups = Cgroups::detect();
    let mut parents: Vec<PathBuf> = record.cgroups.iter().flat_map(|group| cgroups.missing_parents(group)).collect();
    // What another sandbox made is ours to remove, too, should we be the last in it.
    let others = Record::all(&request.dirs).into_iter().flat_map(|other| other.cgroup_parents);
    parents.extend(others.filter(|parent| record.cgroups.iter().any(|group| group.starts_with(parent))));
    parents.sort_by(|a, b| b.components().count().cmp(&a.components().count()).then(a.cmp(b)));
    parents.dedup();
    record.cgroup_parents = parents;
    Ok(())
}

/// Control groups of the sandbox: the one everything runs in first.
fn groups(request: &Request) -> Vec<PathBuf> {
    let linux = request.spec.linux().as_ref();
    let asked = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let own = cgroup::sandbox_group(asked, &request.dirs, &request.id);
    if request.config.runtime.sandbox_cgroup_only {
        vec![own]
    } else {
        vec![cgroup::overhead_group(&request.dirs, &request.id), own]
    }
}

/// The control group everything of the sandbox runs in.
pub(super) fn main_group(request: &Request) -> PathBuf {
    groups(request).swap_remove(0)
}

/// Boots the machine of `shared` and prepares its guest, or lets it go on from a
/// template. When that fails, it boots.
pub(super) async fn boot(shared: &Shared, record: &mut Record, held: &mut Held) -> Result<(Agent, u32), SandboxError> {
    let request = &shared.request;
    match attempt(shared, record, held, request.config.hypervisor.templates.enabled).await {
        Err(error @ SandboxError::Restore { .. }) => {
            tracing::warn!(sandbox.id = %request.id, error = chain(&error), "template given up");
            held.release_processes(Deadline::after(RELEASE)).await;
            let netns = links::own_path(&request.dirs, &request.id);
            let given_up = links::remove(&netns);
            given_up.map_err(|source| SandboxError::File { action: "give up", path: netns, source })?;
            attempt(shared, record, held, false).await
        }
        outcome => outcome,
    }
}

/// Starts the machine once. Only with `restore` it may go on from a template.
async fn attempt(
    shared: &Shared,
    record: &mut Record,
    held: &mut Held,
    restore: bool,
) -> Result<(Agent, u32), SandboxError> {
    let began = Instant::now();
    let (spec, size) = surroundings(shared, record, held).await?;
    let id = &shared.request.id;
    tracing::debug!(sandbox.id = %id, elapsed_ms = millis(began), "surroundings ready");
    let template = if restore { restore::choose(shared, &spec, held).await } else { None };
    let shape = template.as_ref().map(|template| template.shape().clone());
    let mut reached = false;
    let outcome = run(shared, record, held, Start { spec, size, template, began }, &mut reached).await;
    match (outcome, shape) {
        // What fails after the agent was reached has other reasons.
        (Err(error), Some(shape)) if !reached => {
            restore::reject(shared, shape, &error).await;
            Err(SandboxError::Restore { id: id.clone(), source: Box::new(error) })
        }
        (outcome, _) => outcome,
    }
}

/// Starts the machine as long as its file server lives.
async fn run(
    shared: &Shared,
    record: &mut Record,
    held: &mut Held,
    what: Start,
    reached: &mut bool,
) -> Result<(Agent, u32), SandboxError> {
    let mut file_server = held.file_server_end();
    let started = start(shared, record, held, what, reached);
    tokio::pin!(started);
    let how = tokio::select! {
        biased;
        started = &mut started => return started,
        how = file_server.wait() => how,
    };
    // It also ends because the machine did, whose end says more.
    let started = Deadline::after(LAST_WORDS).run(started).await;
    started.unwrap_or_else(|_| Err(SandboxError::FileServerEnded { id: shared.request.id.clone(), how }))
}

/// The machine to start.
struct Start {
    spec: VmSpec,
    size: Size,
    template: Option<Template>,
    began: Instant,
}

/// Starts the machine and prepares its guest. `reached` becomes true with the agent.
async fn start(
    shared: &Shared,
    record: &mut Record,
    held: &mut Held,
    what: Start,
    reached: &mut bool,
) -> Result<(Agent, u32), SandboxError> {
    let Start { spec, size, template, began } = what;
    let request = &shared.request;
    let (id, accelerator, restored) = (&request.id, spec.accelerator, template.is_some());
    let cards: Vec<String> = spec.nics.iter().map(|nic| nic.id.clone()).collect();
    let machine = match template {
        Some(template) => restore::machine(request, spec, template).await?,
        None => qemu::launch(spec, |_| Ok(())).await?,
    };
    let pid = machine.pid().cast_unsigned();
    shared.pid.set(pid);
    record.hypervisor = Identity::of(pid).ok();
    record.restored = restored;
    save(request, record)?;
    tracing::debug!(sandbox.id = %id, elapsed_ms = millis(began), "hypervisor started");

    let limit = if restored { restore::LIMIT } else { request.config.agent.dial_timeout.max(qemu::START_LIMIT) };
    let dialled = reach_agent(request, held.vsock.as_ref(), &machine, Deadline::after(limit));
    let connected = async {
        let machine = machine.connect(Deadline::after(qemu::START_LIMIT)).await?;
        if !restored {
            run_hooks(shared, pid).await?;
        }
        Ok::<_, SandboxError>(machine)
    };
    let (connected, dialled) = tokio::join!(connected, dialled);
    // What QEMU said when it ended explains more than the silence that followed.
    held.own(connected?, size.vcpus, accelerator);
    let agent = Agent::new(Socket::new(dialled?), limits(request), shared.agent_durations.clone());
    if restored {
        restore::refresh(&agent, request).await?;
    }
    *reached = true;
    tracing::info!(sandbox.id = %id, restored, elapsed_ms = millis(began), "agent reached");

    if restored {
        // Not before it is sure that the machine stays: hooks run once.
        run_hooks(shared, pid).await?;
    }
    let late = held.late_interfaces(request, &cards).await?;
    guest::prepare(&agent, request, held.network.as_ref(), late).await?;
    tracing::info!(sandbox.id = %id, elapsed_ms = millis(began), "sandbox ready");
    Ok((agent, pid))
}

/// Starts everything the machine is connected to and describes it.
async fn surroundings(shared: &Shared, record: &mut Record, held: &mut Held) -> Result<(VmSpec, Size), SandboxError> {
    let request = &shared.request;
    make_dir(request)?;
    let place = Place::of(request)?;
    // Each of these waits for the kernel and none for another; everything started
    // below must be born in the group.
    let group = main_group(request);
    let (entered, network, verdict) = tokio::join!(
        held.groups.enter(&shared.cgroups, &group),
        place.attach(request),
        qemu::accel::resolve(&request.config.hypervisor, &request.dirs),
    );
    held.network = network?;
    entered.map_err(|source| SandboxError::Cgroup { path: group, source })?;

    let daemon = held.virtiofsd.insert(start_file_server(shared)?);
    shared.file_server.set(daemon.pid());
    record.virtiofsd = Identity::of(daemon.pid()).ok();
    let vsock = held.vsock.insert(Vsock::open(&request.dirs.sandbox(&request.id))?);
    let url = vsock.address(request.config.agent.server_port).to_string();
    record.agent_url = Some(shared.agent_url.get_or_init(|| url).clone());
    save(request, record)?;

    let share = SharedFs {
        socket: file_server_socket(request),
        tag: names::SHARE_TAG.to_owned(),
        queue_size: u16::try_from(request.config.hypervisor.virtio_fs.queue_size).unwrap_or(u16::MAX),
    };
    let size = boot_size(request)?;
    let nics = held.network.as_mut().map(|network| network.nics()).unwrap_or_default();
    let netns = place.path().map(PathBuf::from);
    let parts = Parts { accelerator: verdict.accelerator, size, nics, netns, share };
    Ok((machine::describe(request, vsock, parts)?, size))
}

/// Makes the directory of the sandbox.
pub(super) fn make_dir(request: &Request) -> Result<(), SandboxError> {
    let path = request.dirs.sandbox(&request.id);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|source| SandboxError::File { action: "make", path, source })
}

fn start_file_server(shared: &Shared) -> Result<Virtiofsd, SandboxError> {
    let request = &shared.request;
    let daemon = Virtiofsd::start(&DaemonSpec {
        sandbox: &request.id,
        config: &request.config.hypervisor.virtio_fs,
        shared_dir: shared.share.shared_dir(),
        socket: file_server_socket(request),
        debug: request.config.hypervisor.debug,
    })?;
    Ok(daemon)
}

fn file_server_socket(request: &Request) -> PathBuf {
    request.dirs.sandbox(&request.id).join("virtiofsd.sock")
}

fn limits(request: &Request) -> Limits {
    let agent = &request.config.agent;
    Limits {
        request: agent.request_timeout,
        create: agent.create_container_timeout,
        health: agent.health_check_timeout,
    }
}

fn boot_size(request: &Request) -> Result<Size, SandboxError> {
    let limits = SpecLimits::of_sandbox(&request.kind, &request.spec);
    let size = spec::boot_size(&request.config, &limits)?;
    if size.clamped {
        tracing::warn!(
            sandbox.id = %request.id, vcpus = size.vcpus, memory_mib = size.memory.0,
            "the pod asks for more than a sandbox may have; it gets the most"
        );
    }
    Ok(size)
}

/// Dials until the agent answers or there is no machine any more.
fn reach_agent<'a>(
    request: &'a Request,
    vsock: Option<&'a Vsock>,
    machine: &Machine<Spawned>,
    by: Deadline,
) -> impl Future<Output = Result<VsockStream, SandboxError>> + use<'a> {
    let (console, mut exited) = (machine.console(), machine.exited());
    async move {
        let vsock = vsock.expect("opened before the machine was described");
        let id = request.id.clone();
        let stream = tokio::select! {
            biased;
            _ = exited.wait_for(Option::is_some) => None,
            stream = vsock.connect(request.config.agent.server_port, by) => Some(stream),
        };
        match stream {
            Some(Ok(stream)) => Ok(stream),
            // The device may notice the end of QEMU before QEMU is reaped.
            None | Some(Err(VsockError::Gone { .. })) => {
                let exit = by.run(exited.wait_for(Option::is_some)).await.ok();
                let how = describe(exit.and_then(|exit| exit.ok().and_then(|exit| *exit)));
                Err(SandboxError::Died { id, how, console: console.lines().join(" | ") })
            }
            Some(Err(source)) => {
                let console = console.lines().join(" | ");
                Err(SandboxError::AgentSilent { id, waited: by.total(), console, source })
            }
        }
    }
}

async fn run_hooks(shared: &Shared, pid: u32) -> Result<(), SandboxError> {
    let request = &shared.request;
    let state = hooks::State {
        oci_version: request.spec.version().clone(),
        id: request.id.to_string(),
        status: "creating",
        pid,
        bundle: request.bundle.clone(),
    };
    Ok(hooks::run(request.spec.hooks().as_ref(), Point::CreateRuntime, &state).await?)
}

/// Runs blocking work, files and mounts, away from the workers.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.expect("blocking work does not panic and is never cancelled")
}

fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}
