//! A control plane with the operator's own manifests, and a hand for what it does not do.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Node, ServiceAccount},
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use osc_access::Identity;
use osc_control_plane::ControlPlane;
use osc_objects::{Conditions, KataConfig, MachineConfigPool, names};
use osc_operator::{LeaseTimes, Options, bundle};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes this long.
pub const PATIENCE: Duration = Duration::from_secs(45);
pub const NAMESPACE: &str = names::NAMESPACE;
const ACCOUNT: &str = "controller-manager";
const PREFIX: &str = "machineconfiguration.openshift.io";

/// Everything of one test.
pub struct World {
    /// The administrator.
    pub client: Client,
    pub plane: ControlPlane,
    controllers: (CancellationToken, JoinHandle<()>),
    _directory: tempfile::TempDir,
}

/// A running operator.
pub struct Operator {
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

impl World {
    /// Workers w0 and w1, a control-plane node, idle pools, manifests.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let plane =
            ControlPlane::open(osc_control_plane::Config::new(directory.path())).await.expect("a control plane");
        let client = Client::new(plane.service(Identity::administrator()), "default");
        let stop = CancellationToken::new();
        // Owned objects go with their owners.
        let run = osc_controllers::run(client.clone(), osc_controllers::Options::default(), stop.clone());
        let task = tokio::spawn(async move { run.await.expect("controllers run until stopped") });
        let world = Self { client, plane, controllers: (stop, task), _directory: directory };
        world.apply_manifests().await;
        world.until::<KataConfig>(None, "its definition", |found| found.is_empty()).await;
        world.node("m0", "master", "rendered-master-1").await;
        world.node("w0", "worker", "rendered-worker-1").await;
        world.node("w1", "worker", "rendered-worker-1").await;
        world.pool("worker", 2, "rendered-worker-1", false).await;
        world.pool("master", 1, "rendered-master-1", false).await;
        world
    }

    pub async fn stop(self) {
        let (stop, task) = self.controllers;
        stop.cancel();
        timeout(PATIENCE, task).await.expect("controllers stop").expect("without a panic");
        timeout(PATIENCE, self.plane.shutdown()).await.expect("an orderly end");
    }

    /// What an administrator does with the bundle. The webhook's Service has nobody behind it
    /// here, and nobody serves the kinds of Prometheus: such objects are only checked, or not at all.
    async fn apply_manifests(&self) {
        for file in bundle::kustomize(&settings()).iter().filter(|file| !file.path.ends_with("kustomization.yaml")) {
            for document in serde_yaml_ng::Deserializer::from_str(&file.text) {
                let value = Value::deserialize(document).expect("YAML");
                if value["apiVersion"] == "monitoring.coreos.com/v1" {
                    continue;
                }
                let only_checked = value["kind"] == "ValidatingWebhookConfiguration";
                self.create_value(value, only_checked).await;
            }
        }
    }

    pub async fn create_value(&self, value: Value, only_checked: bool) {
        let object: DynamicObject = serde_json::from_value(value.clone()).expect("an object");
        let types = object.types.clone().expect("kind and version");
        let kind = GroupVersionKind::try_from(&types).expect("a group and a version");
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let params = PostParams { dry_run: only_checked, ..PostParams::default() };
        // Kinds that were just declared are served a moment later.
        let made = async {
            loop {
                match api.create(&params, &object).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    other => return other,
                }
            }
        };
        let made = timeout(PATIENCE, made).await.expect("the kind is served");
        made.unwrap_or_else(|error| panic!("{value} was refused: {error}"));
    }

    /// A client that shows the token of the operator's account, over TLS.
    pub async fn own_client(&self) -> Client {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), NAMESPACE);
        let request = TokenRequest {
            spec: TokenRequestSpec { audiences: Vec::new(), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let token = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await.expect("a token");
        let address = format!("https://{}", self.plane.address()).parse().expect("an address");
        let mut config = Config::new(address);
        config.root_cert = Some(vec![der(self.plane.authority().certificate_pem())]);
        config.auth_info.token = Some(token.status.expect("a token").token.into());
        Client::try_from(config).expect("a client")
    }

    /// The operator with its own rights.
    pub async fn operator(&self, options: Options) -> Operator {
        run(self.own_client().await, options)
    }

    pub async fn node(&self, name: &str, role: &str, current: &str) {
        let role = format!("node-role.kubernetes.io/{role}");
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {role: ""}}});
        self.create_value(node, false).await;
        self.set_node(name, current, "Done", "").await;
    }

    /// What the daemon of a node writes.
    pub async fn set_node(&self, name: &str, current: &str, state: &str, reason: &str) {
        let note = |key: &str| format!("{PREFIX}/{key}");
        let patch = json!({"metadata": {"annotations": {note("currentConfig"): current, note("desiredConfig"): current,
            note("state"): state, note("reason"): reason}}});
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a node");
    }

    /// What the controller of machine configuration writes about a pool.
    pub async fn pool(&self, name: &str, count: i32, target: &str, updating: bool) {
        let api: Api<MachineConfigPool> = Api::all(self.client.clone());
        if api.get_opt(name).await.expect("an answer").is_none() {
            let pool = MachineConfigPool::new(name, osc_objects::MachineConfigPoolSpec::default());
            api.create(&PostParams::default(), &pool).await.expect("a pool");
        }
        let spec = json!({"spec": {"configuration": {"name": target}}});
        let pool = api.patch(name, &PatchParams::default(), &Patch::Merge(spec)).await.expect("a pool");
        let yes = |yes: bool| if yes { "True" } else { "False" };
        let status = json!({"status": {"observedGeneration": pool.metadata.generation, "machineCount": count,
            "updatedMachineCount": 0, "readyMachineCount": 0, "unavailableMachineCount": 0, "degradedMachineCount": 0,
            "conditions": [{"type": "Updating", "status": yes(updating)}, {"type": "Updated", "status": yes(!updating)}]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
    }

    pub async fn create_config(&self, name: &str, spec: Value) -> Result<KataConfig, kube::Error> {
        let value = json!({"apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig",
            "metadata": {"name": name}, "spec": spec});
        let api: Api<KataConfig> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &serde_json::from_value(value).expect("a KataConfig")).await
    }

    pub async fn delete_config(&self, name: &str) {
        let api: Api<KataConfig> = Api::all(self.client.clone());
        api.delete(name, &Default::default()).await.expect("a deletion");
    }

    /// Waits until condition InProgress and the counts are as told: `status/reason/nodes/ready`.
    pub async fn until_state(&self, name: &str, wanted: &str) -> KataConfig {
        self.until_config(name, wanted, |config| state(config) == wanted).await
    }

    pub async fn until_config(&self, name: &str, what: &str, wanted: impl Fn(&KataConfig) -> bool) -> KataConfig {
        let fits = |found: &[KataConfig]| found.iter().any(|config| config.name_any() == name && wanted(config));
        let found = self.until(None, what, fits).await;
        found.into_iter().find(|config| config.name_any() == name).expect("it was there")
    }

    /// Waits until the objects of a kind are as wanted.
    pub async fn until<K>(&self, namespace: Option<&str>, what: &str, wanted: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        assert!(namespace.is_none(), "only whole clusters are asked about");
        let api: Api<K> = Api::all(self.client.clone());
        let mut last = Vec::new();
        let asking = async {
            loop {
                if let Ok(found) = api.list(&Default::default()).await {
                    last = found.items;
                    if wanted(&last) {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, asking).await.is_err() {
            panic!("{} never became: {what}; last seen: {last:#?}", K::kind(&()));
        }
        last
    }

    pub async fn names<K>(&self) -> Vec<String>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        api.list(&Default::default()).await.expect("a list").iter().map(ResourceExt::name_any).collect()
    }

    /// Names of the nodes with the role label.
    pub async fn kata_nodes(&self) -> Vec<String> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let all = nodes.list(&Default::default()).await.expect("nodes");
        let labelled = all.iter().filter(|node| node.labels().contains_key(names::kata::ROLE_LABEL));
        labelled.map(ResourceExt::name_any).collect()
    }
}

impl Operator {
    pub async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("the operator stops").expect("without a panic");
    }

    /// As `kill -9` does: nothing is said, nothing is handed over.
    pub async fn kill(self) {
        self.task.abort();
        assert!(timeout(PATIENCE, self.task).await.expect("it ends").is_err(), "it was running");
    }
}

pub fn run(client: Client, options: Options) -> Operator {
    let stop = CancellationToken::new();
    let run = osc_operator::run(client, options, stop.clone());
    let task = tokio::spawn(async move { run.await.expect("the operator runs until stopped") });
    Operator { stop, task }
}

/// One replica; after a kill it may lead again at once.
pub fn options() -> Options {
    let lease = LeaseTimes { duration: Duration::from_secs(3), retry: Duration::from_millis(100) };
    Options { identity: "first".into(), lease, monitor_image: Some("monitor:1".into()), ..Options::default() }
}

pub fn settings() -> bundle::Settings {
    bundle::Settings {
        image: "registry.example/osc-operator:0.1.0".into(),
        monitor_image: Some("registry.example/kata-monitor:0.1.0".into()),
        machine_config: Some(bundle::MachineConfigImages {
            programs: "registry.example/machine-config:0.1.0".into(),
            payload: "registry.example/sandboxed-containers-payload:0.1.0".into(),
        }),
        version: "0.1.0".into(),
        replaces: None,
        extension: "sandboxed-containers".into(),
    }
}

/// `status/reason/nodes/ready` of condition InProgress.
pub fn state(config: &KataConfig) -> String {
    let Some(status) = &config.status else { return String::new() };
    let Some(condition) = status.conditions.of("InProgress") else { return String::new() };
    let nodes = &status.kata_nodes;
    format!("{:?}/{}/{}/{}", condition.status, condition.reason, nodes.node_count, nodes.ready_node_count)
}

pub fn degraded(config: &KataConfig) -> String {
    let condition = config.status.as_ref().and_then(|status| status.conditions.of("Degraded"));
    condition.map(|condition| condition.reason.clone()).unwrap_or_default()
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate").to_vec()
}
