//! The life of CustomResourceDefinitions.
//!
//! ```text
//!  created ─► names free? ─► NamesAccepted, Established ─► served (catalog)
//!                  └ no ─► NamesAccepted=False, not served, looked at again when another goes
//!  deleted ─► Terminating: no new objects ─► objects deleted ─► finalizer taken off ─► gone
//! ```

mod check;
mod controller;
mod names;

use osc_api::status::Status;
use serde_json::{Value, json};

use crate::api::Api;

pub(crate) use check::check;
pub(crate) use controller::run;

/// Keeps a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";

/// What a new definition gets at once.
pub(crate) fn before_create(crd: &mut Value) {
    let finalizers = &mut crd["metadata"]["finalizers"];
    if !finalizers.is_array() {
        *finalizers = json!([]);
    }
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.iter().any(|finalizer| finalizer == CLEANUP)
    {
        finalizers.push(CLEANUP.into());
    }
    crd["status"] = json!({
        "acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": stored_versions(crd),
    });
}

/// The versions objects may be stored in: at first the one marked so.
fn stored_versions(crd: &Value) -> Value {
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter(|version| version["storage"] == true).map(|version| version["name"].clone()).collect()
}

/// What changes in a definition when its deletion begins.
pub(crate) fn deletion_begins(crd: &mut Value) {
    let message = "CustomResource deletion is in progress";
    names::set_condition(crd, "Terminating", true, "InstanceDeletionInProgress", message);
}

/// Refuses new objects of a definition that is being deleted.
pub(crate) fn check_not_terminating(api: &Api, definition: &str) -> Result<(), Status> {
    let crd = api.reader.get(GROUP, PLURAL, "", definition)?;
    if crd.is_some_and(|crd| crd["metadata"]["deletionTimestamp"].is_string()) {
        let mut status = Status::method_not_allowed();
        status.message = "create not allowed while custom resource definition is terminating".into();
        return Err(status);
    }
    Ok(())
}
