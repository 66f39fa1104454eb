//! Making a container in a sandbox.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::runtime::LinuxResources;
use osc_agent_protocol::{
    agent::{CreateContainerRequest, GuestDetailsRequest, UpdateContainerRequest},
    kind::chain,
    oci,
};
use protobuf::MessageField;
use tokio::sync::oneshot;

use super::{
    Sandbox, boot,
    error::SandboxError,
    owner::Command,
    process::{Container, Exit, ProcessEvent, locked},
};
use crate::{
    config::Mib,
    id::ContainerId,
    share::{ContainerFiles, VolumeRules},
    spec::{self, ForGuest, GuestRules, Limits, PodKind, Spec},
};

/// A container to be made.
#[derive(Clone, Debug)]
pub struct NewContainer {
    /// Its id.
    pub id: ContainerId,
    /// What it is to its pod.
    pub kind: PodKind,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root file system, mounted.
    pub rootfs: PathBuf,
    /// Its specification.
    pub spec: Arc<Spec>,
}

impl Sandbox {
    /// Makes a container whose first process waits to be started. Its files are
    /// prepared while the machine may still boot.
    ///
    /// # Errors
    /// When the sandbox ends, its files cannot be shared, or the guest refuses;
    /// nothing of the container is left then.
    pub async fn create_container(&self, new: NewContainer) -> Result<(), SandboxError> {
        let id = new.id.clone();
        let container =
            Container::new(new.bundle.clone(), new.spec.version().clone(), new.spec.hooks().clone(), limits(&new));
        self.shared.containers.insert(&id, container.clone())?;
        let made = self.make(new).await;
        match made {
            // False when the machine ended in between, which ended the process too.
            Ok(()) if container.init.apply(ProcessEvent::Created) => Ok(()),
            Ok(()) => Err(self.gone()),
            Err(error) => {
                self.withdraw(&id).await;
                container.init.apply(ProcessEvent::Ended(Exit::now(255)));
                self.shared.containers.remove(&id);
                Err(error)
            }
        }
    }

    async fn make(&self, new: NewContainer) -> Result<(), SandboxError> {
        let files = self.share_files(&new).await?;
        let container = self.shared.containers.container(&new.id)?;
        let _ = container.volumes.set(volumes(&new.spec, &files));
        self.running().await?;
        self.grow().await?;
        let seccomp = self.guest_wants_seccomp(&new.spec).await?;
        let request = creation(&new, files, seccomp);
        self.agent()?.create_container(request).await?;
        Ok(())
    }

    async fn share_files(&self, new: &NewContainer) -> Result<ContainerFiles, SandboxError> {
        let (share, new) = (self.shared.share.clone(), new.clone());
        let rules = VolumeRules::new(&self.shared.request.config, self.memory()?);
        boot::blocking(move || Ok(share.add_container(&new.id, &new.rootfs, &new.spec, &rules)?)).await
    }

    /// Takes the files of a container back from the guest.
    pub(super) async fn withdraw(&self, id: &ContainerId) {
        let (share, owned) = (self.shared.share.clone(), id.clone());
        if let Err(error) = boot::blocking(move || Ok(share.remove_container(&owned)?)).await {
            tracing::warn!(container.id = %id, error = chain(&error), "files of a container are left behind");
        }
    }

    /// Memory the machine has once all present containers are accounted for.
    fn memory(&self) -> Result<Mib, SandboxError> {
        let request = &self.shared.request;
        let booted = spec::boot_size(&request.config, &Limits::of_sandbox(&request.kind, &request.spec))?.memory;
        if request.config.runtime.static_sizing {
            return Ok(booted);
        }
        Ok(booted.max(self.target()?.memory))
    }

    fn target(&self) -> Result<spec::Size, SandboxError> {
        let containers = self.shared.containers.all();
        let limits: Vec<Limits> = containers.iter().map(|(_, container)| locked(&container.limits).clone()).collect();
        Ok(spec::grown_size(&self.shared.request.config, &limits)?)
    }

    /// Makes the machine large enough for its containers, where it may grow.
    async fn grow(&self) -> Result<(), SandboxError> {
        if self.shared.request.config.runtime.static_sizing {
            return Ok(());
        }
        let size = self.target()?;
        let (done, grown) = oneshot::channel();
        let gone = || self.gone();
        self.shared.commands.send(Command::Grow { size, done }).await.map_err(|_| gone())?;
        grown.await.map_err(|_| gone())?
    }

    /// Whether the seccomp profile of `spec` goes to the guest: wanted here and
    /// known there. Asked only when there is a profile.
    async fn guest_wants_seccomp(&self, spec: &Spec) -> Result<bool, SandboxError> {
        let profile = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        if self.shared.request.config.runtime.disable_guest_seccomp || !profile {
            return Ok(false);
        }
        let details = self.agent()?.get_guest_details(GuestDetailsRequest::new()).await?;
        Ok(details.agent_details.supports_seccomp)
    }

    /// Changes the limits of a container, and the size of the machine with them.
    ///
    /// # Errors
    /// When there is no such container, or machine or guest refuse.
    pub async fn update(&self, id: &ContainerId, resources: &LinuxResources) -> Result<(), SandboxError> {
        let container = self.shared.containers.container(id)?;
        let agent = self.agent()?;
        let wanted = Limits::of_container(Some(resources));
        {
            let mut limits = locked(&container.limits);
            // An update names only what it changes.
            limits.cpus = wanted.cpus.or(limits.cpus);
            limits.memory = wanted.memory.or(limits.memory);
        }
        self.grow().await?;
        let resources = MessageField::some(inside_a_pod(spec::resources_to_proto(resources)));
        let request = UpdateContainerRequest { container_id: id.to_string(), resources, ..Default::default() };
        agent.update_container(request).await?;
        Ok(())
    }
}

fn limits(new: &NewContainer) -> Limits {
    Limits::of_container(new.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()))
}

/// What of an update concerns a container inside its pod: the guest numbers its
/// processors, memory nodes and devices differently.
fn inside_a_pod(mut resources: oci::LinuxResources) -> oci::LinuxResources {
    if let Some(cpu) = resources.CPU.as_mut() {
        cpu.Cpus.clear();
        cpu.Mems.clear();
    }
    oci::LinuxResources {
        CPU: resources.CPU,
        Memory: resources.Memory,
        HugepageLimits: resources.HugepageLimits,
        ..Default::default()
    }
}

/// Which host paths became which guest paths.
fn volumes(spec: &Spec, files: &ContainerFiles) -> Vec<(PathBuf, String)> {
    let host = spec.mounts().iter().flatten().filter_map(|mount| Some((mount.source().clone()?, mount.destination())));
    host.filter_map(|(source, destination)| {
        let guest = files.mounts.iter().find(|mount| Path::new(&mount.destination) == destination)?;
        Some((source, guest.source.clone()))
    })
    .collect()
}

fn creation(new: &NewContainer, files: ContainerFiles, seccomp: bool) -> CreateContainerRequest {
    let bundle = new.bundle.to_string_lossy();
    let rules = GuestRules { kind: &new.kind, bundle: &bundle, rootfs: files.rootfs, mounts: files.mounts, seccomp };
    let ForGuest { spec, sandbox_pidns } = spec::for_guest(spec::spec_to_proto(&new.spec), rules);
    CreateContainerRequest {
        container_id: new.id.to_string(),
        exec_id: new.id.to_string(),
        storages: files.storages,
        OCI: MessageField::some(spec),
        sandbox_pidns,
        ..Default::default()
    }
}
