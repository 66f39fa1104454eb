//! Carrying out a plan. Every write may be repeated.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Node},
    node::v1::RuntimeClass,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use osc_objects::{
    ContainerRuntimeConfig, KataConfig, KataConfigStatus, MachineConfig, MachineConfigPool, names::kata,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    error::{Attempt, Error, code},
    plan::{Plan, Write},
    seen,
};

/// Owner of fields that are applied.
const FIELD_MANAGER: &str = "osc-operator";

/// Writes in the operator's name.
pub(crate) struct Hands {
    client: Client,
    namespace: String,
}

impl Hands {
    pub(crate) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// Finalizer and status: everything that must be on record before the first write.
    pub(crate) async fn record(&self, plan: &Plan, config: &KataConfig) -> Result<KataConfig, Error> {
        let mut config = config.clone();
        if plan.add_finalizer {
            let mut finalizers = config.finalizers().to_vec();
            finalizers.push(kata::FINALIZER.into());
            config = self.set_finalizers(&config, finalizers).await?;
        }
        self.set_status(config, &plan.status).await
    }

    /// Replaces the status; does nothing when it is the same.
    pub(crate) async fn set_status(&self, config: KataConfig, status: &KataConfigStatus) -> Result<KataConfig, Error> {
        if config.status.as_ref() == Some(status) {
            return Ok(config);
        }
        let mut wanted = config;
        wanted.status = Some(status.clone());
        let api: Api<KataConfig> = Api::all(self.client.clone());
        let name = wanted.name_any();
        api.replace_status(&name, &PostParams::default(), &wanted).await.during("write the status of KataConfig", name)
    }

    async fn set_finalizers(&self, config: &KataConfig, finalizers: Vec<String>) -> Result<KataConfig, Error> {
        let api: Api<KataConfig> = Api::all(self.client.clone());
        let name = config.name_any();
        // With the version that was read: somebody else's finalizer must not get lost.
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": config.resource_version()}});
        let done = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.during("set the finalizers of KataConfig", name)
    }

    /// One write.
    pub(crate) async fn write(&self, write: &Write, config: &KataConfig) -> Result<(), Error> {
        match write {
            Write::CreateConfig(made) => self.create(made.as_ref()).await,
            Write::DeleteConfig(name) => self.delete::<MachineConfig>(name).await,
            Write::CreatePool(made) => self.create(made.as_ref()).await,
            Write::DeletePool(name) => self.delete::<MachineConfigPool>(name).await,
            Write::Label(node) => self.label(node, json!("")).await,
            Write::Unlabel(node) => self.label(node, Value::Null).await,
            Write::CreateLogLevel(made) => self.create(made.as_ref()).await,
            Write::SetLogLevel(level) => self.set_log_level(level).await,
            Write::DeleteLogLevel => self.delete::<ContainerRuntimeConfig>(kata::LOG_LEVEL_CONFIG).await,
            Write::CreateRuntimeClass(made) => self.create::<RuntimeClass>(made.as_ref()).await,
            Write::CreateScc(made) => self.create_scc(made).await,
            Write::RepairScc => {
                let patch = json!({"seLinuxContext": {"type": "RunAsAny", "seLinuxOptions": null}});
                let api = seen::scc(&self.client);
                let done = api.patch(kata::SCC, &PatchParams::default(), &Patch::Merge(patch)).await;
                unless_gone(done.map(|_| ())).during("repair SecurityContextConstraints", kata::SCC)
            }
            Write::DeleteScc => {
                let gone = seen::scc(&self.client).delete(kata::SCC, &DeleteParams::default()).await;
                unless_gone(gone.map(|_| ())).during("delete SecurityContextConstraints", kata::SCC)
            }
            Write::ApplyMonitor(made) => self.apply_monitor(made).await,
            Write::DeleteMonitor => {
                let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &self.namespace);
                let gone = api.delete(kata::MONITOR, &DeleteParams::default()).await;
                unless_gone(gone.map(|_| ())).during("delete DaemonSet", kata::MONITOR)
            }
            Write::CopyDashboard => self.copy_dashboard().await,
            Write::RemoveFinalizer => {
                let rest = config.finalizers().iter().filter(|name| *name != kata::FINALIZER).cloned().collect();
                self.set_finalizers(config, rest).await.map(|_| ())
            }
        }
    }

    async fn create<K>(&self, made: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let done = api.create(&PostParams::default(), made).await.map(|_| ());
        unless_there(done).during("create", format_args!("{} {}", K::kind(&()), made.name_any()))
    }

    async fn delete<K>(&self, name: &str) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let gone = api.delete(name, &DeleteParams::default()).await.map(|_| ());
        unless_gone(gone).during("delete", format_args!("{} {name}", K::kind(&())))
    }

    /// Sets or, with null, removes the role label. A node that is gone needs neither.
    async fn label(&self, node: &str, value: Value) -> Result<(), Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"labels": {kata::ROLE_LABEL: value}}});
        let done = api.patch_metadata(node, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ());
        unless_gone(done).during("label node", node)
    }

    async fn set_log_level(&self, level: &str) -> Result<(), Error> {
        let api: Api<ContainerRuntimeConfig> = Api::all(self.client.clone());
        let patch = json!({"spec": {"containerRuntimeConfig": {"logLevel": level}}});
        let done = api.patch(kata::LOG_LEVEL_CONFIG, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.map(|_| ()).during("change ContainerRuntimeConfig", kata::LOG_LEVEL_CONFIG)
    }

    async fn create_scc(&self, made: &Value) -> Result<(), Error> {
        let attempt = "create SecurityContextConstraints";
        let made = serde_json::from_value(made.clone()).map_err(kube::Error::SerdeError).during(attempt, kata::SCC)?;
        let done = seen::scc(&self.client).create(&PostParams::default(), &made).await;
        unless_there(done.map(|_| ())).during(attempt, kata::SCC)
    }

    async fn apply_monitor(&self, made: &DaemonSet) -> Result<(), Error> {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let done = api.patch(kata::MONITOR, &params, &Patch::Apply(made)).await;
        done.map(|_| ()).during("apply DaemonSet", kata::MONITOR)
    }

    async fn copy_dashboard(&self) -> Result<(), Error> {
        let ours: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let Some(source) = ours.get_opt(kata::DASHBOARD).await.reading(kata::DASHBOARD)? else { return Ok(()) };
        let label = ("console.openshift.io/dashboard".to_owned(), "true".to_owned());
        let copy = ConfigMap {
            metadata: ObjectMeta {
                name: Some(kata::DASHBOARD.into()),
                labels: Some([label].into()),
                ..ObjectMeta::default()
            },
            data: source.data,
            ..ConfigMap::default()
        };
        let shown: Api<ConfigMap> = Api::namespaced(self.client.clone(), kata::DASHBOARD_NAMESPACE);
        let done = shown.create(&PostParams::default(), &copy).await;
        unless_there(done.map(|_| ())).during("create ConfigMap", kata::DASHBOARD)
    }

    /// What the platform wants to know about our namespace.
    pub(crate) async fn label_namespace(&self) -> Result<(), Error> {
        let groups = self.client.list_api_groups().await.reading("API groups")?;
        if !groups.groups.iter().any(|group| group.name == "config.openshift.io") {
            return Ok(());
        }
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        let level = "privileged";
        let patch = json!({"metadata": {"labels": {
            "openshift.io/cluster-monitoring": "true",
            "pod-security.kubernetes.io/enforce": level,
            "pod-security.kubernetes.io/audit": level,
            "pod-security.kubernetes.io/warn": level,
        }}});
        let done = api.patch_metadata(&self.namespace, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.map(|_| ()).during("label namespace", &self.namespace)
    }
}

fn unless_gone(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if code(&error) == Some(404) => Ok(()),
        other => other,
    }
}

/// What is there already is what was wanted. A conflict of versions cannot come from a creation.
fn unless_there(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => Ok(()),
        other => other,
    }
}
