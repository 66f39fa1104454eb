//! `osc down`: delete pods, or everything this root started.

use clap::Args;
use futures::future::join_all;
use osc_node::{
    engine::Engine,
    pod::{PodError, Pods, Record},
};

use crate::{
    Context, Failure,
    cluster::stop::{Stopped, stop},
    node, output,
    progress::Progress,
};

/// Arguments of `osc down`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without names, the cluster, all pods, the engine and its network go, and what is left, if
anything, is named. Images, the guest and the objects of the cluster stay unless
--purge is given.

Examples:
  osc down hello-openshift
  osc down
  osc down --purge")]
pub struct Down {
    /// Pods to delete: name, namespace/name, or the beginning of a sandbox's id
    #[arg(value_name = "SANDBOX", conflicts_with = "purge")]
    sandboxes: Vec<String>,
    /// Remove images, guest and everything else that was stored, too
    #[arg(long)]
    purge: bool,
}

impl Down {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        if self.sandboxes.is_empty() { everything(context, self.purge).await } else { self.some(context).await }
    }

    async fn some(self, context: &Context) -> Result<u8, Failure> {
        // A pod outlives its engine, so the engine may have to be started for it.
        let (_, pods) = node::start(context).await?;
        let mut records = Vec::new();
        for name in &self.sandboxes {
            records.push(pods.find(name).await?);
        }
        delete(&pods, &records).await?;
        for record in &records {
            output::line(format_args!("pod {} deleted", record.full_name()))?;
        }
        Ok(0)
    }
}

async fn everything(context: &Context, purge: bool) -> Result<u8, Failure> {
    let progress = Progress::new();
    // Each part is taken down, whatever became of the one before.
    let cluster = stop(context, purge, &progress).await;
    let count = pods_and_engine(context, purge, &progress).await;
    drop(progress);
    output::line(outcome(cluster?, count?))?;
    Ok(0)
}

/// What has been done, in one line. Pods of a cluster are stopped, not deleted: their
/// objects stay.
fn outcome(cluster: Stopped, deleted: usize) -> String {
    let mut parts = Vec::new();
    if cluster.nodes > 0 {
        parts.push(format!("cluster of {} stopped with {}", of(cluster.nodes, "node"), of(cluster.pods, "pod")));
    }
    if cluster.nodes == 0 || deleted > 0 {
        parts.push(format!("{} deleted", of(deleted, "pod")));
    }
    format!("{}, engine stopped, nothing left", parts.join(", "))
}

fn of(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// What `osc run` started. The number of pods.
async fn pods_and_engine(context: &Context, purge: bool, progress: &Progress) -> Result<usize, Failure> {
    let engine = Engine::new(context.dirs.clone());
    let mut deleted = Ok(());
    let mut count = 0;
    if let Some(pods) = node::running(&engine) {
        let records = pods.store().list();
        count = records.len();
        for record in &records {
            progress.step(format_args!("deleting pod {}", record.full_name()));
        }
        deleted = delete(&pods, &records).await;
        if deleted.is_ok() {
            deleted = pods.delete_unknown().await;
        }
    }
    progress.step("stopping the engine");
    node::end(&engine, purge, deleted).await?;
    Ok(count)
}

/// Deletes pods side by side; the first failure if there was any.
async fn delete(pods: &Pods, records: &[Record]) -> Result<(), PodError> {
    let results = join_all(records.iter().map(|record| pods.take_and_delete(record))).await;
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_was_done() {
        for (nodes, pods, deleted, want) in [
            (0, 0, 2, "2 pods deleted"),
            (0, 0, 0, "0 pods deleted"),
            (1, 1, 0, "cluster of 1 node stopped with 1 pod"),
            (3, 7, 1, "cluster of 3 nodes stopped with 7 pods, 1 pod deleted"),
        ] {
            let want = format!("{want}, engine stopped, nothing left");
            assert_eq!(outcome(Stopped { nodes, pods }, deleted), want);
        }
    }
}
