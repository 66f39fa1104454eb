//! Moving from client-side to server-side apply.
//!
//! Client-side apply keeps what it applied in an annotation. When `kubectl` applies on the server, values it finds
//! there unchanged are its own, whatever manager noted them; and the annotation is kept up to date, so that one can
//! move back. Other managers have no part in this.

use serde_json::Value;

use crate::fields::Set;
use crate::managed::Manager;
use crate::typed::{Place, compare, owned};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Bytes all annotations of an object may have together.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Fields `kubectl` applied on the client that still have the value it gave them; nothing for other managers.
pub fn own(place: Place<'_>, live: &Value, by: &Manager) -> Set {
    let Some(last) = configuration(live, by) else { return Set::default() };
    let mut own = owned(place, &last);
    let change = compare(place, &last, live);
    for changed in [&change.added, &change.modified, &change.removed] {
        own.subtract(changed);
    }
    own
}

fn configuration(object: &Value, by: &Manager) -> Option<Value> {
    if by.name != "kubectl" {
        return None;
    }
    let text = object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()?;
    serde_json::from_str(text).ok()
}

/// Brings the annotation up to date, if there is one.
pub fn synchronise(merged: &mut Value, applied: &Value, by: &Manager) {
    let Some(last) = configuration(merged, by) else { return };
    let mut applied = applied.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    if last == applied {
        return;
    }
    let Some(annotations) = merged.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    annotations.remove(ANNOTATION);
    let text = format!("{applied}\n");
    let others: usize = annotations.iter().map(|(name, text)| name.len() + text.as_str().map_or(0, str::len)).sum();
    if others + ANNOTATION.len() + text.len() <= MAX_ANNOTATIONS {
        annotations.insert(ANNOTATION.to_owned(), Value::from(text));
    }
}
