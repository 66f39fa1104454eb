//! The pod a shim serves: its sandbox and the requests that change it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use containerd_shim_protos::{
    api::{CreateTaskRequest, DeleteResponse, ExecProcessRequest, StartResponse},
    events::task::{
        TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused, TaskResumed,
        TaskStart,
    },
    protobuf::MessageField,
    topics,
};
use osc_agent_protocol::kind::chain;
use osc_runtime::{
    config::Config,
    deadline::Deadline,
    dirs::Dirs,
    id::{ContainerId, ExecId},
    sandbox::{Exit, Histogram, NewContainer, ProcessId, ProcessState, Request, Sandbox},
    spec::{self, Names, PodKind, Spec},
    template::Maker,
};
use tokio_util::sync::CancellationToken;

use super::{
    rootfs,
    tasks::{Bundle, Task, Tasks, locked},
};
use crate::{
    error::ShimError,
    events::{Events, timestamp},
    io::{Ends, Stdio},
    logging, options,
};

/// How long output may take to be read after a process was deleted.
const DRAIN: Duration = Duration::from_secs(2);

/// What the shim was started with.
#[derive(Debug)]
pub struct Environment {
    /// Engine namespace.
    pub namespace: String,
    /// Where everything lies on the host.
    pub dirs: Dirs,
    /// Configuration file of the environment.
    pub config_file: Option<PathBuf>,
    /// Whether events reach nobody, as with CRI-O: files tell then.
    pub silent: bool,
    /// How templates of virtual machines are made; none are without it.
    pub maker: Option<Maker>,
}

/// One pod.
#[derive(Debug)]
pub struct Pod {
    environment: Environment,
    pub(super) tasks: Tasks,
    pub(super) durations: Arc<Histogram>,
    events: Events,
    sandbox: OnceLock<Sandbox>,
    /// Cancelled when the shim is to end.
    pub(super) exit: CancellationToken,
}

impl Pod {
    /// A pod without a sandbox yet.
    pub fn new(environment: Environment, events: Events, exit: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            environment,
            tasks: Tasks::default(),
            durations: Arc::default(),
            events,
            sandbox: OnceLock::new(),
            exit,
        })
    }

    /// No container is here, nor being made, and no machine runs.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.pid() == 0
    }

    pub(super) fn sandbox(&self) -> Result<&Sandbox, ShimError> {
        self.sandbox.get().ok_or_else(|| ShimError::NotFound("the sandbox of this pod".into()))
    }

    /// Process identifier engines see for everything in the pod: the hypervisor's.
    pub(super) fn pid(&self) -> u32 {
        self.sandbox.get().and_then(Sandbox::pid).unwrap_or_default()
    }

    /// Creates a container, and the sandbox with the first one.
    pub(super) async fn create(self: Arc<Self>, request: CreateTaskRequest) -> Result<u32, ShimError> {
        let id = ContainerId::new(request.id.as_str())?;
        let dir = PathBuf::from(&request.bundle);
        let spec = load(dir.clone()).await?;
        let kind = PodKind::classify(spec.annotations().as_ref().unwrap_or(&Default::default()))?;
        let owner = !matches!(kind, PodKind::Container { .. });
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let bundle = Bundle { rootfs: rootfs_of(&spec, &dir), dir, owner };
        let task = Task::new(stdio);
        self.tasks.insert_container(&id, bundle.clone(), task.clone())?;

        let made = self.make(&id, kind, spec, &bundle, &request).await;
        if let Err(error) = made {
            self.unmake(&id, &bundle).await;
            return Err(error);
        }
        self.clone().watch(ProcessId::init(id), task);
        let pid = self.pid();
        self.announce_create(request, pid).await;
        Ok(pid)
    }

    async fn make(
        self: &Arc<Self>,
        id: &ContainerId,
        kind: PodKind,
        spec: Spec,
        bundle: &Bundle,
        request: &CreateTaskRequest,
    ) -> Result<(), ShimError> {
        let spec = Arc::new(spec);
        if bundle.owner {
            self.start_sandbox(id, kind.clone(), spec.clone(), bundle, request).await?;
        }
        let sandbox = self.sandbox()?;
        // The machine boots meanwhile.
        let (mounts, target) = (request.rootfs.clone(), bundle.rootfs.clone());
        blocking(move || rootfs::mount_all(&mounts, &target)).await??;
        let container =
            NewContainer { id: id.clone(), kind, bundle: bundle.dir.clone(), rootfs: bundle.rootfs.clone(), spec };
        Ok(sandbox.create_container(container).await?)
    }

    async fn start_sandbox(
        self: &Arc<Self>,
        id: &ContainerId,
        kind: PodKind,
        spec: Arc<Spec>,
        bundle: &Bundle,
        request: &CreateTaskRequest,
    ) -> Result<(), ShimError> {
        if self.sandbox.get().is_some() {
            return Err(ShimError::Exists(id.to_string()));
        }
        let explicit = options::config_path(request.options.as_ref())?;
        let (variable, dirs) = (self.environment.config_file.clone(), self.environment.dirs.clone());
        let annotations = spec.annotations().clone().unwrap_or_default();
        let names = Names::read(&annotations);
        let config =
            blocking(move || Config::load(explicit.as_deref(), variable.as_deref(), &dirs)?.annotated(&annotations))
                .await??;
        if config.runtime.debug {
            logging::set_debug();
        }
        let sandbox = Sandbox::start(Request {
            dirs: self.environment.dirs.clone(),
            config: Arc::new(config),
            id: kind.sandbox_id(id)?,
            kind,
            bundle: bundle.dir.clone(),
            spec,
            names,
            durations: self.durations.clone(),
            maker: self.environment.maker.clone(),
        })
        .await?;
        tokio::spawn(self.clone().publish_oom(sandbox.clone()));
        // Only this call can have set it: the container's id was taken above.
        let _ = self.sandbox.set(sandbox);
        Ok(())
    }

    /// Takes back what a failed creation left.
    async fn unmake(&self, id: &ContainerId, bundle: &Bundle) {
        if bundle.owner
            && let Some(sandbox) = self.sandbox.get()
        {
            sandbox.stop().await;
        }
        unmount(bundle.rootfs.clone()).await;
        self.tasks.remove(&ProcessId::init(id.clone()));
    }

    /// Starts a process.
    pub(super) async fn start(self: Arc<Self>, id: ProcessId) -> Result<StartResponse, ShimError> {
        let sandbox = self.sandbox()?;
        let task = self.tasks.task(&id)?;
        let ends = Ends::open(&task.stdio, id.container.as_str(), &self.environment.namespace).await?;
        task.set_starting(true);
        let started = sandbox.start_process(&id).await;
        if let Err(error) = started {
            task.set_starting(false);
            return Err(error.into());
        }
        let _ = task.streams.set(ends.connect(sandbox, &id));
        let early = locked(&task.early_size).take();
        if let Some(size) = early
            && let Err(error) = sandbox.resize(&id, size.rows, size.columns).await
        {
            tracing::warn!(process = %id, error = chain(&error), "terminal size not set");
        }
        self.announce_start(&id).await;
        task.set_starting(false);
        Ok(StartResponse { pid: self.pid(), ..Default::default() })
    }

    /// Registers a further process of a container.
    pub(super) async fn exec(self: Arc<Self>, request: ExecProcessRequest) -> Result<(), ShimError> {
        let exec = ExecId::new(request.exec_id.as_str())?;
        let id = ProcessId { container: ContainerId::new(request.id.as_str())?, exec: Some(exec) };
        let any = request.spec.get_or_default();
        if !any.type_url.ends_with("Process") {
            return Err(ShimError::Type { seen: any.type_url.clone(), want: "an OCI process" });
        }
        let mut process = spec::process_to_proto(&spec::exec_process(&any.value)?);
        process.Terminal = request.terminal;
        self.sandbox()?.add_exec(&id, process)?;
        let stdio =
            Stdio { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.terminal };
        let task = Task::new(stdio);
        self.tasks.insert_exec(&id, task.clone());
        let event = TaskExecAdded { container_id: request.id, exec_id: request.exec_id, ..Default::default() };
        self.events.send(topics::TASK_EXEC_ADDED_EVENT_TOPIC, &event).await;
        self.watch(id, task);
        Ok(())
    }

    /// Deletes a process that does not run; with the container the sandbox was made
    /// for, the sandbox.
    pub(super) async fn delete(self: Arc<Self>, id: ProcessId) -> Result<DeleteResponse, ShimError> {
        let sandbox = self.sandbox()?;
        let task = self.tasks.task(&id)?;
        let state = sandbox.process_state(&id)?;
        let pid = self.pid();
        if let ProcessState::Stopped(_) = state {
            let watcher = locked(&task.watcher).take();
            if let Some(watcher) = watcher {
                // The end is published before the deletion.
                let _ = watcher.await;
            }
        }
        match &id.exec {
            Some(_) => sandbox.delete_exec(&id)?,
            None => {
                let bundle = self.tasks.bundle(&id.container)?;
                drain(&task).await;
                sandbox.delete_container(&id.container, bundle.owner).await?;
                let stop = async {
                    if bundle.owner {
                        sandbox.stop().await;
                    }
                };
                tokio::join!(stop, unmount(bundle.rootfs));
            }
        }
        drain(&task).await;
        task.forgotten.cancel();
        self.tasks.remove(&id);
        // What was never started counts as killed.
        let exit = if let ProcessState::Stopped(exit) = state { exit } else { Exit::now(137) };
        self.announce_delete(&id, pid, exit).await;
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        })
    }

    /// Sends a signal. A sandbox that still boots is given up.
    pub(super) async fn kill(self: Arc<Self>, id: ProcessId, signal: u32) -> Result<(), ShimError> {
        self.tasks.task(&id)?;
        let sandbox = self.sandbox()?;
        let creating = matches!(sandbox.process_state(&id), Err(_) | Ok(ProcessState::Creating));
        if creating && self.tasks.bundle(&id.container)?.owner {
            sandbox.request_stop();
            return Ok(());
        }
        Ok(sandbox.signal(&id, signal).await?)
    }

    /// Freezes a container.
    pub(super) async fn pause(self: Arc<Self>, id: &ContainerId) -> Result<(), ShimError> {
        self.sandbox()?.pause(id).await?;
        let event = TaskPaused { container_id: id.to_string(), ..Default::default() };
        self.events.send(topics::TASK_PAUSED_EVENT_TOPIC, &event).await;
        Ok(())
    }

    /// Thaws a container.
    pub(super) async fn resume(self: Arc<Self>, id: &ContainerId) -> Result<(), ShimError> {
        self.sandbox()?.resume(id).await?;
        let event = TaskResumed { container_id: id.to_string(), ..Default::default() };
        self.events.send(topics::TASK_RESUMED_EVENT_TOPIC, &event).await;
        Ok(())
    }

    /// Ends the shim when nothing is left in it; does nothing otherwise.
    pub(super) async fn shutdown(self: Arc<Self>) -> Result<(), ShimError> {
        if self.tasks.is_empty() {
            if let Some(sandbox) = self.sandbox.get() {
                sandbox.stop().await;
            }
            self.exit.cancel();
        }
        Ok(())
    }

    /// Publishes the end of a process when it comes.
    fn watch(self: Arc<Self>, id: ProcessId, task: Arc<Task>) {
        let watched = task.clone();
        let watch = async move {
            let Ok(sandbox) = self.sandbox() else { return };
            let ended = watched.forgotten.run_until_cancelled(sandbox.wait(&id)).await;
            let Some(Ok(exit)) = ended else { return };
            watched.settled().await;
            if let Some(streams) = watched.streams.get() {
                streams.process_ended();
            }
            self.announce_exit(&id, exit).await;
        };
        *locked(&task.watcher) = Some(tokio::spawn(watch));
    }

    async fn publish_oom(self: Arc<Self>, sandbox: Sandbox) {
        while let Some(id) = sandbox.next_oom().await {
            tracing::warn!(container.id = %id, "container hit its memory limit");
            if self.environment.silent
                && let Ok(bundle) = self.tasks.bundle(&id)
                && let Err(error) = tokio::fs::write(bundle.dir.join("oom"), "").await
            {
                tracing::warn!(container.id = %id, error = chain(&error), "memory limit not reported");
            }
            let event = TaskOOM { container_id: id.to_string(), ..Default::default() };
            self.events.send(topics::TASK_OOM_EVENT_TOPIC, &event).await;
        }
    }

    async fn announce_create(&self, request: CreateTaskRequest, pid: u32) {
        let io = TaskIO {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
            ..Default::default()
        };
        let event = TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: MessageField::some(io),
            pid,
            ..Default::default()
        };
        self.events.send(topics::TASK_CREATE_EVENT_TOPIC, &event).await;
    }

    async fn announce_start(&self, id: &ProcessId) {
        let (container_id, pid) = (id.container.to_string(), self.pid());
        match &id.exec {
            None => {
                let event = TaskStart { container_id, pid, ..Default::default() };
                self.events.send(topics::TASK_START_EVENT_TOPIC, &event).await;
            }
            Some(exec) => {
                let event = TaskExecStarted { container_id, exec_id: exec.to_string(), pid, ..Default::default() };
                self.events.send(topics::TASK_EXEC_STARTED_EVENT_TOPIC, &event).await;
            }
        }
    }

    async fn announce_exit(&self, id: &ProcessId, exit: Exit) {
        let event = TaskExit {
            container_id: id.container.to_string(),
            id: event_id(id),
            pid: self.pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        };
        self.events.send(topics::TASK_EXIT_EVENT_TOPIC, &event).await;
    }

    async fn announce_delete(&self, id: &ProcessId, pid: u32, exit: Exit) {
        let event = TaskDelete {
            container_id: id.container.to_string(),
            id: event_id(id),
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        };
        self.events.send(topics::TASK_DELETE_EVENT_TOPIC, &event).await;
    }
}

/// Events name a process by its exec id, the first one by its container's.
fn event_id(id: &ProcessId) -> String {
    id.exec.as_ref().map_or_else(|| id.container.to_string(), ToString::to_string)
}

/// Where the root file system of a container is: `root.path`, relative to its bundle.
fn rootfs_of(spec: &Spec, bundle: &Path) -> PathBuf {
    let path = spec.root().as_ref().map_or_else(|| PathBuf::from("rootfs"), |root| root.path().clone());
    bundle.join(path)
}

async fn load(bundle: PathBuf) -> Result<Spec, ShimError> {
    Ok(blocking(move || spec::load(&bundle)).await??)
}

async fn drain(task: &Task) {
    if let Some(streams) = task.streams.get() {
        streams.finish(Deadline::after(DRAIN)).await;
    }
}

async fn unmount(rootfs: PathBuf) {
    let shown = rootfs.display().to_string();
    if let Ok(Err(error)) = blocking(move || rootfs::unmount_all(&rootfs)).await {
        tracing::warn!(rootfs = shown, error = chain(&error), "root file system still mounted");
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ShimError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ShimError::GivenUp)
}
