//! Which objects of a collection a client is interested in.

use osc_api::{
    selector::{FieldSelector, LabelSelector},
    status::Status,
};
use serde_json::Value;

use crate::{call::Call, request::Query, resources::Served};

/// Label and field selector of a request.
#[derive(Debug)]
pub(super) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Reads both selectors; a path with a name selects that name.
    pub fn of(call: &Call) -> Result<Self, Status> {
        Self::parse(&call.served, &call.query, &call.path.name)
    }

    fn parse(served: &Served, query: &Query, name: &str) -> Result<Self, Status> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(|problem| Status::bad_request(format!("unable to parse labelSelector: {problem}")))?;
        let mut fields = query.get("fieldSelector").unwrap_or_default().to_owned();
        if !name.is_empty() {
            let comma = if fields.is_empty() { "" } else { "," };
            fields = format!("{fields}{comma}metadata.name={name}");
        }
        Ok(Self { labels, fields: FieldSelector::parse(&served.resource, &fields)? })
    }

    /// Whether nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether an object, as stored, is wanted.
    pub fn matches(&self, stored: &Value) -> bool {
        self.labels.matches_object(stored) && self.fields.matches(stored)
    }
}
