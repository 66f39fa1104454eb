//! Names, labels and claims of the pods of a StatefulSet.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use crate::{
    pods::{from_template, owned_by},
    revisions::HASH_LABEL,
};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// Ordinal of a pod called like a pod of the set.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.name_any();
    let digits = name.strip_prefix(&set.name_any())?.strip_prefix('-')?;
    // "01" and "+1" parse as well, but are no names we give.
    digits.parse().ok().filter(|ordinal: &i32| *ordinal >= 0 && ordinal.to_string() == digits)
}

fn claim_name(template: &PersistentVolumeClaim, pod: &str) -> String {
    format!("{}-{pod}", template.name_any())
}

fn claim_templates(set: &StatefulSet) -> Vec<PersistentVolumeClaim> {
    set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.clone()).unwrap_or_default()
}

/// The pod of an ordinal, made of the template of its revision.
pub(super) fn pod(set: &StatefulSet, ordinal: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
    let set_name = set.name_any();
    let name = format!("{set_name}-{ordinal}");
    let mut pod = from_template(template, &set.namespace().unwrap_or_default(), &set_name, owned_by(set));
    pod.metadata.generate_name = Some(format!("{set_name}-"));
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    labels.insert(HASH_LABEL.into(), revision.to_owned());
    let mut spec = pod.spec.take().unwrap_or_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    let volumes = spec.volumes.get_or_insert_default();
    for template in claim_templates(set) {
        let volume_name = template.name_any();
        volumes.retain(|volume| volume.name != volume_name);
        volumes.push(Volume {
            name: volume_name,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(&template, &name),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    spec.volumes = spec.volumes.filter(|volumes| !volumes.is_empty());
    pod.spec = Some(spec);
    pod
}

/// When claims go with what.
fn deleted_with(set: &StatefulSet) -> (bool, bool) {
    let policy =
        set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.clone()).unwrap_or_default();
    (policy.when_deleted.as_deref() == Some("Delete"), policy.when_scaled.as_deref() == Some("Delete"))
}

/// Whether claims of a pod that is scaled away are deleted with it.
pub(super) fn claims_go_with_pod(set: &StatefulSet) -> bool {
    deleted_with(set).1
}

/// Names of the claims of a pod.
pub(super) fn claim_names(set: &StatefulSet, pod: &str) -> Vec<String> {
    claim_templates(set).iter().map(|template| claim_name(template, pod)).collect()
}

/// The claims of an ordinal.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let pod = format!("{}-{ordinal}", set.name_any());
    let selector = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let (with_set, _) = deleted_with(set);
    let claim = |template: PersistentVolumeClaim| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selector.clone());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(claim_name(&template, &pod)),
                namespace: set.namespace(),
                labels: Some(labels),
                annotations: template.metadata.annotations,
                owner_references: with_set.then(|| vec![owned_by(set)]),
                ..ObjectMeta::default()
            },
            spec: template.spec,
            status: None,
        }
    };
    claim_templates(set).into_iter().map(claim).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    fn set() -> StatefulSet {
        object(json!({"metadata": {"name": "db", "namespace": "x", "uid": "u"}, "spec": {
            "serviceName": "dbs", "selector": {"matchLabels": {"a": "b"}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                "containers": [{"name": "c"}], "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}}}}))
    }

    #[test]
    fn a_pod_has_its_name_labels_host_name_and_claims() {
        let set = set();
        let pod = pod(&set, 3, &set.spec.as_ref().unwrap().template, "db-abc");
        assert_eq!(pod.name_any(), "db-3");
        assert_eq!((pod.labels()[POD_NAME].as_str(), pod.labels()[POD_INDEX].as_str()), ("db-3", "3"));
        assert_eq!(pod.labels()[HASH_LABEL], "db-abc");
        let spec = pod.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-3"), Some("dbs")));
        let volumes: Vec<_> = spec.volumes.unwrap();
        assert_eq!(volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["tmp", "data"]);
        assert_eq!(volumes[1].persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-3");
    }

    #[test]
    fn claims_are_named_labelled_and_owned_as_asked() {
        let claims = claims(&set(), 0);
        assert_eq!(claims[0].name_any(), "data-db-0");
        assert_eq!(claims[0].labels()["a"], "b");
        assert_eq!(claims[0].metadata.owner_references.as_ref().unwrap()[0].uid, "u");
        assert_eq!(claim_names(&set(), "db-0"), ["data-db-0"]);
        assert!(!claims_go_with_pod(&set()));
    }

    #[test]
    fn only_our_names_have_an_ordinal() {
        for (name, want) in [
            ("db-0", Some(0)),
            ("db-12", Some(12)),
            ("db-01", None),
            ("db", None),
            ("db-x", None),
            ("dbx-1", None),
            ("db--1", None),
        ] {
            assert_eq!(
                ordinal(&set(), &object(json!({"metadata": {"name": name}}))),
                want.filter(|n| *n >= 0),
                "{name}"
            );
        }
    }
}
