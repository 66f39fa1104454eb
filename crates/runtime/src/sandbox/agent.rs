//! The connection to the agent in the guest, every call with its deadline.
//!
//! Stream reads, waits and the OOM poll have none: they end when the guest
//! answers or the connection breaks. The guest is not trusted: sizes are bounded
//! by the frame limit of the transport, and nothing it returns is used as a path.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use osc_agent_protocol::{
    Kind, agent, agent_ttrpc::AgentServiceClient, csi, health, health_ttrpc::HealthClient, kind, types,
};
use protobuf::well_known_types::empty::Empty;
use ttrpc::{
    asynchronous::{Client, transport::Socket},
    context::{self, Context},
};

use super::metrics::Histogram;

/// Longest time each class of call may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Ordinary requests.
    pub request: Duration,
    /// Creating a container.
    pub create: Duration,
    /// The health check.
    pub health: Duration,
}

/// A call the agent did not fulfil.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent answered with an error.
    #[error("the agent failed {call}")]
    Refused {
        /// Method name.
        call: &'static str,
        /// Kind sent by the agent.
        kind: Kind,
        /// Its words.
        source: Refusal,
    },
    /// No answer in time.
    #[error("the agent did not answer {call} within {waited:?}: look at the guest console of the sandbox")]
    Silent {
        /// Method name.
        call: &'static str,
        /// How long it was given.
        waited: Duration,
    },
    /// The connection is gone.
    #[error("the connection to the agent broke during {call}: the virtual machine or its agent has died")]
    Lost {
        /// Method name.
        call: &'static str,
        /// What the transport saw.
        source: ttrpc::Error,
    },
}

/// Text of an error answered by the agent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl AgentError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused { kind, .. } => *kind,
            Self::Silent { .. } => Kind::Timeout,
            Self::Lost { .. } => Kind::Unavailable,
        }
    }

    fn new(request: &'static str, limit: Option<Duration>, began: Instant, error: ttrpc::Error) -> Self {
        let call = request.strip_suffix("Request").unwrap_or(request);
        match error {
            ttrpc::Error::RpcStatus(status) => {
                let kind = kind::of_code(status.code());
                Self::Refused { call, kind, source: Refusal(status.message) }
            }
            // The transport reports its own deadline as free text; the clock is
            // the dependable witness.
            error => match limit {
                Some(limit) if began.elapsed() >= limit => Self::Silent { call, waited: limit },
                _ => Self::Lost { call, source: error },
            },
        }
    }
}

/// A client of one agent; clones share the connection.
///
/// Futures returned here may be dropped, but a request caught while it is being
/// written takes the connection with it: run calls to their end and let their
/// deadlines cut them.
#[derive(Clone)]
pub struct Agent {
    service: AgentServiceClient,
    health: HealthClient,
    limits: Limits,
    durations: Arc<Histogram>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// One method of [`Agent`] for each call: its request, answer and time limit.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident / $call:literal ($request:ty) -> $answer:ty, $limit:ident;)*) => {
        impl Agent {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`AgentError`].
                pub async fn $name(&self, request: $request) -> Result<$answer, AgentError> {
                    let limit = self.limits.$limit();
                    let began = Instant::now();
                    let answer = self.service.$name(deadline(limit), &request).await;
                    self.durations.observe(concat!("grpc.", $call), began.elapsed());
                    answer.map_err(|error| AgentError::new($call, limit, began, error))
                }
            )*
        }
    };
}

impl Limits {
    fn request(&self) -> Option<Duration> {
        Some(self.request)
    }

    fn create(&self) -> Option<Duration> {
        Some(self.create)
    }

    fn none(&self) -> Option<Duration> {
        None
    }
}

fn deadline(limit: Option<Duration>) -> Context {
    limit.map_or_else(Context::default, context::with_duration)
}

impl Agent {
    /// A client over a connected stream.
    pub fn new(socket: Socket, limits: Limits, durations: Arc<Histogram>) -> Self {
        let client = Client::new(socket);
        Self { service: AgentServiceClient::new(client.clone()), health: HealthClient::new(client), limits, durations }
    }

    /// Whether the agent serves.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn check(&self) -> Result<(), AgentError> {
        let limit = Some(self.limits.health);
        let began = Instant::now();
        let answer = self.health.check(deadline(limit), &health::CheckRequest::new()).await;
        self.durations.observe("grpc.CheckRequest", began.elapsed());
        answer.map(drop).map_err(|error| AgentError::new("CheckRequest", limit, began, error))
    }
}

calls! {
    /// Prepares the guest for containers.
    create_sandbox / "CreateSandboxRequest" (agent::CreateSandboxRequest) -> Empty, request;
    /// What the guest can do.
    get_guest_details / "GuestDetailsRequest" (agent::GuestDetailsRequest) -> agent::GuestDetailsResponse, request;
    /// Brings hot-plugged processors and memory into use.
    online_cpu_mem / "OnlineCPUMemRequest" (agent::OnlineCPUMemRequest) -> Empty, request;
    /// Mixes randomness of the host into the guest's.
    reseed_random_dev / "ReseedRandomDevRequest" (agent::ReseedRandomDevRequest) -> Empty, request;
    /// Sets the guest's clock.
    set_guest_date_time / "SetGuestDateTimeRequest" (agent::SetGuestDateTimeRequest) -> Empty, request;
    /// Configures one interface.
    update_interface / "UpdateInterfaceRequest" (agent::UpdateInterfaceRequest) -> types::Interface, request;
    /// Replaces the routes.
    update_routes / "UpdateRoutesRequest" (agent::UpdateRoutesRequest) -> agent::Routes, request;
    /// Adds neighbours.
    add_arp_neighbors / "AddARPNeighborsRequest" (agent::AddARPNeighborsRequest) -> Empty, request;
    /// Creates a container; its first process waits to be started.
    create_container / "CreateContainerRequest" (agent::CreateContainerRequest) -> Empty, create;
    /// Lets the first process run.
    start_container / "StartContainerRequest" (agent::StartContainerRequest) -> Empty, request;
    /// Kills and forgets a container.
    remove_container / "RemoveContainerRequest" (agent::RemoveContainerRequest) -> Empty, request;
    /// Runs another process in a container.
    exec_process / "ExecProcessRequest" (agent::ExecProcessRequest) -> Empty, request;
    /// Sends a signal.
    signal_process / "SignalProcessRequest" (agent::SignalProcessRequest) -> Empty, request;
    /// Waits for a process to end.
    wait_process / "WaitProcessRequest" (agent::WaitProcessRequest) -> agent::WaitProcessResponse, none;
    /// Changes the resources of a container.
    update_container / "UpdateContainerRequest" (agent::UpdateContainerRequest) -> Empty, request;
    /// Freezes a container.
    pause_container / "PauseContainerRequest" (agent::PauseContainerRequest) -> Empty, request;
    /// Thaws a container.
    resume_container / "ResumeContainerRequest" (agent::ResumeContainerRequest) -> Empty, request;
    /// Resource usage of a container.
    stats_container / "StatsContainerRequest" (agent::StatsContainerRequest) -> agent::StatsContainerResponse, request;
    /// Writes standard input; blocks while the process does not read.
    write_stdin / "WriteStreamRequest" (agent::WriteStreamRequest) -> agent::WriteStreamResponse, none;
    /// Reads standard output; empty at its end.
    read_stdout / "ReadStreamRequest" (agent::ReadStreamRequest) -> agent::ReadStreamResponse, none;
    /// Reads standard error; empty at its end.
    read_stderr / "ReadStreamRequest" (agent::ReadStreamRequest) -> agent::ReadStreamResponse, none;
    /// Closes standard input.
    close_stdin / "CloseStdinRequest" (agent::CloseStdinRequest) -> Empty, request;
    /// Changes the size of a terminal.
    tty_win_resize / "TtyWinResizeRequest" (agent::TtyWinResizeRequest) -> Empty, request;
    /// Waits until a container hits its memory limit.
    get_oom_event / "GetOOMEventRequest" (agent::GetOOMEventRequest) -> agent::OOMEvent, none;
    /// Metrics of agent and guest, as Prometheus text.
    get_metrics / "GetMetricsRequest" (agent::GetMetricsRequest) -> agent::Metrics, request;
    /// Packet filter rules.
    get_ip_tables / "GetIPTablesRequest" (agent::GetIPTablesRequest) -> agent::GetIPTablesResponse, request;
    /// Replaces packet filter rules.
    set_ip_tables / "SetIPTablesRequest" (agent::SetIPTablesRequest) -> agent::SetIPTablesResponse, request;
    /// Usage of a volume.
    get_volume_stats / "VolumeStatsRequest" (agent::VolumeStatsRequest) -> csi::VolumeStatsResponse, request;
    /// Changes the size of a volume.
    resize_volume / "ResizeVolumeRequest" (agent::ResizeVolumeRequest) -> Empty, request;
    /// Replaces the request policy.
    set_policy / "SetPolicyRequest" (agent::SetPolicyRequest) -> Empty, request;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_told_from_a_lost_connection() {
        let long_ago = Instant::now() - Duration::from_secs(2);
        let limit = Some(Duration::from_secs(1));
        let rows = [
            (kind::status(Kind::NotFound, "no such container"), limit, Instant::now(), Kind::NotFound),
            (ttrpc::Error::Others("Request deadline elapsed".into()), limit, long_ago, Kind::Timeout),
            (ttrpc::Error::RemoteClosed, limit, Instant::now(), Kind::Unavailable),
            (ttrpc::Error::Socket("reset".into()), None, long_ago, Kind::Unavailable),
        ];
        for (error, limit, began, want) in rows {
            let seen = AgentError::new("State", limit, began, error.clone());
            assert_eq!(seen.kind(), want, "{error:?}");
        }
    }
}
