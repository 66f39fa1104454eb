//! Collections: whole or in pages, of now or of a past moment.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Response;
use osc_api::status::Status;
use osc_store::{Entry, Key, Listing, Page, Revision};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::selection::Selection;
use crate::{
    call::Call,
    objects, render,
    request::{
        Form,
        query::{VersionMatch, invalid_option},
    },
    response::Body,
};

/// Entries read at once when a selector makes it unknown how many are needed.
const CHUNK: usize = 500;

/// Where a list in pages goes on; opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    revision: u64,
    after: String,
}

/// What part of which moment is wanted.
struct Wanted {
    limit: Option<usize>,
    at: Option<Revision>,
    after: Option<Key>,
}

/// `GET` of a collection.
pub(super) async fn list(call: &Call) -> Result<Response<Body>, Status> {
    let accept = call.accept()?;
    let selection = Selection::of(call)?;
    let wanted = wanted(call)?;
    let list = render::List::new(&call.served, accept, &call.query)?;
    let page = if accept.form == Form::Whole && objects::is_stored_as_served(&call.served) {
        // Nothing has to be taken apart: stored bytes are what the client gets.
        collect(call, &selection, wanted, |entry| Ok(entry.value.clone())).await?
    } else {
        let make = |entry: &Entry| objects::decode(&call.served, &entry.value).map(|object| list.item(object));
        collect(call, &selection, wanted, make).await?
    };
    Ok(list.of(&page.items, &page.metadata))
}

struct Items {
    /// As JSON.
    items: Vec<Bytes>,
    metadata: Value,
}

/// Reads until the page is full or the collection ends.
async fn collect(
    call: &Call,
    selection: &Selection,
    wanted: Wanted,
    make: impl Fn(&Entry) -> Result<Bytes, Status>,
) -> Result<Items, Status> {
    let prefix = call.served.prefix(&call.path.namespace)?;
    let all = selection.is_everything();
    let mut items = Vec::new();
    let (mut at, mut after) = (wanted.at, wanted.after);
    loop {
        let room = wanted.limit.map(|limit| limit - items.len());
        let limit = if all { room } else { Some(CHUNK) };
        let page = Page { limit, after: after.clone(), at };
        let listing = call.api.store.list(&prefix, page).await.map_err(|error| objects::history(&error))?;
        at = Some(listing.revision);
        let mut used = 0;
        for entry in &listing.entries {
            used += 1;
            if all || selection.matches(&parse(entry)?) {
                items.push(make(entry)?);
            }
            if wanted.limit.is_some_and(|limit| items.len() >= limit) {
                break;
            }
        }
        let left = listing.remaining + (listing.entries.len() - used) as u64;
        after = used.checked_sub(1).map(|last| listing.entries[last].key.clone()).or(after);
        if left == 0 || wanted.limit.is_some_and(|limit| items.len() >= limit) {
            return Ok(Items { items, metadata: metadata(&listing, left, after.as_ref(), all) });
        }
    }
}

fn parse(entry: &Entry) -> Result<Value, Status> {
    serde_json::from_slice(&entry.value).map_err(|_| Status::internal("a stored object cannot be read"))
}

fn metadata(listing: &Listing, left: u64, after: Option<&Key>, counted: bool) -> Value {
    let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
    if let (1.., Some(after)) = (left, after) {
        let token = Continue { revision: listing.revision.get(), after: after.as_str().to_owned() };
        let text = serde_json::to_vec(&token).unwrap_or_default();
        metadata["continue"] = URL_SAFE_NO_PAD.encode(text).into();
        if counted {
            metadata["remainingItemCount"] = left.into();
        }
    }
    metadata
}

fn wanted(call: &Call) -> Result<Wanted, Status> {
    let query = &call.query;
    let limit =
        query.number("limit")?.filter(|limit| *limit > 0).map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let (version, matching) = (query.resource_version()?, query.version_match()?);
    if let Some(token) = query.get("continue") {
        if matching.is_some() {
            let why = "resourceVersionMatch is forbidden for continuations";
            return Err(invalid_option(
                "resourceVersionMatch",
                query.get("resourceVersionMatch").unwrap_or_default(),
                "Forbidden",
                why,
            ));
        }
        if version.is_some_and(|version| version > 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let (at, after) = resume(call, token).ok_or_else(|| Status::bad_request("continue key is not valid"))?;
        return Ok(Wanted { limit, at: Some(at), after: Some(after) });
    }
    let at = match (matching, version) {
        (Some(_), None) => {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(invalid_option("resourceVersionMatch", "", "Forbidden", why));
        }
        (Some(VersionMatch::Exact), Some(0)) => {
            let why = "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
            return Err(invalid_option("resourceVersionMatch", "Exact", "Forbidden", why));
        }
        (Some(VersionMatch::Exact), Some(version)) => Some(Revision::new(version)),
        (_, Some(version)) => {
            let newest = call.api.store.revision().map_err(|error| objects::unreadable(&error))?.get();
            if version > newest {
                return Err(objects::too_new(version, newest));
            }
            None
        }
        (None, None) => None,
    };
    Ok(Wanted { limit, at, after: None })
}

/// The place a token names, if it is one within this collection.
fn resume(call: &Call, token: &str) -> Option<(Revision, Key)> {
    let token: Continue = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let after = Key::parse(&token.after).ok()?;
    let prefix = call.served.prefix(&call.path.namespace).ok()?;
    prefix.contains(&after).then_some((Revision::new(token.revision), after))
}
