//! The end of objects: at once, after a grace period, or after finalizers.

use jiff::{SignedDuration, Timestamp};
use osc_api::{meta, status::Status};
use serde_json::{Value, json};

use super::{Intent, shape};
use crate::{admission::Operation, kinds, objects, request::query::Propagation};

/// Races lost in a row before giving up.
const RACES: usize = 100;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// DeleteOptions, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub grace: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    /// As sent, for admission.
    pub raw: Value,
}

/// What a deletion led to.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Value),
    /// It is on its way: grace period or finalizers.
    Pending(Value),
}

/// Deletes an object.
///
/// # Errors
/// 404, 409 when a precondition does not hold, 403 when admission objects.
pub(crate) async fn delete(intent: &Intent<'_>, options: &DeleteOptions) -> Result<Deleted, Status> {
    for _ in 0..RACES {
        let old = objects::expect(&intent.api.store, intent.served, intent.namespace, intent.name)?;
        check_preconditions(intent, &old, options)?;
        let attributes = intent.attributes(Operation::Delete, intent.name, &options.raw);
        let mut unchanged = Value::Null;
        (intent.warn)(intent.api.admission.mutate(&attributes, &mut unchanged, Some(&old)).await?);
        (intent.warn)(intent.api.admission.validate(&attributes, None, Some(&old)).await?);
        if let Some(deleted) = once(intent, old, options).await? {
            return Ok(deleted);
        }
    }
    Err(Status::modified(&intent.served.resource, intent.name))
}

fn check_preconditions(intent: &Intent<'_>, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let conflict = |what: &str, wanted: &str, there: &str| {
        let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {there}");
        Err(Status::conflict(&intent.served.resource, intent.name, why))
    };
    for (what, field, wanted) in
        [("UID", "uid", &options.uid), ("ResourceVersion", "resourceVersion", &options.resource_version)]
    {
        let there = old["metadata"][field].as_str().unwrap_or_default();
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != there) {
            return conflict(what, wanted, there);
        }
    }
    Ok(())
}

/// One attempt; `None` when the object changed meanwhile.
async fn once(intent: &Intent<'_>, old: Value, options: &DeleteOptions) -> Result<Option<Deleted>, Status> {
    let mut new = old.clone();
    let grace = mark(intent, &mut new, options)?;
    if intent.options.dry_run {
        return Ok(Some(Deleted::Pending(new)));
    }
    let served = intent.served;
    let key = served.key(intent.namespace, intent.name)?;
    let revision = objects::stored_revision(&old)?;
    if grace == 0 && kinds::may_go(&served.resource, &new) {
        let written = objects::remove(&intent.api.store, served, key, revision, new).await?;
        return Ok(written.done().map(Deleted::Gone));
    }
    if new == old {
        return Ok(Some(Deleted::Pending(old)));
    }
    let written = objects::replace(&intent.api.store, served, key, revision, new).await?;
    Ok(written.done().map(Deleted::Pending))
}

/// Notes in the object that it is to go, and returns the seconds it has left.
fn mark(intent: &Intent<'_>, object: &mut Value, options: &DeleteOptions) -> Result<i64, Status> {
    let wanted = kinds::grace(&intent.served.resource, object, options.grace);
    hold_for_dependants(object, options.propagation)?;
    let deleting = object["metadata"]["deletionTimestamp"].is_string();
    let remaining = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if deleting && wanted >= remaining {
        return Ok(remaining);
    }
    let begun = if deleting { began(object, remaining) } else { Timestamp::now() };
    let metadata = shape::metadata(object)?;
    let end = begun.saturating_add(SignedDuration::from_secs(wanted)).unwrap_or(begun);
    metadata.insert("deletionTimestamp".into(), meta::format_time(end).into());
    metadata.insert("deletionGracePeriodSeconds".into(), wanted.into());
    if !deleting {
        meta::bump_generation(&intent.served.resource, object);
        kinds::deletion_begins(&intent.served.resource, object);
    }
    Ok(wanted)
}

/// When the deletion began: a shorter grace period counts from there.
fn began(object: &Value, grace: i64) -> Timestamp {
    let end = object["metadata"]["deletionTimestamp"].as_str().and_then(meta::parse_time);
    end.and_then(|end| end.saturating_sub(SignedDuration::from_secs(grace)).ok()).unwrap_or_else(Timestamp::now)
}

/// Adds the finalizer that keeps the object until its dependants are dealt with.
fn hold_for_dependants(object: &mut Value, propagation: Option<Propagation>) -> Result<(), Status> {
    let Some(propagation) = propagation else { return Ok(()) };
    let deleting = object["metadata"]["deletionTimestamp"].is_string();
    let metadata = shape::metadata(object)?;
    let mut finalizers: Vec<Value> = metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let wanted = match propagation {
        Propagation::Orphan => Some(ORPHAN),
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Background => None,
    };
    finalizers.retain(|finalizer| {
        let ours = *finalizer == ORPHAN || *finalizer == FOREGROUND;
        !ours || wanted.is_some_and(|wanted| *finalizer == wanted)
    });
    // Once deletion has begun no finalizer may be added.
    if let Some(wanted) = wanted.filter(|wanted| !deleting && !finalizers.contains(&json!(wanted))) {
        finalizers.push(wanted.into());
    }
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_becomes_a_finalizer() {
        let rows = [
            (json!([]), false, None, json!(null)),
            (json!(["x"]), false, Some(Propagation::Orphan), json!(["x", "orphan"])),
            (json!([]), false, Some(Propagation::Foreground), json!(["foregroundDeletion"])),
            (json!(["orphan"]), false, Some(Propagation::Foreground), json!(["foregroundDeletion"])),
            (json!(["foregroundDeletion", "x"]), true, Some(Propagation::Background), json!(["x"])),
            (json!(["x"]), true, Some(Propagation::Orphan), json!(["x"])),
        ];
        for (given, deleting, propagation, want) in rows {
            let mut object = json!({"metadata": {"finalizers": given}});
            if given == json!([]) {
                object = json!({"metadata": {}});
            }
            if deleting {
                object["metadata"]["deletionTimestamp"] = json!("t");
            }
            hold_for_dependants(&mut object, propagation).unwrap();
            assert_eq!(
                object["metadata"].get("finalizers").cloned().unwrap_or_default(),
                want,
                "{given} {propagation:?}"
            );
        }
    }
}
