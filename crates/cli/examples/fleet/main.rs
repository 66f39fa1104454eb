//! What thousands of nodes cost: from a KataConfig to all nodes installed. Prints JSON.
//!
//! `make bench-fleet`, or
//! `cargo run --profile optimised -p osc-cli --example fleet -- [NODES [SECONDS]]`
//!
//! ```text
//!  this program ── nodes, KataConfig, played daemons ──┐
//!  osc-operator (a process) ───────────────────────────┼──TLS──► API server (a process)
//!  machine-config-controller (a process) ──────────────┘
//! ```
//!
//! The operator and the controller are the real ones; each is this program again, so that
//! its memory and time are its own. Daemons are played: each works for SECONDS, and asks
//! the API for what a real one asks, except that one watch serves them all. Requests are
//! counted by the API server; what this program asked for is taken off.

mod daemons;
mod process;
mod server;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use osc_machine_config::controller;
use osc_objects::{Conditions, KataConfig, MachineConfig, MachineConfigPool, names::kata};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{daemons::Daemons, process::Process};

const WRITERS: usize = 32;
/// How many nodes may be unavailable at once, in percent.
const AWAY_PERCENT: usize = 10;
/// How long nothing happens in the end, while nodes beat their hearts.
const IDLE: Duration = Duration::from_secs(30);
/// A kubelet reports a node that does not change this often.
const HEARTBEAT: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [process::ROLE, "server", directory] => server::run(Path::new(directory)).await,
        [process::ROLE, "operator", directory] => {
            let options = osc_operator::Options { namespace: "default".into(), ..osc_operator::Options::default() };
            let stop = process::until_parent_ends();
            Ok(osc_operator::run(process::client(Path::new(directory)).await?, options, stop).await?)
        }
        [process::ROLE, "controller", directory] => {
            let options = controller::Options { namespace: "default".into(), ..controller::Options::default() };
            let stop = process::until_parent_ends();
            Ok(controller::run(process::client(Path::new(directory)).await?, options, stop).await?)
        }
        [] => measure(5000, Duration::from_secs(10)).await,
        [nodes] => measure(nodes.parse()?, Duration::from_secs(10)).await,
        [nodes, seconds] => measure(nodes.parse()?, Duration::from_secs(seconds.parse()?)).await,
        _ => anyhow::bail!("usage: fleet [NODES [SECONDS]]"),
    }
}

async fn measure(count: usize, work: Duration) -> Result<()> {
    let directory = tempfile::tempdir_in("/dev/shm")?;
    let server = Process::start("server", directory.path()).await?;
    let (client, questions) = process::counted(directory.path()).await?;
    let (daemons_client, own) = process::counted(directory.path()).await?;
    eprintln!("creating {count} nodes");
    prepare(&client, count).await?;
    let stop = CancellationToken::new();
    let daemons = Arc::new(Daemons::new(daemons_client, work, stop.clone()));
    let playing = tokio::spawn(Arc::clone(&daemons).play());
    let operator = Process::start("operator", directory.path()).await?;
    let controller = Process::start("controller", directory.path()).await?;
    until(&client, "pools with nothing to do", async |client| settled(client, count).await).await?;

    eprintln!("installing");
    let count_now = async || {
        let all = server::requests(&client).await?;
        anyhow::Ok((all, own.load(Ordering::Relaxed), questions.load(Ordering::Relaxed)))
    };
    let cpu = || anyhow::Ok(operator.cpu()? + controller.cpu()?);
    let (before, spent_before, began) = (count_now().await?, cpu()?, Instant::now());
    install(&client).await?;
    until(&client, "all nodes installed", async |client| installed(client, count).await).await?;
    let (took, spent, after) = (began.elapsed(), cpu()? - spent_before, count_now().await?);
    let of_daemons = after.1 - before.1;
    let asked = (after.0 - before.0) - of_daemons - (after.2 - before.2);

    eprintln!("idle for {IDLE:?}");
    let (before, spent_before) = (count_now().await?, cpu()?);
    heartbeats(&client, count).await?;
    let (after, idle) = (count_now().await?, cpu()? - spent_before);
    let idle_requests = (after.0 - before.0) - (after.1 - before.1) - (after.2 - before.2);

    let waves = count.div_ceil((count * AWAY_PERCENT / 100).max(1));
    let needed = work * u32::try_from(waves)?;
    let mib = |bytes: u64| (bytes as f64 / 1024.0 / 102.4).round() / 10.0;
    let seconds = |time: Duration| (time.as_secs_f64() * 100.0).round() / 100.0;
    let each = |requests: u64| (requests as f64 / count as f64 * 100.0).round() / 100.0;
    let numbers = json!({
        "nodes": count, "node_works_s": seconds(work), "nodes_need_s": seconds(needed), "rollout_s": seconds(took),
        "rollout_ratio": (took.as_secs_f64() / needed.as_secs_f64() * 1000.0).round() / 1000.0,
        "most_away": daemons.most_away(),
        "operator_peak_mib": mib(operator.peak()?), "controller_peak_mib": mib(controller.peak()?),
        "operator_now_mib": mib(operator.resident()?), "controller_now_mib": mib(controller.resident()?),
        "operator_and_controller_cpu_s": seconds(spent),
        "requests_per_node": each(asked), "requests_per_node_of_daemons": each(of_daemons),
        "idle_cpu_percent": (idle.as_secs_f64() / IDLE.as_secs_f64() * 10_000.0).round() / 100.0,
        "idle_requests_per_minute": idle_requests as f64 * 60.0 / IDLE.as_secs_f64(),
        "server_peak_mib": mib(server.peak()?), "server_cpu_s": seconds(server.cpu()?),
    });
    println!("{}", serde_json::to_string_pretty(&numbers)?);
    stop.cancel();
    playing.await?;
    ensure!(daemons.most_away() <= (count * AWAY_PERCENT / 100).max(1), "more nodes were away than allowed");
    Ok(())
}

/// Definitions, and nodes as kubelets make them.
async fn prepare(client: &Client, count: usize) -> Result<()> {
    let api: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> =
        Api::all(client.clone());
    for definition in osc_objects::crds() {
        api.create(&PostParams::default(), &definition).await?;
    }
    until(client, "definitions", async |client| {
        let configs: Api<MachineConfig> = Api::all(client.clone());
        let katas: Api<KataConfig> = Api::all(client.clone());
        Ok(configs.list(&ListParams::default()).await.is_ok() && katas.list(&ListParams::default()).await.is_ok())
    })
    .await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let making = stream::iter(0..count).map(|at| {
        let nodes = nodes.clone();
        async move {
            let name = format!("node-{at:05}");
            let (node, status) = daemons::node(&name, at)?;
            nodes.create(&PostParams::default(), &node).await?;
            nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
            anyhow::Ok(())
        }
    });
    making.buffer_unordered(WRITERS).try_for_each(|()| async { Ok(()) }).await
}

async fn install(client: &Client) -> Result<()> {
    let configs: Api<KataConfig> = Api::all(client.clone());
    let config = json!({"apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig",
        "metadata": {"name": "fleet"}, "spec": {}});
    configs.create(&PostParams::default(), &serde_json::from_value(config)?).await?;
    until(client, "the pool", async |client| {
        let pools: Api<MachineConfigPool> = Api::all(client.clone());
        Ok(pools.get_opt(kata::POOL).await?.is_some())
    })
    .await?;
    let pools: Api<MachineConfigPool> = Api::all(client.clone());
    let limit = Patch::Merge(json!({"spec": {"maxUnavailable": format!("{AWAY_PERCENT}%")}}));
    pools.patch(kata::POOL, &PatchParams::default(), &limit).await?;
    Ok(())
}

/// Whether all nodes run what their pool says, before anything is installed.
async fn settled(client: &Client, count: usize) -> Result<bool> {
    let pools: Api<MachineConfigPool> = Api::all(client.clone());
    let Some(pool) = pools.get_opt("worker").await? else { return Ok(false) };
    if pool.spec.max_unavailable.is_none() {
        // They begin with nothing; that rollout is not what is measured.
        let all = Patch::Merge(json!({"spec": {"maxUnavailable": "100%"}}));
        pools.patch("worker", &PatchParams::default(), &all).await?;
    }
    let machines = pool.status.as_ref().map_or(0, |status| status.machine_count);
    Ok(pool.is("Updated") && pool.target().is_some() && usize::try_from(machines)? == count)
}

async fn installed(client: &Client, count: usize) -> Result<bool> {
    let configs: Api<KataConfig> = Api::all(client.clone());
    let status = configs.get("fleet").await?.status.unwrap_or_default();
    let idle = status.conditions.of("InProgress").is_some_and(|condition| condition.reason.is_empty());
    Ok(idle && usize::try_from(status.kata_nodes.ready_node_count)? == count)
}

/// Asks until it is so.
async fn until(client: &Client, what: &str, wanted: impl AsyncFn(&Client) -> Result<bool>) -> Result<()> {
    let limit = Duration::from_secs(3600);
    let asking = async {
        while !wanted(client).await? {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(limit, asking).await.with_context(|| format!("{what}: not within {limit:?}"))?
}

/// Reports of kubelets that nothing changed, as many as come in by themselves.
async fn heartbeats(client: &Client, count: usize) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let every = HEARTBEAT / u32::try_from(count)?;
    let (began, mut beats) = (Instant::now(), 0_usize);
    let mut clock = tokio::time::interval(every.max(Duration::from_millis(1)));
    while began.elapsed() < IDLE {
        clock.tick().await;
        let name = format!("node-{:05}", beats % count);
        let beat = daemons::conditions();
        nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": beat}))).await?;
        beats += 1;
    }
    Ok(())
}

/// An annotation of a node.
fn note<'a>(node: &'a Node, name: &str) -> &'a str {
    node.annotations().get(name).map(String::as_str).unwrap_or_default()
}

fn value(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
}
