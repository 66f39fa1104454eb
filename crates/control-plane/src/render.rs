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

/// The shape of a list. Objects are turned into items one by one, so that of each no
/// more is held than the client gets.
pub(crate) struct List<'a> {
    served: &'a Served,
    form: Form,
    include: Include,
    now: Timestamp,
}

impl<'a> List<'a> {
    /// The shape a query asks for.
    pub(crate) fn new(served: &'a Served, form: Form, query: &Query) -> Result<Self, Status> {
        let include = if matches!(form, Form::Table(_)) { include(query)? } else { Include::None };
        Ok(Self { served, form, include, now: Timestamp::now() })
    }

    /// What stands for `object` in the list.
    pub(crate) fn item(&self, mut object: Value) -> Value {
        match self.form {
            Form::Whole => object,
            Form::Metadata(version) => partial(version, object["metadata"].take()),
            Form::Table(_) => self.served.printer.row(&object, self.include, self.now),
        }
    }

    /// The list of these items.
    pub(crate) fn of(&self, items: Vec<Value>, metadata: &Value) -> Value {
        let (kind, api_version) = match self.form {
            Form::Whole => (self.served.resource.list_kind.as_str(), self.served.api_version.clone()),
            Form::Metadata(version) => ("PartialObjectMetadataList", format!("meta.k8s.io/{version}")),
            Form::Table(version) => return self.served.printer.table(version, metadata.clone(), items, true),
        };
        json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items})
    }
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
