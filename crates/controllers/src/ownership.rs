//! Who manages what: adoption by selector, release when labels change.
//!
//! An object belongs to the owner its controller reference names. Objects that
//! match the selector and have no controller are adopted, objects that no
//! longer match are released. Deciding is pure; [`Claims::settle`] then writes.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::Patch,
    core::{NamespaceResourceScope, Selector, SelectorExt},
};
use serde_json::json;

use crate::{
    cache::Object,
    context::patching,
    error::{Attempt, Error},
    pods::{controller_of, labels, owned_by},
};

/// A parsed label selector that, like workload selectors, matches nothing when empty.
pub(crate) fn workload_selector(selector: &LabelSelector, object: &str) -> Result<Selector, Error> {
    let parsed = parse(selector, object)?;
    if parsed.selects_all() {
        return Err(Error::Invalid {
            object: object.to_owned(),
            field: "spec.selector",
            problem: "it is empty and would match every pod".into(),
        });
    }
    Ok(parsed)
}

/// A parsed label selector; an empty one matches everything.
pub(crate) fn parse(selector: &LabelSelector, object: &str) -> Result<Selector, Error> {
    Selector::try_from(selector.clone()).map_err(|problem| Error::Invalid {
        object: object.to_owned(),
        field: "spec.selector",
        problem: problem.to_string(),
    })
}

/// A parsed optional selector where absence matches nothing; unusable ones match nothing too.
pub(crate) fn matches(selector: Option<&LabelSelector>, on: &BTreeMap<String, String>) -> bool {
    selector.is_some_and(|selector| Selector::try_from(selector.clone()).is_ok_and(|parsed| parsed.matches(on)))
}

/// The owner an object is claimed for.
pub(crate) struct Owner<'a> {
    pub(crate) uid: &'a str,
    pub(crate) deleting: bool,
    pub(crate) selector: &'a Selector,
}

/// What belongs to an owner and what has to change for that.
#[derive(Debug)]
pub(crate) struct Claims<K> {
    /// Already managed and matching.
    pub(crate) owned: Vec<Arc<K>>,
    /// Matching, managed by nobody.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Managed but no longer matching.
    pub(crate) release: Vec<Arc<K>>,
}

/// What to do with one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Keep,
    Adopt,
    Release,
    Ignore,
}

fn judge(owner: &Owner<'_>, meta: &ObjectMeta) -> Claim {
    let matching = owner.selector.matches(labels(meta));
    match controller_of(meta) {
        Some(controller) if controller.uid != owner.uid => Claim::Ignore,
        Some(_) if matching => Claim::Keep,
        // A dying owner lets the garbage collector decide.
        Some(_) if owner.deleting => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner.deleting || !matching || meta.deletion_timestamp.is_some() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

impl<K: Resource> Claims<K> {
    /// Sorts `objects` of the owner's namespace.
    pub(crate) fn of(owner: &Owner<'_>, objects: Vec<Arc<K>>) -> Self {
        let mut claims = Self { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
        for object in objects {
            match judge(owner, object.meta()) {
                Claim::Keep => claims.owned.push(object),
                Claim::Adopt => claims.adopt.push(object),
                Claim::Release => claims.release.push(object),
                Claim::Ignore => {}
            }
        }
        claims
    }
}

impl<K> Claims<K>
where
    K: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    /// Writes adoptions and releases; returns everything owned afterwards.
    /// Before adopting, the live owner is asked: a stale cache may show an owner
    /// that is already gone or replaced by a namesake.
    pub(crate) async fn settle<O>(self, client: &Client, owner: &O) -> Result<Vec<Arc<K>>, Error>
    where
        O: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let namespace = owner.namespace().unwrap_or_default();
        let api: Api<K> = Api::namespaced(client.clone(), &namespace);
        let mut owned = self.owned;
        for object in &self.release {
            release(&api, object.as_ref(), owner.meta().uid.as_deref().unwrap_or_default()).await?;
        }
        if self.adopt.is_empty() || !still_there(client, owner).await? {
            return Ok(owned);
        }
        let reference = owned_by(owner);
        for object in self.adopt {
            if adopt(&api, object.as_ref(), &reference).await? {
                let mut adopted = object.as_ref().clone();
                adopted.meta_mut().owner_references.get_or_insert_default().push(reference.clone());
                owned.push(Arc::new(adopted));
            }
        }
        Ok(owned)
    }
}

async fn still_there<O>(client: &Client, owner: &O) -> Result<bool, Error>
where
    O: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let api: Api<O> = Api::namespaced(client.clone(), &owner.namespace().unwrap_or_default());
    let name = owner.name_any();
    let live = api.get_metadata_opt(&name).await.during("read owner", &name)?;
    Ok(live.is_some_and(|live| live.metadata.uid == owner.meta().uid && live.metadata.deletion_timestamp.is_none()))
}

async fn adopt<K: Object>(api: &Api<K>, object: &K, reference: &OwnerReference) -> Result<bool, Error> {
    let meta = object.meta();
    let patch = json!({"metadata": {"uid": meta.uid, "ownerReferences": [reference]}});
    let name = meta.name.clone().unwrap_or_default();
    let patched = api.patch_metadata(&name, &patching(), &Patch::Strategic(patch)).await;
    Ok(patched.unless_gone("adopt", &name)?.is_some())
}

async fn release<K: Object>(api: &Api<K>, object: &K, owner_uid: &str) -> Result<(), Error> {
    let meta = object.meta();
    let patch = json!({"metadata": {"uid": meta.uid, "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}});
    let name = meta.name.clone().unwrap_or_default();
    let patched = api.patch_metadata(&name, &patching(), &Patch::Strategic(patch)).await;
    patched.unless_gone("release", &name).map(|_| ())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::pod;

    #[test]
    fn objects_are_kept_adopted_released_or_left_alone() {
        let selector: Selector = [("app", "a")].into_iter().collect();
        let mine = json!([{"apiVersion": "v1", "kind": "R", "name": "r", "uid": "me", "controller": true}]);
        let other = json!([{"apiVersion": "v1", "kind": "R", "name": "r", "uid": "other", "controller": true}]);
        let plain = json!([{"apiVersion": "v1", "kind": "R", "name": "r", "uid": "me"}]);
        let good = json!({"app": "a"});
        let bad = json!({"app": "b"});
        let when = json!("2026-01-01T00:00:00Z");
        for (owners, labels, deleted, owner_deleting, want) in [
            (&mine, &good, None, false, Claim::Keep),
            (&mine, &good, None, true, Claim::Keep),
            (&mine, &good, Some(&when), false, Claim::Keep),
            (&mine, &bad, None, false, Claim::Release),
            (&mine, &bad, None, true, Claim::Ignore),
            (&other, &good, None, false, Claim::Ignore),
            (&other, &bad, None, false, Claim::Ignore),
            (&json!([]), &good, None, false, Claim::Adopt),
            (&plain, &good, None, false, Claim::Adopt),
            (&json!([]), &good, None, true, Claim::Ignore),
            (&json!([]), &good, Some(&when), false, Claim::Ignore),
            (&json!([]), &bad, None, false, Claim::Ignore),
        ] {
            let pod = pod(json!({"metadata": {
                "name": "p", "labels": labels, "ownerReferences": owners, "deletionTimestamp": deleted}}));
            let owner = Owner { uid: "me", deleting: owner_deleting, selector: &selector };
            assert_eq!(judge(&owner, &pod.metadata), want, "{owners} {labels} {deleted:?} {owner_deleting}");
        }
    }
}
