//! The machine-config daemon: a service of every node of a cluster without
//! OpenShift's.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Parser;
use kube::Client;
use osc_machine_config::{
    daemon::{self, Engine, Options, Systemd, host::Host, rules::Rule},
    service,
};

/// Makes this node what its desired configuration says.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Name of this node.
    #[arg(long, env = "NODE_NAME")]
    node: String,
    /// Directory of the packed payload for sandboxes.
    #[arg(long)]
    payload: Option<PathBuf>,
    /// JSON file with rules that override the built-in ones: a list of
    /// {"path", "actions", "drain"}.
    #[arg(long)]
    rules: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    service::log();
    let rules: Vec<Rule> = match &arguments.rules {
        None => Vec::new(),
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is no list of rules", path.display()))?
        }
    };
    let engine = Engine::of(&Host::new("/"));
    let actions = Arc::new(Systemd { engine: engine.unit().into() });
    let options =
        Options { payload: arguments.payload, engine: Some(engine), rules, ..Options::node(arguments.node, actions) };
    daemon::run(Client::try_default().await?, options, service::stopped()?).await?;
    Ok(())
}
