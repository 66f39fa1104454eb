//! The machine-config daemon: a service of every node of a cluster without
//! OpenShift's, or a pod on it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::{Parser, Subcommand};
use kube::Client;
use osc_machine_config::{
    daemon::{self, Engine, Options, Systemd, host::Host, rules::Rule},
    payload,
};
use osc_service::program;

/// Makes this node what its desired configuration says.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Name of this node.
    #[arg(long, env = "NODE_NAME", required = true)]
    node: Option<String>,
    /// Directory of the packed payload for sandboxes, as a path of the node.
    #[arg(long)]
    payload: Option<PathBuf>,
    /// JSON file with rules that override the built-in ones: a list of
    /// {"path", "actions", "drain"}.
    #[arg(long)]
    rules: Option<PathBuf>,
    /// Where the file system of the node is, for a daemon in a container: it becomes the
    /// daemon's own.
    #[arg(long)]
    root: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

#[derive(Subcommand)]
enum Command {
    /// Copy a packed payload, replacing the one that is there.
    Stage {
        /// Directory of the packed payload.
        from: PathBuf,
        /// Directory to make.
        to: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    program::log();
    if let Some(Command::Stage { from, to }) = &arguments.command {
        let manifest = payload::stage(from, to).context("cannot stage the payload")?;
        tracing::info!(version = manifest.version, "payload staged");
        return Ok(());
    }
    let rules: Vec<Rule> = match &arguments.rules {
        None => Vec::new(),
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is no list of rules", path.display()))?
        }
    };
    // Before there are threads: all of them must be inside.
    if let Some(root) = &arguments.root {
        program::enter(root).with_context(|| format!("cannot make {} the root directory", root.display()))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads")?;
    runtime.block_on(run(arguments, rules))
}

async fn run(arguments: Arguments, rules: Vec<Rule>) -> anyhow::Result<()> {
    let engine = Engine::of(&Host::new("/"));
    let actions = Arc::new(Systemd { engine: engine.unit().into() });
    let node = arguments.node.context("no name of a node")?;
    let options = Options {
        payload: arguments.payload,
        engine: Some(engine),
        rules,
        metrics: arguments.metrics,
        ..Options::node(node, actions)
    };
    daemon::run(Client::try_default().await?, options, program::stopped()?).await?;
    Ok(())
}
