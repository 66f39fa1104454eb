//! Reading objects from inside the server, as admission and access need it.

use std::sync::Arc;

use osc_access::token::Reference;
use osc_api::status::Status;
use osc_store::{Page, Store};
use serde_json::Value;

use crate::{
    objects,
    resources::{Catalog, Served},
};

/// Reads objects without asking who may; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    store: Store,
    catalog: Arc<Catalog>,
}

impl Reader {
    pub(crate) fn new(store: Store, catalog: Arc<Catalog>) -> Self {
        Self { store, catalog }
    }

    /// An object in the preferred version of its kind; `None` when there is no
    /// such object or no such kind.
    ///
    /// # Errors
    /// 503 when the store does not answer.
    pub fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
        let Some(served) = self.served(group, plural) else { return Ok(None) };
        match objects::read(&self.store, &served, namespace, name) {
            Err(status) if status.code == 404 => Ok(None),
            other => other,
        }
    }

    /// All objects of a kind in a namespace, or in all (`""`).
    ///
    /// # Errors
    /// 503 when the store does not answer.
    pub async fn list(&self, group: &str, plural: &str, namespace: &str) -> Result<Vec<Value>, Status> {
        let Some(served) = self.served(group, plural) else { return Ok(Vec::new()) };
        let prefix = served.prefix(namespace)?;
        let listing = self.store.list(&prefix, Page::default()).await.map_err(|error| objects::history(&error))?;
        listing.entries.iter().map(|entry| objects::decode(&served, &entry.value)).collect()
    }

    /// The uid of what a token is bound to, while it is alive.
    pub(crate) fn live_uid(&self, reference: &Reference<'_>) -> Option<String> {
        let object = self.get("", reference.resource, reference.namespace, reference.name).ok()??;
        let metadata = &object["metadata"];
        let over = metadata["deletionTimestamp"].as_str().and_then(osc_api::meta::parse_time);
        let alive = over.is_none_or(|over| over > jiff::Timestamp::now());
        alive.then(|| metadata["uid"].as_str().map(str::to_owned)).flatten()
    }

    fn served(&self, group: &str, plural: &str) -> Option<Arc<Served>> {
        self.catalog.snapshot().find_any_version(group, plural).cloned()
    }
}
