//! ControllerRevisions: the template history of DaemonSets and StatefulSets.
//!
//! The data is a strategic merge patch that replaces `spec.template`: that is what
//! `kubectl rollout history` shows and `rollout undo` sends.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, Preconditions},
    core::NamespaceResourceScope,
};
use osc_fault::Kind;
use serde_json::{Value, json};

use crate::{
    cache::Object,
    context::{patching, posting},
    error::{Attempt, Error},
    pods::owned_by,
    template,
};

/// Label that names the revision of a pod.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";

/// A template as revision data.
pub(crate) fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_else(|_| json!({}));
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template a revision holds.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn holds(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|held| template::same(&held, template))
}

/// What the history needs so that a template is its latest entry.
#[derive(Debug, PartialEq)]
enum Change {
    None(Arc<ControllerRevision>),
    Renumber(Arc<ControllerRevision>, i64),
    Create(i64),
}

fn change(revisions: &[Arc<ControllerRevision>], template: &PodTemplateSpec) -> Change {
    let latest = revisions.iter().map(|revision| revision.revision).max().unwrap_or(0);
    let same = revisions.iter().filter(|revision| holds(revision, template)).max_by_key(|revision| revision.revision);
    match same {
        Some(same) if same.revision == latest => Change::None(same.clone()),
        Some(same) => Change::Renumber(same.clone(), latest + 1),
        None => Change::Create(latest + 1),
    }
}

/// Makes `template` the latest revision of `owner` and returns it.
pub(crate) async fn ensure<O>(
    client: &Client,
    owner: &O,
    revisions: &[Arc<ControllerRevision>],
    template: &PodTemplateSpec,
    collisions: i32,
) -> Result<Arc<ControllerRevision>, Error>
where
    O: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let namespace = owner.namespace().unwrap_or_default();
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &namespace);
    match change(revisions, template) {
        Change::None(revision) => Ok(revision),
        Change::Renumber(revision, number) => {
            let name = revision.name_any();
            let patch =
                json!({"metadata": {"resourceVersion": revision.metadata.resource_version}, "revision": number});
            let patched = api.patch(&name, &patching(), &Patch::Merge(patch)).await;
            patched.during("renumber revision", &name).map(Arc::new)
        }
        Change::Create(number) => {
            let revision = new_revision(owner, template, number, collisions);
            let name = revision.name_any();
            match api.create(&posting(), &revision).await.during("create revision", &name) {
                // Ours from before a restart or a stale cache; anything else is an honest failure.
                Err(error) if error.kind() == Kind::Busy => {
                    let there = api.get(&name).await.during("read revision", &name)?;
                    if holds(&there, template) { Ok(Arc::new(there)) } else { Err(error) }
                }
                other => other.map(Arc::new),
            }
        }
    }
}

fn new_revision<O>(owner: &O, template: &PodTemplateSpec, number: i64, collisions: i32) -> ControllerRevision
where
    O: Resource<DynamicType = ()>,
{
    let hash = template::hash(template, collisions);
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.name_any())),
            namespace: owner.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![owned_by(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data(template))),
        revision: number,
    }
}

/// Revisions nobody uses beyond the limit, oldest first.
pub(crate) fn expired(
    revisions: &[Arc<ControllerRevision>],
    used: &BTreeSet<String>,
    limit: i32,
) -> Vec<Arc<ControllerRevision>> {
    let mut idle: Vec<_> = revisions.iter().filter(|revision| !used.contains(&revision.name_any())).cloned().collect();
    idle.sort_by_key(|revision| revision.revision);
    idle.truncate(idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0)));
    idle
}

/// Deletes revisions.
pub(crate) async fn delete(client: &Client, revisions: Vec<Arc<ControllerRevision>>) -> Result<(), Error> {
    for revision in revisions {
        let name = revision.name_any();
        let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &revision.namespace().unwrap_or_default());
        let preconditions = Preconditions { uid: revision.uid(), resource_version: None };
        let params = DeleteParams::background().preconditions(preconditions);
        api.delete(&name, &params).await.unless_gone("delete old revision", &name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DaemonSet;

    use super::*;
    use crate::testing::object;

    fn template(image: &str) -> PodTemplateSpec {
        object(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}))
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        let owner: DaemonSet = object(json!({"metadata": {"name": "d", "namespace": "x", "uid": "u"}}));
        Arc::new(new_revision(&owner, &template(image), number, 0))
    }

    #[test]
    fn a_revision_gives_its_template_back() {
        let revision = revision("i:1", 1);
        assert_eq!(template_of(&revision), Some(template("i:1")));
        assert_eq!(revision.data.as_ref().unwrap().0["spec"]["template"]["$patch"], "replace");
        assert_eq!(revision.labels()["a"], "b");
        assert_eq!(format!("d-{}", revision.labels()[HASH_LABEL]), revision.name_any());
    }

    #[test]
    fn the_template_becomes_the_latest_revision() {
        let (one, two) = (revision("i:1", 1), revision("i:2", 2));
        let all = [one.clone(), two.clone()];
        assert_eq!(change(&all, &template("i:2")), Change::None(two));
        assert_eq!(change(&all, &template("i:1")), Change::Renumber(one, 3));
        assert_eq!(change(&all, &template("i:3")), Change::Create(3));
        assert_eq!(change(&[], &template("i:3")), Change::Create(1));
    }

    #[test]
    fn only_unused_revisions_expire() {
        let all: Vec<_> = (1..=4).map(|n| revision(&format!("i:{n}"), n)).collect();
        let used = BTreeSet::from([all[0].name_any(), all[3].name_any()]);
        let numbers = |limit| -> Vec<i64> { expired(&all, &used, limit).iter().map(|r| r.revision).collect() };
        assert_eq!(numbers(10), Vec::<i64>::new());
        assert_eq!(numbers(1), [2]);
        assert_eq!(numbers(0), [2, 3]);
    }
}
