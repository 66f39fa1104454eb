//! What the API server takes, in time and memory: prints JSON.
//!
//! `cargo run --profile optimised -p osc-control-plane --example measure`
//!
//! The server is a process of its own (this program again), so that its memory is its own. All work goes over TLS.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use osc_control_plane::{Config, ControlPlane};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

const PODS: usize = 10_000;
const WATCHES: usize = 500;
const WRITERS: usize = 16;
/// Writes seen by all watches.
const TOLD: usize = 200;
const LISTS: usize = 5;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

#[tokio::main]
async fn main() -> Result<()> {
    if let Some(directory) = std::env::args_os().nth(1) {
        return serve(Path::new(&directory)).await;
    }
    let directory = tempfile::tempdir()?;
    let began = Instant::now();
    let mut server = start(directory.path()).await?;
    let (first_ready, idle) = (began.elapsed(), resident(&server)?);
    let client = client(directory.path()).await?;
    create(&client, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await?;
    eprintln!("creating {PODS} pods");
    let began = Instant::now();
    let pods = stream::iter(0..PODS).map(|at| create(&client, "/api/v1/namespaces/default/pods", pod(at)));
    pods.buffer_unordered(WRITERS).try_for_each(|()| async { Ok(()) }).await?;
    let writes = PODS as f64 / began.elapsed().as_secs_f64();
    let with_pods = resident(&server)?;
    eprintln!("listing them");
    let (list, bytes) = list(&client, "application/json").await?;
    let after_lists = resident(&server)?;
    let (table, table_bytes) = self::list(&client, TABLE).await?;
    let after_tables = resident(&server)?;
    eprintln!("writing while {WATCHES} watch");
    let (told_writes, last_told) = watch(&client).await?;
    let with_watches = resident(&server)?;
    eprintln!("starting again");
    server.kill().await?;
    let began = Instant::now();
    let mut server = start(directory.path()).await?;
    let (again_ready, again) = (began.elapsed(), resident(&server)?);
    server.kill().await?;
    let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    let mib = |bytes: u64| (bytes as f64 / 1024.0 / 102.4).round() / 10.0;
    let numbers = json!({
        "ready_ms": ms(first_ready), "ready_with_pods_ms": ms(again_ready),
        "rss_idle_mib": mib(idle), "rss_after_pods_mib": mib(with_pods), "rss_after_lists_mib": mib(after_lists),
        "rss_after_tables_mib": mib(after_tables), "rss_restarted_mib": mib(again),
        "pods": PODS, "creations_per_second": writes.round(),
        "list_ms": ms(list), "list_mib": mib(bytes as u64), "table_ms": ms(table), "table_mib": mib(table_bytes as u64),
        "watches": WATCHES, "rss_with_watches_mib": mib(with_watches),
        "writes_per_second_with_watches": told_writes.round(), "last_watch_told_after_ms": ms(last_told),
    });
    println!("{}", serde_json::to_string_pretty(&numbers)?);
    Ok(())
}

async fn serve(directory: &Path) -> Result<()> {
    let plane = ControlPlane::open(Config::new(directory)).await?;
    std::fs::write(directory.join("kubeconfig"), plane.administrator()?)?;
    println!("ready");
    // Ends with the parent.
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
    Ok(())
}

async fn start(directory: &Path) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let command = command.arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut server = command.spawn()?;
    let mut lines = BufReader::new(server.stdout.take().context("a pipe")?).lines();
    lines.next_line().await?.context("the server ended")?;
    Ok(server)
}

/// Bytes of memory a process has.
fn resident(process: &Child) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id().context("a living process")?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its memory")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

async fn client(directory: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(directory.join("kubeconfig"))?;
    Ok(Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?)
}

async fn create(client: &Client, path: &str, object: Value) -> Result<()> {
    let request = http::Request::post(path).header("content-type", "application/json");
    client.request::<Value>(request.body(object.to_string().into_bytes())?).await?;
    Ok(())
}

/// A pod of ordinary size.
fn pod(at: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{at}"), "labels": {"app": "measured"}},
        "spec": {"containers": [{"name": "c", "image": "registry.example.com/team/app:1.2.3",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "env": [{"name": "A", "value": "b"}], "ports": [{"containerPort": 8080}]}]}})
}

/// Median time of a list, and its size.
async fn list(client: &Client, accept: &str) -> Result<(Duration, usize)> {
    let mut times = Vec::new();
    let mut size = 0;
    for _ in 0..LISTS {
        let began = Instant::now();
        let request = http::Request::get("/api/v1/namespaces/default/pods").header("accept", accept);
        size = client.request_text(request.body(Vec::new())?).await?.len();
        times.push(began.elapsed());
    }
    times.sort();
    Ok((times[LISTS / 2], size))
}

/// Writes while many watch; writes each second, and how long after the last the last watch was told.
async fn watch(client: &Client) -> Result<(f64, Duration)> {
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let path = "/api/v1/namespaces/default/configmaps?watch=true&labelSelector=told%3Dyes";
        watches.push(client.request_stream(http::Request::get(path).body(Vec::new())?).await?);
    }
    let reading = watches.into_iter().map(|watch| tokio::spawn(watch.lines().take(TOLD).try_collect::<Vec<String>>()));
    let reading: Vec<_> = reading.collect();
    let began = Instant::now();
    for at in 0..TOLD {
        let map = json!({"metadata": {"name": format!("told-{at}"), "labels": {"told": "yes"}}, "data": {"k": "v"}});
        create(client, "/api/v1/namespaces/default/configmaps", map).await?;
    }
    let (took, written) = (began.elapsed(), Instant::now());
    for watch in reading {
        watch.await??;
    }
    Ok((TOLD as f64 / took.as_secs_f64(), written.elapsed()))
}
