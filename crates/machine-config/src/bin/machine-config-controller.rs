//! The machine-config controller, for clusters without OpenShift's.

use clap::Parser;
use kube::Client;
use osc_machine_config::{controller, service};

/// Renders pools and rolls them out. Never run it on OpenShift, which has its own.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Node this runs on; among masters it is updated last.
    #[arg(long, env = "NODE_NAME")]
    node: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    service::log();
    let client = Client::try_default().await?;
    let options = controller::Options { host: arguments.node, ..controller::Options::default() };
    controller::run(client, options, service::stopped()?).await?;
    Ok(())
}
