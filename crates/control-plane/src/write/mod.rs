//! The one way in which objects get into the store.
//!
//! ```text
//!  decode ─► names, system fields ─► defaults ─► admission (mutating) ─► defaults again
//!         ─► field ownership ─► schema ─► rules of the kind ─► admission (validating) ─► store
//! ```
//!
//! `create`, `update` (which patch, apply, scale and the rest go through) and
//! `delete` differ in what they do at the ends; the middle is `shape` and `check`.

pub(crate) mod body;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod shape;
pub(crate) mod update;

use jiff::Timestamp;
use osc_access::{
    Identity,
    rbac::{Escalation, Kind as RoleKind},
};
use osc_api::{status::Status, validate};
use osc_patch::{Manager, managed};
use serde_json::Value;

use crate::{
    admission::{Attributes, Operation},
    api::Api,
    call::{Call, WriteOptions},
    kinds,
    resources::Served,
};

/// How the fields of a write come to be owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// By comparing the object before and after.
    Update,
    /// Apply has done its own bookkeeping.
    Apply,
}

/// What is written, by whom, and how.
pub(crate) struct Intent<'a> {
    pub api: &'a Api,
    pub served: &'a Served,
    pub identity: &'a Identity,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    pub options: WriteOptions,
    /// How the change is owned when it is not owned already (apply does its own bookkeeping).
    pub ownership: Ownership,
    pub warn: &'a (dyn Fn(Vec<String>) + Sync),
}

impl<'a> Intent<'a> {
    /// What admission is asked.
    pub fn attributes(&self, operation: Operation, name: &'a str, options: &'a Value) -> Attributes<'a> {
        Attributes {
            operation,
            resource: &self.served.resource,
            subresource: self.subresource,
            namespace: self.namespace,
            name,
            identity: self.identity,
            dry_run: self.options.dry_run,
            options,
        }
    }

    /// Notes who owns the fields that differ between `old` and `new`.
    fn own(&self, old: Option<&Value>, new: &mut Value) {
        if self.ownership == Ownership::Update {
            managed::track(self.served.node(), old, new, &self.manager());
        }
    }

    /// The manager of this write, now.
    pub fn manager(&self) -> Manager {
        Manager {
            name: self.options.manager.clone(),
            api_version: self.served.api_version.clone(),
            subresource: (!self.subresource.is_empty()).then(|| self.subresource.to_owned()),
            status_subresource: self.served.has_status(),
            time: Timestamp::now(),
        }
    }

    /// Schema, then the rules of the kind.
    fn check(&self, new: &Value, old: Option<&Value>) -> Result<(), Status> {
        let resource = &self.served.resource;
        let name = new["metadata"]["name"].as_str().unwrap_or(self.name);
        let mut causes = osc_schema::validate(self.served.node(), new, old);
        if self.served.custom.is_none() {
            // Go programs leave out what is empty: what a built-in kind really needs, its rules know.
            causes.retain(|cause| cause.reason != "FieldValueRequired");
        }
        if !causes.is_empty() {
            return Err(Status::invalid(resource, name, causes));
        }
        let causes = match old {
            None => validate::create(resource, new),
            Some(old) => match self.subresource {
                // Pods may not move by themselves: binding is how they get their node.
                "binding" => Vec::new(),
                "ephemeralcontainers" => validate::ephemeral_containers(old, new),
                _ => validate::update(resource, old, new),
            },
        };
        let causes = [causes, kinds::check(resource, new, old)].concat();
        if causes.is_empty() { self.check_escalation(new, old) } else { Err(Status::invalid(resource, name, causes)) }
    }

    /// Nobody gives away rights he does not have: roles and bindings.
    fn check_escalation(&self, new: &Value, old: Option<&Value>) -> Result<(), Status> {
        let resource = &self.served.resource;
        let kind = (resource.group == "rbac.authorization.k8s.io").then(|| RoleKind::from_plural(&resource.plural));
        let Some(kind) = kind.flatten() else { return Ok(()) };
        self.api.authorizer.check_escalation(self.identity, kind, new, old).map_err(|problem| match problem {
            Escalation::Denied { message } => Status::forbidden_message(message),
            Escalation::RoleNotFound { message } => Status::new(404, "NotFound", message),
            Escalation::Malformed(problem) => Status::bad_request(problem.to_string()),
        })
    }
}

/// The intent behind a call.
pub(crate) fn intent<'a>(
    call: &'a Call,
    ownership: Ownership,
    warn: &'a (dyn Fn(Vec<String>) + Sync),
) -> Result<Intent<'a>, Status> {
    Ok(Intent {
        api: &call.api,
        served: &call.served,
        identity: &call.identity,
        namespace: &call.path.namespace,
        name: &call.path.name,
        subresource: &call.path.subresource,
        options: call.write_options()?,
        ownership,
        warn,
    })
}

/// Warnings of writes nobody waits for.
pub(crate) fn nobody(_: Vec<String>) {}
