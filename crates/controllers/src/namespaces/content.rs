//! Everything in a namespace: deleting it and telling what is left.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{api::core::v1::NamespaceCondition, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Preconditions},
};
use osc_fault::Kind as Fault;

use crate::{
    error::{Attempt, Error},
    kinds::Kind,
};

/// Objects deleted one by one per round, where a kind knows no bulk deletion.
const PAGE: u32 = 200;

/// What a round of deleting left behind.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Objects left, per kind.
    remaining: BTreeMap<String, usize>,
    /// Objects left, per finalizer.
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
    /// Longest grace period of a pod left.
    grace: u64,
}

impl Found {
    pub(super) fn is_empty(&self) -> bool {
        self.remaining.is_empty() && self.failures.is_empty()
    }

    /// When to look again: soon, but not busily while pods take their time.
    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(if self.grace > 0 { 500 } else { 200 })
    }

    /// Conditions of the namespace; unchanged ones keep their time.
    pub(super) fn conditions(&self, mut conditions: Vec<NamespaceCondition>) -> Vec<NamespaceCondition> {
        let list = |counts: &BTreeMap<String, usize>, word: &str| {
            let parts: Vec<_> = counts.iter().map(|(what, count)| format!("{what} {word} {count}")).collect();
            parts.join(", ")
        };
        let mut tell = |type_: &str, bad: Option<(&str, String)>, good: (&str, &str)| {
            let (status, reason, message) = match bad {
                Some((reason, message)) => ("True", reason.to_owned(), message),
                None => ("False", good.0.to_owned(), good.1.to_owned()),
            };
            let known = conditions.iter().position(|condition| condition.type_ == type_);
            let since = known.and_then(|at| {
                let known = &conditions[at];
                (known.status == status).then(|| known.last_transition_time.clone()).flatten()
            });
            let condition = NamespaceCondition {
                type_: type_.into(),
                status: status.into(),
                reason: Some(reason),
                message: Some(message),
                last_transition_time: Some(since.unwrap_or_else(|| Time(Timestamp::now()))),
            };
            match known {
                Some(at) => conditions[at] = condition,
                None => conditions.push(condition),
            }
        };
        tell(
            "NamespaceDeletionDiscoveryFailure",
            None,
            ("ResourcesDiscovered", "All resources successfully discovered"),
        );
        tell(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        );
        let failed = (!self.failures.is_empty()).then(|| {
            (
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    self.failures.len(),
                    self.failures.join(", ")
                ),
            )
        });
        tell(
            "NamespaceDeletionContentFailure",
            failed,
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        );
        let left = (!self.remaining.is_empty()).then(|| {
            let parts = list(&self.remaining, "has");
            ("SomeResourcesRemain", format!("Some resources are remaining: {parts} resource instances"))
        });
        tell("NamespaceContentRemaining", left, ("ContentRemoved", "All content successfully removed"));
        let held = (!self.finalizers.is_empty()).then(|| {
            let parts = list(&self.finalizers, "in");
            (
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {parts} resource instances"),
            )
        });
        tell(
            "NamespaceFinalizersRemaining",
            held,
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        );
        conditions
    }
}

/// Deletes what a namespace holds and counts what is left. Pods go first: what
/// they use must outlive them.
pub(super) async fn delete(client: &Client, namespace: &str, kinds: &[Kind]) -> Found {
    let mut found = Found::default();
    let usable = |kind: &&Kind| kind.namespaced && kind.deletable && kind.listable;
    let (pods, others): (Vec<&Kind>, Vec<&Kind>) = kinds.iter().filter(usable).partition(|kind| kind.id() == "pods.");
    for kind in pods {
        clear(client, namespace, kind, &mut found).await;
    }
    if found.is_empty() {
        for kind in others {
            clear(client, namespace, kind, &mut found).await;
        }
    }
    found
}

async fn clear(client: &Client, namespace: &str, kind: &Kind, found: &mut Found) {
    if let Err(error) = clear_kind(client, namespace, kind, found).await {
        // A kind that vanished has no objects; one that forbids deletion is told.
        if error.kind() != Fault::NotFound {
            found.failures.push(format!("{}: {}", kind.id(), error.api_message()));
        }
    }
}

async fn clear_kind(client: &Client, namespace: &str, kind: &Kind, found: &mut Found) -> Result<(), Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.resource);
    let page = ListParams::default().limit(PAGE);
    let before = api.list_metadata(&page).await.during("list", kind.id())?;
    if before.items.is_empty() {
        return Ok(());
    }
    let mut bulk = kind.collection_deletable;
    if bulk {
        match api
            .delete_collection(&DeleteParams::background(), &ListParams::default())
            .await
            .during("delete all", kind.id())
        {
            Ok(_) => {}
            Err(error) if error.api_message().to_lowercase().contains("not allowed") => bulk = false,
            Err(error) => return Err(error),
        }
    }
    if !bulk {
        for object in before.items.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
            let name = object.metadata.name.clone().unwrap_or_default();
            let preconditions = Preconditions { uid: object.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams::background().preconditions(preconditions);
            api.delete(&name, &params).await.unless_gone("delete", &name)?;
        }
    }
    let after = api.list_metadata(&page).await.during("list", kind.id())?;
    let more = usize::try_from(after.metadata.remaining_item_count.unwrap_or(0)).unwrap_or(0);
    if !after.items.is_empty() {
        found.remaining.insert(kind.id().trim_end_matches('.').to_owned(), after.items.len() + more);
    }
    for object in &after.items {
        for finalizer in object.metadata.finalizers.iter().flatten() {
            *found.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        let grace = object.metadata.deletion_grace_period_seconds.unwrap_or(0);
        found.grace = found.grace.max(u64::try_from(grace).unwrap_or(0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_and_unchanged_news_keep_their_time() {
        let mut found = Found::default();
        found.remaining.insert("pods".into(), 2);
        found.finalizers.insert("example.com/hold".into(), 1);
        let first = found.conditions(vec![]);
        let get = |conditions: &[NamespaceCondition], type_: &str| {
            let condition = conditions.iter().find(|condition| condition.type_ == type_).unwrap();
            (condition.status.clone(), condition.message.clone().unwrap())
        };
        assert_eq!(
            get(&first, "NamespaceContentRemaining"),
            ("True".into(), "Some resources are remaining: pods has 2 resource instances".into())
        );
        assert_eq!(
            get(&first, "NamespaceFinalizersRemaining").1,
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        assert_eq!(get(&first, "NamespaceDeletionContentFailure").0, "False");
        assert_eq!(found.conditions(first.clone()), first);
        assert!(!found.is_empty() && Found::default().is_empty());
    }
}
