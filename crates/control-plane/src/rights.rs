//! Keeps the index of roles and bindings current.

use std::{sync::Arc, time::Duration};

use osc_access::{Authorizer, rbac::Kind};
use osc_api::status::Status;
use osc_store::{Event, EventKind, HistoryError, Page, Prefix, Revision, Store};
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::objects;

const GROUP: &str = "rbac.authorization.k8s.io";
const KINDS: [Kind; 4] = [Kind::ClusterRole, Kind::ClusterRoleBinding, Kind::Role, Kind::RoleBinding];
/// Pause after a failure of the store.
const RETRY: Duration = Duration::from_secs(1);

/// Loads all roles and bindings and starts following them until `stop`.
///
/// # Errors
/// 503 when the store does not answer.
pub(crate) async fn start(
    store: &Store,
    authorizer: &Arc<Authorizer>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(), Status> {
    for kind in KINDS {
        let from = load(store, authorizer, kind).await?;
        tasks.spawn(follow(store.clone(), Arc::clone(authorizer), kind, from, stop.clone()));
    }
    Ok(())
}

/// Reads all objects of a kind; returns from where to follow them.
async fn load(store: &Store, authorizer: &Authorizer, kind: Kind) -> Result<Revision, Status> {
    let listing = store.list(&prefix(kind)?, Page::default()).await.map_err(|error| objects::history(&error))?;
    let all: Vec<Value> = listing.entries.iter().map(|entry| json(&entry.value)).collect();
    if let Err(problem) = authorizer.replace(kind, &all) {
        warn!(kind = kind.plural(), error = %problem, "role or binding ignored");
    }
    Ok(listing.revision)
}

fn prefix(kind: Kind) -> Result<Prefix, Status> {
    Prefix::resource(GROUP, kind.plural()).map_err(Status::internal)
}

async fn follow(store: Store, authorizer: Arc<Authorizer>, kind: Kind, mut from: Revision, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let failure = tokio::select! {
            () = stop.cancelled() => return,
            failure = changes(&store, &authorizer, kind, &mut from) => failure,
        };
        warn!(kind = kind.plural(), error = failure.message, "roles not followed, reading them again");
        tokio::time::sleep(RETRY).await;
        if let Ok(revision) = load(&store, &authorizer, kind).await {
            from = revision;
        }
    }
}

/// Takes in changes until that fails.
async fn changes(store: &Store, authorizer: &Authorizer, kind: Kind, from: &mut Revision) -> Status {
    let failed = |failure: HistoryError| objects::history(&failure);
    let watch = prefix(kind).and_then(|prefix| store.watch(&prefix, *from).map_err(failed));
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(status) => return status,
    };
    loop {
        match watch.next().await {
            Ok(event) => {
                *from = event.revision;
                apply(authorizer, kind, &event);
            }
            Err(failure) => return failed(failure),
        }
    }
}

fn apply(authorizer: &Authorizer, kind: Kind, event: &Event) {
    match event.kind {
        EventKind::Delete => authorizer.remove(kind, event.key.namespace(), event.key.name()),
        EventKind::Put => {
            if let Err(problem) = authorizer.put(kind, &json(&event.value)) {
                warn!(kind = kind.plural(), name = event.key.name(), error = %problem, "role or binding ignored");
            }
        }
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}
