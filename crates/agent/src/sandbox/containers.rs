//! The containers of the sandbox.

use std::{mem, sync::Arc, time::Duration};

use osc_agent_protocol::{agent::CreateContainerRequest, names::valid_id, oci};

use super::{Held, Result, Sandbox, SandboxError, Shared};
use crate::container::{Container, CreateRequest};

/// Annotation that tells the pod's own container from those with a workload.
const CONTAINER_TYPE: &str = "io.katacontainers.pkg.oci.container_type";
/// Its value for the pod's own container.
const POD_CONTAINER: &str = "pod_sandbox";
/// Longest wait for a container when the whole sandbox goes.
const LAST_REMOVAL: Duration = Duration::from_secs(10);

/// A name in the map of containers.
pub(super) enum Slot {
    /// Somebody is making or removing it.
    Busy,
    /// It exists.
    Taken {
        /// The container.
        container: Arc<Container>,
        /// Storages it references.
        storages: Held,
    },
}

impl Sandbox {
    /// Makes a container whose program waits to be started.
    ///
    /// # Errors
    /// [`SandboxError`]; nothing of the container is left then.
    pub async fn create_container(&self, request: CreateContainerRequest) -> Result<()> {
        let id = request.container_id.clone();
        if !valid_id(&id) {
            return Err(SandboxError::Id { id });
        }
        let shared = self.shared()?;
        self.reserve(&id)?;
        let made = self.make_container(request, shared).await;
        let mut containers = self.containers();
        match made {
            Ok(slot) => {
                containers.insert(id, slot);
                Ok(())
            }
            Err(error) => {
                containers.remove(&id);
                Err(error)
            }
        }
    }

    fn reserve(&self, id: &str) -> Result<()> {
        let mut containers = self.containers();
        match containers.get(id) {
            None => {
                containers.insert(id.to_owned(), Slot::Busy);
                Ok(())
            }
            Some(_) => Err(SandboxError::ContainerExists { id: id.to_owned() }),
        }
    }

    async fn make_container(&self, request: CreateContainerRequest, shared: Shared) -> Result<Slot> {
        let id = request.container_id;
        let mut spec = request.OCI.into_option().ok_or_else(|| SandboxError::NoSpec { id: id.clone() })?;
        if !request.shared_mounts.is_empty() {
            return Err(SandboxError::Unsupported { id, feature: "mounts shared between containers" });
        }
        if request.sandbox_pidns && shared.namespaces.pid.is_none() && !self.is_first(&id) {
            return Err(SandboxError::NoPidNamespace { id });
        }
        let devices = self.devices.resolve(&request.devices, &mut spec).await;
        devices.map_err(|source| SandboxError::Device { id: id.clone(), source })?;
        let added = self.storages.add_all(&request.storages, Some(&id)).await;
        let storages = added.map_err(SandboxError::Storage)?;
        shared.hooks.add_to(&mut spec);
        match self.launch(id, spec, shared, request.sandbox_pidns).await {
            Ok(container) => Ok(Slot::Taken { container, storages }),
            Err(error) => {
                self.storages.release_all(&storages).await;
                Err(error)
            }
        }
    }

    async fn launch(&self, id: String, spec: oci::Spec, shared: Shared, join_pid: bool) -> Result<Arc<Container>> {
        let mut namespaces = shared.namespaces;
        if !join_pid {
            namespaces.pid = None;
        }
        let container = self.launcher.create(CreateRequest { id, spec, namespaces }).await?;
        self.record_pid_namespace(&container);
        Ok(container)
    }

    /// The first container's pid namespace becomes the sandbox's.
    fn record_pid_namespace(&self, container: &Container) {
        if let super::Phase::Running(shared) = &mut *self.phase() {
            shared.namespaces.pid.get_or_insert_with(|| container.pid_namespace());
        }
    }

    /// Whether `id` is the only name there is.
    fn is_first(&self, id: &str) -> bool {
        self.containers().keys().all(|known| known == id)
    }

    /// The container called `id`.
    ///
    /// # Errors
    /// [`SandboxError::NoContainer`], [`SandboxError::ContainerBusy`].
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        match self.containers().get(id) {
            Some(Slot::Taken { container, .. }) => Ok(Arc::clone(container)),
            Some(Slot::Busy) => Err(SandboxError::ContainerBusy { id: id.to_owned() }),
            None => Err(SandboxError::NoContainer { id: id.to_owned() }),
        }
    }

    /// Lets a container's program run and watches over its memory.
    ///
    /// # Errors
    /// [`SandboxError`] when there is no such container or it does not start.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        container.start().await?;
        // The pod's own container does nothing that could need memory.
        if container.spec().Annotations.get(CONTAINER_TYPE).is_none_or(|kind| kind != POD_CONTAINER) {
            container.watch_oom(self.oom_sender.clone());
        }
        Ok(())
    }

    /// Takes a container down within `timeout` and lets go of its storages.
    ///
    /// # Errors
    /// [`SandboxError`]; the container is then still there and removal may be
    /// tried again.
    pub async fn remove_container(&self, id: &str, timeout: Option<Duration>) -> Result<()> {
        let (container, storages) = self.take(id)?;
        match container.remove(timeout).await {
            Ok(()) => {
                self.storages.release_all(&storages).await;
                self.containers().remove(id);
                Ok(())
            }
            Err(error) => {
                self.containers().insert(id.to_owned(), Slot::Taken { container, storages });
                Err(error.into())
            }
        }
    }

    /// Marks a container as being removed.
    fn take(&self, id: &str) -> Result<(Arc<Container>, Held)> {
        let mut containers = self.containers();
        let slot = containers.get_mut(id).ok_or_else(|| SandboxError::NoContainer { id: id.to_owned() })?;
        match mem::replace(slot, Slot::Busy) {
            Slot::Taken { container, storages } => Ok((container, storages)),
            Slot::Busy => Err(SandboxError::ContainerBusy { id: id.to_owned() }),
        }
    }

    /// Removes whatever is there.
    pub(super) async fn remove_all(&self) {
        let ids: Vec<_> = self.containers().keys().cloned().collect();
        for id in ids {
            if let Err(error) = self.remove_container(&id, Some(LAST_REMOVAL)).await {
                let error = osc_agent_protocol::kind::chain(&error);
                tracing::warn!(container.id = id, error, "container not removed");
            }
        }
    }
}
