//! Static binding of claims to volumes, and protection of both while in use.
//!
//! ```text
//!  claim Pending ─ volume found ─► volume.claimRef ─► claim.volumeName ─► both Bound
//!  claim deleted ─► volume Released (its data stays; nothing here deletes it)
//!  volume deleted ─► claim Lost
//! ```
//! Volumes are not provisioned, and `persistentVolumeReclaimPolicy: Delete` is
//! not carried out: a released volume waits for its administrator.

mod bind;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, ResourceExt, api::Patch};
use serde_json::{Value, json};

use crate::{
    cache::Key,
    context::{Context, RESYNC, patching},
    error::{Attempt, Error},
    events::Recorder,
    pods,
    queue::{Queue, work},
    volumes::bind::{Reference, choose, reference},
};

const BOUND: &str = "pv.kubernetes.io/bind-completed";
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

struct Binder {
    cx: Context,
    claims: Queue<Key>,
    volumes: Queue<Key>,
    events: Recorder,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let (claims, volumes) = (Queue::new(), Queue::new());
    let (on, on_volume) = (claims.clone(), volumes.clone());
    cx.caches.claims.on_change(move |change| {
        let claim = change.latest();
        on.add(Key::of(claim.as_ref()));
        if let Some(volume) = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()) {
            on_volume.add(Key::cluster(volume));
        }
    });
    let (on, on_volume, all) = (claims.clone(), volumes.clone(), cx.caches.claims.clone());
    cx.caches.volumes.on_change(move |change| {
        on_volume.add(Key::of(change.latest().as_ref()));
        let name = change.latest().name_any();
        for claim in all.all().iter().filter(|claim| phase(claim) != "Bound" || volume_name(claim) == Some(&name)) {
            on.add(Key::of(claim.as_ref()));
        }
    });
    // A deleted claim waits for the last pod that uses it.
    let on = claims.clone();
    cx.caches.pods.on_change(move |change| {
        let pod = change.latest();
        if change.new.as_ref().is_none_or(|new| pods::is_finished(new)) {
            for name in claims_of(pod) {
                on.add(Key::new(pod.namespace().unwrap_or_default(), name));
            }
        }
    });
    let events = cx.events.of("persistentvolume-controller");
    let this = Arc::new(Binder { cx: cx.clone(), claims, volumes, events });
    let stop = cx.stop.clone();
    async move {
        // One claim at a time: two must not choose the same volume.
        tokio::join!(
            work("volume-claims", this.claims.clone(), 1, stop.clone(), |key| this.claim(key)),
            work("volumes", this.volumes.clone(), 4, stop, |key| this.volume(key)),
        );
    }
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&String> {
    claim.spec.as_ref()?.volume_name.as_ref().filter(|name| !name.is_empty())
}

fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        let own = || format!("{}-{}", pod.name_any(), volume.name);
        let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
        named.or_else(|| volume.ephemeral.as_ref().map(|_| own()))
    })
}

impl Binder {
    async fn claim(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(claim) = self.cx.caches.claims.get(&key) else { return Ok(None) };
        if claim.metadata.deletion_timestamp.is_some() {
            return self.let_claim_go(&claim).await.map(|()| None);
        }
        let bound = claim.annotations().contains_key(BOUND);
        match volume_name(&claim).map(|name| self.cx.caches.volumes.get(&Key::cluster(name.clone()))) {
            Some(Some(volume)) if bound && reference(&volume, &claim) == Reference::Ours => {
                self.settle_claim(&claim, &volume).await?;
            }
            Some(_) if bound => {
                let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                self.events.warning(claim.as_ref(), "ClaimLost", message.into());
                self.claim_status(&claim, json!({"phase": "Lost"})).await?;
            }
            _ => match choose(&claim, &self.cx.caches.volumes.all()) {
                Some(volume) => {
                    self.bind(&claim, &volume).await?;
                    self.settle_claim(&claim, &volume).await?;
                }
                None => {
                    let message = "no persistent volumes available for this claim and no storage class is set";
                    self.events.normal(claim.as_ref(), "FailedBinding", message.into());
                    self.claim_status(&claim, json!({"phase": "Pending"})).await?;
                }
            },
        }
        Ok(Some(RESYNC))
    }

    /// Writes the volume first: it decides who owns it.
    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Error> {
        let name = volume.name_any();
        if reference(volume, claim) != Reference::Ours {
            let patch = json!({
                "metadata": {"uid": volume.uid(), "resourceVersion": volume.resource_version(),
                             "annotations": {BY_CONTROLLER: "yes"}},
                "spec": {"claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
                    "name": claim.name_any(), "uid": claim.uid(), "resourceVersion": claim.resource_version()}},
            });
            let api: Api<PersistentVolume> = Api::all(self.cx.client.clone());
            let patched = api.patch(&name, &patching(), &Patch::Merge(patch)).await;
            patched.during("bind volume", &name)?;
        }
        let patch = json!({
            "metadata": {"uid": claim.uid(), "annotations": {BOUND: "yes", BY_CONTROLLER: "yes"}},
            "spec": {"volumeName": name},
        });
        let patched = self.claims_in(claim).patch(&claim.name_any(), &patching(), &Patch::Merge(patch)).await;
        patched.during("bind claim", claim.name_any()).map(|_| ())
    }

    async fn settle_claim(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Error> {
        let spec = volume.spec.clone().unwrap_or_default();
        self.claim_status(
            claim,
            json!({"phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity}),
        )
        .await?;
        self.volumes.add(Key::of(volume));
        Ok(())
    }

    async fn claim_status(&self, claim: &PersistentVolumeClaim, wanted: Value) -> Result<(), Error> {
        if wanted["phase"] == phase(claim) && claim.status.is_some() {
            return Ok(());
        }
        let name = claim.name_any();
        let patch = json!({"metadata": {"uid": claim.uid()}, "status": wanted});
        let patched = self.claims_in(claim).patch_status(&name, &patching(), &Patch::Merge(patch)).await;
        patched.unless_gone("update status of claim", &name).map(|_| ())
    }

    async fn let_claim_go(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let name = claim.name_any();
        let pods = self.cx.caches.pods.of_namespace(&claim.namespace().unwrap_or_default());
        let used = pods.iter().any(|pod| !pods::is_finished(pod) && claims_of(pod).any(|used| used == name));
        if used || !claim.finalizers().iter().any(|finalizer| finalizer == CLAIM_PROTECTION) {
            return Ok(());
        }
        let rest: Vec<_> = claim.finalizers().iter().filter(|finalizer| *finalizer != CLAIM_PROTECTION).collect();
        let patch = json!({"metadata": {
            "uid": claim.uid(), "resourceVersion": claim.resource_version(), "finalizers": rest}});
        let patched = self.claims_in(claim).patch_metadata(&name, &patching(), &Patch::Merge(patch)).await;
        patched.unless_gone("let claim go", &name).map(|_| ())
    }

    async fn volume(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(volume) = self.cx.caches.volumes.get(&key) else { return Ok(None) };
        let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone());
        let claim = owner.as_ref().and_then(|owner| {
            let key = Key::new(owner.namespace.clone().unwrap_or_default(), owner.name.clone().unwrap_or_default());
            self.cx.caches.claims.get(&key)
        });
        let standing = claim.map_or(Reference::Other, |claim| reference(&volume, &claim));
        let reserved = owner.as_ref().is_some_and(|owner| owner.uid.as_deref().unwrap_or_default().is_empty());
        let wanted = match (&owner, standing) {
            (None, _) => "Available",
            (Some(_), _) if reserved => "Available",
            (Some(_), Reference::Ours) => "Bound",
            (Some(_), _) => "Released",
        };
        if volume.metadata.deletion_timestamp.is_some() {
            if wanted != "Bound" {
                self.let_volume_go(&volume).await?;
            }
            return Ok(None);
        }
        let have = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if have != Some(wanted) {
            let patch = json!({"metadata": {"uid": volume.uid()}, "status": {"phase": wanted}});
            let api: Api<PersistentVolume> = Api::all(self.cx.client.clone());
            let patched = api.patch_status(&key.name, &patching(), &Patch::Merge(patch)).await;
            patched.unless_gone("update status of volume", &key)?;
        }
        Ok(Some(RESYNC))
    }

    async fn let_volume_go(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let name = volume.name_any();
        if !volume.finalizers().iter().any(|finalizer| finalizer == VOLUME_PROTECTION) {
            return Ok(());
        }
        let rest: Vec<_> = volume.finalizers().iter().filter(|finalizer| *finalizer != VOLUME_PROTECTION).collect();
        let patch = json!({"metadata": {
            "uid": volume.uid(), "resourceVersion": volume.resource_version(), "finalizers": rest}});
        let api: Api<PersistentVolume> = Api::all(self.cx.client.clone());
        let patched = api.patch_metadata(&name, &patching(), &Patch::Merge(patch)).await;
        patched.unless_gone("let volume go", &name).map(|_| ())
    }

    fn claims_in(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.cx.client.clone(), &claim.namespace().unwrap_or_default())
    }
}
