//! Every kind the API serves, kept up to date by discovery.
//!
//! The garbage collector and namespace deletion must know custom resources as
//! well, including those of a CustomResourceDefinition made a second ago.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::PartialObjectMeta,
    core::discovery::{ApiResource, Scope, verbs},
    discovery::Discovery,
    runtime::{WatchStreamExt, watcher},
};
use osc_fault::chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::{Attempt, Error};

/// Discovery runs again after this time even if no definition changed.
const REFRESH: Duration = Duration::from_secs(60);
/// Definitions often come in bursts, and are served a moment after they appear.
const SETTLE: Duration = Duration::from_millis(500);

/// One kind and what can be done with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    pub(crate) watchable: bool,
    pub(crate) listable: bool,
    pub(crate) deletable: bool,
    pub(crate) collection_deletable: bool,
}

impl Kind {
    /// `plural.group`, which names a kind whatever its version.
    pub(crate) fn id(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }
}

/// Latest result of discovery; clones share it.
#[derive(Clone)]
pub(crate) struct Kinds {
    client: Client,
    latest: watch::Sender<Arc<Vec<Kind>>>,
}

impl Kinds {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, latest: watch::Sender::new(Arc::default()) }
    }

    /// Follows discovery.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Vec<Kind>>> {
        self.latest.subscribe()
    }

    /// The kind an owner reference means, in any served version.
    pub(crate) fn find(&self, api_version: &str, kind: &str) -> Option<Kind> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.latest.borrow().iter().find(|known| known.resource.group == group && known.resource.kind == kind).cloned()
    }

    /// Asks the API anew.
    pub(crate) async fn refresh(&self) -> Result<Arc<Vec<Kind>>, Error> {
        let aggregated = Discovery::new(self.client.clone()).run_aggregated().await;
        let discovery = match aggregated {
            Ok(discovery) if discovery.groups().next().is_some() => discovery,
            _ => Discovery::new(self.client.clone()).run().await.during("discover", "kinds")?,
        };
        let mut kinds: Vec<Kind> = discovery
            .groups()
            .flat_map(|group| group.resources_by_stability())
            .map(|(resource, powers)| Kind {
                namespaced: powers.scope == Scope::Namespaced,
                watchable: powers.supports_operation(verbs::WATCH),
                listable: powers.supports_operation(verbs::LIST),
                deletable: powers.supports_operation(verbs::DELETE),
                collection_deletable: powers.supports_operation(verbs::DELETE_COLLECTION),
                resource,
            })
            .filter(|kind| !kind.resource.plural.contains('/'))
            .collect();
        kinds.sort_by_key(Kind::id);
        let kinds = Arc::new(kinds);
        self.latest.send_if_modified(|latest| {
            let changed = *latest != kinds;
            *latest = kinds.clone();
            changed
        });
        Ok(kinds)
    }

    /// Keeps the list fresh until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let definitions: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(self.client.clone());
        let mut changes = std::pin::pin!(watcher(definitions, watcher::Config::default()).default_backoff());
        let mut due = SETTLE;
        loop {
            if let Err(error) = self.refresh().await {
                tracing::warn!(error = %chain(&error), "discovery failed; it is repeated");
                due = SETTLE * 4;
            }
            let deadline = tokio::time::Instant::now() + due;
            due = REFRESH;
            let again = async {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => {}
                    () = changed(&mut changes) => tokio::time::sleep(SETTLE).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = again => {}
            }
        }
    }
}

async fn changed<S, E>(events: &mut S)
where
    S: futures::Stream<Item = Result<watcher::Event<E>, watcher::Error>> + Unpin,
{
    // A broken watch only means that the periodic refresh must do.
    while let Some(event) = events.next().await {
        if matches!(event, Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_))) {
            return;
        }
    }
    std::future::pending().await
}
