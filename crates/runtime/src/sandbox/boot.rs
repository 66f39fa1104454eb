//! From a record to a machine whose agent serves.
//!
//! ```text
//!  enter cgroup ─┬─ virtiofsd ───┐
//!                ├─ network ─────┼─► QEMU ─┬─ QMP, hooks, rescan
//!                ├─ vsock ───────┤         └─ agent answers ─► interfaces, routes ∥ CreateSandbox
//!                └─ accelerator ─┘
//! ```
//!
//! Whatever is made is put into [`Held`] or the record before the next step, so that
//! a boot that fails or is given up half way leaves nothing unknown.

use std::{os::unix::fs::DirBuilderExt, path::PathBuf, time::Instant};

use oci_spec::runtime::LinuxNamespaceType;
use osc_agent_protocol::{
    agent::{CreateSandboxRequest, KernelModule, SetPolicyRequest},
    names,
};
use ttrpc::asynchronous::transport::Socket;

use super::{
    Request, Shared,
    agent::{Agent, Limits},
    cgroup::{self, Cgroups},
    error::SandboxError,
    held::{Held, describe},
    hooks::{self, Point},
    identity::Identity,
    machine::{self, Parts},
    owner::save,
    record::Record,
};
use crate::{
    deadline::Deadline,
    qemu::{self, SharedFs},
    share::{DaemonSpec, Virtiofsd},
    spec::{self, Limits as SpecLimits, Size},
    vsock::Vsock,
};

/// Fills in what the record has to know before anything is made.
pub(super) fn plan(request: &Request, record: &mut Record) {
    record.netns = netns(request);
    record.cgroups = groups(request);
    let cgroups = Cgroups::detect();
    record.cgroup_parents = record.cgroups.iter().flat_map(|group| cgroups.missing_parents(group)).collect();
    // What another sandbox made is ours to remove, too, should we be the last in it.
    let others = Record::all(&request.dirs).into_iter().flat_map(|other| other.cgroup_parents);
    let above = |parent: &PathBuf| record.cgroups.iter().any(|group| group.starts_with(parent));
    let adopted: Vec<PathBuf> = others.filter(above).collect();
    record.cgroup_parents.extend(adopted);
    record.cgroup_parents.sort_by_key(|parent| std::cmp::Reverse(parent.components().count()));
    record.cgroup_parents.dedup();
}

/// Control groups of the sandbox: the one everything runs in first.
fn groups(request: &Request) -> Vec<PathBuf> {
    let linux = request.spec.linux().as_ref();
    let asked = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let own = cgroup::sandbox_group(asked, &request.id);
    if request.config.runtime.sandbox_cgroup_only { vec![own] } else { vec![cgroup::overhead_group(&request.id), own] }
}

/// The control group everything of the sandbox runs in.
pub(super) fn main_group(request: &Request) -> PathBuf {
    groups(request).swap_remove(0)
}

/// The network namespace the engine made for the pod.
pub(super) fn netns(request: &Request) -> Option<PathBuf> {
    let namespaces = request.spec.linux().as_ref()?.namespaces().as_ref()?;
    let network = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network)?;
    network.path().clone()
}

/// Boots the machine of `shared` and prepares its guest.
pub(super) async fn boot(shared: &Shared, record: &mut Record, held: &mut Held) -> Result<(Agent, u32), SandboxError> {
    let began = Instant::now();
    let request = &shared.request;
    make_dir(request)?;
    held.home = Some(shared.cgroups.home());
    let group = record.cgroups[0].clone();
    shared.cgroups.enter(&group).map_err(|source| SandboxError::Cgroup { path: group, source })?;

    let daemon = held.virtiofsd.insert(start_file_server(shared)?);
    record.virtiofsd = Identity::of(*shared.file_server.get_or_init(|| daemon.pid())).ok();
    let vsock = held.vsock.insert(Vsock::open(&request.dirs.sandbox(&request.id))?);
    let url = vsock.address(request.config.agent.server_port).to_string();
    record.agent_url = Some(shared.agent_url.get_or_init(|| url).clone());
    save(request, record)?;
    let share = SharedFs {
        socket: file_server_socket(request),
        tag: names::SHARE_TAG.to_owned(),
        queue_size: u16::try_from(request.config.hypervisor.virtio_fs.queue_size).unwrap_or(u16::MAX),
    };
    let verdict = qemu::accel::resolve(&request.config.hypervisor, &request.dirs).await;
    let size = boot_size(request)?;
    let parts = Parts { accelerator: verdict.accelerator, size, nics: Vec::new(), share };
    let spec = machine::describe(request, vsock, parts)?;
    tracing::debug!(sandbox.id = %request.id, elapsed_ms = millis(began), "surroundings ready");

    let machine = qemu::launch(spec, |_| Ok(())).await?;
    let pid = machine.pid().cast_unsigned();
    let _ = shared.pid.set(pid);
    record.hypervisor = Identity::of(pid).ok();
    save(request, record)?;
    tracing::debug!(sandbox.id = %request.id, elapsed_ms = millis(began), "hypervisor started");

    let by = Deadline::after(request.config.agent.dial_timeout.max(qemu::START_LIMIT));
    let console = machine.console();
    let mut exited = machine.exited();
    let dialled = async {
        let stream = tokio::select! {
            biased;
            exit = exited.wait_for(Option::is_some) => {
                let how = describe(exit.ok().and_then(|exit| *exit));
                let console = console.lines().join(" | ");
                return Err(SandboxError::Died { id: request.id.clone(), how, console });
            }
            stream = vsock.connect(request.config.agent.server_port, by) => stream,
        };
        stream.map_err(|source| SandboxError::AgentSilent {
            id: request.id.clone(),
            waited: by.total(),
            console: console.lines().join(" | "),
            source,
        })
    };
    let started = async {
        let machine = machine.connect(Deadline::after(qemu::START_LIMIT)).await?;
        run_hooks(shared, pid).await?;
        Ok::<_, SandboxError>(machine)
    };
    let (machine, stream) = tokio::try_join!(started, dialled)?;
    held.own(machine, size.vcpus);
    let elapsed_ms = millis(began);
    tracing::info!(sandbox.id = %request.id, elapsed_ms, "agent reached");

    let agent = Agent::new(Socket::new(stream), limits(request), shared.agent_durations.clone());
    prepare_guest(&agent, shared).await?;
    tracing::info!(sandbox.id = %request.id, elapsed_ms = millis(began), "sandbox ready");
    Ok((agent, pid))
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
        debug: request.config.runtime.debug,
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

/// Tells the new guest who it is. Its network does not wait for its sandbox.
async fn prepare_guest(agent: &Agent, shared: &Shared) -> Result<(), SandboxError> {
    let request = &shared.request;
    if let Some(policy) = &request.config.agent.policy {
        agent.set_policy(SetPolicyRequest { policy: policy.clone(), ..Default::default() }).await?;
    }
    create_sandbox(agent, request).await
}

async fn create_sandbox(agent: &Agent, request: &Request) -> Result<(), SandboxError> {
    let spec = request.spec.clone();
    let (hostname, dns, shm) =
        blocking(move || Ok((spec::hostname(&spec), spec::dns(&spec)?, spec::shm_size(&spec)))).await?;
    let modules = request.config.agent.kernel_modules.iter().map(|module| KernelModule {
        name: module.name.clone(),
        parameters: module.parameters.clone(),
        ..Default::default()
    });
    let message = CreateSandboxRequest {
        hostname,
        dns,
        storages: spec::sandbox_storages(shm),
        sandbox_id: request.id.to_string(),
        guest_hook_path: request.config.hypervisor.guest_hook_path.clone(),
        kernel_modules: modules.collect(),
        ..Default::default()
    };
    agent.create_sandbox(message).await?;
    Ok(())
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
