//! Objects in the store: values in, values out.
//!
//! Stored bytes are JSON in the storage version, with `resourceVersion` inside:
//! the store tells the revision before the bytes are made.

use bytes::Bytes;
use osc_api::{convert, status::Status};
use osc_fault::chain;
use osc_store::{Change, Expect, HistoryError, Key, ReadError, Revision, Store, WriteError};
use serde_json::Value;
use tracing::error;

use crate::resources::Served;

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// It is on disk; the object carries its new resourceVersion.
    Done(Value),
    /// Somebody was faster; nothing was written.
    Raced,
    /// A quota charged with it changed meanwhile; nothing was written.
    Outrun,
}

impl Written {
    /// The object as it is now, unless nothing was written.
    pub fn done(self) -> Option<Value> {
        match self {
            Self::Done(object) => Some(object),
            Self::Raced | Self::Outrun => None,
        }
    }
}

/// Reads an object in the version of `served`.
pub(crate) fn read(store: &Store, served: &Served, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
    let key = served.key(namespace, name)?;
    let entry = store.get(&key).map_err(|error| unreadable(&error))?;
    entry.map(|entry| decode(served, &entry.value)).transpose()
}

/// Reads an object or says it is not there.
pub(crate) fn expect(store: &Store, served: &Served, namespace: &str, name: &str) -> Result<Value, Status> {
    read(store, served, namespace, name)?.ok_or_else(|| Status::not_found(&served.resource, name))
}

/// Stored bytes as an object in the version of `served`.
pub(crate) fn decode(served: &Served, bytes: &[u8]) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(bytes).map_err(|failure| {
        error!(resource = served.resource.plural, error = %failure, "stored object is not JSON");
        Status::internal("a stored object cannot be read")
    })?;
    from_stored(served, &mut object);
    Ok(object)
}

/// From the storage version to that of `served`, with the defaults of custom resources.
fn from_stored(served: &Served, object: &mut Value) {
    if served.custom.is_some() {
        object["apiVersion"] = served.api_version.as_str().into();
        osc_schema::default(served.node(), object);
    } else {
        convert::from_stored(&served.resource, object);
    }
}

/// Whether stored bytes are already what a client of `served` gets.
pub(crate) fn is_stored_as_served(served: &Served) -> bool {
    served.custom.is_none() && *convert::stored(&served.resource) == *served.resource
}

fn to_stored(served: &Served, object: &mut Value) {
    if let Some(custom) = &served.custom {
        object["apiVersion"] = custom.stored_version.as_str().into();
    } else {
        convert::to_stored(&served.resource, object);
    }
}

/// The `resourceVersion` an object carries, as a revision.
pub(crate) fn revision(object: &Value) -> Option<Revision> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok().map(Revision::new)
}

/// The revision of an object that was read from the store.
pub(crate) fn stored_revision(object: &Value) -> Result<Revision, Status> {
    revision(object).ok_or_else(|| Status::internal("a stored object has no version"))
}

/// Replaces an object that was read at `revision`.
pub(crate) async fn replace(
    store: &Store,
    served: &Served,
    key: Key,
    revision: Revision,
    object: Value,
) -> Result<Written, Status> {
    put(store, served, key, Expect::Revision(revision), object, Vec::new()).await
}

/// Writes an object, and `charge` with it: all of that or nothing.
pub(crate) async fn put(
    store: &Store,
    served: &Served,
    key: Key,
    expect: Expect,
    object: Value,
    charge: Vec<Change>,
) -> Result<Written, Status> {
    commit(store, served, key.clone(), change(served, key, expect, object), charge).await
}

/// The replacement of an object that was read at `revision`, to be written together with others.
pub(crate) fn replacement(served: &Served, key: Key, revision: Revision, object: Value) -> Change {
    change(served, key, Expect::Revision(revision), object)
}

fn change(served: &Served, key: Key, expect: Expect, mut object: Value) -> Change {
    to_stored(served, &mut object);
    Change::put(key, expect, move |revision| encode(object, revision))
}

/// Removes an object that was read at `revision`; watchers see `last`.
pub(crate) async fn remove(
    store: &Store,
    served: &Served,
    key: Key,
    revision: Revision,
    mut last: Value,
) -> Result<Written, Status> {
    to_stored(served, &mut last);
    let change = Change::delete(key.clone(), Expect::Revision(revision), move |revision| encode(last, revision));
    commit(store, served, key, change, Vec::new()).await
}

async fn commit(
    store: &Store,
    served: &Served,
    key: Key,
    change: Change,
    charge: Vec<Change>,
) -> Result<Written, Status> {
    let changes = std::iter::once(change).chain(charge).collect();
    match store.write(changes).await {
        Ok(committed) => {
            let entry = committed.entries.first().ok_or_else(|| Status::internal("the store lost a write"))?;
            decode(served, &entry.value).map(Written::Done)
        }
        Err(WriteError::Conflict { key: other, .. }) if other != key => Ok(Written::Outrun),
        Err(WriteError::Conflict { .. }) => Ok(Written::Raced),
        Err(failure) => {
            error!(error = chain(&failure), "write failed");
            Err(Status::unavailable(format!("the object could not be written: {failure}")))
        }
    }
}

fn encode(mut object: Value, revision: Revision) -> Bytes {
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    // Values have string keys and finite numbers: encoding cannot fail.
    serde_json::to_vec(&object).unwrap_or_default().into()
}

/// 503 for a store that does not answer.
pub(crate) fn unreadable(failure: &ReadError) -> Status {
    error!(error = chain(failure), "read failed");
    Status::unavailable(format!("the store does not answer: {failure}"))
}

/// 410 for a past that is gone, 504-like time-outs for a future not here yet.
pub(crate) fn history(failure: &HistoryError) -> Status {
    match failure {
        HistoryError::Compacted { asked, oldest } => {
            Status::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        HistoryError::Ahead { asked, newest } => too_new(asked.get(), newest.get()),
        HistoryError::Read(failure) => unreadable(failure),
    }
}

/// The answer Kubernetes gives to resource versions it has not reached.
pub(crate) fn too_new(asked: u64, newest: u64) -> Status {
    let mut status =
        Status::timeout(format!("Too large resource version: {asked}, current: {newest}")).with_retry_after(1);
    let message = "Too large resource version";
    status = status.with_causes([osc_api::status::Cause::new("ResourceVersionTooLarge", message, "")]);
    status.with_retry_after(1)
}
