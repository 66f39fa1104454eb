//! kube-rs as the client: objects, watches that outlive the server, controllers, server-side apply, leases.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::Lease,
        core::v1::{ConfigMap, Namespace, Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{Controller, WatchStreamExt, controller::Action, watcher},
};
use osc_access::Identity;
use serde_json::json;
use tokio::time::timeout;

use crate::common::{self, Cluster};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_works_over_tls_and_in_process() {
    let cluster = Cluster::start().await;
    let remote = cluster.client().await;
    let local = Client::new(cluster.plane.service(Identity::administrator()), "default");
    for (client, name) in [(remote, "remote"), (local, "local")] {
        objects_with_kube(&client, name).await;
        watch_with_kube(&client).await;
    }
    cluster.stop().await;
}

async fn objects_with_kube(client: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    assert_eq!(namespaces.list(&ListParams::default()).await.unwrap().items.len(), 4);
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map: ConfigMap = serde_json::from_value(common::config_map(name)).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let refused = maps.create(&PostParams::default(), &map).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.is_already_exists()), "{refused:?}");
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"more": "x"}});
    let patched = maps.patch(name, &PatchParams::apply("me"), &Patch::Apply(patch)).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    let partial = maps.get_metadata(name).await.unwrap();
    assert_eq!(partial.metadata.name.as_deref(), Some(name));
    maps.delete(name, &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt(name).await.unwrap().is_none());
}

async fn watch_with_kube(client: &Client) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let pod: Pod = serde_json::from_value(common::pod("p")).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let mut seen = watcher(pods.clone(), config).applied_objects().boxed();
        let first = timeout(common::PATIENCE, seen.try_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.metadata.name.as_deref(), Some("p"));
        let patch = Patch::Merge(json!({"metadata": {"labels": {"new": "label"}}}));
        pods.patch("p", &PatchParams::default(), &patch).await.unwrap();
        let next = timeout(common::PATIENCE, seen.try_next()).await.unwrap().unwrap().unwrap();
        assert!(next.metadata.labels.unwrap().contains_key("new"));
        pods.delete("p", &DeleteParams::default()).await.unwrap();
    }
}

/// Events of a watcher up to the end of a list: versions of what was there, and the errors on the way.
async fn relist(
    events: &mut (impl Stream<Item = watcher::Result<watcher::Event<ConfigMap>>> + Unpin),
) -> (Vec<String>, Vec<watcher::Error>) {
    let (mut listed, mut errors) = (Vec::new(), Vec::new());
    let listing = async {
        loop {
            match events.next().await.expect("watchers do not end") {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(map)) => listed.push(map.data.unwrap_or_default()["k"].clone()),
                Ok(watcher::Event::InitDone) => return,
                Ok(other) => panic!("{other:?} before a list"),
                Err(error) => errors.push(error),
            }
        }
    };
    timeout(common::PATIENCE, listing).await.expect("a list in time");
    (listed, errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_outlive_the_server_and_the_history() {
    let small = |config: &mut osc_control_plane::Config| {
        config.store.history = 20;
        config.store.recent = 20;
    };
    let cluster = Cluster::open(small).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let map =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let apply = |value: String| {
        let (maps, map) = (maps.clone(), map(&value));
        async move { maps.patch("a", &PatchParams::apply("t"), &Patch::Apply(map)).await.unwrap() }
    };
    apply("first".into()).await;
    let mut resuming = watcher(maps.clone(), watcher::Config::default()).default_backoff().boxed();
    let mut late = watcher(maps.clone(), watcher::Config::default()).default_backoff().boxed();
    assert_eq!(relist(&mut resuming).await.0, ["first"]);
    assert_eq!(relist(&mut late).await.0, ["first"]);
    let cluster = cluster.restart(small).await;
    apply("second".into()).await;
    // This one goes on from its version, as if nothing had happened.
    let going_on = async {
        loop {
            match resuming.next().await.unwrap() {
                Ok(watcher::Event::Apply(map)) => return map.data.unwrap()["k"].clone(),
                Ok(other) => panic!("{other:?}"),
                // The server was away.
                Err(_) => {}
            }
        }
    };
    assert_eq!(timeout(common::PATIENCE, going_on).await.unwrap(), "second");
    // The other looks again when its version is long gone.
    for at in 0..200 {
        apply(at.to_string()).await;
    }
    let (listed, errors) = relist(&mut late).await;
    assert_eq!(listed, ["199"]);
    let expired = |error: &watcher::Error| matches!(error, watcher::Error::WatchError(status) if status.code == 410);
    assert!(errors.iter().any(expired), "{errors:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_keep_what_they_own() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let (maps, secrets): (Api<ConfigMap>, Api<Secret>) =
        (Api::default_namespaced(client.clone()), Api::default_namespaced(client.clone()));
    let controller = Controller::new(maps.clone(), watcher::Config::default().labels("owner=yes"))
        .owns(secrets.clone(), watcher::Config::default())
        .run(keep_secret, |_, error, _| panic!("{error}"), Arc::new(secrets.clone()));
    let running = tokio::spawn(controller.for_each(|_| async {}));
    let mut map: ConfigMap = serde_json::from_value(common::config_map("parent")).unwrap();
    map.labels_mut().insert("owner".into(), "yes".into());
    let parent = maps.create(&PostParams::default(), &map).await.unwrap();
    let first = owned(&secrets, "").await;
    assert_eq!(first.owner_references()[0].uid, parent.uid().unwrap());
    secrets.delete("parent", &DeleteParams::default()).await.unwrap();
    let second = owned(&secrets, &first.uid().unwrap()).await;
    assert_ne!(first.uid(), second.uid(), "made anew");
    let patch = Patch::Merge(json!({"stringData": {"k": "changed"}}));
    secrets.patch("parent", &PatchParams::default(), &patch).await.unwrap();
    let right = async {
        while secrets.get("parent").await.unwrap().data.unwrap()["k"].0 != b"v" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(common::PATIENCE, right).await.expect("changed back");
    running.abort();
    cluster.stop().await;
}

/// Gives a map a secret of its own.
async fn keep_secret(map: Arc<ConfigMap>, secrets: Arc<Api<Secret>>) -> Result<Action, kube::Error> {
    let owner = map.controller_owner_ref(&()).expect("an object of the server has a name and a uid");
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": map.name_any(), "ownerReferences": [owner]}, "stringData": map.data});
    secrets.patch(&map.name_any(), &PatchParams::apply("keeper").force(), &Patch::Apply(secret)).await?;
    Ok(Action::await_change())
}

/// Waits for the secret of `parent`, another one than `not`.
async fn owned(secrets: &Api<Secret>, not: &str) -> Secret {
    let there = async {
        loop {
            match secrets.get_opt("parent").await.unwrap() {
                Some(secret) if secret.uid().as_deref() != Some(not) => return secret,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(common::PATIENCE, there).await.expect("the controller makes it")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applied_fields_belong_to_somebody() {
    let cluster = Cluster::start().await;
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client().await);
    let apply = async |manager: &str, force: bool, change: serde_json::Value| {
        let wanted = osc_patch::merge(&common::deployment("d"), &change).unwrap();
        let mut parameters = PatchParams::apply(manager);
        parameters.force = force;
        deployments.patch("d", &parameters, &Patch::Apply(wanted)).await
    };
    let first = apply("one", false, json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(first.spec.unwrap().replicas, Some(2));
    let kube::Error::Api(conflict) = apply("two", false, json!({"spec": {"replicas": 3}})).await.unwrap_err() else {
        panic!("a refusal of the server")
    };
    let cause = &conflict.details.as_ref().unwrap().causes[0];
    assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".spec.replicas"));
    assert!(cause.message.contains("\"one\""), "{}", cause.message);
    let forced = apply("two", true, json!({"spec": {"replicas": 3}})).await.unwrap();
    assert_eq!(forced.spec.unwrap().replicas, Some(3));
    let back = apply("one", false, json!({})).await.unwrap_err();
    assert!(matches!(&back, kube::Error::Api(status) if status.code == 409), "two has it now: {back:?}");
    // Whoever stops sending a field gives it up; what nobody has is gone.
    let without = apply("one", false, json!({"spec": {"replicas": null}})).await.unwrap();
    assert_eq!(without.spec.as_ref().unwrap().replicas, Some(3));
    assert_eq!(without.metadata.labels, None);
    cluster.stop().await;
}

/// One who would lead while he holds a lease.
struct Candidate {
    name: &'static str,
    leases: Api<Lease>,
    /// The lease as he last wrote it.
    held: Option<Lease>,
}

/// Time after which a lease that is not renewed is anybody's.
const LEASE: Duration = Duration::from_secs(1);

impl Candidate {
    /// Takes or renews the lease, as client-go does: nobody overwrites what he has not read.
    async fn leads(&mut self) -> bool {
        let now = Timestamp::now();
        let wanted = |metadata: ObjectMeta| -> Lease {
            let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": LEASE.as_secs(), "renewTime": MicroTime(now)});
            Lease { metadata, spec: Some(serde_json::from_value(spec).unwrap()) }
        };
        let written = match self.leases.get_opt("leader").await.unwrap() {
            None => {
                let metadata = ObjectMeta { name: Some("leader".into()), ..ObjectMeta::default() };
                self.leases.create(&PostParams::default(), &wanted(metadata)).await
            }
            Some(lease) => {
                let spec = lease.spec.clone().unwrap_or_default();
                let renewed = spec.renew_time.map_or(Timestamp::MIN, |time| time.0);
                let over = now.duration_since(renewed).unsigned_abs() > LEASE;
                if spec.holder_identity.as_deref() != Some(self.name) && !over {
                    self.held = None;
                    return false;
                }
                self.leases.replace("leader", &PostParams::default(), &wanted(lease.metadata)).await
            }
        };
        match written {
            Ok(lease) => self.held = Some(lease),
            Err(kube::Error::Api(status)) if status.code == 409 => self.held = None,
            Err(error) => panic!("{error}"),
        }
        self.held.is_some()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_at_a_time() {
    let cluster = Cluster::start().await;
    let leases: Api<Lease> = Api::default_namespaced(cluster.client().await);
    let candidate = |name| Candidate { name, leases: leases.clone(), held: None };
    let mut all = ["a", "b", "c", "d"].map(candidate);
    let [a, b, c, d] = &mut all;
    let (a, b, c, d) = tokio::join!(a.leads(), b.leads(), c.leads(), d.leads());
    assert_eq!([a, b, c, d].iter().filter(|leads| **leads).count(), 1, "of all who ask at once one leads");
    let [leader, other, ..] = &mut all;
    // Whoever it was lets go, the second takes over, and not before the lease is over.
    let (began, mut stale) = (Instant::now(), leases.get("leader").await.unwrap());
    let taking_over = async {
        while !other.leads().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(common::PATIENCE, taking_over).await.expect("the lease runs out");
    if stale.spec.as_ref().unwrap().holder_identity.as_deref() != Some(other.name) {
        assert!(began.elapsed() > LEASE / 2, "taken before it was over");
        assert!(!leader.leads().await, "the new one leads");
        stale.metadata.managed_fields = None;
        let refused = leases.replace("leader", &PostParams::default(), &stale).await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.is_conflict()), "{refused:?}");
    }
    cluster.stop().await;
}
