//! Objects in the shape a client asked for: whole, metadata only, or a table.

use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use osc_api::{status::Status, table::Include};
use serde_json::{Value, json};

use crate::{
    request::{Accept, Form, Query, Wire, query::invalid_option},
    resources::Served,
    response::{self, Body},
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

/// The shape of a list. Objects are turned into bytes of the answer one by one, so that of
/// each no more is held than the client gets.
pub(crate) struct List<'a> {
    served: &'a Served,
    accept: Accept,
    include: Include,
    now: Timestamp,
}

impl<'a> List<'a> {
    /// The shape a query asks for.
    pub(crate) fn new(served: &'a Served, accept: Accept, query: &Query) -> Result<Self, Status> {
        let include = if matches!(accept.form, Form::Table(_)) { include(query)? } else { Include::None };
        Ok(Self { served, accept, include, now: Timestamp::now() })
    }

    /// What stands for `object` in the list.
    pub(crate) fn item(&self, mut object: Value) -> Bytes {
        let item = match self.accept.form {
            Form::Whole => object,
            Form::Metadata(version) => partial(version, object["metadata"].take()),
            Form::Table(_) => self.served.printer.row(&object, self.include, self.now),
        };
        encoded(&item).into()
    }

    /// The list of these items.
    pub(crate) fn of(&self, items: &[Bytes], metadata: &Value) -> Response<Body> {
        let (kind, api_version) = match self.accept.form {
            Form::Whole => (self.served.resource.list_kind.as_str(), self.served.api_version.clone()),
            Form::Metadata(version) => ("PartialObjectMetadataList", format!("meta.k8s.io/{version}")),
            Form::Table(version) => {
                let mut head = self.served.printer.table(version, metadata.clone(), Vec::new(), true);
                if let Some(head) = head.as_object_mut() {
                    head.remove("rows");
                }
                return self.answer(&head, "rows", items);
            }
        };
        self.answer(&json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}), "items", items)
    }

    /// `head` with one more field, which holds the items.
    fn answer(&self, head: &Value, field: &str, items: &[Bytes]) -> Response<Body> {
        let mut bytes = encoded(head);
        // Opens the object again that was just written.
        bytes.pop();
        bytes.reserve(items.iter().map(|item| item.len() + 1).sum::<usize>() + field.len() + 8);
        bytes.extend_from_slice(format!(",\"{field}\":[").as_bytes());
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                bytes.push(b',');
            }
            bytes.extend_from_slice(item);
        }
        bytes.extend_from_slice(b"]}");
        match self.accept.wire {
            Wire::Json => response::bytes(StatusCode::OK, Wire::Json.media_type(), bytes),
            Wire::Yaml => {
                let list = serde_json::from_slice(&bytes).unwrap_or_default();
                response::value(StatusCode::OK, Wire::Yaml, &list)
            }
        }
    }
}

/// Values have string keys and finite numbers: JSON takes them all.
fn encoded(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
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
