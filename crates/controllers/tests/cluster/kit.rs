//! A control plane with controllers and played nodes.

use std::{fmt::Debug, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Event, Node, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher},
};
use osc_access::Identity;
use osc_control_plane::{Config, ControlPlane};
use osc_controllers::Options;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Annotation of a pod that ends: `Succeeded` or `Failed`.
pub const ENDS: &str = "test/ends";
/// Annotation of a pod that never gets ready.
pub const SICK: &str = "test/sick";

/// Everything of one test.
pub struct Cluster {
    pub client: Client,
    plane: ControlPlane,
    options: Options,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
    controllers: Option<(CancellationToken, JoinHandle<()>)>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    /// A cluster with `nodes` nodes called n1, n2 …
    pub async fn start(nodes: usize) -> Self {
        Self::with(nodes, Options { ca_pem: "a certificate".into(), ..Options::default() }).await
    }

    pub async fn with(nodes: usize, options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let plane = ControlPlane::open(Config::new(directory.path())).await.expect("a control plane");
        let client = Client::new(plane.service(Identity::administrator()), "default");
        let stop = CancellationToken::new();
        let (running, controllers) = (Vec::new(), None);
        let mut cluster = Self { client, plane, options, stop, running, controllers, _directory: directory };
        for number in 1..=nodes {
            cluster.node(&format!("n{number}"), json!({"cpu": "4", "memory": "8Gi", "pods": "110"})).await;
        }
        cluster.running.push(tokio::spawn(play_nodes(cluster.client.clone(), cluster.stop.clone())));
        cluster.start_controllers();
        cluster.until(&cluster.all::<k8s_openapi::api::core::v1::ServiceAccount>(), "default", |_| true).await;
        cluster
    }

    pub fn start_controllers(&mut self) {
        let stop = CancellationToken::new();
        let run = osc_controllers::run(self.client.clone(), self.options.clone(), stop.clone());
        let task = tokio::spawn(async move { run.await.expect("controllers run until stopped") });
        self.controllers = Some((stop, task));
    }

    pub async fn stop_controllers(&mut self) {
        let Some((stop, task)) = self.controllers.take() else { return };
        stop.cancel();
        timeout(PATIENCE, task).await.expect("controllers stop").expect("without a panic");
    }

    pub async fn stop(mut self) {
        self.stop_controllers().await;
        self.stop.cancel();
        for task in self.running.drain(..) {
            timeout(PATIENCE, task).await.expect("played nodes stop").expect("without a panic");
        }
        timeout(PATIENCE, self.plane.shutdown()).await.expect("an orderly end");
    }

    /// A ready node and its lease.
    pub async fn node(&self, name: &str, allocatable: Value) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = object(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}));
        nodes.create(&PostParams::default(), &node).await.expect("a node");
        let status = json!({"status": {"allocatable": allocatable, "capacity": allocatable, "conditions": [
            {"type": "Ready", "status": "True", "reason": "Played", "lastHeartbeatTime": now()}]}});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a node status");
        // As the node agent does: a node starts with a taint until it is ready.
        let untainted = json!({"spec": {"taints": null}});
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(untainted)).await.expect("a node without taints");
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let lease = object(json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}}));
        leases.create(&PostParams::default(), &lease).await.expect("a lease");
    }

    pub fn all<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create<K>(&self, api: &Api<K>, value: Value) -> K
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned,
    {
        let made = api.create(&PostParams::default(), &object(value.clone())).await;
        made.unwrap_or_else(|error| panic!("{value} was refused: {error}"))
    }

    pub async fn merge<K>(&self, api: &Api<K>, name: &str, patch: Value) -> K
    where
        K: Resource + Clone + Debug + DeserializeOwned,
    {
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch")
    }

    pub async fn merge_status<K>(&self, api: &Api<K>, name: &str, patch: Value) -> K
    where
        K: Resource + Clone + Debug + DeserializeOwned,
    {
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a status patch")
    }

    /// Waits until an object is as wanted.
    pub async fn until<K>(&self, api: &Api<K>, name: &str, wanted: impl Fn(&K) -> bool) -> K
    where
        K: Resource + Clone + Debug + DeserializeOwned,
    {
        let mut last = None;
        let asking = async {
            loop {
                if let Some(found) = api.get_opt(name).await.expect("an answer") {
                    if wanted(&found) {
                        return found;
                    }
                    last = Some(found);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(PATIENCE, asking).await;
        match found {
            Ok(found) => found,
            Err(_) => panic!("{name} did not become what it should: {last:#?}"),
        }
    }

    pub async fn until_gone<K>(&self, api: &Api<K>, name: &str)
    where
        K: Resource + Clone + Debug + DeserializeOwned,
    {
        let asking = async {
            while api.get_metadata_opt(name).await.expect("an answer").is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, asking).await.is_err() {
            panic!("{name} is still there: {:#?}", api.get_metadata_opt(name).await);
        }
    }

    /// Waits until the pods with a label are as wanted.
    pub async fn until_pods(&self, label: &str, wanted: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
        let mut last = Vec::new();
        let asking = async {
            loop {
                last = self.pods(label).await;
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, asking).await.is_err() {
            let brief: Vec<_> =
                last.iter().map(|pod| (pod.name_any(), pod.metadata.clone(), pod.status.clone())).collect();
            panic!("pods {label} did not become what they should: {brief:#?}");
        }
        last
    }

    pub async fn pods(&self, label: &str) -> Vec<Pod> {
        self.all::<Pod>().list(&ListParams::default().labels(label)).await.expect("pods").items
    }

    /// Waits for an event with a reason about an object.
    pub async fn until_event(&self, about: &str, reason: &str) -> Event {
        let events: Api<Event> = self.all();
        let asking = async {
            loop {
                let fields = format!("involvedObject.name={about},reason={reason}");
                let found = events.list(&ListParams::default().fields(&fields)).await.expect("events");
                if let Some(event) = found.items.into_iter().next() {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("no event {reason} about {about}"))
    }
}

pub fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("test object")
}

pub fn now() -> String {
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}

pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Spec of a pod that asks for a little.
pub fn pod_spec(image: &str) -> Value {
    json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image}]})
}

/// Plays the node agent for all nodes.
async fn play_nodes(client: Client, stop: CancellationToken) {
    let all: Api<Pod> = Api::all(client.clone());
    let mut events = std::pin::pin!(watcher(all, watcher::Config::default()).default_backoff());
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        if let Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) = event {
            // The world may end while we write.
            let _ = play(&client, &pod).await;
        }
    }
}

async fn play(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let finished = matches!(phase.as_str(), "Succeeded" | "Failed");
    if is_deleting(pod) {
        if pod.metadata.deletion_grace_period_seconds != Some(0) {
            api.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        }
    } else if bound && let Some(end) = pod.annotations().get(ENDS).filter(|_| !finished) {
        let status = json!({"status": {"phase": end, "podIP": address(pod)}});
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    } else if bound && phase != "Running" && !finished {
        let ready = if pod.annotations().contains_key(SICK) { "False" } else { "True" };
        let status = json!({"status": {"phase": "Running", "podIP": address(pod), "podIPs": [{"ip": address(pod)}],
            "conditions": [{"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": ready, "lastTransitionTime": now()}]}});
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    Ok(())
}

/// An address derived from the uid.
fn address(pod: &Pod) -> String {
    let uid = pod.uid().unwrap_or_default();
    let number = |at: usize| uid.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(1);
    format!("10.{}.{}.{}", number(0), number(2), number(4))
}
