//! Keeps the index of roles and bindings current.

use std::{sync::Arc, time::Duration};

use osc_access::{Authorizer, rbac::Kind};
use osc_api::status::Status;
use osc_store::{Event, EventKind, HistoryError, Page, Prefix, Revision, Store};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::objects;

const GROUP: &str = "rbac.authorization.k8s.io";
const KINDS: [Kind; 4] = [Kind::ClusterRole, Kind::ClusterRoleBinding, Kind::Role, Kind::RoleBinding];
/// Pause after a failure of the store.
const RETRY: Duration = Duration::from_secs(1);

/// Loads all roles and bindings; returns from where to follow each kind.
///
/// # Errors
/// 503 when the store does not answer.
pub(crate) async fn load(store: &Store, authorizer: &Authorizer) -> Result<[Revision; 4], Status> {
    let mut from = [Revision::ZERO; 4];
    for (at, kind) in KINDS.into_iter().enumerate() {
        let prefix = Prefix::resource(GROUP, kind.plural()).map_err(Status::internal)?;
        let listing = store.list(&prefix, Page::default()).await.map_err(|error| objects::history(&error))?;
        for entry in &listing.entries {
            put(authorizer, kind, entry.key.name(), &entry.value);
        }
        from[at] = listing.revision;
    }
    Ok(from)
}

/// Follows one of the four kinds until the server stops.
async fn follow(store: Store, authorizer: Arc<Authorizer>, kind: Kind, mut from: Revision, stop: CancellationToken) {
    let Ok(prefix) = Prefix::resource(GROUP, kind.plural()) else { return };
    while !stop.is_cancelled() {
        let failure = match store.watch(&prefix, from) {
            Err(failure) => failure,
            Ok(mut watch) => loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    event = watch.next() => event, // cancel-safe
                };
                match event {
                    Ok(event) => {
                        from = event.revision;
                        apply(&authorizer, kind, &event);
                    }
                    Err(failure) => break failure,
                }
            },
        };
        if matches!(failure, HistoryError::Compacted { .. })
            && let Ok(revision) = store.revision()
        {
            // Fell behind: what was missed is read again; what went meanwhile is dropped with its last event only.
            from = reload(&store, &authorizer, kind, &prefix).await.unwrap_or(revision);
            continue;
        }
        warn!(kind = kind.plural(), error = objects::chain(&failure), "roles not followed, beginning anew");
        tokio::time::sleep(RETRY).await;
    }
}

async fn reload(store: &Store, authorizer: &Authorizer, kind: Kind, prefix: &Prefix) -> Option<Revision> {
    let listing = store.list(prefix, Page::default()).await.ok()?;
    for entry in &listing.entries {
        put(authorizer, kind, entry.key.name(), &entry.value);
    }
    Some(listing.revision)
}

/// Starts following all kinds.
pub(crate) fn spawn(
    store: &Store,
    authorizer: &Arc<Authorizer>,
    from: [Revision; 4],
    stop: &CancellationToken,
    tasks: &tokio_util::task::TaskTracker,
) {
    for (kind, from) in KINDS.into_iter().zip(from) {
        tasks.spawn(follow(store.clone(), Arc::clone(authorizer), kind, from, stop.clone()));
    }
}

fn apply(authorizer: &Authorizer, kind: Kind, event: &Event) {
    match event.kind {
        EventKind::Put => put(authorizer, kind, event.key.name(), &event.value),
        EventKind::Delete => authorizer.remove(kind, event.key.namespace(), event.key.name()),
    }
}

fn put(authorizer: &Authorizer, kind: Kind, name: &str, bytes: &[u8]) {
    let object: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if let Err(problem) = authorizer.put(kind, &object) {
        warn!(kind = kind.plural(), name, error = %problem, "role or binding ignored");
    }
}
