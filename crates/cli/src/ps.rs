//! `osc ps`: the pods of this root, those of the cluster's nodes among them.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use osc_node::{
    engine::Engine,
    pod::{Store, Summary},
};
use serde::Serialize;

use crate::{Context, Failure, node, output};

/// Arguments of `osc ps`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  osc ps\n  osc ps --json | jq -r '.[].addresses[0]'")]
pub struct Ps {
    /// Print the pods as JSON
    #[arg(long)]
    json: bool,
}

/// A pod, and the node of the cluster it runs on; none for `osc run`.
#[derive(Serialize)]
struct Shown {
    node: Option<String>,
    #[serde(flatten)]
    pod: Summary,
}

impl Ps {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut list = Vec::new();
        for (node, engine) in node::engines(context) {
            let pods = match node::running(&engine) {
                Some(pods) => pods.list().await?,
                None => remembered(&engine),
            };
            list.extend(pods.into_iter().map(|pod| Shown { node: node.clone(), pod }));
        }
        if self.json {
            output::json(&list)?;
        } else {
            let rows: Vec<_> = list.iter().map(row).collect();
            let header =
                ["NAMESPACE", "NAME", "RUNTIME", "STATUS", "READY", "RESTARTS", "ADDRESS", "AGE", "NODE", "SANDBOX"];
            output::table(header, &rows)?;
        }
        Ok(0)
    }
}

/// Without an engine nothing is known but what was asked for.
fn remembered(engine: &Engine) -> Vec<Summary> {
    let records = Store::new(engine.paths()).list();
    records.iter().map(Summary::without_engine).collect()
}

fn row(shown: &Shown) -> [String; 10] {
    let pod = &shown.pod;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    [
        pod.namespace.clone(),
        pod.name.clone(),
        pod.runtime.clone(),
        pod.status.to_owned(),
        format!("{}/{}", pod.ready.0, pod.ready.1),
        pod.restarts.to_string(),
        pod.addresses.first().map_or_else(|| "-".into(), ToString::to_string),
        age(now.saturating_sub(pod.created)),
        shown.node.clone().unwrap_or_else(|| "-".into()),
        pod.sandbox.as_deref().map_or_else(|| "-".into(), |id| id.chars().take(12).collect()),
    ]
}

/// A span of seconds the way people read it.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, want) in [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(age(seconds), want);
        }
    }
}
