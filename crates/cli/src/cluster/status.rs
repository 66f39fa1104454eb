//! `osc status`: the cluster at a glance.

use clap::Args;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use osc_agent_protocol::Kind;
use serde::Serialize;

use super::{
    instance::Instance,
    layout::Layout,
    nodes::is_ready,
    rollout::{self, KataReport, PoolReport},
};
use crate::{Context, Failure, output};

/// Arguments of `osc status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 1 when no cluster runs.

Examples:
  osc status
  export KUBECONFIG=$(osc status --kubeconfig)")]
pub struct Status {
    /// Print as JSON
    #[arg(long, conflicts_with = "kubeconfig")]
    json: bool,
    /// Print only the path of the kubeconfig
    #[arg(long)]
    kubeconfig: bool,
}

/// What is shown.
#[derive(Debug, Serialize)]
struct Report {
    server: String,
    pid: i32,
    kubeconfig: String,
    nodes: Vec<NodeReport>,
    kataconfigs: Vec<KataReport>,
    pools: Vec<PoolReport>,
}

/// One node.
#[derive(Debug, Serialize)]
struct NodeReport {
    name: String,
    ready: bool,
    address: String,
    pods: usize,
    sandboxes: usize,
    /// What happens to it, or keeps it from happening; empty at rest.
    doing: String,
    /// Why it did not become what its pool asks for; empty if nothing failed.
    failure: String,
}

impl Status {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let layout = Layout::new(&context.dirs);
        let kubeconfig = layout.kubeconfig().display().to_string();
        if self.kubeconfig {
            output::line(&kubeconfig)?;
            return Ok(0);
        }
        let Some(instance) = Instance::running(&layout.instance()) else {
            if self.json {
                output::json(&serde_json::Value::Null)?;
            } else {
                output::line("no cluster runs: start one with `osc up`")?;
            }
            return Ok(1);
        };
        if !instance.is_ready() {
            return Err(Failure::new(Kind::Busy, format!("the cluster is not up yet: {}", instance.step)));
        }
        let client = client(&layout).await?;
        let (kataconfigs, pools) = rollout::look(&client).await?;
        let nodes = nodes(&client).await?;
        let report = Report { nodes, server: instance.server, pid: instance.pid, kubeconfig, kataconfigs, pools };
        if self.json {
            output::json(&report)?
        } else {
            print(&report)?
        }
        Ok(0)
    }
}

async fn client(layout: &Layout) -> Result<Client, Failure> {
    let unusable = |error: Box<dyn std::error::Error + Send + Sync>| Failure::new(Kind::Unavailable, error);
    let file = Kubeconfig::read_from(layout.kubeconfig()).map_err(|error| unusable(error.into()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| unusable(error.into()))?;
    Client::try_from(config).map_err(|error| unusable(error.into()))
}

async fn nodes(client: &Client) -> Result<Vec<NodeReport>, Failure> {
    let failed = |error| Failure::new(Kind::Unavailable, error);
    let all = ListParams::default();
    let nodes = Api::<Node>::all(client.clone()).list(&all).await.map_err(failed)?;
    let pods = Api::<Pod>::all(client.clone()).list(&all).await.map_err(failed)?;
    Ok(nodes.items.iter().map(|node| report(node, &pods.items)).collect())
}

fn report(node: &Node, pods: &[Pod]) -> NodeReport {
    let name = node.metadata.name.clone().unwrap_or_default();
    let on_it = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(name.as_str()));
    let here: Vec<&Pod> = pods.iter().filter(on_it).collect();
    let sandboxed = |pod: &&&Pod| pod.spec.as_ref().is_some_and(|spec| spec.runtime_class_name.is_some());
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let internal = addresses.into_iter().flatten().find(|address| address.type_ == "InternalIP");
    NodeReport {
        ready: is_ready(node),
        address: internal.map(|address| address.address.clone()).unwrap_or_default(),
        pods: here.len(),
        sandboxes: here.iter().filter(sandboxed).count(),
        doing: rollout::node(node, &here),
        failure: rollout::failure(node),
        name,
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    output::line(format_args!("control plane  {} (process {})", report.server, report.pid))?;
    output::line(format_args!("kubeconfig     {}", report.kubeconfig))?;
    // A failure is told once, on the line of whom it befell.
    let of_nodes: Vec<String> = report.nodes.iter().map(|node| node.failure.clone()).collect();
    let of_pools = report.pools.iter().map(|pool| pool.message(&of_nodes));
    let of_all: Vec<String> = of_nodes.iter().cloned().chain(of_pools).collect();
    report.kataconfigs.iter().try_for_each(|config| output::line(config.line(&of_all)))?;
    report.pools.iter().filter(|pool| pool.matters()).try_for_each(|pool| output::line(pool.line(&of_nodes)))?;
    let mut busy = report.nodes.iter().filter(|node| !node.doing.is_empty());
    busy.try_for_each(|node| output::line(format_args!("node           {}: {}", node.name, node.doing)))?;
    output::line("")?;
    let rows: Vec<_> = report.nodes.iter().map(row).collect();
    output::table(["NODE", "STATUS", "ADDRESS", "PODS", "SANDBOXES"], &rows)
}

fn row(node: &NodeReport) -> [String; 5] {
    let status = if node.ready { "Ready" } else { "NotReady" };
    [node.name.clone(), status.into(), node.address.clone(), node.pods.to_string(), node.sandboxes.to_string()]
}
