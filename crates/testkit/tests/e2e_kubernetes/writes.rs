//! Writes each second: a real API server with etcd, and the embedded one, asked by the
//! same client in the same way in the same run.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use osc_testkit::cluster::Cluster;
use serde_json::{Value, json};

use crate::kubernetes::{Kubernetes, node};

/// Objects of one round.
const OBJECTS: usize = 500;
/// Writers at a time.
const WRITERS: [usize; 2] = [1, 16];
const ROUNDS: usize = 3;

#[test]
fn writes_each_second_beside_a_real_api_server() {
    let kubernetes = Kubernetes::start();
    let embedded = Cluster::up_with(&["--workers", "1"]);
    let places = [kubernetes.root.join("kubeconfig"), embedded.root.join("kubeconfig")];
    println!("{:<28} {:>12} {:>12} {:>8}", "writes each second", "Kubernetes", "embedded", "ratio");
    for writers in WRITERS {
        // In turns, so that both see the same machine; the best of each counts.
        let mut best = [[0.0_f64; 2]; 2];
        for round in 0..ROUNDS {
            for (at, kubeconfig) in places.iter().enumerate() {
                let rates = measure(kubeconfig, writers, round);
                best[at] = [best[at][0].max(rates[0]), best[at][1].max(rates[1])];
            }
        }
        for (at, what) in ["create", "update"].into_iter().enumerate() {
            let (real, ours) = (best[0][at], best[1][at]);
            let name = format!("{what}, {writers} at a time");
            println!("{name:<28} {real:>12.0} {ours:>12.0} {:>8.2}", ours / real);
            assert!(real > 0.0 && ours > 0.0, "{name}");
        }
    }
    embedded.end();
    kubernetes.end();
}

/// Creations and updates each second.
fn measure(kubeconfig: &Path, writers: usize, round: usize) -> [f64; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = node::client(kubeconfig).await.unwrap();
        let name = |at: usize| format!("measured-{writers}-{round}-{at}");
        let created = rate(writers, |at| write(&client, name(at), "POST", "first")).await;
        let updated = rate(writers, |at| write(&client, name(at), "PUT", "second")).await;
        [created, updated]
    })
}

async fn rate<F: Future<Output = Result<Value, kube::Error>>>(writers: usize, write: impl Fn(usize) -> F) -> f64 {
    let began = Instant::now();
    let done = stream::iter(0..OBJECTS).map(write).buffer_unordered(writers).try_collect::<Vec<_>>();
    let done = tokio::time::timeout(Duration::from_secs(120), done).await.unwrap().unwrap();
    done.len() as f64 / began.elapsed().as_secs_f64()
}

/// Writes a ConfigMap of about a kilobyte.
async fn write(client: &Client, name: String, verb: &str, word: &str) -> Result<Value, kube::Error> {
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "measured"}},
        "data": {"word": word, "rest": "x".repeat(900)},
    });
    let place = "/api/v1/namespaces/default/configmaps";
    let path = if verb == "PUT" { format!("{place}/{name}") } else { place.into() };
    let request = http::Request::builder().method(verb).uri(path).header("content-type", "application/json");
    client.request(request.body(map.to_string().into_bytes()).unwrap()).await
}
