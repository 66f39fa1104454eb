//! Many clients, and clients that mean harm: those who behave are served within a second.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    common::{self, Cluster, PATIENCE, config_map},
    process::{self, Server},
    wire::{self, Probe, Who},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WATCHES: usize = 3000;
const CONNECTIONS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_watches_are_no_burden() {
    let cluster = Cluster::alone(|_| {}).await;
    let probe = Probe::start(cluster.client().await).await;
    let mut watches = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut sender = wire::connect_h2(&cluster).await;
        for _ in 0..WATCHES / CONNECTIONS {
            let version = "resourceVersion=1&resourceVersionMatch=NotOlderThan&sendInitialEvents=false";
            let answer = wire::get(&mut sender, &format!("{MAPS}?watch=true&{version}")).await;
            assert_eq!(answer.status(), 200);
            watches.push(answer.into_body());
        }
    }
    let (_, metrics) = cluster.get("/metrics").await;
    let count = format!("apiserver_longrunning_watches {WATCHES}");
    assert!(metrics.as_str().unwrap().contains(&count), "{metrics}");
    let began = Instant::now();
    cluster.create(MAPS, config_map("told-to-all")).await;
    for watch in &mut watches {
        let event = timeout(PATIENCE, watch.frame()).await.expect("an event in time").unwrap().unwrap();
        let event: Value = serde_json::from_slice(&event.into_data().unwrap()).unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("told-to-all")));
    }
    println!("{WATCHES} watches told within {:?}", began.elapsed());
    drop(watches);
    probe.finish("3,000 watches").await;
    cluster.stop().await;
}

/// A map of some size, another one each time.
fn big_map(at: usize) -> Value {
    json!({"metadata": {"name": "big"}, "data": {"at": at.to_string(), "filler": "x".repeat(100_000)}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_cut_off_and_holds_up_nobody() {
    const EVENTS: usize = 150;
    let cluster = Cluster::alone(|config| {
        // Much less than is written below.
        (config.store.history, config.store.recent) = (50, 50);
        (config.store.history_bytes, config.store.recent_bytes) = (2 << 20, 2 << 20);
    })
    .await;
    cluster.create(MAPS, big_map(0)).await;
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut stream = wire::connect_narrow(&cluster).await;
        wire::ask(&mut stream, &format!("{MAPS}?watch=true")).await;
        deaf.push(stream);
    }
    let mut attentive = cluster.watch(&format!("{MAPS}?watch=true")).await;
    let probe = Probe::start(cluster.client().await).await;
    for at in 0..=EVENTS {
        if at > 0 {
            let (code, _) = cluster.merge(&format!("{MAPS}/big"), big_map(at)).await;
            assert_eq!(code, 200);
        }
        let event = attentive.next().await.unwrap();
        assert_eq!(event["object"]["data"]["at"], at.to_string(), "who reads sees everything at once");
    }
    probe.finish("readers that do not read").await;
    for stream in deaf {
        let mut lines = BufReader::new(stream).lines();
        let (mut events, mut last) = (0, String::new());
        let reading = async {
            // Chunks are framed by lines of their own; the empty chunk is the clean end.
            while let Some(line) = lines.next_line().await.expect("no broken connection") {
                if line.starts_with('{') {
                    events += 1;
                    last = line;
                } else if line == "0" {
                    return;
                }
            }
            panic!("an end without the last chunk");
        };
        timeout(PATIENCE, reading).await.expect("an end");
        let last: Value = serde_json::from_str(&last).unwrap();
        assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(410)));
        assert!(events < EVENTS, "what was not read was not kept");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_take_nobodys_place() {
    let cluster = Cluster::alone(|config| (config.limits.connections, config.limits.handshakes) = (100, 30)).await;
    let probe = Probe::start(cluster.client().await).await;
    let mut half_open = Vec::new();
    for at in 0..300 {
        let mut stream = TcpStream::connect(cluster.plane.address()).await.unwrap();
        if at % 2 == 0 {
            // A record of a handshake that promises more than ever comes.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        half_open.push(stream);
    }
    for _ in 0..5 {
        let began = Instant::now();
        let mut stream = BufReader::new(wire::connect(&cluster, Who::Administrator).await);
        wire::ask(stream.get_mut(), MAPS).await;
        assert_eq!(wire::status(&mut stream).await, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    // The first ones had to go.
    let first = timeout(PATIENCE, half_open[0].read(&mut [0; 64])).await.expect("an end");
    assert!(matches!(first, Ok(0) | Err(_)), "{first:?}");
    probe.finish("half-open handshakes").await;
    cluster.stop().await;
}

#[test]
fn running_out_of_descriptors_passes() {
    if !process::serves(|_| {}) {
        process::runtime().block_on(exhaust_descriptors());
    }
}

async fn exhaust_descriptors() {
    let _alone = common::alone().await;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start("crowds::running_out_of_descriptors_passes", directory.path(), "ulimit -n 80").await;
    let config = server.config().await;
    let address = config.cluster_url.authority().unwrap().to_string();
    let client = kube::Client::try_from(config.clone()).unwrap();
    let probe = Probe::start(client).await;
    let mut strangers = Vec::new();
    for _ in 0..150 {
        strangers.push(TcpStream::connect(&address).await.unwrap());
    }
    // Nobody new gets in, those inside are served.
    let late = kube::Client::try_from(config.clone()).unwrap();
    let mut waiting = tokio::spawn(async move { late.apiserver_version().await });
    assert!(timeout(Duration::from_millis(500), &mut waiting).await.is_err(), "there was room after all");
    let freed = Instant::now();
    drop(strangers);
    timeout(PATIENCE, waiting).await.expect("there is room again").unwrap().unwrap();
    println!("served {:?} after descriptors were free", freed.elapsed());
    probe.finish("no descriptors left").await;
    server.kill().await;
}
