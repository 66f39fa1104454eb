//! Creating, replacing, patching and deleting one object.

use http::{Response, StatusCode};
use osc_api::status::{Cause, Status};
use osc_fault::chain;
use osc_patch::{ApplyError, PatchError, PatchErrorKind};
use serde_json::{Value, json};

use crate::{
    call::Call,
    kinds,
    request::{
        body::{self, Decoded},
        query::{Propagation, invalid_option},
    },
    response::Body,
    write::{
        self, Intent, Ownership,
        body::{problems, verdict},
        create,
        delete::{self, DeleteOptions, Deleted},
        shape, update,
    },
};

/// Media types of patches of built-in kinds.
const PATCHES: &[&str] = &[JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH];
/// Media types of patches of custom resources.
const CUSTOM_PATCHES: &[&str] = &[JSON_PATCH, MERGE_PATCH, APPLY_PATCH];
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// `POST` to a collection.
pub(super) async fn create(call: &Call) -> Result<Response<Body>, Status> {
    let object = write::body::object(call)?;
    let warn = |warnings| call.warn(warnings);
    let intent = write::intent(call, Ownership::Update, &warn)?;
    let object = create::create(&intent, object).await?;
    call.object(StatusCode::CREATED, object)
}

/// `PUT` of an object or of its status.
pub(super) async fn update(call: &Call) -> Result<Response<Body>, Status> {
    let object = write::body::object(call)?;
    if call.served.custom.is_some() && object["metadata"]["resourceVersion"].as_str().unwrap_or_default().is_empty() {
        let message = "Invalid value: 0: must be specified for an update";
        let cause = Cause::new("FieldValueInvalid", message, "metadata.resourceVersion");
        return Err(Status::invalid(&call.served.resource, &call.path.name, [cause]));
    }
    let warn = |warnings| call.warn(warnings);
    let intent = write::intent(call, Ownership::Update, &warn)?;
    let updated = update::update(&intent, |_| Ok(object.clone())).await?;
    call.object(StatusCode::OK, updated)
}

/// `PATCH` in one of four languages.
pub(super) async fn patch(call: &Call) -> Result<Response<Body>, Status> {
    let media_type = body::media_type(&call.headers);
    let accepted = if call.served.custom.is_some() { CUSTOM_PATCHES } else { PATCHES };
    if !accepted.contains(&media_type.as_str()) {
        return Err(Status::unsupported_media_type(accepted));
    }
    if media_type == APPLY_PATCH {
        return apply(call).await;
    }
    let warn = |warnings| call.warn(warnings);
    let intent = write::intent(call, Ownership::Update, &warn)?;
    let patch = Patch::read(&media_type, call)?;
    let updated = update::update(&intent, |old| patch.carry_out(call, old)).await?;
    call.object(StatusCode::OK, updated)
}

/// A patch that is read but not carried out.
enum Patch {
    Json,
    Merge(Decoded),
    Strategic(Decoded),
}

impl Patch {
    fn read(media_type: &str, call: &Call) -> Result<Self, Status> {
        Ok(match media_type {
            JSON_PATCH => Self::Json,
            MERGE_PATCH => Self::Merge(body::json(&call.body)?),
            _ => Self::Strategic(body::json(&call.body)?),
        })
    }

    /// The state this patch wants, checked for fields that mean nothing.
    fn carry_out(&self, call: &Call, old: &Value) -> Result<Value, Status> {
        // The version is a precondition only where the patch itself names one.
        let mut old = old.clone();
        let version = shape::metadata(&mut old)?.remove("resourceVersion");
        let (patched, duplicates) = match self {
            Self::Json => {
                if let Some(version) = version {
                    // Patches may test it; it stays if they do not touch it, which is no precondition either.
                    old["metadata"]["resourceVersion"] = version;
                }
                (osc_patch::json_patch(&old, &call.body), Vec::new())
            }
            Self::Merge(patch) => (osc_patch::merge(&old, &patch.value), patch.duplicates.clone()),
            Self::Strategic(patch) => {
                (osc_patch::strategic(call.served.node(), &old, &patch.value), patch.duplicates.clone())
            }
        };
        let mut patched = patched.map_err(|error| refused(&error))?;
        if matches!(self, Self::Json) && patched["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"] {
            shape::metadata(&mut patched)?.remove("resourceVersion");
        }
        for (field, want) in [("apiVersion", &call.served.api_version), ("kind", &call.served.resource.kind)] {
            if patched[field] != want.as_str() {
                return Err(Status::bad_request(format!("a patch cannot change {field}")));
            }
        }
        let decoded = Decoded { value: patched, duplicates };
        let validation = call.query.field_validation()?;
        verdict(call, &call.served, validation, problems(&call.served, &decoded))?;
        Ok(decoded.value)
    }
}

/// What a client is told whose patch cannot be carried out: as Kubernetes has it, except that here the details say what
/// is wrong.
pub(super) fn refused(error: &PatchError) -> Status {
    let text = chain(error);
    match error.kind() {
        PatchErrorKind::Malformed => Status::bad_request(text),
        PatchErrorKind::TooLarge => Status::too_large(text),
        PatchErrorKind::Unprocessable => {
            let cause = match error {
                PatchError::Operation { index, source } => (format!("patch[{index}]"), chain(source)),
                PatchError::CopiesTooLarge { index, .. } => (format!("patch[{index}]"), text),
                _ => ("patch".into(), text),
            };
            let message = "the server rejected our request due to an error in our request";
            Status::new(422, "Invalid", message).with_causes([Cause::new("FieldValueInvalid", cause.1, cause.0)])
        }
    }
}

/// Server-side apply: changes what is there, or creates it.
async fn apply(call: &Call) -> Result<Response<Body>, Status> {
    if call.query.get("fieldManager").is_none() {
        return Err(invalid_option("fieldManager", "", "Required value", "is required for apply patch"));
    }
    let decoded = body::yaml(&call.body)?;
    let validation = call.query.field_validation()?;
    verdict(call, &call.served, validation, problems(&call.served, &decoded))?;
    let applied = applied_object(call, decoded.value)?;
    let force = call.query.flag("force");
    let warn = |warnings| call.warn(warnings);
    let intent = write::intent(call, Ownership::Apply, &warn)?;
    loop {
        let found = update::update(&intent, |old| {
            let mut merged = merge(call, &intent, Some(old), &applied, force)?;
            if applied["metadata"].get("resourceVersion").is_none() {
                shape::metadata(&mut merged)?.remove("resourceVersion");
            }
            Ok(merged)
        });
        match found.await {
            Ok(updated) => return call.object(StatusCode::OK, updated),
            Err(status) if status.code == 404 && intent.subresource.is_empty() => {}
            Err(status) => return Err(status),
        }
        if applied["metadata"]["uid"].as_str().is_some_and(|uid| !uid.is_empty()) {
            let why = "uid mismatch: the provided object specified a uid, and no existing object was found";
            return Err(Status::conflict(&call.served.resource, &call.path.name, why));
        }
        call.api.authorize_create(call)?;
        let object = merge(call, &intent, None, &applied, force)?;
        match create::create(&intent, object).await {
            Ok(object) => return call.object(StatusCode::CREATED, object),
            // Somebody else created it meanwhile: then it is an update after all.
            Err(status) if status.reason == "AlreadyExists" => {}
            Err(status) => return Err(status),
        }
    }
}

fn applied_object(call: &Call, mut applied: Value) -> Result<Value, Status> {
    for (field, want) in [("apiVersion", &call.served.api_version), ("kind", &call.served.resource.kind)] {
        let given = applied.get(field).and_then(Value::as_str).unwrap_or_default();
        if given != want {
            return Err(Status::bad_request(format!("{field} of an applied object must be {want:?}, not {given:?}")));
        }
    }
    shape::place(&call.served, &mut applied, &call.path.namespace)?;
    let metadata = shape::metadata(&mut applied)?;
    let name = metadata.entry("name").or_insert_with(|| call.path.name.as_str().into());
    if *name != call.path.name.as_str() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) is not that on the URL ({})",
            call.path.name
        )));
    }
    Ok(applied)
}

fn merge(
    call: &Call,
    intent: &Intent<'_>,
    live: Option<&Value>,
    applied: &Value,
    force: bool,
) -> Result<Value, Status> {
    osc_patch::apply(call.served.node(), live, applied, &intent.manager(), force).map_err(|error| match error {
        ApplyError::Conflicts(conflicts) => {
            let causes: Vec<Cause> = conflicts.causes().into_iter().map(Cause::from).collect();
            Status::apply_conflict(conflicts.to_string(), causes)
        }
        other => Status::bad_request(other.to_string()),
    })
}

/// `DELETE` of one object.
pub(super) async fn delete(call: &Call) -> Result<Response<Body>, Status> {
    let (options, dry_run) = delete_options(call)?;
    let warn = |warnings| call.warn(warnings);
    let mut intent = write::intent(call, Ownership::Update, &warn)?;
    intent.options.dry_run |= dry_run;
    match delete::delete(&intent, &options).await? {
        Deleted::Pending(object) => call.object(StatusCode::OK, object),
        Deleted::Gone(object) if kinds::shown_when_gone(&call.served.resource) => call.object(StatusCode::OK, object),
        Deleted::Gone(object) => {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
            call.plain(StatusCode::OK, &Status::deleted(&call.served.resource, &call.path.name, uid).to_value())
        }
    }
}

/// DeleteOptions from the body and the query, and whether they ask for a dry run.
pub(super) fn delete_options(call: &Call) -> Result<(DeleteOptions, bool), Status> {
    let mut raw = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
    if !call.body.is_empty() {
        // The body is of a built-in kind whatever is deleted.
        raw = body::decode(body::encoding(&call.headers, body::BUILT_IN)?, &call.body)?.value;
        if raw["kind"].as_str().is_some_and(|kind| kind != "DeleteOptions") {
            return Err(Status::bad_request("the body of a deletion must be DeleteOptions"));
        }
    }
    let query = &call.query;
    if let Some(seconds) = query.get("gracePeriodSeconds") {
        let seconds: i64 =
            seconds.parse().map_err(|_| Status::bad_request("gracePeriodSeconds is not a whole number"))?;
        raw["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(policy) = query.get("propagationPolicy") {
        raw["propagationPolicy"] = policy.into();
    }
    if query.get("orphanDependents").is_some() {
        raw["orphanDependents"] = query.flag("orphanDependents").into();
    }
    let dry_run = raw["dryRun"].as_array().is_some_and(|all| !all.is_empty());
    Ok((checked(raw)?, dry_run))
}

pub(super) fn checked(raw: Value) -> Result<DeleteOptions, Status> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let propagation = match raw["propagationPolicy"].as_str() {
        None | Some("") => raw["orphanDependents"]
            .as_bool()
            .map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
        Some(word) => {
            let allowed = "supported values: \"Background\", \"Foreground\", \"Orphan\"";
            let parsed = Propagation::parse(word);
            Some(parsed.ok_or_else(|| invalid_option("propagationPolicy", word, "Unsupported value", allowed))?)
        }
    };
    Ok(DeleteOptions {
        grace: raw["gracePeriodSeconds"].as_i64(),
        propagation,
        uid: text(&raw["preconditions"]["uid"]),
        resource_version: text(&raw["preconditions"]["resourceVersion"]),
        raw,
    })
}
