//! Reading all of it from the API.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, Node, Pod},
        node::v1::RuntimeClass,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
    core::PartialObjectMeta,
};
use osc_fault::chain;
use osc_objects::{
    ContainerRuntimeConfig, MachineConfig, MachineConfigPool,
    names::{kata, machine, role},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Constraints, NodeSeen, OwnConfig, PodSeen, PodsSeen, Seen};
use crate::error::{Attempt, Error};

/// Objects in one answer.
const PAGE: u32 = 500;

/// Looks at the cluster. Remembers only since when nodes are being emptied: the API does
/// not say, and forgetting it at a restart merely delays a message.
pub(crate) struct Reader {
    client: Client,
    namespace: String,
    draining: BTreeMap<String, Timestamp>,
}

impl Reader {
    pub(crate) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace, draining: BTreeMap::new() }
    }

    /// Looks at everything.
    pub(crate) async fn look(&mut self, now: Timestamp) -> Result<Seen, Error> {
        let groups = self.groups().await?;
        let machine_api = groups.contains(machine::GROUP);
        let mut seen = Seen { now, machine_api, configs: self.all(|config| config).await?, ..Seen::default() };
        seen.nodes = self.all::<PartialObjectMeta<Node>, _>(|node| NodeSeen::from(&node)).await?;
        let classes = self.all::<PartialObjectMeta<RuntimeClass>, _>(|class| class.name_any()).await?;
        seen.runtime_classes = classes.into_iter().collect();
        seen.gates = self.config_map(kata::FEATURE_GATES).await?.unwrap_or_default();
        seen.layered_image = self.config_map(kata::LAYERED_IMAGE).await?;
        seen.monitor =
            self.namespaced::<DaemonSet>().get_metadata_opt(kata::MONITOR).await.reading(kata::MONITOR)?.is_some();
        if machine_api {
            self.look_at_machines(&mut seen).await?;
        }
        if groups.contains("security.openshift.io") {
            let found = scc(&self.client).get_opt(kata::SCC).await.reading(kata::SCC)?;
            seen.scc = found.map_or(Constraints::Absent, |found| Constraints::of(&found.data));
        }
        if groups.contains("console.openshift.io") {
            seen.dashboard_to_copy = self.dashboard_waits().await?;
        }
        if seen.configs.iter().any(|config| config.metadata.deletion_timestamp.is_some()) {
            seen.pods = self.pods().await;
        }
        self.remember_drains(&mut seen);
        Ok(seen)
    }

    async fn groups(&self) -> Result<BTreeSet<String>, Error> {
        let groups = self.client.list_api_groups().await.reading("API groups")?;
        Ok(groups.groups.into_iter().map(|group| group.name).collect())
    }

    async fn look_at_machines(&self, seen: &mut Seen) -> Result<(), Error> {
        let pools = self.all(|pool: MachineConfigPool| (pool.name_any(), pool)).await?;
        seen.pools = pools.into_iter().collect();
        let configs: Api<MachineConfig> = Api::all(self.client.clone());
        for name in [kata::EXTENSION_CONFIG, kata::IMAGE_CONFIG] {
            let found = configs.get_metadata_opt(name).await.reading(name)?;
            seen.own_configs.extend(found.map(|config| OwnConfig {
                name: name.to_owned(),
                role: config.labels().get(machine::ROLE_LABEL).cloned().unwrap_or_default(),
            }));
        }
        let levels: Api<ContainerRuntimeConfig> = Api::all(self.client.clone());
        let level = levels.get_opt(kata::LOG_LEVEL_CONFIG).await.reading(kata::LOG_LEVEL_CONFIG)?;
        seen.log_level = level.map(|level| {
            let settings = level.spec.container_runtime_config.unwrap_or_default();
            settings.log_level.unwrap_or_default()
        });
        self.look_at_rendered(seen, &configs).await
    }

    /// Only pool `master` leaves open whether a rendered configuration is about sandboxes;
    /// the few that nodes and the pool name are looked into.
    async fn look_at_rendered(&self, seen: &mut Seen, configs: &Api<MachineConfig>) -> Result<(), Error> {
        let target = seen.pools.get(role::MASTER).and_then(MachineConfigPool::target);
        let currents =
            seen.nodes.iter().filter(|node| node.is_control_plane()).filter_map(|node| node.current.as_deref());
        let names: BTreeSet<String> = target.into_iter().chain(currents).map(str::to_owned).collect();
        if seen.pools.contains_key(kata::POOL) {
            return Ok(());
        }
        let image = configs.get_opt(kata::IMAGE_CONFIG).await.reading(kata::IMAGE_CONFIG)?;
        let image = image.map(|config| config.spec.os_image_url).filter(|url| !url.is_empty());
        for name in names {
            let Some(rendered) = configs.get_opt(&name).await.reading(&name)? else { continue };
            let extensions = rendered.spec.extensions.unwrap_or_default();
            let extended = extensions.iter().any(|name| crate::options::EXTENSIONS.contains(&name.as_str()));
            if extended || image.as_ref().is_some_and(|image| *image == rendered.spec.os_image_url) {
                seen.kata_rendered.insert(name);
            }
        }
        Ok(())
    }

    async fn dashboard_waits(&self) -> Result<bool, Error> {
        let source = self.config_map(kata::DASHBOARD).await?;
        let shown: Api<ConfigMap> = Api::namespaced(self.client.clone(), kata::DASHBOARD_NAMESPACE);
        let copy = shown.get_metadata_opt(kata::DASHBOARD).await.reading(kata::DASHBOARD)?;
        Ok(source.is_some() && copy.is_none())
    }

    async fn pods(&self) -> PodsSeen {
        match self.all(|pod: Pod| PodSeen::of(&pod)).await {
            Ok(pods) => PodsSeen::Listed(pods.into_iter().flatten().collect()),
            Err(error) => PodsSeen::Failed(chain(&error)),
        }
    }

    fn remember_drains(&mut self, seen: &mut Seen) {
        let old = std::mem::take(&mut self.draining);
        let draining = seen.nodes.iter().filter(|node| node.draining);
        self.draining =
            draining.map(|node| (node.name.clone(), old.get(&node.name).copied().unwrap_or(seen.now))).collect();
        seen.draining.clone_from(&self.draining);
    }

    async fn config_map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        let found = self.namespaced::<ConfigMap>().get_opt(name).await.reading(name)?;
        Ok(found.map(|map| map.data.unwrap_or_default()))
    }

    fn namespaced<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Something of every object of a kind, page by page: there may be thousands, and whole
    /// ones are held for one page at a time only. A page that expired starts all over in the
    /// next pass.
    async fn all<K, T>(&self, take: impl Fn(K) -> T) -> Result<Vec<T>, Error>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let mut page = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let answer = api.list(&page).await.reading(K::plural(&()))?;
            found.extend(answer.items.into_iter().map(&take));
            match answer.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }
}

impl Constraints {
    /// What those that exist are worth.
    fn of(found: &Value) -> Self {
        let demands = found.pointer("/seLinuxContext/type").and_then(Value::as_str) == Some("MustRunAs");
        if demands { Self::Outdated } else { Self::Present }
    }
}

/// The platform's constraints on pods, known by name only.
pub(crate) fn scc(client: &Client) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "security.openshift.io".into(),
        version: "v1".into(),
        api_version: "security.openshift.io/v1".into(),
        kind: "SecurityContextConstraints".into(),
        plural: "securitycontextconstraints".into(),
    };
    Api::all_with(client.clone(), &resource)
}

impl PodSeen {
    /// A pod that names a runtime class and has not ended.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let class = pod.spec.as_ref()?.runtime_class_name.clone()?;
        let ended = matches!(phase, Some("Succeeded" | "Failed"));
        (!ended).then(|| Self { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any(), class })
    }
}
