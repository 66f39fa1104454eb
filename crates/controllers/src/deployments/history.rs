//! ReplicaSets of a Deployment as its history: which is current, which number
//! each has, and which are old enough to go.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use crate::{
    deployments::rolling::Set,
    pods::{nonzero, owned_by},
    template::{self, POD_TEMPLATE_HASH},
};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that say nothing about its template.
const NOT_COPIED: [&str; 5] =
    ["kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MOST];
/// Former numbers kept in one annotation.
const HISTORY_LIMIT: usize = 2000;

/// The sets of one Deployment, oldest first.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// Set of the current template.
    pub(super) new: Option<Arc<ReplicaSet>>,
    pub(super) old: Vec<Arc<ReplicaSet>>,
}

impl History {
    pub(super) fn of(deployment: &Deployment, mut sets: Vec<Arc<ReplicaSet>>) -> Self {
        sets.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone()));
        let current = deployment.spec.as_ref().and_then(|spec| {
            sets.iter().position(|set| {
                let template = set.spec.as_ref().and_then(|set| set.template.as_ref());
                template.is_some_and(|template| template::same(template, &spec.template))
            })
        });
        let new = current.map(|index| sets.remove(index));
        Self { new, old: sets }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// Number of the current template: one above all others.
    pub(super) fn revision(&self) -> i64 {
        self.old.iter().map(|set| revision(&set.metadata)).max().unwrap_or(0) + 1
    }

    /// Old sets without pods beyond the history limit, oldest first.
    pub(super) fn expired(&self, limit: i32) -> Vec<Arc<ReplicaSet>> {
        let mut idle: Vec<_> = self.old.iter().filter(|set| is_idle(set)).cloned().collect();
        idle.sort_by_key(|set| (revision(&set.metadata), set.metadata.creation_timestamp.clone()));
        idle.truncate(self.old.len().saturating_sub(usize::try_from(limit).unwrap_or(0)).min(idle.len()));
        idle
    }
}

fn is_idle(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    set.metadata.deletion_timestamp.is_none()
        && asked(set) == 0
        && status.replicas == 0
        && status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
}

/// `spec.replicas` of a set.
pub(super) fn asked(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).unwrap_or(0)
}

fn annotation<T: std::str::FromStr>(meta: &ObjectMeta, key: &str) -> Option<T> {
    meta.annotations.as_ref()?.get(key)?.parse().ok()
}

/// A set as the arithmetic sees it.
pub(super) fn view(set: &ReplicaSet) -> Set {
    Set {
        name: set.name_any(),
        created: set.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
        replicas: asked(set),
        available: set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0),
        desired_then: annotation(&set.metadata, DESIRED),
        most_then: annotation(&set.metadata, MOST),
    }
}

/// Notes on a set what the Deployment asked for when it was scaled.
pub(super) fn note_size(annotations: &mut BTreeMap<String, String>, desired: i32, most: i32) -> bool {
    let mut put = |key: &str, value: i32| {
        let value = value.to_string();
        annotations.insert(key.to_owned(), value.clone()) != Some(value)
    };
    let desired = put(DESIRED, desired);
    put(MOST, most) || desired
}

/// Annotations a set of the current template should carry, given those it has.
pub(super) fn annotations(
    deployment: &Deployment,
    have: &BTreeMap<String, String>,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut wanted = have.clone();
    let copied = deployment.metadata.annotations.iter().flatten();
    wanted.extend(
        copied.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str())).map(|(key, value)| (key.clone(), value.clone())),
    );
    let number = |map: &BTreeMap<String, String>| map.get(REVISION).and_then(|text| text.parse::<i64>().ok());
    let before = number(have);
    if before.is_none_or(|before| before < revision) {
        wanted.insert(REVISION.into(), revision.to_string());
        if let Some(before) = before {
            // A rollback gives an old set a new number; the old one is remembered.
            let former = wanted.entry(REVISION_HISTORY.into()).or_default();
            if !former.is_empty() {
                former.push(',');
            }
            former.push_str(&before.to_string());
            while former.len() > HISTORY_LIMIT
                && let Some((_, rest)) = former.split_once(',')
            {
                *former = rest.to_owned();
            }
        }
    }
    wanted
}

/// The ReplicaSet of the current template, with `replicas` pods.
pub(super) fn new_set(deployment: &Deployment, replicas: i32, most: i32, revision: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = template::hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.into(), hash.clone());
    let mut annotations = annotations(deployment, &BTreeMap::new(), revision);
    note_size(&mut annotations, spec.replicas.unwrap_or(1), most);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owned_by(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: nonzero(spec.min_ready_seconds.unwrap_or(0)),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    fn deployment(image: &str) -> Deployment {
        object(json!({"metadata": {"name": "d", "namespace": "x", "uid": "u", "annotations": {
                "note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}}))
    }

    fn set(image: &str, revision: i64, replicas: i32, created: &str) -> Arc<ReplicaSet> {
        let mut set = new_set(&deployment(image), replicas, replicas, revision);
        set.metadata.creation_timestamp = Some(crate::testing::time(created));
        Arc::new(set)
    }

    #[test]
    fn the_new_set_carries_hash_revision_and_owner() {
        let set = new_set(&deployment("i:1"), 3, 4, 7);
        let hash = set.metadata.labels.clone().unwrap()["pod-template-hash"].clone();
        assert_eq!(set.name_any(), format!("d-{hash}"));
        let spec = set.spec.unwrap();
        assert_eq!(spec.selector.match_labels.unwrap()["pod-template-hash"], hash);
        assert_eq!(spec.template.unwrap().metadata.unwrap().labels.unwrap()["pod-template-hash"], hash);
        let annotations = set.metadata.annotations.unwrap();
        assert_eq!(
            (annotations[REVISION].as_str(), annotations[DESIRED].as_str(), annotations[MOST].as_str()),
            ("7", "3", "4")
        );
        assert_eq!(annotations["note"], "kept");
        assert!(!annotations.contains_key("kubectl.kubernetes.io/last-applied-configuration"));
        assert_eq!(set.metadata.owner_references.unwrap()[0].uid, "u");
    }

    #[test]
    fn the_current_set_is_found_by_template_and_numbered_last() {
        let sets = vec![set("i:2", 2, 1, "2026-01-01T00:00:02Z"), set("i:1", 1, 2, "2026-01-01T00:00:01Z")];
        let history = History::of(&deployment("i:1"), sets.clone());
        assert_eq!(revision(&history.new.as_ref().unwrap().metadata), 1);
        assert_eq!(history.revision(), 3, "a rollback gets a new number");
        assert!(History::of(&deployment("i:3"), sets).new.is_none());
    }

    #[test]
    fn a_rollback_remembers_the_former_number() {
        let have = BTreeMap::from([(REVISION.to_owned(), "1".to_owned())]);
        let again = annotations(&deployment("i"), &have, 3);
        assert_eq!((again[REVISION].as_str(), again[REVISION_HISTORY].as_str()), ("3", "1"));
        let third = annotations(&deployment("i"), &again, 5);
        assert_eq!(third[REVISION_HISTORY], "1,3");
        assert_eq!(annotations(&deployment("i"), &third, 5), third, "settled");
    }

    #[test]
    fn only_idle_sets_beyond_the_limit_expire_oldest_first() {
        let sets = vec![
            set("i:1", 1, 0, "2026-01-01T00:00:01Z"),
            set("i:2", 2, 1, "2026-01-01T00:00:02Z"),
            set("i:3", 3, 0, "2026-01-01T00:00:03Z"),
            set("i:4", 4, 3, "2026-01-01T00:00:04Z"),
        ];
        let history = History::of(&deployment("i:4"), sets);
        let expired =
            |limit| -> Vec<i64> { history.expired(limit).iter().map(|set| revision(&set.metadata)).collect() };
        assert_eq!(expired(10), Vec::<i64>::new());
        assert_eq!(expired(2), [1]);
        assert_eq!(expired(0), [1, 3]);
    }
}
