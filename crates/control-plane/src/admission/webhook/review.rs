//! AdmissionReview: the question and the answer (`admission.k8s.io`, v1 and v1beta1).

use base64::{Engine, engine::general_purpose::STANDARD};
use osc_api::status::Status;
use serde_json::{Value, json};

use super::hook::Version;
use crate::admission::Attributes;

/// Most warnings taken from one answer, and the most characters of each.
const MOST_WARNINGS: usize = 16;
const LONGEST_WARNING: usize = 256;

/// The request part of a review; also what match conditions see.
pub(super) fn request(attributes: &Attributes<'_>, object: &Value, old: Option<&Value>, uid: &str) -> Value {
    let resource = attributes.resource;
    let (group, version, kind) = match resource.subresource(attributes.subresource) {
        Some(own) if !own.kind.is_empty() => (&own.group, &own.version, &own.kind),
        _ => (&resource.group, &resource.version, &resource.kind),
    };
    // Subresources such as status speak the group of their parent without saying so.
    let version = if version.is_empty() { &resource.version } else { version };
    let group = if group.is_empty() && *kind == resource.kind { &resource.group } else { group };
    let kind = json!({ "group": group, "version": version, "kind": kind });
    let target = json!({ "group": resource.group, "version": resource.version, "resource": resource.plural });
    let identity = attributes.identity;
    let mut request = json!({
        "uid": uid,
        "kind": kind,
        "resource": target,
        "requestKind": kind,
        "requestResource": target,
        "name": attributes.name,
        "operation": attributes.operation.as_str(),
        "userInfo": { "username": identity.user, "groups": identity.groups },
        "object": object,
        "oldObject": old,
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    });
    if resource.namespaced {
        request["namespace"] = json!(attributes.namespace);
    } else if resource.is("", "namespaces") {
        request["namespace"] = json!(attributes.name);
    }
    if !attributes.subresource.is_empty() {
        request["subResource"] = json!(attributes.subresource);
        request["requestSubResource"] = json!(attributes.subresource);
    }
    if !identity.uid.is_empty() {
        request["userInfo"]["uid"] = json!(identity.uid);
    }
    if !identity.extra.is_empty() {
        request["userInfo"]["extra"] = json!(identity.extra);
    }
    request
}

/// The body of the question.
pub(super) fn question(version: Version, request: &Value) -> Vec<u8> {
    let review = json!({ "kind": "AdmissionReview", "apiVersion": version.api_version(), "request": request });
    review.to_string().into_bytes()
}

/// What a webhook said.
#[derive(Debug)]
pub(super) struct Answer {
    pub verdict: Verdict,
    pub warnings: Vec<String>,
}

/// Its decision.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The object is fine.
    Allowed,
    /// It is fine with these changes, a JSON patch.
    Patched(Vec<u8>),
    /// It is not; what the webhook gave as status.
    Denied(Value),
}

/// The answer is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BadAnswer {
    #[error("answer is not JSON")]
    NotJson,
    #[error("expected webhook response of {expected}/AdmissionReview, got {seen}")]
    OtherKind { expected: &'static str, seen: String },
    #[error("webhook response was absent")]
    NoResponse,
    #[error("expected response.uid={expected:?}, got {seen:?}")]
    OtherUid { expected: String, seen: String },
    #[error("webhook returned response.patch but not response.patchType")]
    NoPatchType,
    #[error("webhook returned response.patchType but not response.patch")]
    NoPatch,
    #[error("invalid webhook response.patchType of {0:?}")]
    PatchType(String),
    #[error("response.patch is not base64")]
    PatchEncoding,
}

/// Reads the body of the answer.
pub(super) fn answer(version: Version, uid: &str, body: &[u8]) -> Result<Answer, BadAnswer> {
    let review: Value = serde_json::from_slice(body).map_err(|_| BadAnswer::NotJson)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, api_version) = (text(&review["kind"]), text(&review["apiVersion"]));
    // In v1beta1 many servers answer without saying what; then it is what was asked for.
    let unnamed = version == Version::V1Beta1 && kind.is_empty() && api_version.is_empty();
    if !unnamed && (kind != "AdmissionReview" || api_version != version.api_version()) {
        return Err(BadAnswer::OtherKind { expected: version.api_version(), seen: format!("{api_version}/{kind}") });
    }
    let response = review.get("response").filter(|response| response.is_object()).ok_or(BadAnswer::NoResponse)?;
    let seen = text(&response["uid"]);
    if seen != uid && (version == Version::V1 || !seen.is_empty()) {
        return Err(BadAnswer::OtherUid { expected: uid.to_owned(), seen });
    }
    let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let warnings = warnings.take(MOST_WARNINGS).map(|text| text.chars().take(LONGEST_WARNING).collect()).collect();
    let verdict = if response["allowed"] != true {
        Verdict::Denied(response["status"].clone())
    } else {
        patch(version, response)?.map_or(Verdict::Allowed, Verdict::Patched)
    };
    Ok(Answer { verdict, warnings })
}

fn patch(version: Version, response: &Value) -> Result<Option<Vec<u8>>, BadAnswer> {
    let field = |name: &str| response[name].as_str().filter(|text| !text.is_empty());
    match (field("patch"), field("patchType")) {
        (None, None) => Ok(None),
        (None, Some(_)) if version == Version::V1 => Err(BadAnswer::NoPatch),
        (None, Some(_)) => Ok(None),
        (Some(_), None) if version == Version::V1 => Err(BadAnswer::NoPatchType),
        (Some(patch), None | Some("JSONPatch")) => {
            STANDARD.decode(patch).map(Some).map_err(|_| BadAnswer::PatchEncoding)
        }
        (Some(_), Some(other)) => Err(BadAnswer::PatchType(other.to_owned())),
    }
}

/// The refusal the client gets for a denial.
pub(super) fn denial(hook: &str, status: &Value) -> Status {
    let mut refusal = Status::from_value(status);
    let denied = format!("admission webhook {hook:?} denied the request");
    refusal.message = match (refusal.message.as_str(), refusal.reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    // A denial is no success, whatever its code says.
    if !(400..600).contains(&refusal.code) {
        refusal.code = 403;
        if refusal.reason.is_empty() {
            refusal.reason = "Forbidden".to_owned();
        }
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviewed(response: Value) -> Vec<u8> {
        json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn bad_answers_are_told_apart() {
        let other = BadAnswer::OtherUid { expected: "u".into(), seen: "v".into() };
        let patch = STANDARD.encode("[]");
        let rows = [
            (b"rubbish".to_vec(), BadAnswer::NotJson),
            (b"{}".to_vec(), BadAnswer::OtherKind { expected: "admission.k8s.io/v1", seen: "/".into() }),
            (reviewed(json!(null)), BadAnswer::NoResponse),
            (reviewed(json!({ "uid": "v", "allowed": true })), other),
            (reviewed(json!({ "allowed": true })), BadAnswer::OtherUid { expected: "u".into(), seen: String::new() }),
            (reviewed(json!({ "uid": "u", "allowed": true, "patch": patch })), BadAnswer::NoPatchType),
            (reviewed(json!({ "uid": "u", "allowed": true, "patchType": "JSONPatch" })), BadAnswer::NoPatch),
            (
                reviewed(json!({ "uid": "u", "allowed": true, "patch": patch, "patchType": "Merge" })),
                BadAnswer::PatchType("Merge".into()),
            ),
            (
                reviewed(json!({ "uid": "u", "allowed": true, "patch": "%", "patchType": "JSONPatch" })),
                BadAnswer::PatchEncoding,
            ),
        ];
        for (body, want) in rows {
            assert_eq!(answer(Version::V1, "u", &body).unwrap_err(), want);
        }
    }

    #[test]
    fn the_older_form_may_leave_things_out() {
        let body = json!({ "response": { "allowed": true, "patch": STANDARD.encode("[]") } }).to_string();
        let answer = answer(Version::V1Beta1, "u", body.as_bytes()).unwrap();
        assert!(matches!(answer.verdict, Verdict::Patched(patch) if patch == b"[]"));
    }

    #[test]
    fn denials_are_never_successes() {
        let says = "admission webhook \"h\" denied the request";
        let rows = [
            (json!(null), 403, "Forbidden", format!("{says} without explanation")),
            (json!({ "message": "no" }), 403, "Forbidden", format!("{says}: no")),
            (json!({ "code": 200, "reason": "Odd" }), 403, "Odd", format!("{says}: Odd")),
            (json!({ "code": 422, "reason": "Invalid", "message": "m" }), 422, "Invalid", format!("{says}: m")),
            (json!({ "code": 70000 }), 403, "Forbidden", format!("{says} without explanation")),
        ];
        for (status, code, reason, message) in rows {
            let seen = denial("h", &status);
            assert_eq!((seen.code, seen.reason.as_str(), seen.message), (code, reason, message), "{status}");
        }
    }

    #[test]
    fn warnings_are_bounded() {
        let many: Vec<String> = (0..100).map(|_| "é".repeat(1000)).collect();
        let body = reviewed(json!({ "uid": "u", "allowed": true, "warnings": many }));
        let seen = answer(Version::V1, "u", &body).unwrap().warnings;
        assert_eq!((seen.len(), seen[0].chars().count()), (MOST_WARNINGS, LONGEST_WARNING));
    }
}
