//! What can be done to containers and processes of a running sandbox.
//!
//! Every call goes straight to the agent: nothing here waits for the owner of the
//! machine, and no lock is held while the guest works.

use osc_agent_protocol::{
    Kind,
    agent::{
        CloseStdinRequest, ExecProcessRequest, PauseContainerRequest, ReadStreamRequest, RemoveContainerRequest,
        ResumeContainerRequest, SignalProcessRequest, StartContainerRequest, StatsContainerRequest,
        StatsContainerResponse, TtyWinResizeRequest, WaitProcessRequest, WriteStreamRequest,
    },
    kind::chain,
    oci,
};
use protobuf::MessageField;

use super::{
    Sandbox,
    agent::{Agent, AgentError},
    error::SandboxError,
    hooks::{self, Point},
    process::{Container, Exit, ProcessEvent, ProcessId, ProcessState, locked},
};
use crate::id::ContainerId;

/// An output stream of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or everything with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Sandbox {
    /// Adds a process to a running container; it waits to be started.
    ///
    /// # Errors
    /// When the container does not run or the process exists.
    pub fn add_exec(&self, id: &ProcessId, spec: oci::Process) -> Result<(), SandboxError> {
        let Some(exec) = &id.exec else {
            return Err(SandboxError::Exists { what: "process", id: id.to_string() });
        };
        let init = self.shared.containers.container(&id.container)?.init.state();
        if init != ProcessState::Running {
            return Err(refused(&ProcessId::init(id.container.clone()), "run another process in", init));
        }
        self.shared.containers.add_exec(id, exec, spec)
    }

    /// Lets a process run and begins to wait for its end.
    ///
    /// # Errors
    /// When it was started before, or the guest cannot start it: its text then
    /// says which executable is missing or refused.
    pub async fn start_process(&self, id: &ProcessId) -> Result<(), SandboxError> {
        let agent = self.agent()?;
        let container = self.shared.containers.container(&id.container)?;
        let process = self.shared.containers.process(id)?;
        if process.state() != ProcessState::Created {
            return Err(refused(id, "start", process.state()));
        }
        let spec = locked(&process.spec).take();
        match (&id.exec, spec) {
            (None, _) => {
                let request = StartContainerRequest { container_id: id.container.to_string(), ..Default::default() };
                agent.start_container(request).await?;
            }
            (Some(_), Some(spec)) => {
                agent.exec_process(exec_request(id, spec)).await?;
            }
            (Some(_), None) => return Err(refused(id, "start", process.state())),
        };
        process.apply(ProcessEvent::Started);
        self.watch_end(agent, id.clone());
        if id.exec.is_none() {
            self.run_hooks(&container, &id.container, Point::Poststart, "running").await;
        }
        Ok(())
    }

    /// Where a process is in its life. Never waits.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn process_state(&self, id: &ProcessId) -> Result<ProcessState, SandboxError> {
        self.shared.containers.process(id).map(|process| process.state())
    }

    /// Waits for the end of a process, however it comes. Cancel-safe.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn wait(&self, id: &ProcessId) -> Result<Exit, SandboxError> {
        let process = self.shared.containers.process(id)?;
        Ok(process.ended().await)
    }

    /// Sends a signal: to one added process, to the first one of a container, or
    /// with SIGKILL to all of a container. Killing what has ended is success.
    ///
    /// # Errors
    /// When there is no such process, or another signal comes too late.
    pub async fn signal(&self, id: &ProcessId, signal: u32) -> Result<(), SandboxError> {
        let process = self.shared.containers.process(id)?;
        if let state @ ProcessState::Stopped(_) = process.state() {
            let late_is_fine = [libc::SIGKILL as u32, libc::SIGTERM as u32].contains(&signal);
            return if late_is_fine { Ok(()) } else { Err(refused(id, "signal", state)) };
        }
        let agent = self.agent()?;
        if id.exec.is_some() && process.state() == ProcessState::Created {
            // The guest does not know it yet.
            process.apply(ProcessEvent::Ended(Exit::now(128 + signal)));
            return Ok(());
        }
        let request = SignalProcessRequest {
            container_id: id.container.to_string(),
            exec_id: id.exec.as_ref().map(ToString::to_string).unwrap_or_default(),
            signal,
            ..Default::default()
        };
        match agent.signal_process(request).await {
            // It ended in between; its end is on its way to us.
            Err(error) if error.kind() == Kind::NotFound => {}
            outcome => outcome.map(drop)?,
        }
        if id.exec.is_none() && process.state() == ProcessState::Created {
            self.watch_end(agent, id.clone());
        }
        Ok(())
    }

    /// Forgets an added process.
    ///
    /// # Errors
    /// When it runs or does not exist.
    pub fn delete_exec(&self, id: &ProcessId) -> Result<(), SandboxError> {
        let state = self.process_state(id)?;
        match (&id.exec, state) {
            (Some(exec), ProcessState::Stopped(_) | ProcessState::Created) => {
                self.shared.containers.remove_exec(&id.container, exec);
                Ok(())
            }
            _ => Err(refused(id, "delete", state)),
        }
    }

    /// Removes a container that does not run; `last` says that the whole sandbox
    /// goes with it, so that the guest need not tidy up first. Works on a sandbox
    /// that is gone.
    ///
    /// # Errors
    /// When the container runs, does not exist, or the guest keeps it.
    pub async fn delete_container(&self, id: &ContainerId, last: bool) -> Result<(), SandboxError> {
        let container = self.shared.containers.container(id)?;
        let state = container.init.state();
        if matches!(state, ProcessState::Running | ProcessState::Paused) {
            return Err(refused(&ProcessId::init(id.clone()), "delete", state));
        }
        if !last && let Ok(agent) = self.agent() {
            let request = RemoveContainerRequest { container_id: id.to_string(), ..Default::default() };
            match agent.remove_container(request).await {
                Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => return Err(error.into()),
                _ => {}
            }
        }
        if !last {
            self.withdraw(id).await;
        }
        self.shared.containers.remove(id);
        self.run_hooks(&container, id, Point::Poststop, "stopped").await;
        Ok(())
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&self, id: &ContainerId) -> Result<(), SandboxError> {
        let container = self.shared.containers.container(id)?;
        let request = PauseContainerRequest { container_id: id.to_string(), ..Default::default() };
        self.agent()?.pause_container(request).await?;
        container.init.apply(ProcessEvent::Paused);
        Ok(())
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// When it is not frozen.
    pub async fn resume(&self, id: &ContainerId) -> Result<(), SandboxError> {
        let container = self.shared.containers.container(id)?;
        let request = ResumeContainerRequest { container_id: id.to_string(), ..Default::default() };
        self.agent()?.resume_container(request).await?;
        container.init.apply(ProcessEvent::Resumed);
        Ok(())
    }

    /// Resource usage of a container as its guest kernel counts it.
    ///
    /// # Errors
    /// When there is no such container or its guest does not answer.
    pub async fn stats(&self, id: &ContainerId) -> Result<StatsContainerResponse, SandboxError> {
        self.shared.containers.container(id)?;
        let request = StatsContainerRequest { container_id: id.to_string(), ..Default::default() };
        Ok(self.agent()?.stats_container(request).await?)
    }

    /// Sets the size of the terminal of a started process.
    ///
    /// # Errors
    /// `Unavailable` when it has no terminal.
    pub async fn resize(&self, id: &ProcessId, rows: u32, columns: u32) -> Result<(), SandboxError> {
        let request = TtyWinResizeRequest {
            container_id: id.container.to_string(),
            exec_id: id.agent_exec_id(),
            row: rows,
            column: columns,
            ..Default::default()
        };
        self.agent()?.tty_win_resize(request).await?;
        Ok(())
    }

    /// Up to `most` bytes of output; empty at its end. Waits as long as it takes;
    /// dropping the future may lose output.
    ///
    /// # Errors
    /// When the process or the machine is gone.
    pub async fn read_output(&self, id: &ProcessId, output: Output, most: u32) -> Result<Vec<u8>, SandboxError> {
        let request = ReadStreamRequest {
            container_id: id.container.to_string(),
            exec_id: id.agent_exec_id(),
            len: most,
            ..Default::default()
        };
        let agent = self.agent()?;
        let answer = match output {
            Output::Stdout => agent.read_stdout(request).await?,
            Output::Stderr => agent.read_stderr(request).await?,
        };
        Ok(answer.data)
    }

    /// Writes all of `data` to standard input; waits while the process does not
    /// read.
    ///
    /// # Errors
    /// When the process or the machine is gone.
    pub async fn write_stdin(&self, id: &ProcessId, mut data: Vec<u8>) -> Result<(), SandboxError> {
        let agent = self.agent()?;
        while !data.is_empty() {
            let request = WriteStreamRequest {
                container_id: id.container.to_string(),
                exec_id: id.agent_exec_id(),
                data: data.clone(),
                ..Default::default()
            };
            let agent = agent.clone();
            // A task of its own: whoever writes may be dropped when the process
            // ends, and a request cut short would take the connection along.
            let write = tokio::spawn(async move { agent.write_stdin(request).await });
            let written = write.await.map_err(|_| self.gone())??.len as usize;
            if written == 0 {
                return Err(SandboxError::Closed { process: id.to_string() });
            }
            data.drain(..written.min(data.len()));
        }
        Ok(())
    }

    /// Closes standard input.
    ///
    /// # Errors
    /// When the process or the machine is gone.
    pub async fn close_stdin(&self, id: &ProcessId) -> Result<(), SandboxError> {
        let request = CloseStdinRequest {
            container_id: id.container.to_string(),
            exec_id: id.agent_exec_id(),
            ..Default::default()
        };
        self.agent()?.close_stdin(request).await?;
        Ok(())
    }

    /// Learns of the end of a process and records it. When the connection breaks,
    /// the owner of the machine decides what the end was.
    fn watch_end(&self, agent: Agent, id: ProcessId) {
        let sandbox = self.clone();
        self.shared.tasks.spawn(async move {
            let request = WaitProcessRequest {
                container_id: id.container.to_string(),
                exec_id: id.agent_exec_id(),
                ..Default::default()
            };
            let status = match agent.wait_process(request).await {
                Ok(answer) => answer.status as u32,
                Err(AgentError::Lost { .. }) => return,
                Err(error) => {
                    tracing::warn!(process = %id, error = chain(&error), "the end of a process is unknown");
                    255
                }
            };
            if let Ok(process) = sandbox.shared.containers.process(&id) {
                process.apply(ProcessEvent::Ended(Exit::now(status)));
            }
        });
    }

    async fn run_hooks(&self, container: &Container, id: &ContainerId, point: Point, status: &'static str) {
        if !hooks::any(container.hooks.as_ref(), point) {
            return;
        }
        let state = hooks::State {
            oci_version: container.oci_version.clone(),
            id: id.to_string(),
            status,
            pid: self.pid().unwrap_or_default(),
            bundle: container.bundle.clone(),
        };
        // Failures at these points are logged where they happen.
        let _ = hooks::run(container.hooks.as_ref(), point, &state).await;
    }
}

fn exec_request(id: &ProcessId, spec: oci::Process) -> ExecProcessRequest {
    ExecProcessRequest {
        container_id: id.container.to_string(),
        exec_id: id.agent_exec_id(),
        process: MessageField::some(spec),
        ..Default::default()
    }
}

pub(super) fn refused(process: &ProcessId, action: &'static str, state: ProcessState) -> SandboxError {
    SandboxError::State { process: process.to_string(), action, state }
}
