//! An API server with the definitions, the controller, and nodes whose daemons are
//! played or real.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use futures::StreamExt;
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod, ServiceAccount},
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use osc_access::Identity;
use osc_control_plane::{Config, ControlPlane};
use osc_machine_config::{controller, ignition, names, rights};
use osc_objects::{MachineConfig, MachineConfigPool};
use osc_service::leader::LeaseTimes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes this long.
pub const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "default";
/// Annotation of a played node that does not get on with an update.
pub const STUCK: &str = "test/stuck";
/// Annotation of a played node: the configuration it fails on.
pub const FAILS: &str = "test/fails";

/// Everything of one test.
pub struct Cluster {
    pub client: Client,
    pub nodes: Api<Node>,
    pub pools: Api<MachineConfigPool>,
    pub configs: Api<MachineConfig>,
    plane: ControlPlane,
    stop: CancellationToken,
    /// The controller that was there first.
    first: CancellationToken,
    running: Vec<JoinHandle<()>>,
    directory: tempfile::TempDir,
}

impl Cluster {
    /// A cluster whose nodes are played.
    pub async fn played(nodes: usize) -> Self {
        let mut cluster = Self::start().await;
        for number in 1..=nodes {
            cluster.node(&format!("n{number}"), "worker").await;
        }
        cluster.running.push(tokio::spawn(play(cluster.client.clone(), cluster.stop.clone())));
        cluster
    }

    pub async fn start() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let plane = ControlPlane::open(Config::new(directory.path().join("plane"))).await.expect("a control plane");
        let client = Client::new(plane.service(Identity::administrator()), "default");
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in osc_objects::machine_config_crds() {
            definitions.create(&PostParams::default(), &definition).await.expect("a definition");
            let name = definition.name_any();
            let established = kube::runtime::wait::conditions::is_crd_established();
            let wait = kube::runtime::wait::await_condition(definitions.clone(), &name, established);
            timeout(PATIENCE, wait).await.expect("in time").expect("a served definition");
        }
        let (stop, running) = (CancellationToken::new(), Vec::new());
        let (nodes, pools, configs) = (Api::all(client.clone()), Api::all(client.clone()), Api::all(client.clone()));
        let first = stop.child_token();
        let mut cluster = Self { client, nodes, pools, configs, plane, stop, first, running, directory };
        cluster.account(rights::CONTROLLER_ACCOUNT, rights::controller(), rights::controller_in_its_namespace()).await;
        cluster.account(rights::DAEMON_ACCOUNT, rights::daemon(), Vec::new()).await;
        cluster.controller("first", cluster.first.clone());
        for pool in ["master", "worker"] {
            cluster.until(&cluster.pools, pool, |_| true).await;
        }
        cluster
    }

    /// A controller with its own rights.
    pub fn controller(&mut self, identity: &str, stop: CancellationToken) {
        let options = controller::Options {
            identity: identity.into(),
            namespace: NAMESPACE.into(),
            lease: LeaseTimes { duration: Duration::from_secs(5), retry: Duration::from_millis(100) },
            settle: Duration::from_millis(50),
            drain_poll: Duration::from_millis(20),
            drain_retry: Duration::from_millis(50),
            ..controller::Options::default()
        };
        let run = controller::run(self.client_of(rights::CONTROLLER_ACCOUNT), options, stop);
        self.running.push(tokio::spawn(async move { run.await.expect("the controller runs until stopped") }));
    }

    /// Stops the controller that was there first.
    pub fn stop_first(&self) {
        self.first.cancel();
    }

    /// An account with exactly these rights.
    async fn account(&self, name: &str, everywhere: Vec<PolicyRule>, here: Vec<PolicyRule>) {
        let metadata = || ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        let subjects = || Some(vec![object(json!({"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}))]);
        let reference = |kind: &str| -> RoleRef {
            object(json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}))
        };
        let params = PostParams::default();
        let role = ClusterRole { metadata: metadata(), rules: Some(everywhere), ..ClusterRole::default() };
        Api::all(self.client.clone()).create(&params, &role).await.expect("a role");
        let binding =
            ClusterRoleBinding { metadata: metadata(), role_ref: reference("ClusterRole"), subjects: subjects() };
        Api::all(self.client.clone()).create(&params, &binding).await.expect("a binding");
        let role = Role { metadata: metadata(), rules: Some(here) };
        Api::namespaced(self.client.clone(), NAMESPACE).create(&params, &role).await.expect("a role");
        let binding = RoleBinding { metadata: metadata(), role_ref: reference("Role"), subjects: subjects() };
        Api::namespaced(self.client.clone(), NAMESPACE).create(&params, &binding).await.expect("a binding");
    }

    /// A client with an account's rights.
    pub fn client_of(&self, account: &str) -> Client {
        Client::new(self.plane.service(Identity::service_account(NAMESPACE, account, "a-uid")), "default")
    }

    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub fn also(&mut self, task: JoinHandle<()>) {
        self.running.push(task);
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        for task in self.running.drain(..) {
            timeout(PATIENCE, task).await.expect("everything stops").expect("without a panic");
        }
        timeout(PATIENCE, self.plane.shutdown()).await.expect("an orderly end");
    }

    /// A ready node with a role.
    pub async fn node(&self, name: &str, role: &str) {
        let node =
            object(json!({"metadata": {"name": name, "labels": {format!("node-role.kubernetes.io/{role}"): ""}}}));
        self.nodes.create(&PostParams::default(), &node).await.expect("a node");
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Played"}]}});
        self.nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a node status");
        self.change(&self.nodes, name, json!({"spec": {"taints": null}})).await;
    }

    /// A running pod on a node; `owner` is the kind of what made it.
    pub async fn pod(&self, name: &str, node: &str, owner: Option<&str>) -> Api<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let owners: Vec<Value> = owner
            .map(|kind| json!({"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "u", "controller": true}))
            .into_iter()
            .collect();
        let pod = json!({"metadata": {"name": name, "labels": {"app": "a"}, "ownerReferences": owners},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "serviceAccountName": "default",
                "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}});
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), NAMESPACE);
        if accounts.get_opt("default").await.expect("an answer").is_none() {
            let account = object(json!({"metadata": {"name": "default"}}));
            accounts.create(&PostParams::default(), &account).await.expect("a service account");
        }
        pods.create(&PostParams::default(), &object(pod)).await.expect("a pod");
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a pod status");
        pods
    }

    /// A disruption budget of all such pods, under which nobody may go.
    pub async fn budget(&self) {
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), NAMESPACE);
        let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}});
        let budget = object(json!({"metadata": {"name": "b"}, "spec": spec}));
        budgets.create(&PostParams::default(), &budget).await.expect("a budget");
        self.allow(0).await;
    }

    /// Lets so many pods of the budget go.
    pub async fn allow(&self, count: i32) {
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), NAMESPACE);
        let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": count, "currentHealthy": 2,
            "desiredHealthy": 1, "expectedPods": 2}});
        budgets.patch_status("b", &PatchParams::default(), &Patch::Merge(status)).await.expect("a budget status");
    }

    /// A MachineConfig with one file.
    pub async fn file(&self, name: &str, role: &str, path: &str, text: &str) {
        let contents = json!({"source": ignition::data_url(text.as_bytes())});
        let spec = json!({"config": {"ignition": {"version": "3.2.0"},
            "storage": {"files": [{"path": path, "contents": contents}]}}});
        self.config(name, role, spec).await;
    }

    pub async fn config(&self, name: &str, role: &str, spec: Value) {
        let config = json!({"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig",
            "metadata": {"name": name, "labels": {names::ROLE: role}}, "spec": spec});
        let params = PatchParams::apply("test").force();
        self.configs.patch(name, &params, &Patch::Apply(config)).await.expect("a MachineConfig");
    }

    /// The pool for sandboxes, as its operator makes it.
    pub async fn kata_pool(&self) {
        let pool = json!({"metadata": {"name": "kata-oc", "labels": {format!("{}kata-oc", names::POOL_PREFIX): ""}},
            "spec": {"machineConfigSelector": {"matchExpressions": [
                    {"key": names::ROLE, "operator": "In", "values": ["kata-oc", "worker"]}]},
                "nodeSelector": {"matchLabels": {"node-role.kubernetes.io/kata-oc": ""}}}});
        self.pools.create(&PostParams::default(), &object(pool)).await.expect("a pool");
    }

    pub async fn change<K>(&self, api: &Api<K>, name: &str, patch: Value)
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned,
    {
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a change");
    }

    pub async fn annotate(&self, node: &str, name: &str, value: Option<&str>) {
        self.change(&self.nodes, node, json!({"metadata": {"annotations": {name: value}}})).await;
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
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = timeout(PATIENCE, asking).await;
        found.unwrap_or_else(|_| panic!("{name} did not become what it should: {last:#?}"))
    }

    pub async fn until_gone<K>(&self, api: &Api<K>, name: &str)
    where
        K: Resource + Clone + Debug + DeserializeOwned,
    {
        let asking = async {
            while api.get_opt(name).await.expect("an answer").is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{name} is still there"));
    }

    /// Waits until all nodes of a pool run its target, of which there are `nodes`.
    pub async fn until_updated(&self, pool: &str, nodes: i32) -> MachineConfigPool {
        self.until(&self.pools, pool, |pool| {
            let reached = pool.status.as_ref().and_then(|status| status.configuration.as_ref());
            pool.is("Updated")
                && pool.target().is_some()
                && reached.map(|reached| reached.name.as_str()) == pool.target()
                && pool.status.as_ref().is_some_and(|status| status.machine_count == nodes)
        })
        .await
    }

    /// Waits until a pool has another target than `old`.
    pub async fn until_retargeted(&self, pool: &str, old: &str) -> String {
        let found = self.until(&self.pools, pool, |pool| pool.target().is_some_and(|target| target != old)).await;
        found.target().unwrap_or_default().to_owned()
    }

    /// Nodes by name.
    pub async fn all_nodes(&self) -> BTreeMap<String, Node> {
        let nodes = self.nodes.list(&ListParams::default()).await.expect("nodes").items;
        nodes.into_iter().map(|node| (node.name_any(), node)).collect()
    }
}

pub fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("test object")
}

pub fn note(node: &Node, name: &str) -> String {
    node.annotations().get(name).cloned().unwrap_or_default()
}

/// Plays the daemons of all nodes: they adopt, work, and are done at once.
async fn play(client: Client, stop: CancellationToken) {
    let nodes: Api<Node> = Api::all(client);
    let mut events = std::pin::pin!(watcher(nodes.clone(), watcher::Config::default()).default_backoff());
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        if let Some(Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node))) = event {
            let Some(annotations) = played(&node) else { continue };
            let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
            // The world may end while we write.
            let _ = nodes.patch(&node.name_any(), &PatchParams::default(), &patch).await;
        }
    }
}

fn played(node: &Node) -> Option<Value> {
    let (current, desired, state) = (note(node, names::CURRENT), note(node, names::DESIRED), note(node, names::STATE));
    let stuck = !note(node, STUCK).is_empty();
    let fails = note(node, FAILS) == desired;
    match state.as_str() {
        _ if current.is_empty() => {
            Some(json!({names::CURRENT: names::BASELINE, names::DESIRED: names::BASELINE, names::STATE: "Done"}))
        }
        _ if current == desired && state == "Done" => None,
        "Degraded" if fails => None,
        _ if fails && !desired.is_empty() => Some(json!({names::STATE: "Degraded", names::REASON: "it is bad"})),
        "Working" if stuck => None,
        "Working" => Some(json!({names::CURRENT: desired, names::STATE: "Done", names::REASON: ""})),
        _ => Some(json!({names::STATE: "Working", names::REASON: ""})),
    }
}
