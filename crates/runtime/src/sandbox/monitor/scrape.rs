//! The metrics of one sandbox: agent and guest, then the processes on the host.

use std::{fs, sync::Arc};

use osc_agent_protocol::{agent::GetMetricsRequest, kind::chain};

use super::{
    super::{
        Phase, Shared,
        metrics::{Extent, Process, Text},
    },
    overhead,
};

/// All of it, as Prometheus text. What cannot be had is left out.
pub(super) async fn scrape(shared: &Arc<Shared>) -> String {
    let mut text = Text::default();
    let running = matches!(*shared.phase.borrow(), Phase::Running { .. });
    if let (true, Some(agent)) = (running, shared.agent.get()) {
        match agent.get_metrics(GetMetricsRequest::new()).await {
            Ok(answer) => text.append(&answer.metrics),
            Err(error) => tracing::debug!(error = chain(&error), "no metrics from the agent"),
        }
    }
    if running {
        let processes = [
            (shared.pid.get(), "kata_hypervisor", Extent::WithNetwork),
            (shared.file_server.get().map(worker), "kata_virtiofsd", Extent::Process),
        ];
        for (pid, prefix, extent) in processes {
            render(&mut text, pid, prefix, extent);
        }
    }
    render(&mut text, Some(std::process::id()), "kata_shim", Extent::WithNetwork);
    if let Err(error) = Process::new(std::process::id()).render_standard(&mut text) {
        tracing::debug!(error = chain(&error), "no metrics of this process");
    }
    overhead::render(shared, &mut text);
    let help = "Requests of the container engine, in milliseconds.";
    shared.request.durations.render(&mut text, "kata_shim_rpc_durations_histogram_milliseconds", help);
    let help = "Calls to the agent, in milliseconds.";
    shared.agent_durations.render(&mut text, "kata_shim_agent_rpc_durations_histogram_milliseconds", help);
    text.finish()
}

fn render(text: &mut Text, pid: Option<u32>, prefix: &str, extent: Extent) {
    let Some(pid) = pid else { return };
    if let Err(error) = Process::new(pid).render(text, prefix, extent) {
        tracing::debug!(prefix, error = chain(&error), "process not measured");
    }
}

/// virtiofsd forks once: the first process waits, its child does the work.
fn worker(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().next().and_then(|child| child.parse().ok()).unwrap_or(pid)
}
