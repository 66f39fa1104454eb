//! Endpoints and EndpointSlices of Services with a selector.
//!
//! Services without selector are left to whoever writes their Endpoints; those are
//! not mirrored into slices.

mod collect;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};

use crate::{
    cache::{Change, Key},
    context::{Context, RESYNC, posting},
    endpoints::collect::{
        ENDPOINTS_MANAGED_BY, ENDPOINTS_MANAGER, MANAGED_BY, MANAGER, SERVICE_NAME, labels, slices, subsets,
    },
    error::{Attempt, Error},
    pods,
    queue::{Queue, work},
};

/// Services worked on at the same time.
const PARALLEL: usize = 8;

struct Publisher {
    cx: Context,
    queue: Queue<Key>,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    let on = queue.clone();
    cx.caches.services.on_change(move |change| on.add(Key::of(change.latest().as_ref())));
    let on = queue.clone();
    cx.caches.endpoints.on_change(move |change| on.add(Key::of(change.latest().as_ref())));
    let on = queue.clone();
    cx.caches.endpoint_slices.on_change(move |change| {
        let slice = change.latest();
        if let Some(service) = slice.labels().get(SERVICE_NAME) {
            on.add(Key::new(slice.namespace().unwrap_or_default(), service.clone()));
        }
    });
    let (on, services) = (queue.clone(), cx.caches.services.clone());
    cx.caches.pods.on_change(move |change| {
        if !concerns(change) {
            return;
        }
        let namespace = change.latest().namespace().unwrap_or_default();
        for service in services.of_namespace(&namespace) {
            if change.sides().any(|pod| selects(&service, pod)) {
                on.add(Key::of(service.as_ref()));
            }
        }
    });
    let this = Arc::new(Publisher { cx: cx.clone(), queue });
    let stop = cx.stop.clone();
    async move {
        work("endpoints", this.queue.clone(), PARALLEL, stop, |key| this.reconcile(key)).await;
    }
}

/// Whether a change of a pod can change any endpoint.
fn concerns(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return true };
    let seen = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            status.and_then(|status| status.pod_ip.clone()),
            status.and_then(|status| status.pod_ips.clone()),
            pods::is_ready(pod),
            pods::is_deleting(pod),
            pods::is_finished(pod),
        )
    };
    seen(old) != seen(new) || old.metadata.labels != new.metadata.labels
}

fn selector(service: &Service) -> Option<&std::collections::BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|selector| !selector.is_empty() && !external)
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let have = pods::labels(&pod.metadata);
    selector(service).is_some_and(|selector| selector.iter().all(|(key, value)| have.get(key) == Some(value)))
}

impl Publisher {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(service) = self.cx.caches.services.get(&key) else {
            self.withdraw(&key).await?;
            return Ok(None);
        };
        if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let pods: Vec<Arc<Pod>> =
            self.cx.caches.pods.of_namespace(&key.namespace).into_iter().filter(|pod| selects(&service, pod)).collect();
        let done = async {
            self.publish_endpoints(&key, &service, &pods).await?;
            self.publish_slices(&key, &service, &pods).await
        };
        match done.await {
            Err(error) if error.namespace_terminating() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(RESYNC)),
        }
    }

    async fn publish_endpoints(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let subsets = Some(subsets(service, pods)).filter(|subsets| !subsets.is_empty());
        let mut wanted_labels = labels(service);
        wanted_labels.insert(ENDPOINTS_MANAGED_BY.into(), ENDPOINTS_MANAGER.into());
        let api: Api<Endpoints> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        match self.cx.caches.endpoints.get(key) {
            None => {
                let metadata = ObjectMeta {
                    name: Some(key.name.clone()),
                    namespace: Some(key.namespace.clone()),
                    labels: Some(wanted_labels),
                    ..ObjectMeta::default()
                };
                let endpoints = Endpoints { metadata, subsets };
                api.create(&posting(), &endpoints).await.during("create endpoints", key).map(|_| ())
            }
            Some(have) if have.subsets != subsets || *have.labels() != wanted_labels => {
                let mut endpoints = have.as_ref().clone();
                endpoints.subsets = subsets;
                endpoints.metadata.labels = Some(wanted_labels);
                let replaced = api.replace(&key.name, &posting(), &endpoints).await;
                replaced.during("update endpoints", key).map(|_| ())
            }
            Some(_) => Ok(()),
        }
    }

    async fn publish_slices(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let wanted = slices(service, pods);
        let mut have: Vec<Arc<EndpointSlice>> = self.own_slices(key);
        for slice in wanted {
            let name = slice.name_any();
            let there = have.iter().position(|known| known.name_any() == name).map(|at| have.swap_remove(at));
            match there {
                None => {
                    api.create(&posting(), &slice).await.during("create endpoint slice", &name)?;
                }
                Some(known) if differs(&known, &slice) => {
                    let mut changed = slice;
                    changed.metadata.resource_version = known.resource_version();
                    api.replace(&name, &posting(), &changed).await.during("update endpoint slice", &name)?;
                }
                Some(_) => {}
            }
        }
        for stale in have {
            let name = stale.name_any();
            let preconditions = Preconditions { uid: stale.uid(), resource_version: None };
            let params = DeleteParams::background().preconditions(preconditions);
            api.delete(&name, &params).await.unless_gone("delete endpoint slice", &name)?;
        }
        Ok(())
    }

    fn own_slices(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.cx.caches.endpoint_slices.of_namespace(&key.namespace);
        slices.retain(|slice| {
            let labels = slice.labels();
            labels.get(SERVICE_NAME) == Some(&key.name) && labels.get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
        });
        slices
    }

    /// The Service is gone: its Endpoints go too. Slices have an owner reference.
    async fn withdraw(&self, key: &Key) -> Result<(), Error> {
        let Some(have) = self.cx.caches.endpoints.get(key) else { return Ok(()) };
        if have.labels().get(ENDPOINTS_MANAGED_BY).map(String::as_str) != Some(ENDPOINTS_MANAGER) {
            return Ok(());
        }
        let api: Api<Endpoints> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let preconditions = Preconditions { uid: have.uid(), resource_version: None };
        let params = DeleteParams::background().preconditions(preconditions);
        api.delete(&key.name, &params).await.unless_gone("delete endpoints", key).map(|_| ())
    }
}

fn differs(have: &EndpointSlice, want: &EndpointSlice) -> bool {
    have.endpoints != want.endpoints
        || have.ports.clone().unwrap_or_default() != want.ports.clone().unwrap_or_default()
        || have.metadata.labels != want.metadata.labels
}
