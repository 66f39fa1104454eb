//! Making the sandbox and its containers.

use std::{collections::HashSet, fs, net::IpAddr, os::unix::fs::PermissionsExt, time::Instant};

use k8s_cri::v1::Mount;
use osc_agent_protocol::kind::chain;
use tokio_util::task::AbortOnDropHandle;

use super::{Event, Held, Note, Supervisor, membership::about};
use crate::pod::{
    cgroup, config,
    config::Surroundings,
    dns, env,
    error::{PodError, io},
    images::{self, Fetch},
    model::Container,
    next::{Attempt, Sandbox, State},
    resources,
    stop::run_hook,
    volumes::{self, Claims},
};

impl Supervisor {
    pub(super) async fn make_sandbox(&mut self) -> Result<(), PodError> {
        let (pod, place) = (&self.pod, &self.place);
        cgroup::make(&place.cgroup, &resources::cgroup(pod, &place.handler)).map_err(io("limit", &place.cgroup))?;
        self.prepare_volumes().await?;
        self.fetch_ahead();
        let (pod, place) = (&self.pod, &self.place);
        fs::create_dir_all(&place.logs).map_err(io("create", &place.logs))?;
        let config = config::sandbox(pod, place, 0, self.name_server());
        let result = self.client.run_sandbox(config, &place.handler).await;
        let id = result.map_err(|source| PodError::Sandbox { pod: pod.full_name(), source })?;
        tracing::info!(pod.name = %pod.full_name(), sandbox.id = id, "sandbox runs");
        Ok(())
    }

    fn name_server(&self) -> Option<IpAddr> {
        self.membership.as_ref()?.cluster.node.dns
    }

    async fn prepare_volumes(&mut self) -> Result<Claims, PodError> {
        let cluster = self.cluster();
        let claims = volumes::prepare(&self.place.dir, &self.pod, cluster.as_deref()).await?;
        self.claims = Some(claims.clone());
        Ok(claims)
    }

    /// Makes and starts the next attempt of a container. In a cluster, one that
    /// cannot be made keeps only itself waiting.
    pub(super) async fn run_container(
        &mut self,
        name: &str,
        tell: &mut (impl FnMut(Event) + Send),
    ) -> Result<(), PodError> {
        let Sandbox::Ready { id: sandbox } = self.last.sandbox.clone() else { return Ok(()) };
        let Some(container) = self.pod.container(name).cloned() else { return Ok(()) };
        let made = self.make_container(&sandbox, &container).await;
        let (id, attempt) = match made {
            Err(error) if self.membership.is_some() => {
                self.hold(&container, &error).await;
                return Ok(());
            }
            made => made?,
        };
        self.held.remove(name);
        self.start(&container, &id, attempt, tell).await
    }

    /// The id and number of the new attempt. The attempt before it stays, for
    /// those who ask how it ended; the one before that goes.
    async fn make_container(&mut self, sandbox: &str, container: &Container) -> Result<(String, u32), PodError> {
        let name = &container.name;
        let last = self.last.containers.get(name).cloned();
        self.ensure_image(container, last.is_some()).await?;
        let attempt = last.as_ref().map_or(0, |attempt| attempt.number + 1).max(self.place.next_attempt(name));
        let around = self.surroundings(sandbox, container, attempt).await?;
        let config = config::container(&self.pod, container, attempt, around);
        let sandbox_config = config::sandbox(&self.pod, &self.place, 0, self.name_server());
        let failed = |source| PodError::Start { pod: self.pod.full_name(), container: name.clone(), source };
        let id = self.client.create_container(sandbox, config, sandbox_config).await.map_err(failed)?;
        self.note_about(container, false, "Created", format!("Created container: {name}"));
        if let Some(old) = last.and_then(|last| last.previous) {
            self.client.remove_container(&old.id).await?;
        }
        Ok((id, attempt))
    }

    async fn ensure_image(&mut self, container: &Container, again: bool) -> Result<(), PodError> {
        // Without a cluster, images were there when the pod was admitted; one may
        // have been deleted since.
        if self.membership.is_none() && !again {
            return Ok(());
        }
        if let Some(fetching) = self.fetching.remove(&container.name)
            && let Ok(fetched) = fetching.await
        {
            return fetched;
        }
        self.fetch(container).await
    }

    /// Begins to fetch images while the sandbox is being made.
    fn fetch_ahead(&mut self) {
        if self.membership.is_none() {
            return;
        }
        let mut images = HashSet::new();
        for container in self.pod.init.iter().chain(&self.pod.containers) {
            // What the first brings, the others find.
            if images.insert(&container.image) && !self.fetching.contains_key(&container.name) {
                let task = tokio::spawn(self.fetch(container));
                self.fetching.insert(container.name.clone(), AbortOnDropHandle::new(task));
            }
        }
    }

    /// Sees to it that the image of a container is here, and tells what is done for it.
    fn fetch(&self, container: &Container) -> impl Future<Output = Result<(), PodError>> + Send + use<> {
        let (client, pod, container) = (self.client.clone(), self.pod.clone(), container.clone());
        let (cluster, journal) =
            (self.cluster(), self.membership.as_ref().map(|membership| membership.journal.clone()));
        async move {
            let begun = Instant::now();
            let image = &container.image;
            let mut tell = |fetch| {
                let (reason, message) = match fetch {
                    Fetch::Begun => ("Pulling", format!("Pulling image {image:?}")),
                    Fetch::Done => {
                        ("Pulled", format!("Successfully pulled image {image:?} in {:.1?}", begun.elapsed()))
                    }
                    Fetch::Needless => ("Pulled", format!("Container image {image:?} already present on machine")),
                };
                if let Some(journal) = &journal {
                    journal(Note { container: about(&pod, &container), warning: false, reason, message });
                }
            };
            images::ensure_one(&client, &pod, &container, cluster.as_deref(), &mut tell).await
        }
    }

    async fn surroundings(
        &mut self,
        sandbox: &str,
        container: &Container,
        attempt: u32,
    ) -> Result<Surroundings, PodError> {
        let addresses = self.addresses(sandbox).await?;
        let cluster = self.cluster();
        let env = env::resolve(&self.pod, container, &addresses, cluster.as_deref()).await?;
        let claims = match self.claims.clone() {
            Some(claims) => claims,
            None => self.prepare_volumes().await?, // somebody else made the sandbox
        };
        let target = self.target(container)?;
        let mut container = container.clone();
        let known = env.iter().cloned().collect();
        for mount in container.mounts.iter_mut().filter(|mount| !mount.sub_path_expr.is_empty()) {
            mount.sub_path = env::expand(&mount.sub_path_expr, &known).into();
        }
        let devices = volumes::devices(&self.pod, &container, &claims);
        let mut mounts = self.mounts(&container, &addresses, &claims)?;
        if self.membership.is_some() {
            mounts.extend(self.message_file(&container, attempt)?);
        }
        Ok(Surroundings { env, mounts, devices, target })
    }

    /// Id of the container whose processes an ephemeral one is to see. Where they
    /// share them anyway, nothing has to be done.
    fn target(&self, container: &Container) -> Result<Option<String>, PodError> {
        let Some(name) = container.target.as_ref().filter(|_| !self.pod.share_processes && !self.pod.host_pid) else {
            return Ok(None);
        };
        match self.last.containers.get(name) {
            Some(Attempt { id, state: State::Running, .. }) => Ok(Some(id.clone())),
            _ => Err(PodError::Target { pod: self.pod.full_name(), container: name.clone() }),
        }
    }

    fn mounts(&self, container: &Container, addresses: &[IpAddr], claims: &Claims) -> Result<Vec<Mount>, PodError> {
        let mut mounts = volumes::mounts(&self.place.dir, &self.pod, container, claims)?;
        let hosts = "/etc/hosts";
        if !self.pod.host_network && !mounts.iter().any(|mount| mount.container_path == hosts) {
            let file = volumes::write_hosts(&self.place.dir, &dns::hosts(&self.pod, addresses))?;
            mounts.push(Mount {
                container_path: hosts.into(),
                host_path: file.to_string_lossy().into_owned(),
                ..Default::default()
            });
        }
        Ok(mounts)
    }

    /// The file in which the container may say why it ends.
    fn message_file(&self, container: &Container, attempt: u32) -> Result<Option<Mount>, PodError> {
        if container.message_path.is_empty() {
            return Ok(None);
        }
        let dir = self.place.dir.join("containers").join(&container.name);
        fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        let file = dir.join(attempt.to_string());
        fs::write(&file, "").map_err(io("write", &file))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).map_err(io("open", &file))?;
        Ok(Some(Mount {
            container_path: container.message_path.clone(),
            host_path: file.to_string_lossy().into_owned(),
            ..Default::default()
        }))
    }

    pub(super) async fn start_created(
        &mut self,
        name: &str,
        tell: &mut (impl FnMut(Event) + Send),
    ) -> Result<(), PodError> {
        let attempt = self.last.containers.get(name).cloned();
        match (self.pod.container(name).cloned(), attempt) {
            (Some(container), Some(attempt)) => self.start(&container, &attempt.id, attempt.number, tell).await,
            _ => Ok(()),
        }
    }

    async fn start(
        &self,
        container: &Container,
        id: &str,
        attempt: u32,
        tell: &mut (impl FnMut(Event) + Send),
    ) -> Result<(), PodError> {
        let name = &container.name;
        let log = self.place.log(name, attempt);
        if let Some(dir) = log.parent() {
            fs::create_dir_all(dir).map_err(io("create", dir))?;
        }
        tell(Event::Starting { container: name.clone(), log });
        if let Err(source) = self.client.start_container(id).await {
            let error = PodError::Start { pod: self.pod.full_name(), container: name.clone(), source };
            if self.membership.is_none() {
                return Err(error);
            }
            // It has ended before it began, and is treated as any that ended.
            self.note_about(container, true, "Failed", format!("Error: {}", chain(&error)));
            return Ok(());
        }
        tell(Event::Started { container: name.clone(), id: id.to_owned() });
        self.note_about(container, false, "Started", format!("Started container {name}"));
        if let Some(hook) = &container.post_start {
            let address = self.addresses.as_ref().and_then(|(_, addresses)| addresses.first().copied());
            if let Err(reason) = run_hook(&self.client, id, hook, address).await {
                tracing::warn!(container.name = name, reason, "postStart hook failed, container is stopped");
                self.note_about(container, true, "FailedPostStartHook", format!("PostStartHook failed: {reason}"));
                self.client.stop_container(id, self.pod.grace).await?;
            }
        }
        Ok(())
    }

    /// Leaves a container alone for a while.
    async fn hold(&mut self, container: &Container, error: &PodError) {
        let name = &container.name;
        tracing::warn!(pod.name = %self.pod.full_name(), container.name = name, error = chain(error), "container cannot be made, trying again");
        let held = Held::after(error, self.held.get(name), tokio::time::Instant::now());
        let (reason, message) = held.told();
        if reason == "ErrImagePull" {
            self.note_about(
                container,
                true,
                "Failed",
                format!("Failed to pull image {:?}: {message}", container.image),
            );
        }
        let told = if reason == "ErrImagePull" { reason.to_owned() } else { message };
        self.note_about(container, true, "Failed", format!("Error: {told}"));
        self.held.insert(name.clone(), held);
        self.report(true).await;
    }

    fn note_about(&self, container: &Container, warning: bool, reason: &'static str, message: String) {
        self.note(Note { container: about(&self.pod, container), warning, reason, message });
    }
}
