//! Objects in the shape a client asked for: whole, metadata only, or a table.

use jiff::Timestamp;
use osc_api::{status::Status, table::Include};
use serde_json::{Value, json};

use crate::{
    request::{Form, Query, query::invalid_option},
    resources::Served,
};

/// One object.
pub(crate) fn object(served: &Served, form: Form, object: Value, query: &Query) -> Result<Value, Status> {
    Ok(match form {
        Form::Whole => object,
        Form::Metadata(version) => partial(version, object["metadata"].clone()),
        Form::Table(version) => {
            let row = served.printer.row(&object, include(query)?, Timestamp::now());
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            served.printer.table(version, metadata, vec![row], true)
        }
    })
}

/// A list with its metadata.
pub(crate) fn list(
    served: &Served,
    form: Form,
    items: Vec<Value>,
    metadata: &Value,
    query: &Query,
) -> Result<Value, Status> {
    Ok(match form {
        Form::Whole => json!({
            "kind": served.resource.list_kind, "apiVersion": served.api_version, "metadata": metadata, "items": items,
        }),
        Form::Metadata(version) => {
            let items: Vec<Value> = items.into_iter().map(|item| partial(version, item["metadata"].clone())).collect();
            json!({
                "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata, "items": items,
            })
        }
        Form::Table(version) => {
            let (include, now) = (include(query)?, Timestamp::now());
            let rows = items.iter().map(|item| served.printer.row(item, include, now)).collect();
            served.printer.table(version, metadata.clone(), rows, true)
        }
    })
}

/// Metadata alone.
pub(crate) fn partial(version: &str, metadata: Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
}

/// What of the objects goes along with their rows.
fn include(query: &Query) -> Result<Include, Status> {
    match query.get("includeObject") {
        None | Some("Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => {
            let allowed = "supported values: \"None\", \"Metadata\", \"Object\"";
            Err(invalid_option("includeObject", other, "Unsupported value", allowed))
        }
    }
}
