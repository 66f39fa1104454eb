//! The task service (`containerd.task.v2.Task` and its renamed copy v3).
//!
//! Every request is worked on in a task of its own: an engine that gives up, or
//! whose deadline passes, does not leave work half done.

mod pod;
pub mod rootfs;
mod stats;
mod tasks;

use std::{collections::HashMap, sync::Arc, time::Instant};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
        ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
        StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    protobuf::{MessageField, well_known_types::empty::Empty},
    shim_async::{Task as TaskService, create_task},
};
use osc_agent_protocol::kind::chain;
use osc_runtime::{
    id::{BadId, ContainerId, ExecId},
    sandbox::{ProcessId, ProcessState},
    spec,
};
use ttrpc::asynchronous::TtrpcContext;

pub use pod::{Environment, Pod};

use crate::{error::ShimError, events::timestamp};
use tasks::{Size, locked};

/// Name of the service engines before containerd 2 call.
const TASK_V2: &str = "containerd.task.v2.Task";
/// Name the generated code registers.
const TASK_V3: &str = "containerd.task.v3.Task";

/// The services of a shim serving `pod`: one, under both of its names.
pub fn services(pod: &Arc<Pod>) -> HashMap<String, ttrpc::asynchronous::Service> {
    let mut services = create_task(Arc::new(Service(pod.clone())));
    let again = create_task(Arc::new(Service(pod.clone()))).remove(TASK_V3);
    services.extend(again.map(|service| (TASK_V2.to_owned(), service)));
    services
}

struct Service(Arc<Pod>);

impl Service {
    /// Runs `work` to its end and turns its outcome into an answer.
    async fn answer<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, ShimError>> + Send + 'static,
    ) -> ttrpc::Result<T> {
        let began = Instant::now();
        let outcome = tokio::spawn(work).await.unwrap_or(Err(ShimError::GivenUp));
        let span = began.elapsed();
        self.0.durations.observe(action, span);
        match outcome {
            Ok(answer) => {
                tracing::debug!(rpc.method = action, elapsed_ms = span.as_millis() as u64, "request served");
                Ok(answer)
            }
            Err(error) => {
                // Not an error of this program, and the engine logs its answer.
                tracing::info!(rpc.method = action, error = chain(&error), error.kind = ?error.kind(), "request failed");
                Err(error.to_wire())
            }
        }
    }

    fn state(&self, id: &ProcessId) -> Result<StateResponse, ShimError> {
        let pod = &self.0;
        let task = pod.tasks.task(id)?;
        let bundle = pod.tasks.bundle(&id.container)?;
        // Between the request to create and the sandbox taking it up there is none.
        let state = pod.sandbox().and_then(|sandbox| Ok(sandbox.process_state(id)?)).unwrap_or(ProcessState::Creating);
        let mut answer = StateResponse {
            id: id.container.to_string(),
            exec_id: id.exec.as_ref().map(ToString::to_string).unwrap_or_default(),
            bundle: bundle.dir.display().to_string(),
            pid: pod.pid(),
            stdin: task.stdio.stdin.clone(),
            stdout: task.stdio.stdout.clone(),
            stderr: task.stdio.stderr.clone(),
            terminal: task.stdio.terminal,
            ..Default::default()
        };
        let status = match state {
            ProcessState::Creating | ProcessState::Created => Status::CREATED,
            ProcessState::Running => Status::RUNNING,
            ProcessState::Paused => Status::PAUSED,
            ProcessState::Stopped(exit) => {
                answer.exit_status = exit.status;
                answer.exited_at = MessageField::some(timestamp(exit.at));
                Status::STOPPED
            }
        };
        answer.status = status.into();
        Ok(answer)
    }
}

fn process(container: &str, exec: &str) -> Result<ProcessId, BadId> {
    let exec = if exec.is_empty() { None } else { Some(ExecId::new(exec)?) };
    Ok(ProcessId { container: ContainerId::new(container)?, exec })
}

#[async_trait]
impl TaskService for Service {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        let pid = self.answer("create", self.0.clone().create(request)).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let pod = self.0.clone();
        self.answer("start", async move { pod.start(process(&request.id, &request.exec_id)?).await }).await
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let outcome =
            process(&request.id, &request.exec_id).map_err(ShimError::from).and_then(|id| Service::state(self, &id));
        self.answer("state", async { outcome }).await
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let pod = self.0.clone();
        self.answer("delete", async move { pod.delete(process(&request.id, &request.exec_id)?).await }).await
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.answer("exec", self.0.clone().exec(request)).await?;
        Ok(Empty::new())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let pod = self.0.clone();
        let work = async move { pod.kill(process(&request.id, &request.exec_id)?, request.signal).await };
        self.answer("kill", work).await?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let pod = self.0.clone();
        let work = async move {
            let id = process(&request.id, &request.exec_id)?;
            pod.tasks.task(&id)?;
            let exit = pod.sandbox()?.wait(&id).await?;
            let exited_at = MessageField::some(timestamp(exit.at));
            Ok(WaitResponse { exit_status: exit.status, exited_at, ..Default::default() })
        };
        self.answer("wait", work).await
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let pod = self.0.clone();
        let work = async move {
            pod.tasks.bundle(&ContainerId::new(request.id)?)?;
            let processes = vec![ProcessInfo { pid: pod.pid(), ..Default::default() }];
            Ok(PidsResponse { processes, ..Default::default() })
        };
        self.answer("pids", work).await
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        let pod = self.0.clone();
        self.answer("pause", async move { pod.pause(&ContainerId::new(request.id)?).await }).await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let pod = self.0.clone();
        self.answer("resume", async move { pod.resume(&ContainerId::new(request.id)?).await }).await?;
        Ok(Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let pod = self.0.clone();
        let work = async move {
            let id = process(&request.id, &request.exec_id)?;
            let task = pod.tasks.task(&id)?;
            let size = Size { rows: request.height, columns: request.width };
            {
                // Under the lock a start takes the size from, so that none is lost.
                let mut early = locked(&task.early_size);
                if task.streams.get().is_none() {
                    *early = Some(size);
                    return Ok(());
                }
            }
            Ok(pod.sandbox()?.resize(&id, size.rows, size.columns).await?)
        };
        self.answer("resize_pty", work).await?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let pod = self.0.clone();
        let work = async move {
            let task = pod.tasks.task(&process(&request.id, &request.exec_id)?)?;
            if let Some(streams) = task.streams.get().filter(|_| request.stdin) {
                streams.close_stdin();
            }
            Ok(())
        };
        self.answer("close_io", work).await?;
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let pod = self.0.clone();
        let work = async move {
            let any = request.resources.get_or_default();
            if !any.type_url.ends_with("LinuxResources") {
                return Err(ShimError::Type { seen: any.type_url.clone(), want: "Linux resources" });
            }
            let resources = spec::resources(&any.value)?;
            Ok(pod.sandbox()?.update(&ContainerId::new(request.id)?, &resources).await?)
        };
        self.answer("update", work).await?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let pod = self.0.clone();
        let work = async move {
            let sandbox = pod.sandbox()?;
            let answer = sandbox.stats(&ContainerId::new(request.id)?).await?;
            let stats = MessageField::some(stats::metrics(answer, sandbox.cgroup_version()));
            Ok(StatsResponse { stats, ..Default::default() })
        };
        self.answer("stats", work).await
    }

    async fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let answer = ConnectResponse { shim_pid: std::process::id(), task_pid: self.0.pid(), ..Default::default() };
        self.answer("connect", async { Ok(answer) }).await
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        self.answer("checkpoint", async { Err(ShimError::Unsupported("checkpointing")) }).await
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.answer("shutdown", self.0.clone().shutdown()).await?;
        Ok(Empty::new())
    }
}
