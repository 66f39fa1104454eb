//! Random writes by many clients while the server is killed again and again.
//!
//! ```text
//!  writers ──► server (a process) ──► watchers
//!     │           ▲ SIGKILL, restart      │
//!     ▼           │                       ▼
//!  journals ──────┴──── compared ──── events, final lists
//! ```
//!
//! Each writer has objects of its own, so it knows what each of them must be. A write that was cut off is looked up
//! after the restart: it happened or it did not, and from then on that counts. The journals must be what watchers saw,
//! event by event, and what is there at the end.

mod check;
mod follower;
mod laggard;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use self::{follower::Follower, laggard::Laggard, writer::Writer};
use crate::{
    common,
    process::{self, Server},
};

const TEST: &str = "durability::no_acknowledged_write_is_lost_and_no_event_told_twice";
const CLIENTS: usize = 32;
/// How long nothing may happen before the test fails.
const STUCK: Duration = Duration::from_secs(60);

/// How much is done: enough for every run of the tests, or all of it with `OSC_FULL_SIZE=1`.
struct Size {
    writes: usize,
    kills: usize,
}

impl Size {
    fn wanted() -> Self {
        match std::env::var_os("OSC_FULL_SIZE") {
            Some(_) => Self { writes: 12_000, kills: 50 },
            None => Self { writes: 2_000, kills: 8 },
        }
    }

    /// Changes the store keeps: a watcher that stays away falls out of them a few times.
    fn history(&self) -> u64 {
        self.writes as u64 / 5
    }
}

/// A served process, told apart from those before it.
#[derive(Clone)]
struct Generation {
    number: usize,
    config: kube::Config,
}

/// What writers and watchers share.
#[derive(Clone)]
struct World {
    generations: watch::Receiver<Generation>,
    /// Writes begun; those beyond the wanted number are not.
    begun: Arc<AtomicUsize>,
    /// Writes acknowledged.
    acknowledged: Arc<AtomicUsize>,
    /// The newest version any client was told.
    newest: Arc<AtomicU64>,
    /// All writers have ended.
    finished: Arc<AtomicBool>,
}

impl World {
    fn now(&self) -> Generation {
        self.generations.borrow().clone()
    }

    /// Waits for a server after that of `number`.
    async fn next(&mut self, number: usize) -> Generation {
        let newer = self.generations.wait_for(|generation| generation.number > number);
        timeout(STUCK, newer).await.expect("the next server").expect("a test that goes on").clone()
    }
}

impl Generation {
    fn client(&self) -> Client {
        Client::try_from(self.config.clone()).unwrap()
    }
}

/// The kinds written: built-in ones, one of them with much admission, and a custom one.
const KINDS: [&str; 3] = ["ConfigMap", "Pod", "Widget"];

fn api(client: Client, kind: usize) -> Api<DynamicObject> {
    let (group, api_version, plural) =
        [("", "v1", "configmaps"), ("", "v1", "pods"), ("example.com", "example.com/v1", "widgets")][kind];
    let resource = ApiResource {
        group: group.into(),
        version: "v1".into(),
        api_version: api_version.into(),
        kind: KINDS[kind].into(),
        plural: plural.into(),
    };
    Api::namespaced_with(client, "default", &resource)
}

/// An object that holds a number, in a way that half of it would show.
fn object(kind: usize, name: &str, number: u64) -> DynamicObject {
    let mut object = match kind {
        0 => common::config_map(name),
        1 => common::pod(name),
        _ => json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 3}}),
    };
    object["metadata"]["annotations"] = annotations(number);
    serde_json::from_value(object).unwrap()
}

fn annotations(number: u64) -> Value {
    json!({"number": number.to_string(), "echo": echo(number)})
}

fn echo(number: u64) -> String {
    format!("{number} ").repeat(100)
}

/// The number an object holds; all of it must say so.
fn number(object: &DynamicObject) -> u64 {
    let annotations = object.metadata.annotations.as_ref().expect("annotations");
    let number = annotations["number"].parse().unwrap();
    assert_eq!(annotations["echo"], echo(number), "half an object");
    number
}

fn version(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_ref().expect("a version").parse().unwrap()
}

#[test]
fn no_acknowledged_write_is_lost_and_no_event_told_twice() {
    let size = Size::wanted();
    if !process::serves(|config| config.store.history = size.history()) {
        process::runtime().block_on(run(&size));
    }
}

async fn run(size: &Size) {
    let _alone = common::alone().await;
    let directory = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let mut server = Server::start(TEST, directory.path(), "").await;
    let first = Generation { number: 0, config: server.config().await };
    let start = prepare(first.client()).await;
    let (sender, generations) = watch::channel(first);
    let world = World {
        generations,
        begun: Arc::default(),
        acknowledged: Arc::default(),
        newest: Arc::new(AtomicU64::new(start)),
        finished: Arc::default(),
    };
    let mut followers = JoinSet::new();
    for kind in 0..KINDS.len() {
        followers.spawn(Follower::new(world.clone(), kind, start).run());
    }
    let laggard = tokio::spawn(Laggard::new(world.clone(), start, size.history()).run());
    let mut writers = JoinSet::new();
    for id in 0..CLIENTS {
        writers.spawn(Writer::new(world.clone(), id).run(size.writes));
    }
    let mut random = StdRng::seed_from_u64(11);
    for kill in 1..=size.kills {
        let due = size.writes * kill / (size.kills + 1);
        reached(&world, due).await;
        // Any moment of a write, a commit or an answer.
        tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await;
        server.kill().await;
        server = Server::start(TEST, directory.path(), "").await;
        sender.send_replace(Generation { number: kill, config: server.config().await });
    }
    let journals = timeout(STUCK, writers.join_all()).await.expect("writers that end");
    world.finished.store(true, Ordering::SeqCst);
    let client = world.now().client();
    for kind in 0..KINDS.len() {
        // Behind this nothing comes: watchers end when they see it.
        api(client.clone(), kind).create(&PostParams::default(), &object(kind, "end", 0)).await.unwrap();
    }
    let events = timeout(STUCK, followers.join_all()).await.expect("watchers that end");
    let lagged = timeout(STUCK, laggard).await.expect("a late watcher that ends").unwrap();
    let acknowledged = world.acknowledged.load(Ordering::SeqCst);
    assert!(acknowledged >= size.writes - size.kills * CLIENTS, "{acknowledged}");
    let cut_off: usize = journals.iter().map(|journal| journal.cut_off).sum();
    let late = lagged.lists.len();
    let log = check::compare(journals, events);
    check::late(&log, &lagged);
    check::final_lists(&log, client).await;
    println!(
        "{acknowledged} writes acknowledged, {cut_off} cut off, {} servers killed, {late} lists after 410, {:?}",
        size.kills,
        began.elapsed()
    );
    server.kill().await;
}

/// Creates what the objects need; returns from where to watch.
async fn prepare(client: Client) -> u64 {
    let post = |path: &str, body: Value| {
        let request = http::Request::post(path).header("content-type", "application/json");
        client.request::<Value>(request.body(body.to_string().into_bytes()).unwrap())
    };
    post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await.unwrap();
    post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", common::widgets()).await.unwrap();
    let list = async {
        loop {
            // Served within two seconds of the definition.
            if let Ok(list) = api(client.clone(), 2).list(&Default::default()).await {
                return list.metadata.resource_version.unwrap().parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(common::PATIENCE, list).await.expect("custom resources are served")
}

/// Waits until so many writes are begun.
async fn reached(world: &World, writes: usize) {
    let waiting = async {
        while world.begun.load(Ordering::SeqCst) < writes {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(STUCK, waiting).await.expect("writes go on");
}
