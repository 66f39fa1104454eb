//! What the agent tells Prometheus: `kata_agent_*` about its own process and
//! `kata_guest_*` about the kernel of the guest.

mod guest;
mod process;
mod text;

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use osc_agent_protocol::Kind;
use tokio::task::spawn_blocking;

use text::Families;

/// Metrics that cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A file of the kernel cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread ended without an answer.
    #[error("reading metrics ended without a result: report this with the agent's log")]
    Died,
}

impl MetricsError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => Kind::of_io(source),
            Self::Died => Kind::Bug,
        }
    }
}

/// Gathers metrics when asked.
#[derive(Debug, Default)]
pub struct Metrics {
    scrapes: AtomicU64,
}

impl Metrics {
    /// All metrics in the Prometheus text format, read now.
    ///
    /// # Errors
    /// [`MetricsError`] when a file every kernel has cannot be read.
    pub async fn scrape(self: Arc<Self>) -> Result<String, MetricsError> {
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        // Some of the files take the kernel a while.
        spawn_blocking(move || {
            let mut families = Families::default();
            families.counter("kata_agent_scrape_count", "Scrapes served").add(&[], scrapes as f64);
            process::collect(&mut families)?;
            guest::collect(&mut families)?;
            Ok(families.into_text())
        })
        .await
        .map_err(|_| MetricsError::Died)?
    }
}

fn read(path: &str) -> Result<String, MetricsError> {
    fs::read_to_string(path).map_err(|source| MetricsError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_documented_family_is_there() {
        let metrics = Arc::new(Metrics::default());
        Arc::clone(&metrics).scrape().await.unwrap();
        let text = metrics.scrape().await.unwrap();
        for line in [
            "# TYPE kata_agent_scrape_count counter",
            "kata_agent_scrape_count 2",
            "# TYPE kata_agent_threads gauge",
            "# TYPE kata_agent_process_cpu_seconds_total counter",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line}");
        }
        for start in [
            "kata_agent_threads ",
            "kata_agent_total_time ",
            "kata_agent_total_vm ",
            "kata_agent_total_rss ",
            "kata_agent_io_stat{item=\"rchar\"} ",
            "kata_agent_proc_stat{item=\"utime\"} ",
            "kata_agent_proc_status{item=\"vmrss\"} ",
            "kata_agent_proc_status{item=\"nonvoluntary_ctxt_switches\"} ",
            "kata_agent_process_max_fds ",
            "kata_agent_process_open_fds ",
            "kata_agent_process_resident_memory_bytes ",
            "kata_agent_process_start_time_seconds ",
            "kata_agent_process_virtual_memory_bytes ",
            "kata_guest_load{item=\"load1\"} ",
            "kata_guest_tasks{item=\"max\"} ",
            "kata_guest_cpu_time{cpu=\"0\",item=\"user\"} ",
            "kata_guest_cpu_time{cpu=\"total\",item=\"guest_nice\"} ",
            "kata_guest_vm_stat{item=\"nr_free_pages\"} ",
            "kata_guest_netdev_stat{interface=\"lo\",item=\"recv_bytes\"} ",
            "kata_guest_netdev_stat{interface=\"lo\",item=\"sent_compressed\"} ",
            "kata_guest_meminfo{item=\"mem_total\"} ",
            "kata_guest_meminfo{item=\"mem_available\"} ",
        ] {
            assert!(text.lines().any(|seen| seen.starts_with(start)), "{start}");
        }
    }
}
