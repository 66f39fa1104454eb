//! Everything the controller writes.

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use osc_fault::chain;
use osc_objects::{
    ContainerRuntimeConfig, KubeletConfig, MachineConfig, MachineConfigPool, MachineConfiguration, names::machine,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    error::{ControllerError, ask, unless},
    round::taints,
};
use crate::{names, pools::NodeView, render::Rendered};

/// The API as the controller writes to it.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
}

const API_VERSION: &str = "machineconfiguration.openshift.io/v1";
/// What upstream calls the release of the cluster.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

pub(super) fn patching() -> PatchParams {
    PatchParams { field_manager: Some(names::CONTROLLER.into()), ..PatchParams::default() }
}

impl Writer {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    async fn merge<K>(&self, verb: &'static str, name: &str, patch: Value) -> Result<(), ControllerError>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let (api, params, patch) = (self.all::<K>(), patching(), Patch::Merge(patch));
        ask(verb, format!("{} {name}", K::kind(&())), api.patch(name, &params, &patch)).await.map(drop)
    }

    async fn merge_status<K>(&self, name: &str, patch: Value) -> Result<(), ControllerError>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let (api, params, patch) = (self.all::<K>(), patching(), Patch::Merge(patch));
        ask("report on", format!("{} {name}", K::kind(&())), api.patch_status(name, &params, &patch)).await.map(drop)
    }

    /// Creates one of the two pools that always exist, after the configuration it begins
    /// with: without any input, nothing could be rendered for it.
    pub(super) async fn create_pool(&self, name: &str) -> Result<(), ControllerError> {
        let base = format!("00-{name}");
        let config = json!({"apiVersion": API_VERSION, "kind": "MachineConfig",
            "metadata": {"name": base, "labels": {names::ROLE: name}},
            "spec": {"config": {"ignition": {"version": "3.2.0"}}}});
        self.create::<MachineConfig>(&base, config).await?;
        let mut labels = json!({names::BUILT_IN: "", format!("{}{name}", names::POOL_PREFIX): ""});
        if name == "master" {
            labels[names::REQUIRED] = json!("");
        }
        let pool = json!({"apiVersion": API_VERSION, "kind": "MachineConfigPool",
            "metadata": {"name": name, "labels": labels},
            "spec": {"machineConfigSelector": {"matchLabels": {names::ROLE: name}},
                "nodeSelector": {"matchLabels": {format!("{}{name}", names::NODE_ROLE_PREFIX): ""}}}});
        self.create::<MachineConfigPool>(name, pool).await
    }

    /// Creates the settings that always exist, so that people find what is in effect.
    pub(super) async fn create_settings(&self) -> Result<(), ControllerError> {
        let settings = json!({"apiVersion": MachineConfiguration::api_version(&()), "kind": "MachineConfiguration",
            "metadata": {"name": machine::CONFIGURATION}, "spec": {}});
        self.create::<MachineConfiguration>(machine::CONFIGURATION, settings).await
    }

    /// Reports on the settings.
    pub(super) async fn settings_status(
        &self,
        settings: &MachineConfiguration,
        status: Value,
    ) -> Result<(), ControllerError> {
        self.status(settings, status).await
    }

    async fn create<K>(&self, name: &str, object: Value) -> Result<(), ControllerError>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
    {
        let Ok(object) = serde_json::from_value::<K>(object) else { return Ok(()) }; // made of our own types
        let params = PostParams { field_manager: Some(names::CONTROLLER.into()), ..PostParams::default() };
        let kind = K::kind(&());
        unless(409, ask("create", format!("{kind} {name}"), self.all().create(&params, &object)).await).map(drop)
    }

    /// Creates a rendered configuration, then makes it the target of its pool.
    pub(super) async fn retarget(&self, pool: &MachineConfigPool, rendered: &Rendered) -> Result<(), ControllerError> {
        let mut annotations = json!({names::GENERATED_BY: names::CONTROLLER_VERSION, names::RELEASE: RELEASE});
        if rendered.os_image_overridden {
            annotations[names::OS_IMAGE_OVERRIDDEN] = json!("true");
        }
        let owner = pool.controller_owner_ref(&());
        let config = json!({"apiVersion": API_VERSION, "kind": "MachineConfig",
            "metadata": {"name": rendered.name, "annotations": annotations, "ownerReferences": [owner]},
            "spec": rendered.spec.to_value()});
        self.create::<MachineConfig>(&rendered.name, config).await?;
        let reference = |name: &str| json!({"apiVersion": API_VERSION, "kind": "MachineConfig", "name": name});
        let mut target = reference(&rendered.name);
        target["source"] = rendered.sources.iter().map(|name| reference(name)).collect();
        let patch =
            json!({"metadata": {"resourceVersion": pool.resource_version()}, "spec": {"configuration": target}});
        self.merge::<MachineConfigPool>("retarget", &pool.name_any(), patch).await
    }

    /// Replaces the status of a pool, unless the pool changed since it was read.
    pub(super) async fn pool_status(&self, pool: &MachineConfigPool, status: Value) -> Result<(), ControllerError> {
        self.status(pool, status).await
    }

    async fn status<K>(&self, object: &K, status: Value) -> Result<(), ControllerError>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let name = object.name_any();
        let patch = json!({"metadata": {"resourceVersion": object.resource_version()}, "status": status});
        self.merge_status::<K>(&name, patch).await
    }

    /// Changes annotations of a node, and its taints if given; returns its new version, none
    /// if the node is gone.
    pub(super) async fn node(
        &self,
        node: &NodeView,
        annotations: &[(&str, &str)],
        taints: Option<Value>,
    ) -> Result<Option<String>, ControllerError> {
        let notes: Map<String, Value> =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let mut patch = json!({"metadata": {"annotations": notes}});
        if let Some(taints) = taints {
            patch["spec"] = json!({"taints": taints});
            // The list is replaced whole: nobody else's taint may get lost.
            patch["metadata"]["resourceVersion"] = json!(node.version);
        }
        let (nodes, params, patch) = (self.all::<Node>(), patching(), Patch::Merge(patch));
        let changing = ask("change", format!("Node {}", node.name), nodes.patch_metadata(&node.name, &params, &patch));
        Ok(unless(404, changing.await)?.and_then(|node| node.resource_version()))
    }

    /// Tells a node to run `target`, and everybody that it was told; returns its new version,
    /// none if the node is gone.
    pub(super) async fn start(
        &self,
        node: &NodeView,
        target: &str,
        topology: &str,
    ) -> Result<Option<String>, ControllerError> {
        let notes = [(names::DESIRED, target), (names::TOPOLOGY, topology)];
        let version = self.node(node, &notes, taints(node, false)).await?;
        if version.is_some() {
            let note = format!("Targeted node to {target}");
            self.event(&node.reference(), EventType::Normal, "SetDesiredConfig", note).await;
        }
        Ok(version)
    }

    /// Makes a generated configuration what it should be.
    pub(super) async fn generate(
        &self,
        owner: &ContainerRuntimeConfig,
        config: &super::tuning::Generated,
    ) -> Result<(), ControllerError> {
        let object = json!({"apiVersion": API_VERSION, "kind": "MachineConfig",
            "metadata": {"name": config.name, "labels": {names::ROLE: config.pool},
                "annotations": {names::GENERATED_BY: names::CONTROLLER_VERSION},
                "ownerReferences": [owner.controller_owner_ref(&())]},
            "spec": config.spec});
        let api = self.all::<MachineConfig>();
        let params = PatchParams { force: true, ..patching() };
        let patch = Patch::Apply(object);
        let request = api.patch(&config.name, &params, &patch);
        ask("generate", format!("MachineConfig {}", config.name), request).await.map(drop)
    }

    /// Deletes a generated configuration, if it is there.
    pub(super) async fn delete_config(&self, name: &str) -> Result<(), ControllerError> {
        let api = self.all::<MachineConfig>();
        let params = DeleteParams::default();
        let request = api.delete(name, &params);
        unless(404, ask("delete", format!("MachineConfig {name}"), request).await).map(drop)
    }

    /// Sets finalizers, and the suffix of generated names.
    pub(super) async fn hold(
        &self,
        config: &ContainerRuntimeConfig,
        finalizers: &[String],
        suffix: Option<&str>,
    ) -> Result<(), ControllerError> {
        let mut patch = json!({"metadata": {"resourceVersion": config.resource_version(), "finalizers": finalizers}});
        if let Some(suffix) = suffix {
            patch["metadata"]["annotations"] = json!({names::SUFFIX: suffix});
        }
        unless(404, self.merge::<ContainerRuntimeConfig>("hold", &config.name_any(), patch).await).map(drop)
    }

    /// Reports on a ContainerRuntimeConfig.
    pub(super) async fn engine_status(
        &self,
        config: &ContainerRuntimeConfig,
        conditions: Vec<Value>,
    ) -> Result<(), ControllerError> {
        let status = json!({"observedGeneration": config.metadata.generation, "conditions": conditions});
        let patch = json!({"status": status});
        unless(404, self.merge_status::<ContainerRuntimeConfig>(&config.name_any(), patch).await).map(drop)
    }

    /// Reports on a KubeletConfig.
    pub(super) async fn kubelet_status(
        &self,
        config: &KubeletConfig,
        conditions: Vec<Value>,
    ) -> Result<(), ControllerError> {
        let status = json!({"observedGeneration": config.metadata.generation, "conditions": conditions});
        self.status(config, status).await
    }

    /// Tells people. An event that gets lost is no reason to stop.
    pub(super) async fn event(&self, about: &ObjectReference, kind: EventType, reason: &str, note: String) {
        let event =
            Event { type_: kind, reason: reason.into(), note: Some(note), action: "Rollout".into(), secondary: None };
        // A recorder remembers all it said, to count repetitions. Nothing is said twice here,
        // and thousands of nodes would be remembered.
        let reporter = Reporter { controller: names::CONTROLLER.into(), instance: None };
        let recorder = Recorder::new(self.client.clone(), reporter);
        let sent = ask("create", "an event", recorder.publish(&event, about)).await;
        if let Err(error) = sent {
            tracing::debug!(error = %chain(&error), reason, "an event was lost");
        }
    }
}
