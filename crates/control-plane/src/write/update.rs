//! Changes of objects that exist.

use osc_api::{meta, status::Status, strategy};
use serde_json::{Map, Value};

use super::{Intent, shape};
use crate::{
    admission::{Attributes, Operation},
    kinds, objects, quota,
};

/// Races lost in a row before a writer that insists on no version gives up.
const RACES: usize = 100;

/// Changes an object: `change` makes the wanted state from the present one,
/// again whenever somebody else was faster.
///
/// Returns the object as it is now, or the last state of one that went away with
/// its last finalizer. When the wanted state names a resourceVersion, only that one is replaced.
///
/// # Errors
/// 404, 409 for another version or uid, and what the new state is guilty of.
pub(crate) async fn update(
    intent: &Intent<'_>,
    change: impl Fn(&Value) -> Result<Value, Status> + Sync,
) -> Result<Value, Status> {
    for _ in 0..RACES {
        let old = objects::expect(&intent.api.store, intent.served, intent.namespace, intent.name)?;
        let wanted = change(&old)?;
        let versioned = check_preconditions(intent, &old, &wanted)?;
        match once(intent, old, wanted).await? {
            Some(updated) => return Ok(updated),
            None if versioned => break,
            None => {}
        }
    }
    Err(Status::modified(&intent.served.resource, intent.name))
}

/// Whether the wanted state is bound to one version, which must be the present one.
fn check_preconditions(intent: &Intent<'_>, old: &Value, wanted: &Value) -> Result<bool, Status> {
    let (resource, name) = (&intent.served.resource, intent.name);
    let text = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let uid = text(wanted, "uid");
    if !uid.is_empty() && uid != text(old, "uid") {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", text(old, "uid"));
        return Err(Status::conflict(resource, name, why));
    }
    let version = text(wanted, "resourceVersion");
    if !version.is_empty() && version != text(old, "resourceVersion") {
        return Err(Status::modified(resource, name));
    }
    Ok(!version.is_empty())
}

/// One attempt; `None` when the object changed meanwhile.
async fn once(intent: &Intent<'_>, old: Value, wanted: Value) -> Result<Option<Value>, Status> {
    let mut new = confine(intent, &old, wanted)?;
    let options = intent.options.to_value("UpdateOptions");
    let attributes = intent.attributes(Operation::Update, intent.name, &options);
    (intent.warn)(intent.api.admission.mutate(&attributes, &mut new, Some(&old)).await?);
    let mut new = confine(intent, &old, new)?;
    intent.own(Some(&old), &mut new);
    intent.check(&new, Some(&old))?;
    (intent.warn)(intent.api.admission.validate(&attributes, Some(&new), Some(&old)).await?);
    store(intent, &attributes, &old, new).await
}

/// What this endpoint lets through of the wanted state, in proper shape.
fn confine(intent: &Intent<'_>, old: &Value, mut new: Value) -> Result<Value, Status> {
    let served = intent.served;
    let resource = &served.resource;
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    if name != intent.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            intent.name
        )));
    }
    shape::place(served, &mut new, intent.namespace)?;
    match intent.subresource {
        "status" => {
            strategy::prepare_status_update(resource, old, &mut new);
            shape::normalise(served, &mut new);
        }
        "finalize" => new = with_only(old, &new, "finalizers"),
        "ephemeralcontainers" => {
            new = with_only(old, &new, "ephemeralContainers");
            shape::normalise(served, &mut new);
        }
        "binding" => shape::normalise(served, &mut new),
        // The object itself, or its number of replicas.
        _ => {
            shape::normalise(served, &mut new);
            kinds::before_update(served, &mut new, old);
            strategy::prepare_update(resource, old, &mut new);
        }
    }
    if !matches!(intent.subresource, "" | "scale") {
        meta::prepare_update(resource, old, &mut new);
    }
    shape::keep_metadata(&mut new, old);
    Ok(new)
}

/// The old object with one field of `spec` as it is in the new one.
fn with_only(old: &Value, new: &Value, field: &str) -> Value {
    let mut kept = old.clone();
    if !kept["spec"].is_object() {
        kept["spec"] = Value::Object(Map::new());
    }
    shape::copy_field(&mut kept["spec"], &new["spec"], field);
    shape::copy_field(&mut kept["metadata"], &new["metadata"], "managedFields");
    kept
}

/// Writes the new state, or removes the object if only its finalizers held it.
async fn store(
    intent: &Intent<'_>,
    attributes: &Attributes<'_>,
    old: &Value,
    new: Value,
) -> Result<Option<Value>, Status> {
    let (api, served) = (intent.api, intent.served);
    let gone = kinds::may_go(&served.resource, &new);
    if new == *old && !gone {
        return Ok(Some(new));
    }
    if intent.options.dry_run {
        quota::charge(api, attributes, &new, Some(old)).await?;
        return Ok(Some(new));
    }
    if !gone {
        return quota::write(api, served, attributes, new, Some(old)).await;
    }
    let key = served.key(intent.namespace, intent.name)?;
    Ok(objects::remove(&api.store, served, key, objects::stored_revision(old)?, new).await?.done())
}
