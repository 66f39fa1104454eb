//! What a sandbox costs its host beyond what its containers use: the control group
//! of everything on the host minus the groups of the containers in the guest.
//!
//! Processor use needs two looks a while apart, so a scrape starts them and the
//! next one shows the result. Meaningful only when everything of the sandbox runs
//! in one group, which is when `sandbox_cgroup_only` is set.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use osc_agent_protocol::agent::StatsContainerRequest;

use super::super::{Phase, Shared, boot, metrics::Text, process::locked};

/// Time between the two looks.
const SPAN: Duration = Duration::from_secs(1);

/// The last result.
#[derive(Debug, Default)]
pub(in super::super) struct Overhead {
    last: Mutex<Cost>,
    looking: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cost {
    cpu_percent: f64,
    memory: u64,
}

/// Usage at one moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    host_cpu: u64,
    host_memory: u64,
    guest_cpu: u64,
    guest_memory: u64,
}

/// Writes the last result and looks again in the background.
pub(super) fn render(shared: &Arc<Shared>, text: &mut Text) {
    let cost = *locked(&shared.overhead.last);
    text.single("kata_shim_pod_overhead_cpu", "gauge", "Percent of one processor.", cost.cpu_percent);
    text.single("kata_shim_pod_overhead_memory_in_bytes", "gauge", "Memory.", cost.memory);
    let idle = !shared.overhead.looking.swap(true, Ordering::AcqRel);
    if idle {
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Some(cost) = measure(&shared).await {
                *locked(&shared.overhead.last) = cost;
            }
            shared.overhead.looking.store(false, Ordering::Release);
        });
    }
}

async fn measure(shared: &Shared) -> Option<Cost> {
    let first = look(shared).await?;
    tokio::time::sleep(SPAN).await;
    Some(cost(&first, &look(shared).await?))
}

async fn look(shared: &Shared) -> Option<Look> {
    let agent = match &*shared.phase.borrow() {
        Phase::Running { .. } => shared.agent.get().cloned()?,
        _ => return None,
    };
    let (mut guest_cpu, mut guest_memory) = (0, 0);
    for (id, _) in shared.containers.all() {
        let request = StatsContainerRequest { container_id: id.to_string(), ..Default::default() };
        let stats = agent.stats_container(request).await.ok()?;
        guest_cpu += stats.cgroup_stats.cpu_stats.cpu_usage.total_usage;
        guest_memory += stats.cgroup_stats.memory_stats.usage.usage;
    }
    let usage = shared.cgroups.usage(&boot::main_group(&shared.request));
    let at = Instant::now();
    Some(Look { at, host_cpu: usage.cpu_nanos, host_memory: usage.memory, guest_cpu, guest_memory })
}

fn cost(first: &Look, second: &Look) -> Cost {
    let host = second.host_cpu.saturating_sub(first.host_cpu);
    let guest = second.guest_cpu.saturating_sub(first.guest_cpu);
    let span = second.at.saturating_duration_since(first.at).as_nanos().max(1) as f64;
    Cost {
        cpu_percent: host.saturating_sub(guest) as f64 * 100.0 / span,
        memory: second.host_memory.saturating_sub(second.guest_memory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_what_containers_did_not_use() {
        let at = Instant::now();
        let first = Look { at, host_cpu: 100, host_memory: 0, guest_cpu: 50, guest_memory: 0 };
        let later = at + Duration::from_secs(2);
        let rows = [
            ((1_000_000_100, 900, 500_000_050, 300), Cost { cpu_percent: 25.0, memory: 600 }),
            // A guest that counts more than its host is believed no further.
            ((100, 200, 500_000_050, 300), Cost { cpu_percent: 0.0, memory: 0 }),
        ];
        for ((host_cpu, host_memory, guest_cpu, guest_memory), want) in rows {
            let second = Look { at: later, host_cpu, host_memory, guest_cpu, guest_memory };
            assert_eq!(cost(&first, &second), want);
        }
    }
}
