//! What every controller is started with.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    coordination::v1::Lease,
    core::v1::{
        ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
    rbac::v1::ClusterRole,
};
use kube::{
    Api, Client,
    api::{PatchParams, PostParams},
    runtime::watcher,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Options,
    cache::{Cache, Object},
    events::Recorder,
    kinds::Kinds,
};

/// Name under which controllers own the fields they write.
const FIELD_MANAGER: &str = "osc-controllers";

/// Creation and replacement in the controllers' name.
pub(crate) fn posting() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

/// Patches in the controllers' name.
pub(crate) fn patching() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

/// Client, caches and settings; cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) kinds: Kinds,
    pub(crate) events: Recorder,
    pub(crate) options: Arc<Options>,
    pub(crate) stop: CancellationToken,
}

/// One cache per kind the controllers follow.
#[derive(Clone)]
pub(crate) struct Caches {
    pub(crate) pods: Cache<Pod>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) leases: Cache<Lease>,
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) service_accounts: Cache<ServiceAccount>,
    pub(crate) config_maps: Cache<ConfigMap>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) daemon_sets: Cache<DaemonSet>,
    pub(crate) stateful_sets: Cache<StatefulSet>,
    pub(crate) revisions: Cache<ControllerRevision>,
    pub(crate) jobs: Cache<Job>,
    pub(crate) cron_jobs: Cache<CronJob>,
    pub(crate) services: Cache<Service>,
    pub(crate) endpoints: Cache<Endpoints>,
    pub(crate) endpoint_slices: Cache<EndpointSlice>,
    pub(crate) budgets: Cache<PodDisruptionBudget>,
    pub(crate) volumes: Cache<PersistentVolume>,
    pub(crate) claims: Cache<PersistentVolumeClaim>,
    pub(crate) cluster_roles: Cache<ClusterRole>,
}

impl Caches {
    pub(crate) fn new() -> Self {
        Self {
            pods: Cache::new(),
            nodes: Cache::new(),
            leases: Cache::new(),
            namespaces: Cache::new(),
            service_accounts: Cache::new(),
            config_maps: Cache::new(),
            replica_sets: Cache::new(),
            deployments: Cache::new(),
            daemon_sets: Cache::new(),
            stateful_sets: Cache::new(),
            revisions: Cache::new(),
            jobs: Cache::new(),
            cron_jobs: Cache::new(),
            services: Cache::new(),
            endpoints: Cache::new(),
            endpoint_slices: Cache::new(),
            budgets: Cache::new(),
            volumes: Cache::new(),
            claims: Cache::new(),
            cluster_roles: Cache::new(),
        }
    }

    /// Starts all watches. Only the two objects that controllers publish are
    /// followed among configuration maps and service accounts, and only node
    /// leases among leases.
    pub(crate) fn start(&self, client: &Client, stop: &CancellationToken, tasks: &mut JoinSet<()>) {
        let mut start = Starter { client, stop, tasks };
        start.everywhere(&self.pods);
        start.trimmed(&self.nodes, watcher::Config::default(), |node| {
            // The longest list of a node, and no controller scores by it.
            if let Some(status) = &mut node.status {
                status.images = None;
            }
        });
        start.api(&self.leases, Api::namespaced(client.clone(), "kube-node-lease"));
        start.everywhere(&self.namespaces);
        start.named(&self.service_accounts, "default");
        start.named(&self.config_maps, crate::namespaces::ROOT_CA);
        start.everywhere(&self.replica_sets);
        start.everywhere(&self.deployments);
        start.everywhere(&self.daemon_sets);
        start.everywhere(&self.stateful_sets);
        start.everywhere(&self.revisions);
        start.everywhere(&self.jobs);
        start.everywhere(&self.cron_jobs);
        start.everywhere(&self.services);
        start.everywhere(&self.endpoints);
        start.everywhere(&self.endpoint_slices);
        start.everywhere(&self.budgets);
        start.everywhere(&self.volumes);
        start.everywhere(&self.claims);
        start.everywhere(&self.cluster_roles);
    }

    /// Waits until every cache holds a complete list. Cancel-safe.
    pub(crate) async fn synced(&self) {
        self.pods.synced().await;
        self.nodes.synced().await;
        self.leases.synced().await;
        self.namespaces.synced().await;
        self.service_accounts.synced().await;
        self.config_maps.synced().await;
        self.replica_sets.synced().await;
        self.deployments.synced().await;
        self.daemon_sets.synced().await;
        self.stateful_sets.synced().await;
        self.revisions.synced().await;
        self.jobs.synced().await;
        self.cron_jobs.synced().await;
        self.services.synced().await;
        self.endpoints.synced().await;
        self.endpoint_slices.synced().await;
        self.budgets.synced().await;
        self.volumes.synced().await;
        self.claims.synced().await;
        self.cluster_roles.synced().await;
    }
}

struct Starter<'a> {
    client: &'a Client,
    stop: &'a CancellationToken,
    tasks: &'a mut JoinSet<()>,
}

impl Starter<'_> {
    fn everywhere<K: Object + kube::Resource<DynamicType = ()>>(&mut self, cache: &Cache<K>) {
        self.trimmed(cache, watcher::Config::default(), |_| {});
    }

    fn named<K: Object + kube::Resource<DynamicType = ()>>(&mut self, cache: &Cache<K>, name: &str) {
        self.trimmed(cache, watcher::Config::default().fields(&format!("metadata.name={name}")), |_| {});
    }

    fn trimmed<K: Object + kube::Resource<DynamicType = ()>>(
        &mut self,
        cache: &Cache<K>,
        config: watcher::Config,
        trim: fn(&mut K),
    ) {
        let api = Api::all(self.client.clone());
        self.tasks.spawn(cache.clone().fill(api, config, trim, self.stop.clone()));
    }

    fn api<K: Object + kube::Resource<DynamicType = ()>>(&mut self, cache: &Cache<K>, api: Api<K>) {
        self.tasks.spawn(cache.clone().fill(api, watcher::Config::default(), |_| {}, self.stop.clone()));
    }
}

/// How long nothing may change before an object is looked at again anyway.
pub(crate) const RESYNC: Duration = Duration::from_secs(600);
