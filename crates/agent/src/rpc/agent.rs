//! `grpc.AgentService`, one method after the other.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use osc_agent_protocol::{
    MAX_FRAME,
    agent::{self, *},
    agent_ttrpc::AgentService,
    csi::VolumeStatsResponse,
    types,
};
use protobuf::well_known_types::empty::Empty;
use ttrpc::r#async::TtrpcContext;

use super::{RequestError, Service, answer};
use crate::{guest, sandbox::SandboxError};

/// Room an answer leaves in a frame for everything but stream data.
const FRAME_OVERHEAD: usize = 4 << 10;

fn empty<E>(result: Result<(), E>) -> Result<Empty, E> {
    result.map(|()| Empty::new())
}

/// Most bytes one read may return.
fn bounded(len: u32) -> usize {
    (len as usize).min(MAX_FRAME - FRAME_OVERHEAD)
}

fn unimplemented<T>(method: &'static str, cure: &'static str) -> ttrpc::Result<T> {
    Err(RequestError::Unimplemented { method, cure }.status())
}

#[async_trait]
impl AgentService for Service {
    async fn create_sandbox(&self, _: &TtrpcContext, request: CreateSandboxRequest) -> ttrpc::Result<Empty> {
        self.change("CreateSandbox", |sandbox| async move { empty(sandbox.create(request).await) }).await
    }

    async fn destroy_sandbox(&self, _: &TtrpcContext, _: DestroySandboxRequest) -> ttrpc::Result<Empty> {
        self.change("DestroySandbox", |sandbox| async move {
            sandbox.destroy().await;
            Ok::<_, RequestError>(Empty::new())
        })
        .await
    }

    async fn create_container(&self, _: &TtrpcContext, request: CreateContainerRequest) -> ttrpc::Result<Empty> {
        self.change("CreateContainer", |sandbox| async move { empty(sandbox.create_container(request).await) }).await
    }

    async fn start_container(&self, _: &TtrpcContext, request: StartContainerRequest) -> ttrpc::Result<Empty> {
        self.change(
            "StartContainer",
            |sandbox| async move { empty(sandbox.start_container(&request.container_id).await) },
        )
        .await
    }

    async fn remove_container(&self, _: &TtrpcContext, request: RemoveContainerRequest) -> ttrpc::Result<Empty> {
        // No time-out is no limit.
        let timeout = Some(request.timeout).filter(|s| *s > 0).map(|s| Duration::from_secs(s.into()));
        self.change("RemoveContainer", |sandbox| async move {
            empty(sandbox.remove_container(&request.container_id, timeout).await)
        })
        .await
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.change("ExecProcess", |sandbox| async move {
            let container = sandbox.container(&request.container_id)?;
            let process = request.process.into_option();
            let process = process.ok_or(SandboxError::NoSpec { id: request.container_id })?;
            container.exec(&request.exec_id, process).await?;
            Ok::<_, RequestError>(Empty::new())
        })
        .await
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> ttrpc::Result<Empty> {
        answer("SignalProcess", async {
            let container = self.sandbox.container(&request.container_id)?;
            // Numbers beyond what a signal can be are refused there.
            let signal = i32::try_from(request.signal).unwrap_or(i32::MAX);
            container.signal(&request.exec_id, signal)?;
            Ok::<_, RequestError>(Empty::new())
        })
        .await
    }

    async fn wait_process(&self, _: &TtrpcContext, request: WaitProcessRequest) -> ttrpc::Result<WaitProcessResponse> {
        answer("WaitProcess", async {
            let container = self.sandbox.container(&request.container_id)?;
            let status = container.wait(&request.exec_id).await?;
            Ok::<_, RequestError>(WaitProcessResponse { status, ..Default::default() })
        })
        .await
    }

    async fn update_container(&self, _: &TtrpcContext, request: UpdateContainerRequest) -> ttrpc::Result<Empty> {
        self.change("UpdateContainer", |sandbox| async move {
            let container = sandbox.container(&request.container_id)?;
            if let Some(resources) = request.resources.as_ref() {
                container.update(resources)?;
            }
            Ok::<_, RequestError>(Empty::new())
        })
        .await
    }

    async fn update_ephemeral_mounts(
        &self,
        _: &TtrpcContext,
        request: UpdateEphemeralMountsRequest,
    ) -> ttrpc::Result<Empty> {
        self.change("UpdateEphemeralMounts", |sandbox| async move {
            empty(sandbox.storages.remount_ephemeral(request.storages).await)
        })
        .await
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        request: StatsContainerRequest,
    ) -> ttrpc::Result<StatsContainerResponse> {
        answer("StatsContainer", async {
            Ok::<_, RequestError>(self.sandbox.container(&request.container_id)?.stats()?)
        })
        .await
    }

    async fn pause_container(&self, _: &TtrpcContext, request: PauseContainerRequest) -> ttrpc::Result<Empty> {
        self.change("PauseContainer", |sandbox| async move {
            sandbox.container(&request.container_id)?.pause().await?;
            Ok::<_, RequestError>(Empty::new())
        })
        .await
    }

    async fn resume_container(&self, _: &TtrpcContext, request: ResumeContainerRequest) -> ttrpc::Result<Empty> {
        self.change("ResumeContainer", |sandbox| async move {
            sandbox.container(&request.container_id)?.resume().await?;
            Ok::<_, RequestError>(Empty::new())
        })
        .await
    }

    async fn remove_stale_virtiofs_share_mounts(
        &self,
        _: &TtrpcContext,
        _: RemoveStaleVirtiofsShareMountsRequest,
    ) -> ttrpc::Result<Empty> {
        answer("RemoveStaleVirtiofsShareMounts", async { empty(guest::refresh_share().await) }).await
    }

    async fn get_diagnostic_data(
        &self,
        _: &TtrpcContext,
        request: GetDiagnosticDataRequest,
    ) -> ttrpc::Result<GetDiagnosticDataResponse> {
        answer("GetDiagnosticData", async {
            if request.log_type != "termination_log" {
                return Err(RequestError::Unimplemented {
                    method: "GetDiagnosticData of this type",
                    cure: "ask for termination_log",
                });
            }
            let spec = self.sandbox.container(&request.container_id)?.spec().clone();
            let data = guest::termination_message(spec).await?;
            Ok(GetDiagnosticDataResponse { data, ..Default::default() })
        })
        .await
    }

    async fn write_stdin(&self, _: &TtrpcContext, request: WriteStreamRequest) -> ttrpc::Result<WriteStreamResponse> {
        answer("WriteStdin", async {
            let container = self.sandbox.container(&request.container_id)?;
            let len = container.write_stdin(&request.exec_id, &request.data).await?;
            Ok::<_, RequestError>(WriteStreamResponse { len: len as u32, ..Default::default() })
        })
        .await
    }

    async fn read_stdout(&self, _: &TtrpcContext, request: ReadStreamRequest) -> ttrpc::Result<ReadStreamResponse> {
        answer("ReadStdout", async {
            let container = self.sandbox.container(&request.container_id)?;
            let data = container.read_stdout(&request.exec_id, bounded(request.len)).await?;
            Ok::<_, RequestError>(ReadStreamResponse { data, ..Default::default() })
        })
        .await
    }

    async fn read_stderr(&self, _: &TtrpcContext, request: ReadStreamRequest) -> ttrpc::Result<ReadStreamResponse> {
        answer("ReadStderr", async {
            let container = self.sandbox.container(&request.container_id)?;
            let data = container.read_stderr(&request.exec_id, bounded(request.len)).await?;
            Ok::<_, RequestError>(ReadStreamResponse { data, ..Default::default() })
        })
        .await
    }

    async fn close_stdin(&self, _: &TtrpcContext, request: CloseStdinRequest) -> ttrpc::Result<Empty> {
        answer("CloseStdin", async {
            self.sandbox.container(&request.container_id)?.close_stdin(&request.exec_id)?;
            Ok::<_, RequestError>(Empty::new())
        })
        .await
    }

    async fn tty_win_resize(&self, _: &TtrpcContext, request: TtyWinResizeRequest) -> ttrpc::Result<Empty> {
        answer("TtyWinResize", async {
            let container = self.sandbox.container(&request.container_id)?;
            container.resize(&request.exec_id, request.row, request.column)?;
            Ok::<_, RequestError>(Empty::new())
        })
        .await
    }

    async fn update_interface(
        &self,
        _: &TtrpcContext,
        request: UpdateInterfaceRequest,
    ) -> ttrpc::Result<types::Interface> {
        self.change("UpdateInterface", |sandbox| async move {
            sandbox.network.update_interface(request.interface.unwrap_or_default()).await
        })
        .await
    }

    async fn update_routes(&self, _: &TtrpcContext, request: UpdateRoutesRequest) -> ttrpc::Result<agent::Routes> {
        self.change("UpdateRoutes", |sandbox| async move {
            sandbox.network.update_routes(request.routes.unwrap_or_default()).await
        })
        .await
    }

    async fn list_interfaces(&self, _: &TtrpcContext, _: ListInterfacesRequest) -> ttrpc::Result<Interfaces> {
        let work = self.sandbox.network.interfaces();
        let list = answer("ListInterfaces", work).await?;
        Ok(Interfaces { Interfaces: list, ..Default::default() })
    }

    async fn list_routes(&self, _: &TtrpcContext, _: ListRoutesRequest) -> ttrpc::Result<agent::Routes> {
        let list = answer("ListRoutes", self.sandbox.network.routes()).await?;
        Ok(agent::Routes { Routes: list, ..Default::default() })
    }

    async fn add_arp_neighbors(&self, _: &TtrpcContext, request: AddARPNeighborsRequest) -> ttrpc::Result<Empty> {
        self.change("AddARPNeighbors", |sandbox| async move {
            empty(sandbox.network.add_neighbours(&request.neighbors.ARPNeighbors).await)
        })
        .await
    }

    async fn get_ip_tables(&self, _: &TtrpcContext, request: GetIPTablesRequest) -> ttrpc::Result<GetIPTablesResponse> {
        // Runs a program, which must not be left behind when the host goes away.
        self.change("GetIPTables", |sandbox| async move {
            let data = sandbox.network.iptables(request.is_ipv6).await?;
            Ok::<_, RequestError>(GetIPTablesResponse { data, ..Default::default() })
        })
        .await
    }

    async fn set_ip_tables(&self, _: &TtrpcContext, request: SetIPTablesRequest) -> ttrpc::Result<SetIPTablesResponse> {
        self.change("SetIPTables", |sandbox| async move {
            let data = sandbox.network.set_iptables(request.is_ipv6, &request.data).await?;
            Ok::<_, RequestError>(SetIPTablesResponse { data, ..Default::default() })
        })
        .await
    }

    async fn get_metrics(&self, _: &TtrpcContext, _: GetMetricsRequest) -> ttrpc::Result<Metrics> {
        let metrics = answer("GetMetrics", Arc::clone(&self.metrics).scrape()).await?;
        Ok(Metrics { metrics, ..Default::default() })
    }

    async fn mem_agent_memcg_set(&self, _: &TtrpcContext, _: MemAgentMemcgConfig) -> ttrpc::Result<Empty> {
        unimplemented("MemAgentMemcgSet", "this agent does not reclaim memory ahead of need")
    }

    async fn mem_agent_compact_set(&self, _: &TtrpcContext, _: MemAgentCompactConfig) -> ttrpc::Result<Empty> {
        unimplemented("MemAgentCompactSet", "this agent does not compact memory ahead of need")
    }

    async fn online_cpu_mem(&self, _: &TtrpcContext, request: OnlineCPUMemRequest) -> ttrpc::Result<Empty> {
        self.change("OnlineCPUMem", |_| async move { empty(guest::online(&request).await) }).await
    }

    async fn reseed_random_dev(&self, _: &TtrpcContext, request: ReseedRandomDevRequest) -> ttrpc::Result<Empty> {
        answer("ReseedRandomDev", async { empty(guest::reseed(&request.data)) }).await
    }

    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        request: GuestDetailsRequest,
    ) -> ttrpc::Result<GuestDetailsResponse> {
        answer("GetGuestDetails", async { guest::details(&request, self.init) }).await
    }

    async fn mem_hotplug_by_probe(&self, _: &TtrpcContext, request: MemHotplugByProbeRequest) -> ttrpc::Result<Empty> {
        answer("MemHotplugByProbe", async { empty(guest::probe_memory(&request.memHotplugProbeAddr)) }).await
    }

    async fn set_guest_date_time(&self, _: &TtrpcContext, request: SetGuestDateTimeRequest) -> ttrpc::Result<Empty> {
        answer("SetGuestDateTime", async { empty(guest::set_time(request.Sec, request.Usec)) }).await
    }

    async fn copy_file(&self, _: &TtrpcContext, request: CopyFileRequest) -> ttrpc::Result<Empty> {
        self.change("CopyFile", |_| async move { empty(guest::copy_file(request).await) }).await
    }

    async fn get_oom_event(&self, _: &TtrpcContext, _: GetOOMEventRequest) -> ttrpc::Result<OOMEvent> {
        let container_id = answer("GetOOMEvent", self.sandbox.next_oom()).await?;
        Ok(OOMEvent { container_id, ..Default::default() })
    }

    async fn add_swap(&self, _: &TtrpcContext, request: AddSwapRequest) -> ttrpc::Result<Empty> {
        self.change(
            "AddSwap",
            |sandbox| async move { empty(guest::add_swap(&sandbox.devices, &request.PCIPath).await) },
        )
        .await
    }

    async fn add_swap_path(&self, _: &TtrpcContext, request: AddSwapPathRequest) -> ttrpc::Result<Empty> {
        self.change("AddSwapPath", |_| async move { empty(guest::add_swap_path(&request.path).await) }).await
    }

    async fn get_volume_stats(
        &self,
        _: &TtrpcContext,
        request: VolumeStatsRequest,
    ) -> ttrpc::Result<VolumeStatsResponse> {
        answer("GetVolumeStats", guest::volume_stats(request.volume_guest_path.into())).await
    }

    async fn resize_volume(&self, _: &TtrpcContext, _: ResizeVolumeRequest) -> ttrpc::Result<Empty> {
        unimplemented("ResizeVolume", "resize the volume while no sandbox uses it")
    }

    async fn set_policy(&self, _: &TtrpcContext, _: SetPolicyRequest) -> ttrpc::Result<Empty> {
        unimplemented("SetPolicy", "this agent has no policy engine; start it without a policy")
    }
}
