//! Which volume suits a claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use crate::{ownership::matches, quantity};

/// How a volume's claim reference stands to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// Nobody's.
    Free,
    /// Reserved for this claim by name, not bound yet.
    Reserved,
    /// Bound to this claim.
    Ours,
    /// Somebody else's, or an earlier namesake's.
    Other,
}

pub(super) fn reference(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Reference {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return Reference::Free };
    if reference.namespace != claim.namespace() || reference.name != claim.metadata.name {
        return Reference::Other;
    }
    match reference.uid.as_deref().filter(|uid| !uid.is_empty()) {
        None => Reference::Reserved,
        Some(uid) if Some(uid) == claim.metadata.uid.as_deref() => Reference::Ours,
        Some(_) => Reference::Other,
    }
}

/// The best volume for an unbound claim: reserved ones first, then the smallest that is large enough.
pub(super) fn choose(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
) -> Option<Arc<PersistentVolume>> {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    let candidate = |volume: &&Arc<PersistentVolume>| {
        let reference = reference(volume, claim);
        let usable = volume.metadata.deletion_timestamp.is_none() && reference != Reference::Other;
        let asked_for = named.is_none_or(|name| volume.name_any() == name);
        usable && asked_for && (reference == Reference::Ours || suits(claim, volume))
    };
    volumes
        .iter()
        .filter(candidate)
        .min_by_key(|volume| (reference(volume, claim) == Reference::Free, capacity(volume), volume.name_any()))
        .cloned()
}

fn capacity(volume: &PersistentVolume) -> i64 {
    let storage = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    storage.and_then(quantity::whole).unwrap_or(0)
}

fn suits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let (Some(wanted), Some(offered)) = (&claim.spec, &volume.spec) else { return false };
    let class = |name: &Option<String>| name.clone().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let requests = wanted.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let size = requests.and_then(|requests| requests.get("storage")).and_then(quantity::whole).unwrap_or(0);
    let modes = offered.access_modes.clone().unwrap_or_default();
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    class(&wanted.storage_class_name) == class(&offered.storage_class_name)
        && mode(&wanted.volume_mode) == mode(&offered.volume_mode)
        && capacity(volume) >= size
        && wanted.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && wanted.selector.as_ref().is_none_or(|selector| matches(Some(selector), volume.labels()))
        && matches!(phase, "Pending" | "Available")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::object;

    fn volume(name: &str, size: &str, extra: Value) -> Arc<PersistentVolume> {
        let mut spec =
            json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local"});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        Arc::new(object(json!({"metadata": {"name": name, "labels": {"disk": name}}, "spec": spec})))
    }

    fn claim(extra: Value) -> PersistentVolumeClaim {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "resources": {"requests": {"storage": "5Gi"}}});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        object(json!({"metadata": {"name": "c", "namespace": "x", "uid": "u"}, "spec": spec}))
    }

    #[test]
    fn the_smallest_suitable_volume_is_chosen() {
        let reference = |name: &str, uid: &str| json!({"claimRef": {"namespace": "x", "name": name, "uid": uid}});
        let plain = || {
            vec![
                volume("large", "50Gi", json!({})),
                volume("right", "5Gi", json!({})),
                volume("small", "1Gi", json!({})),
            ]
        };
        let with = |other: Arc<PersistentVolume>| plain().into_iter().chain([other]).collect::<Vec<_>>();
        for (why, claim, volumes, want) in [
            ("smallest", claim(json!({})), plain(), Some("right")),
            ("too large a wish", claim(json!({"resources": {"requests": {"storage": "1Ti"}}})), plain(), None),
            ("another class", claim(json!({"storageClassName": "fast"})), plain(), None),
            ("no class", claim(json!({"storageClassName": ""})), plain(), None),
            ("another mode", claim(json!({"volumeMode": "Block"})), plain(), None),
            ("more access", claim(json!({"accessModes": ["ReadWriteMany"]})), plain(), None),
            ("by label", claim(json!({"selector": {"matchLabels": {"disk": "large"}}})), plain(), Some("large")),
            ("by name", claim(json!({"volumeName": "large"})), plain(), Some("large")),
            ("reserved first", claim(json!({})), with(volume("kept", "9Gi", reference("c", ""))), Some("kept")),
            ("already ours", claim(json!({})), with(volume("mine", "1Gi", reference("c", "u"))), Some("mine")),
            (
                "an earlier namesake's",
                claim(json!({"volumeName": "old"})),
                with(volume("old", "9Gi", reference("c", "before"))),
                None,
            ),
        ] {
            assert_eq!(choose(&claim, &volumes).map(|volume| volume.name_any()).as_deref(), want, "{why}");
        }
    }

    #[test]
    fn released_volumes_are_not_reused() {
        let mut released = volume("r", "9Gi", json!({})).as_ref().clone();
        released.status = Some(object(json!({"phase": "Released"})));
        assert_eq!(choose(&claim(json!({})), &[Arc::new(released)]), None);
    }
}
