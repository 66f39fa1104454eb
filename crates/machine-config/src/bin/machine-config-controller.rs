//! The machine-config controller, for clusters without OpenShift's.

use std::net::SocketAddr;

use clap::Parser;
use kube::Client;
use osc_machine_config::controller;
use osc_service::program;

/// Renders pools and rolls them out. Never run it on OpenShift, which has its own.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Node this runs on; among masters it is updated last.
    #[arg(long, env = "NODE_NAME")]
    node: Option<String>,
    /// Name of this process among its replicas.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Namespace of the lease by which one replica leads.
    #[arg(long, env = "POD_NAMESPACE", default_value = osc_objects::names::NAMESPACE)]
    namespace: String,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    program::log();
    let client = Client::try_default().await?;
    let defaults = controller::Options::default();
    let options = controller::Options {
        host: arguments.node,
        identity: arguments.identity.unwrap_or(defaults.identity),
        namespace: arguments.namespace,
        metrics: arguments.metrics,
        ..controller::Options::default()
    };
    controller::run(client, options, program::stopped()?).await?;
    Ok(())
}
