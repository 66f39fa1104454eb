//! The error type of the whole API: `kind: Status`, `apiVersion: v1`.
//!
//! Clients match on `code`, `reason` and sometimes on the message, so constructors spell messages
//! the way Kubernetes does.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::Resource;

/// A failed (or, for deletions, successful) API call as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason in CamelCase; empty where Kubernetes leaves it out.
    pub reason: String,
    /// What a person reads.
    pub message: String,
    /// What the call was about.
    pub details: Option<Box<Details>>,
}

/// The object a [`Status`] speaks of, and what exactly is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group of the object.
    pub group: String,
    /// Plural resource name, or the kind for invalid objects.
    pub kind: String,
    /// UID of the object.
    pub uid: String,
    /// One entry per failed field or failed part.
    pub causes: Vec<Cause>,
    /// When a client may try again.
    pub retry_after_seconds: Option<u32>,
}

/// One thing that is wrong, usually with one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason such as `FieldValueInvalid`.
    pub reason: String,
    /// What a person reads, without the field path.
    pub message: String,
    /// Path of the field such as `spec.containers[0].name`; may be empty.
    pub field: String,
}

impl Cause {
    /// A cause from its three parts.
    pub fn new(reason: impl Into<String>, message: impl Into<String>, field: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), field: field.into() }
    }
}

impl From<osc_schema::Cause> for Cause {
    fn from(cause: osc_schema::Cause) -> Self {
        Self::new(cause.reason, cause.message, cause.field)
    }
}

/// Why the resource named in a request cannot be changed any more.
pub const OBJECT_MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl Status {
    /// A status without details.
    pub fn new(code: u16, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details_mut();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.name = name.to_owned();
        self
    }

    /// The details, made when there are none yet.
    pub fn details_mut(&mut self) -> &mut Details {
        self.details.get_or_insert_with(Box::default)
    }

    /// The same status with these causes.
    pub fn with_causes(mut self, causes: impl IntoIterator<Item = impl Into<Cause>>) -> Self {
        self.details_mut().causes = causes.into_iter().map(Into::into).collect();
        self
    }

    /// The same status telling the client when to come back.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details_mut().retry_after_seconds = Some(seconds);
        self
    }

    /// 404: there is no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {} not found", resource.qualified(), quote(name))).about(
            &resource.group,
            &resource.plural,
            name,
        )
    }

    /// 404: the path itself is unknown.
    pub fn unknown_path() -> Self {
        let mut status = Self::new(404, "NotFound", "the server could not find the requested resource");
        status.details_mut();
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {} already exists", resource.qualified(), quote(name))).about(
            &resource.group,
            &resource.plural,
            name,
        )
    }

    /// 409: no free name was found for this `generateName`.
    pub fn generated_name_taken(resource: &Resource, name: &str) -> Self {
        let mut status = Self::already_exists(resource, name);
        status.message.push_str(", the server was not able to generate a unique name for the object");
        status.with_retry_after(1)
    }

    /// 409: the write cannot be done for the reason given.
    pub fn conflict(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} {}: {why}", resource.qualified(), quote(name)),
        )
        .about(&resource.group, &resource.plural, name)
    }

    /// 409: the resourceVersion in the request is not the current one.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(resource, name, OBJECT_MODIFIED)
    }

    /// 409: another field manager owns fields of an apply request.
    pub fn apply_conflict(message: impl Into<String>, causes: impl IntoIterator<Item = impl Into<Cause>>) -> Self {
        Self::new(409, "Conflict", message).with_causes(causes)
    }

    /// 422: the object breaks rules, one cause per field.
    pub fn invalid(resource: &Resource, name: &str, causes: impl IntoIterator<Item = impl Into<Cause>>) -> Self {
        Self::invalid_kind(&resource.group, &resource.kind, name, causes)
    }

    /// As [`Status::invalid`], for kinds that are no resource (`Scale`, `DeleteOptions`).
    pub fn invalid_kind(
        group: &str,
        kind: &str,
        name: &str,
        causes: impl IntoIterator<Item = impl Into<Cause>>,
    ) -> Self {
        let causes: Vec<Cause> = causes.into_iter().map(Into::into).collect();
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut message = format!("{qualified} {} is invalid", quote(name));
        let list = aggregate(&causes);
        if !list.is_empty() {
            let _ = write!(message, ": {list}");
        }
        Self::new(422, "Invalid", message).about(group, kind, name).with_causes(causes)
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: the credentials are wrong.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: not allowed, for the reason given.
    pub fn forbidden(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", resource.qualified())
        } else {
            format!("{} {} is forbidden: {why}", resource.qualified(), quote(name))
        };
        Self::new(403, "Forbidden", message).about(&resource.group, &resource.plural, name)
    }

    /// 403 for something that is no resource (a path, or a message that is complete already).
    pub fn forbidden_message(message: impl Into<String>) -> Self {
        let mut status = Self::new(403, "Forbidden", message);
        status.details_mut();
        status
    }

    /// 405: the resource knows no such verb.
    pub fn method_not_supported(resource: &Resource, action: &str) -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            format!("{action} is not supported on resources of kind {}", quote(&resource.qualified())),
        )
        .about(&resource.group, &resource.plural, "")
    }

    /// 405: the path knows no such HTTP method.
    pub fn method_not_allowed() -> Self {
        let mut status =
            Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
        status.details_mut();
        status
    }

    /// 406: nothing the client accepts can be answered.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {}", offered.join(", ")))
    }

    /// 410: the history asked for is gone; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: the body is too large.
    pub fn too_large(message: impl std::fmt::Display) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }

    /// 415: the body is in a format nobody reads here.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 429: not now; come back after so many seconds.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).with_retry_after(retry_after_seconds)
    }

    /// 500: our own fault, or that of something we called.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        let message = error.to_string();
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
            .with_causes([Cause { message, ..Cause::default() }])
    }

    /// 503: something that is needed is not there now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504: it took too long.
    pub fn timeout(message: impl std::fmt::Display) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}"))
    }

    /// 200: the answer to a deletion that left nothing behind.
    pub fn deleted(resource: &Resource, name: &str, uid: &str) -> Self {
        let mut status = Self::new(200, "", "").about(&resource.group, &resource.plural, name);
        status.details_mut().uid = uid.to_owned();
        status
    }

    /// Whether this is no error.
    pub fn is_success(&self) -> bool {
        self.code < 400
    }

    /// The JSON form.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": if self.is_success() { "Success" } else { "Failure" },
        });
        let Value::Object(map) = &mut value else { return value };
        insert_text(map, "message", &self.message);
        insert_text(map, "reason", &self.reason);
        if let Some(details) = &self.details {
            map.insert("details".into(), details.to_value());
        }
        if !self.is_success() {
            map.insert("code".into(), self.code.into());
        }
        value
    }

    /// Reads a status written by somebody else (a webhook's answer); what is missing stays empty.
    pub fn from_value(value: &Value) -> Self {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = value.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
        let details = value.get("details").filter(|details| details.is_object()).map(|details| {
            let causes = details.get("causes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            Box::new(Details {
                name: text(details, "name"),
                group: text(details, "group"),
                kind: text(details, "kind"),
                uid: text(details, "uid"),
                causes: causes
                    .iter()
                    .map(|cause| Cause::new(text(cause, "reason"), text(cause, "message"), text(cause, "field")))
                    .collect(),
                retry_after_seconds: details
                    .get("retryAfterSeconds")
                    .and_then(Value::as_u64)
                    .and_then(|seconds| u32::try_from(seconds).ok()),
            })
        });
        Self { code, reason: text(value, "reason"), message: text(value, "message"), details }
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        insert_text(&mut map, "name", &self.name);
        insert_text(&mut map, "group", &self.group);
        insert_text(&mut map, "kind", &self.kind);
        insert_text(&mut map, "uid", &self.uid);
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut map = Map::new();
                insert_text(&mut map, "reason", &cause.reason);
                insert_text(&mut map, "message", &cause.message);
                insert_text(&mut map, "field", &cause.field);
                Value::Object(map)
            });
            map.insert("causes".into(), causes.collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            map.insert("retryAfterSeconds".into(), seconds.into());
        }
        Value::Object(map)
    }
}

fn insert_text(map: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        map.insert(key.to_owned(), text.into());
    }
}

/// `field: message`, or `[a, b]` for several; the same sentence is said once.
fn aggregate(causes: &[Cause]) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in causes {
        let text =
            if cause.field.is_empty() { cause.message.clone() } else { format!("{}: {}", cause.field, cause.message) };
        if !said.contains(&text) {
            said.push(text);
        }
    }
    match said.len() {
        0 => String::new(),
        1 => said.remove(0),
        _ => format!("[{}]", said.join(", ")),
    }
}

/// `text` in double quotes with what would break a line or a quote escaped.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    #[test]
    fn messages_are_those_of_kubernetes() {
        let pods = builtin().find("", "v1", "pods").expect("a built-in");
        let deployments = builtin().find("apps", "v1", "deployments").expect("a built-in");
        let required = Cause::new("FieldValueRequired", "Required value", "spec.containers[0].name");
        let image = Cause::new("FieldValueRequired", "Required value", "spec.containers[0].image");
        let rows = [
            (Status::not_found(pods, "x"), 404, "NotFound", "pods \"x\" not found"),
            (Status::not_found(deployments, "x"), 404, "NotFound", "deployments.apps \"x\" not found"),
            (Status::already_exists(pods, "a"), 409, "AlreadyExists", "pods \"a\" already exists"),
            (
                Status::modified(pods, "x"),
                409,
                "Conflict",
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your \
                 changes to the latest version and try again",
            ),
            (
                Status::invalid(pods, "x", [required.clone()]),
                422,
                "Invalid",
                "Pod \"x\" is invalid: spec.containers[0].name: Required value",
            ),
            (
                Status::invalid(deployments, "x", [required, image.clone(), image]),
                422,
                "Invalid",
                "Deployment.apps \"x\" is invalid: [spec.containers[0].name: Required value, \
                 spec.containers[0].image: Required value]",
            ),
            (Status::forbidden(pods, "", "no"), 403, "Forbidden", "pods is forbidden: no"),
            (Status::internal("oh"), 500, "InternalError", "Internal error occurred: oh"),
        ];
        for (status, code, reason, message) in rows {
            assert_eq!((status.code, status.reason.as_str(), status.message.as_str()), (code, reason, message));
        }
    }

    #[test]
    fn a_status_survives_its_json_form() {
        let pods = builtin().find("", "v1", "pods").expect("a built-in");
        let status = Status::invalid(pods, "x", [Cause::new("FieldValueInvalid", "m", "f")]).with_retry_after(3);
        assert_eq!(Status::from_value(&status.to_value()), status);
        let gone = Status::deleted(pods, "x", "u").to_value();
        assert_eq!(gone["status"], "Success");
        assert_eq!(gone["details"]["uid"], "u");
    }
}
