//! Killed between any two writes, refused writes, replicas.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::{coordination::v1::Lease, rbac::v1::ClusterRole};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use osc_access::Identity;
use osc_objects::{KataConfig, MachineConfig, MachineConfigPool};
use osc_operator::{LeaseTimes, Options};
use serde_json::json;
use tokio::{sync::Notify, time::timeout};
use tower::ServiceExt;

use crate::kit::{Operator, PATIENCE, World, degraded, options, run};

/// An operator whose second write to anything but leases and events never returns.
fn one_write(world: &World) -> (Operator, Arc<Notify>) {
    let inner = world.plane.service(Identity::administrator());
    let (stuck, writes) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let told = Arc::clone(&stuck);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (inner, told) = (inner.clone(), Arc::clone(&told));
        let counts =
            request.method() != "GET" && !["leases", "events"].iter().any(|kind| request.uri().path().contains(kind));
        let over = counts && writes.fetch_add(1, Ordering::SeqCst) >= 1;
        async move {
            if over {
                told.notify_one();
                std::future::pending::<()>().await;
            }
            inner.oneshot(request).await
        }
    });
    (run(Client::new(service, "default"), options()), stuck)
}

/// Lets the operator live for one write at a time until `done`.
async fn write_by_write(world: &World, done: impl AsyncFn() -> bool) -> usize {
    for lives in 1..60 {
        let (operator, stuck) = one_write(world);
        let settled = async {
            while !done().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let finished = tokio::select! {
            () = stuck.notified() => false,
            () = settled => true,
            () = tokio::time::sleep(PATIENCE) => panic!("neither a write nor the end"),
        };
        operator.kill().await;
        if finished {
            return lives;
        }
    }
    panic!("no end in sight")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_writes_it_goes_on() {
    let world = World::start().await;
    world.create_config("example", json!({"logLevel": "debug"})).await.expect("a first one");
    let lives = write_by_write(&world, async || {
        world.kata_nodes().await.len() == 2 && world.names::<osc_objects::ContainerRuntimeConfig>().await.len() == 1
    })
    .await;
    assert!(lives > 4, "it was killed between all of them, not only {lives} times");
    world.pool("kata-oc", 2, "rendered-kata-oc-1", false).await;
    for name in ["w0", "w1"] {
        world.set_node(name, "rendered-kata-oc-1", "Done", "").await;
    }
    let classes = async || world.names::<k8s_openapi::api::node::v1::RuntimeClass>().await.len() == 1;
    write_by_write(&world, classes).await;
    world.delete_config("example").await;
    write_by_write(&world, async || {
        world.names::<MachineConfig>().await.is_empty() && world.kata_nodes().await.is_empty()
    })
    .await;
    for name in ["w0", "w1"] {
        world.set_node(name, "rendered-worker-1", "Done", "").await;
    }
    write_by_write(&world, async || world.names::<KataConfig>().await.is_empty()).await;
    assert_eq!(world.names::<MachineConfigPool>().await, ["master", "worker"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_write_is_a_condition_and_loses_no_status() {
    let world = World::start().await;
    let roles: Api<ClusterRole> = Api::all(world.client.clone());
    let role = roles.get("sandboxed-containers-operator").await.expect("the role");
    let whole = serde_json::to_value(&role.rules).expect("rules");
    let rules: Vec<_> = role.rules.expect("rules");
    let fewer: Vec<_> = rules
        .into_iter()
        .filter(|rule| {
            !rule.resources.iter().flatten().any(|kind| kind == "machineconfigpools" && rule.resource_names.is_none())
        })
        .collect();
    let set = async |rules: serde_json::Value| {
        let patch = Patch::Merge(json!({"rules": rules}));
        roles.patch("sandboxed-containers-operator", &PatchParams::default(), &patch).await.expect("a role");
    };
    let mut readable = serde_json::to_value(fewer).expect("rules");
    readable.as_array_mut().expect("a list").push(json!({"apiGroups": ["machineconfiguration.openshift.io"],
        "resources": ["machineconfigpools"], "verbs": ["get", "list", "watch"]}));
    set(readable).await;
    world.create_config("example", json!({})).await.expect("a first one");
    let operator = world.operator(options()).await;
    let config = world.until_config("example", "APIFailure", |config| degraded(config) == "APIFailure").await;
    assert_eq!(crate::kit::state(&config), "True/Installing/0/0", "what was decided is kept");
    set(whole).await;
    world.until_config("example", "well again", |config| degraded(config) == "AsExpected").await;
    operator.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replicas_one_acts_and_the_other_takes_over_at_once() {
    let world = World::start().await;
    let leases: Api<Lease> = Api::all(world.client.clone());
    let holder = async || {
        let found = leases.list(&Default::default()).await.expect("leases").items;
        let lease = found
            .into_iter()
            .find(|lease| lease.metadata.name.as_deref() == Some("290f4947.kataconfiguration.openshift.io"));
        lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
    };
    let until_held_by = async |who: &str| {
        let waiting = async {
            while holder().await != who {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{who} never led"));
    };
    let lease = LeaseTimes { duration: Duration::from_secs(300), retry: Duration::from_millis(50) };
    let first = world.operator(Options { lease, ..options() }).await;
    until_held_by("first").await;
    let second = world.operator(Options { lease, identity: "second".into(), ..options() }).await;
    world.create_config("example", json!({})).await.expect("a first one");
    world.until_state("example", "True/Installing/0/0").await;
    assert_eq!(holder().await, "first");
    first.stop().await;
    until_held_by("second").await;
    second.stop().await;
    world.stop().await;
}
