//! Admission: what may be stored, and what is added on the way.
//!
//! ```text
//!  mutate:    built-in steps ─► webhooks, one after another ─┬─► done
//!                   ▲                                        │ one of them changed the object
//!                   └───────────── once more ◄───────────────┘ (webhooks: only those to be asked again)
//!
//!  validate:  built-in steps ─► webhooks, side by side
//! ```
//!
//! Built-in steps are pure functions of the object and what they read through [`Reader`]; running one twice changes
//! nothing more. They refuse with 403. Webhooks are servers of strangers: whatever they answer is bounded in size and
//! time.

mod builtin;
#[cfg(test)]
mod testing;
mod webhook;

use osc_access::Identity;
use osc_api::{Resource, status::Status};
use serde_json::Value;

use crate::reader::Reader;
use webhook::Webhooks;

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
    /// A stream to it is opened: exec, attach, port-forward, proxy.
    Connect,
}

impl Operation {
    /// The name in rules and reviews.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What admission is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// What is done.
    pub operation: Operation,
    /// To which kind of object.
    pub resource: &'a Resource,
    /// Through which subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Namespace of the object; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
    /// Who does it.
    pub identity: &'a Identity,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions`.
    pub options: &'a Value,
}

impl Attributes<'_> {
    /// Whether this is about objects of a built-in kind themselves, not a subresource.
    fn is_main(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.resource.is(group, plural)
    }

    /// Whether one of these is done to objects of a built-in kind themselves.
    pub(crate) fn is(&self, operations: &[Operation], group: &str, plural: &str) -> bool {
        operations.contains(&self.operation) && self.is_main(group, plural)
    }

    /// 403: `pods "x" is forbidden: why`.
    pub(crate) fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(self.resource, self.name, why)
    }
}

/// The chain all writes pass through.
pub struct Chain {
    reader: Reader,
    webhooks: Webhooks,
}

impl Chain {
    /// A chain whose steps read from `reader`.
    pub fn new(reader: Reader) -> Self {
        Self { webhooks: Webhooks::new(reader.clone()), reader }
    }

    /// Lets built-in steps and webhooks change the object; returns warnings for the client.
    ///
    /// For deletions and for connections without options `object` is null. Called once for each request (again when
    /// a race was lost), before the schema is checked.
    ///
    /// # Errors
    /// The refusal for the client.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Vec<String>, Status> {
        builtin::mutate(&self.reader, attributes, object, old).await?;
        let mut round = self.webhooks.mutating(attributes).await?;
        round.call_all(attributes, object, old).await?;
        if round.has_changed() {
            let before = object.clone();
            builtin::mutate(&self.reader, attributes, object, old).await?;
            round.call_again(attributes, object, old, before != *object).await?;
        }
        Ok(round.into_warnings())
    }

    /// Asks built-in steps and webhooks whether the object may be stored as it is; returns warnings for the client.
    ///
    /// # Errors
    /// The refusal for the client.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Vec<String>, Status> {
        builtin::validate(&self.reader, attributes, object, old).await?;
        self.webhooks.validate(attributes, object, old).await
    }
}
