//! The steps every cluster has.

mod default_tolerations;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod node_taints;
mod priority;
mod runtime_class;
mod service_account;
mod storage_class;

use osc_api::status::Status;
use serde_json::{Map, Value};

use super::{Attributes, Operation};
use crate::reader::Reader;

/// Runs the steps that change objects, in their order.
pub(super) async fn mutate(
    reader: &Reader,
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    namespace_lifecycle::admit(reader, attributes)?;
    node_restriction::admit(reader, attributes, object, old)?;
    limit_ranger::fill(reader, attributes, object).await?;
    service_account::admit(reader, attributes, object).await?;
    node_taints::admit(attributes, object);
    priority::admit(reader, attributes, object, old).await?;
    default_tolerations::admit(attributes, object);
    runtime_class::admit(reader, attributes, object)?;
    storage_class::admit(reader, attributes, object).await
}

/// Runs the steps that only look, in their order: webhooks may have undone what `mutate` saw to.
pub(super) async fn validate(
    reader: &Reader,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    namespace_lifecycle::admit(reader, attributes)?;
    node_restriction::admit(reader, attributes, object.unwrap_or(&Value::Null), old)?;
    let Some(object) = object else { return Ok(()) };
    limit_ranger::check(reader, attributes, object).await?;
    service_account::check(reader, attributes, object)?;
    priority::check(reader, attributes, object).await?;
    runtime_class::check(reader, attributes, object)
}

/// The text at a field; empty when there is none.
fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a field; empty when there is none.
fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The list at a field, made when there is none; nothing when the object or the field is something else, which the
/// schema refuses later.
fn list_mut<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    slot(object, field, || Value::Array(Vec::new()))?.as_array_mut()
}

/// The map at a field, in the same way.
fn map_mut<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    slot(object, field, || Value::Object(Map::new()))?.as_object_mut()
}

fn slot<'a>(object: &'a mut Value, field: &str, empty: impl Fn() -> Value) -> Option<&'a mut Value> {
    let slot = object.as_object_mut()?.entry(field).or_insert_with(&empty);
    if slot.is_null() {
        *slot = empty();
    }
    Some(slot)
}

/// Whether a pod stands for one that its node took from a file.
fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some()
}
