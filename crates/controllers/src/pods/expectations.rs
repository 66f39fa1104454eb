//! Writes of ours that the caches have not shown yet.
//!
//! Between creating a pod and seeing it in the cache, a controller that counts
//! pods would create it again. It therefore notes how many creations and which
//! deletions are under way, and decides nothing new until they were seen or
//! have been outstanding for so long that something was missed.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;

use crate::{
    cache::{Cache, Change},
    pods::{controller_of, is_deleting},
};

/// A write not seen for this long is taken for lost.
const EXPIRY: Duration = Duration::from_secs(300);

/// Outstanding writes per owner uid; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Expectations {
    owners: Arc<Mutex<HashMap<String, Pending>>>,
}

struct Pending {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Expectations that learn from `pods` what arrived.
    pub(crate) fn watching(pods: &Cache<Pod>) -> Self {
        let this = Self::default();
        let expectations = this.clone();
        pods.on_change(move |change| expectations.observe(change));
        this
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything written for `owner` has been seen.
    pub(crate) fn met(&self, owner: &str, now: Instant) -> bool {
        let mut owners = self.owners();
        let Some(pending) = owners.get(owner) else { return true };
        let open = pending.creations > 0 || !pending.deletions.is_empty();
        let met = !open || now.duration_since(pending.since) > EXPIRY;
        if met {
            owners.remove(owner);
        }
        met
    }

    /// Notes creations before they are tried.
    pub(crate) fn create(&self, owner: &str, count: usize) {
        let mut owners = self.owners();
        let pending = owners.entry(owner.to_owned()).or_insert_with(Pending::new);
        pending.creations += i64::try_from(count).unwrap_or(i64::MAX);
        pending.since = Instant::now();
    }

    /// Notes the deletion of a pod before it is tried.
    pub(crate) fn delete(&self, owner: &str, pod_uid: &str) {
        let mut owners = self.owners();
        let pending = owners.entry(owner.to_owned()).or_insert_with(Pending::new);
        pending.deletions.insert(pod_uid.to_owned());
        pending.since = Instant::now();
    }

    /// One creation was seen, or failed and will not be.
    pub(crate) fn created(&self, owner: &str) {
        if let Some(pending) = self.owners().get_mut(owner) {
            pending.creations -= 1;
        }
    }

    /// A deletion was seen, or failed.
    pub(crate) fn deleted(&self, owner: &str, pod_uid: &str) {
        if let Some(pending) = self.owners().get_mut(owner) {
            pending.deletions.remove(pod_uid);
        }
    }

    /// Forgets an owner that is gone.
    pub(crate) fn forget(&self, owner: &str) {
        self.owners().remove(owner);
    }

    fn observe(&self, change: &Change<Pod>) {
        let pod = change.latest();
        let Some(owner) = controller_of(&pod.metadata) else { return };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if change.old.is_none() {
            self.created(&owner.uid);
        }
        if change.new.is_none() || is_deleting(pod) {
            self.deleted(&owner.uid, uid);
        }
    }
}

impl Pending {
    fn new() -> Self {
        Self { creations: 0, deletions: HashSet::new(), since: Instant::now() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::pod;

    fn owned(name: &str, deleting: bool) -> Arc<Pod> {
        let mut pod = pod(json!({"metadata": {"name": name, "uid": name, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "owner", "controller": true}]}}));
        if deleting {
            pod.metadata.deletion_timestamp = Some(crate::testing::time("2026-01-01T00:00:00Z"));
        }
        Arc::new(pod)
    }

    #[test]
    fn a_creation_is_met_when_seen_or_failed() {
        let expectations = Expectations::default();
        assert!(expectations.met("owner", Instant::now()));
        expectations.create("owner", 2);
        assert!(!expectations.met("owner", Instant::now()));
        expectations.observe(&Change { old: None, new: Some(owned("a", false)) });
        assert!(!expectations.met("owner", Instant::now()));
        expectations.created("owner");
        assert!(expectations.met("owner", Instant::now()));
    }

    #[test]
    fn a_deletion_is_met_by_its_timestamp_or_its_disappearance() {
        for change in [
            Change { old: Some(owned("a", false)), new: Some(owned("a", true)) },
            Change { old: Some(owned("a", false)), new: None },
        ] {
            let expectations = Expectations::default();
            expectations.delete("owner", "a");
            expectations.observe(&Change { old: Some(owned("a", false)), new: Some(owned("a", false)) });
            assert!(!expectations.met("owner", Instant::now()), "an update alone is no deletion");
            expectations.observe(&change);
            assert!(expectations.met("owner", Instant::now()));
        }
    }

    #[test]
    fn lost_writes_do_not_block_for_ever() {
        let expectations = Expectations::default();
        expectations.create("owner", 1);
        assert!(expectations.met("owner", Instant::now() + EXPIRY + Duration::from_secs(1)));
    }
}
