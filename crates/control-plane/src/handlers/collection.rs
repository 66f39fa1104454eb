//! Deleting a whole collection, object by object.

use http::Response;
use osc_api::status::Status;
use osc_store::Page;
use serde_json::{Value, json};

use super::{change, selection::Selection};
use crate::{
    call::Call,
    objects, render,
    response::Body,
    write::{self, Intent, Ownership, delete},
};

/// `DELETE` of a collection: what matches the selectors.
pub(super) async fn delete(call: &Call) -> Result<Response<Body>, Status> {
    let accept = call.accept()?;
    let selection = Selection::of(call)?;
    let (options, dry_run) = change::delete_options(call)?;
    let prefix = call.served.prefix(&call.path.namespace)?;
    let listing = call.api.store.list(&prefix, Page::default()).await.map_err(|error| objects::history(&error))?;
    let warn = |warnings| call.warn(warnings);
    let list = render::List::new(&call.served, accept, &call.query)?;
    let mut items = Vec::new();
    for entry in &listing.entries {
        let stored: Value =
            serde_json::from_slice(&entry.value).map_err(|_| Status::internal("a stored object cannot be read"))?;
        if !selection.matches(&stored) {
            continue;
        }
        let base = write::intent(call, Ownership::Update, &warn)?;
        let mut intent = Intent { namespace: entry.key.namespace(), name: entry.key.name(), ..base };
        intent.options.dry_run |= dry_run;
        match delete::delete(&intent, &options).await {
            Ok(delete::Deleted::Gone(object) | delete::Deleted::Pending(object)) => items.push(list.item(object)),
            // Somebody else was faster.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let metadata = json!({"resourceVersion": listing.revision.to_string()});
    Ok(list.of(&items, &metadata))
}
