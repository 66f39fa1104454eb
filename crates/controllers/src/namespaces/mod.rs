//! Namespaces: what each one gets, and how one ends.
//!
//! ```text
//!  Active ──► ServiceAccount `default`, ConfigMap `kube-root-ca.crt`, kept as they are
//!  Terminating ──► pods ──► everything else, custom resources included ──► /finalize
//! ```

mod content;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, ResourceExt, api::Patch};
use osc_fault::Kind;
use serde_json::json;

use crate::{
    cache::Key,
    context::{Context, RESYNC, patching, posting},
    error::{Attempt, Error},
    queue::{Queue, work},
    wake,
};

/// Name of the published certificate authority.
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";
/// Namespaces worked on at the same time.
const PARALLEL: usize = 4;
/// The finalizer of `spec.finalizers` that is ours.
const FINALIZER: &str = "kubernetes";

struct Namespaces {
    cx: Context,
    queue: Queue<Key>,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    wake::on_own_changes(&cx.caches.namespaces, &queue);
    let on = queue.clone();
    cx.caches.service_accounts.on_change(move |change| {
        on.add(Key::cluster(change.latest().namespace().unwrap_or_default()));
    });
    let on = queue.clone();
    cx.caches.config_maps.on_change(move |change| {
        on.add(Key::cluster(change.latest().namespace().unwrap_or_default()));
    });
    let this = Arc::new(Namespaces { cx: cx.clone(), queue });
    let stop = cx.stop.clone();
    async move {
        work("namespace", this.queue.clone(), PARALLEL, stop, |key| this.reconcile(key)).await;
    }
}

impl Namespaces {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.cx.caches.namespaces.get(&key) else { return Ok(None) };
        if namespace.metadata.deletion_timestamp.is_some() {
            return self.terminate(&namespace).await;
        }
        let name = namespace.name_any();
        match self.furnish(&name).await {
            Err(error) if error.namespace_terminating() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(RESYNC)),
        }
    }

    /// Makes the account and the certificate every namespace has.
    async fn furnish(&self, namespace: &str) -> Result<(), Error> {
        let metadata = |name: &str| ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            ..ObjectMeta::default()
        };
        if self.cx.caches.service_accounts.get(&Key::new(namespace, "default")).is_none() {
            let account = ServiceAccount { metadata: metadata("default"), ..ServiceAccount::default() };
            let api: Api<ServiceAccount> = Api::namespaced(self.cx.client.clone(), namespace);
            unless_there(api.create(&posting(), &account).await.during("create default account of", namespace))?;
        }
        let pem = &self.cx.options.ca_pem;
        if pem.is_empty() {
            return Ok(());
        }
        let api: Api<ConfigMap> = Api::namespaced(self.cx.client.clone(), namespace);
        match self.cx.caches.config_maps.get(&Key::new(namespace, ROOT_CA)) {
            None => {
                let map = ConfigMap {
                    metadata: metadata(ROOT_CA),
                    data: Some([("ca.crt".to_owned(), pem.clone())].into()),
                    ..ConfigMap::default()
                };
                unless_there(api.create(&posting(), &map).await.during("publish certificate in", namespace))
            }
            Some(map) if map.data.as_ref().and_then(|data| data.get("ca.crt")) != Some(pem) => {
                let patch = Patch::Merge(json!({"data": {"ca.crt": pem}}));
                let patched = api.patch_metadata(ROOT_CA, &patching(), &patch).await;
                patched.unless_gone("renew certificate in", namespace).map(|_| ())
            }
            Some(_) => Ok(()),
        }
    }

    async fn terminate(&self, namespace: &Namespace) -> Result<Option<Duration>, Error> {
        let name = namespace.name_any();
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(None);
        }
        // Asked anew each time: a custom resource may have been defined a moment ago.
        let kinds = self.cx.kinds.refresh().await?;
        let found = content::delete(&self.cx.client, &name, &kinds).await;
        self.report(namespace, &found).await?;
        if !found.is_empty() {
            return Ok(Some(found.wait()));
        }
        let rest: Vec<_> = finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "uid": namespace.metadata.uid},
            "spec": {"finalizers": rest},
        });
        let api: Api<Namespace> = Api::all(self.cx.client.clone());
        let done = api.replace_subresource("finalize", &name, &posting(), &body).await;
        done.map(|_| ()).unless_gone("finalize namespace", &name)?;
        Ok(None)
    }

    /// Tells in conditions what holds the namespace up.
    async fn report(&self, namespace: &Namespace, found: &content::Found) -> Result<(), Error> {
        let old = namespace.status.clone().unwrap_or_default();
        let conditions = found.conditions(old.conditions.clone().unwrap_or_default());
        if conditions == old.conditions.clone().unwrap_or_default() {
            return Ok(());
        }
        let name = namespace.name_any();
        let patch = json!({"metadata": {"uid": namespace.metadata.uid}, "status": {"conditions": conditions}});
        let api: Api<Namespace> = Api::all(self.cx.client.clone());
        let patched = api.patch_status(&name, &patching(), &Patch::Merge(patch)).await;
        patched.unless_gone("report on namespace", &name).map(|_| ())
    }
}

fn unless_there<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() == Kind::Busy => Ok(()),
        other => other.map(|_| ()),
    }
}
