//! An API server and one node, both in this process, with a real engine.

#[path = "../common/image.rs"]
pub mod image;
pub mod registry;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, ServiceAccount};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use osc_access::Identity;
use osc_control_plane::{Config, ControlPlane};
use osc_node::{
    agent::{Access, NodeAgent, Options},
    engine::Kata,
    logs::Selection,
};
use osc_runtime::dirs::Dirs;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Name of the image every pod can use.
pub const IMAGE: &str = "localhost/osc-test-busybox:1";
/// Name of the node.
pub const NODE: &str = "node1";
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A cluster below a temporary root.
pub struct Cluster {
    root: tempfile::TempDir,
    plane: ControlPlane,
    pub client: Client,
    agent: Option<NodeAgent>,
}

impl Cluster {
    pub async fn start() -> Self {
        let root = tempfile::tempdir().expect("tempdir");
        let plane = ControlPlane::open(Config::new(root.path().join("plane"))).await.expect("control plane");
        let client = Client::new(plane.service(Identity::administrator()), "default");
        let mut cluster = Self { root, plane, client, agent: None };
        cluster.start_agent().await;
        let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client.clone());
        let account = from(json!({"metadata": {"name": "default"}}));
        accounts.create(&PostParams::default(), &account).await.expect("account");
        cluster.config_map("kube-root-ca.crt", json!({"ca.crt": ""})).await;
        cluster.import(cluster.agent()).await;
        cluster
    }

    async fn import(&self, agent: &NodeAgent) {
        let archive = self.root.path().join("busybox.tar");
        fs::write(&archive, image::archive(IMAGE)).expect("write");
        let engine = agent.engine();
        engine.import(&engine.running().expect("engine"), &archive).await.expect("import");
    }

    pub async fn start_agent(&mut self) {
        self.agent = Some(self.run_node(NODE).await);
    }

    async fn run_node(&self, name: &str) -> NodeAgent {
        let kata = Kata { shim: "/usr/bin/false".into(), configuration: "# none\n".into() };
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let options = Options::new(name, address, Dirs::new(self.root.path().join(name)), Some(kata));
        NodeAgent::start(self.client.clone(), options, CancellationToken::new()).await.expect("agent")
    }

    /// Another node, for whoever asks to end.
    pub async fn node(&self, name: &str) -> NodeAgent {
        let agent = self.run_node(name).await;
        self.import(&agent).await;
        agent
    }

    pub async fn stop_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.stop().await;
        }
    }

    pub fn agent(&self) -> &NodeAgent {
        self.agent.as_ref().expect("an agent runs")
    }

    pub fn access(&self) -> Access {
        self.agent().access()
    }

    pub fn dir(&self, name: &str) -> std::path::PathBuf {
        let dir = self.root.path().join(name);
        fs::create_dir_all(&dir).expect("mkdir");
        dir
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    /// Creates a pod that is bound to a node.
    pub async fn create(&self, name: &str, mut spec: Value) -> Pod {
        if spec["nodeName"].is_null() {
            spec["nodeName"] = NODE.into();
        }
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        self.pods().create(&PostParams::default(), &from(pod)).await.expect("pod")
    }

    pub async fn config_map(&self, name: &str, data: Value) {
        let maps: Api<ConfigMap> = Api::default_namespaced(self.client.clone());
        let map = json!({"metadata": {"name": name}, "data": data});
        maps.create(&PostParams::default(), &from(map)).await.expect("config map");
    }

    pub async fn secret(&self, name: &str, kind: &str, data: Value) {
        let secrets: Api<Secret> = Api::default_namespaced(self.client.clone());
        let secret = json!({"metadata": {"name": name}, "type": kind, "stringData": data});
        secrets.create(&PostParams::default(), &from(secret)).await.expect("secret");
    }

    /// Waits until the status of a pod is as wanted.
    pub async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                let pod = self.pods().get(name).await.expect("pod");
                last = json!(pod);
                if wanted(&last["status"]) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        });
        let found = found.await;
        if found.is_err() {
            let events = self.events(name).await;
            panic!("pod {name} is not as wanted: {:#}\nevents: {events:#?}", last["status"]);
        }
        last
    }

    /// Waits until there is a pod of that name.
    pub async fn appears(&self, name: &str) {
        self.eventually(name, |pod| pod.is_some()).await;
    }

    /// Waits until there is none any more.
    pub async fn disappears(&self, name: &str) {
        self.eventually(name, |pod| pod.is_none()).await;
    }

    /// Waits until another pod has the name of `first`.
    pub async fn replaced(&self, first: &Value) {
        let (name, uid) = (&first["metadata"]["name"], first["metadata"]["uid"].as_str());
        let other = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.metadata.uid.as_deref() != uid);
        self.eventually(name.as_str().expect("name"), other).await;
    }

    async fn eventually(&self, name: &str, wanted: impl Fn(Option<&Pod>) -> bool) {
        let seen = async {
            while !wanted(self.pods().get_opt(name).await.expect("pod").as_ref()) {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(LIMIT, seen).await.unwrap_or_else(|_| panic!("pod {name} is not as wanted"));
    }

    /// Reasons and messages of the events of a pod.
    pub async fn events(&self, name: &str) -> Vec<(String, String)> {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let of = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let list = events.list(&of).await.expect("events");
        list.items.into_iter().map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect()
    }

    /// Waits for an event.
    pub async fn event(&self, name: &str, reason: &str, part: &str) {
        let there = async {
            while !self.events(name).await.iter().any(|(r, m)| r == reason && m.contains(part)) {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(LIMIT, there).await.is_err() {
            panic!("no event {reason} {part:?} of {name}: {:#?}", self.events(name).await);
        }
    }

    /// Deletes a pod and waits until it is gone.
    pub async fn delete(&self, name: &str) -> Duration {
        let begun = std::time::Instant::now();
        self.pods().delete(name, &DeleteParams::default()).await.expect("delete");
        let gone = async {
            while self.pods().get_opt(name).await.expect("pod").is_some() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(LIMIT, gone).await.expect("pod is gone");
        begun.elapsed()
    }

    /// What a container wrote.
    pub async fn logs(&self, pod: &Value, container: &str, previous: bool) -> String {
        let uid = pod["metadata"]["uid"].as_str().expect("uid");
        let logs = self.access().logs(uid, container, previous, Selection::default()).await.expect("logs");
        let bytes: Vec<bytes::Bytes> = logs.try_collect().await.expect("read");
        String::from_utf8(bytes.concat()).expect("text")
    }

    /// What a container of some node wrote so far.
    pub async fn read(&self, access: &Access, uid: &str, container: &str) -> String {
        let Ok(logs) = access.logs(uid, container, false, Selection::default()).await else { return String::new() };
        let bytes: Vec<bytes::Bytes> = logs.try_collect().await.expect("read");
        String::from_utf8(bytes.concat()).expect("text")
    }

    /// Ends everything; nothing may be left.
    pub async fn stop(mut self) {
        let engine = self.agent().engine().clone();
        self.stop_agent().await;
        self.plane.shutdown().await;
        engine.stop(true).await.expect("stop");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(&*self.root.path().to_string_lossy()), "mounts are left: {mounts}");
    }
}

/// A failed test must not leave an engine behind either.
impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(agent) = self.agent.take()
        {
            let engine = agent.engine().clone();
            let stop = move || tokio::runtime::Runtime::new().map(|runtime| runtime.block_on(engine.stop(true)));
            let _ = std::thread::spawn(stop).join();
        }
    }
}

pub fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}
