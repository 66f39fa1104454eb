//! Questions about identity and rights: asked by creating an object that is
//! answered and never stored.

use http::{Response, StatusCode};
use osc_access::{Attributes as Action, Decision, Identity, rbac::Rule, token::Reference};
use osc_api::{
    Resource,
    status::{Cause, Status},
};
use osc_fault::chain;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{call::Call, response::Body, write};

/// Whether objects of this resource are questions.
pub(super) fn is_review(resource: &Resource) -> bool {
    matches!(resource.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
}

/// Answers a review.
pub(super) fn create(call: &Call) -> Result<Response<Body>, Status> {
    let mut review = write::body::object(call)?;
    let spec = review["spec"].clone();
    let status = match call.served.resource.kind.as_str() {
        "SelfSubjectAccessReview" => access(call, &call.identity, &spec, "")?,
        "SubjectAccessReview" => access(call, &subject(&spec)?, &spec, "")?,
        "LocalSubjectAccessReview" => access(call, &subject(&spec)?, &spec, &call.path.namespace)?,
        "SelfSubjectRulesReview" => rules(call, &spec)?,
        "SelfSubjectReview" => json!({"userInfo": user_info(&call.identity)}),
        "TokenReview" => token(call, &spec),
        _ => return Err(Status::unknown_path()),
    };
    review["status"] = status;
    if review["metadata"].is_null() {
        review["metadata"] = json!({});
    }
    call.plain(StatusCode::CREATED, &review)
}

/// Whether `identity` may do what the review describes.
fn access(call: &Call, identity: &Identity, spec: &Value, namespace: &str) -> Result<Value, Status> {
    let text = |value: &'static str, of: &Value| of[value].as_str().unwrap_or_default().to_owned();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let decision = match (resource.is_object(), path.is_object()) {
        (true, false) => {
            let own = text("namespace", resource);
            if !namespace.is_empty() && own != namespace {
                return Err(wrong(
                    call,
                    "spec.resourceAttributes.namespace",
                    &format!("must match the namespace: {namespace}"),
                ));
            }
            let (verb, group, plural) = (text("verb", resource), text("group", resource), text("resource", resource));
            let (name, subresource) = (text("name", resource), text("subresource", resource));
            let action = Action::resource(&verb, &group, &plural, &own, &name).on_subresource(&subresource);
            call.api.authorizer.authorize(identity, &action)
        }
        (false, true) => {
            let (verb, path) = (text("verb", path), text("path", path));
            call.api.authorizer.authorize(identity, &Action::path(&verb, &path))
        }
        _ => {
            return Err(wrong(
                call,
                "spec.resourceAttributes",
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
    };
    Ok(match decision {
        Decision::Allowed { reason } => json!({"allowed": true, "reason": reason}),
        Decision::Denied { reason, .. } => json!({"allowed": false, "reason": reason}),
    })
}

fn wrong(call: &Call, field: &str, why: &str) -> Status {
    let cause = Cause::new("FieldValueInvalid", format!("Invalid value: {why}"), field);
    Status::invalid(&call.served.resource, "", [cause])
}

/// The identity a SubjectAccessReview asks about.
fn subject(spec: &Value) -> Result<Identity, Status> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let user = spec["user"].as_str().unwrap_or_default();
    let groups = texts(&spec["groups"]);
    if user.is_empty() && groups.is_empty() {
        return Err(Status::bad_request("spec.user: at least one of user or groups must be specified"));
    }
    let extra = spec["extra"].as_object().into_iter().flatten().map(|(key, values)| (key.clone(), texts(values)));
    Ok(Identity {
        user: user.to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups,
        extra: extra.collect(),
    })
}

fn rules(call: &Call, spec: &Value) -> Result<Value, Status> {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = call.api.authorizer.rules_for(&call.identity, namespace);
    let (paths, resources): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let paths: Vec<Value> =
        paths.iter().map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls})).collect();
    let resources: Vec<Value> = resources.iter().map(|rule| json!(rule)).collect();
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

/// Who a token speaks for.
fn token(call: &Call, spec: &Value) -> Value {
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let text = spec["token"].as_str().unwrap_or_default();
    let live = |reference: &Reference<'_>| call.api.reader.live_uid(reference);
    match call.api.authenticator.review(text, &audiences, live, OffsetDateTime::now_utc()) {
        Ok(accepted) => {
            json!({"authenticated": true, "user": user_info(&accepted.identity), "audiences": accepted.audiences})
        }
        Err(refusal) => json!({"authenticated": false, "user": {}, "error": chain(&refusal)}),
    }
}

fn user_info(identity: &Identity) -> Value {
    let mut info = json!({"username": identity.user, "groups": identity.groups});
    if !identity.uid.is_empty() {
        info["uid"] = identity.uid.as_str().into();
    }
    if !identity.extra.is_empty() {
        info["extra"] = json!(identity.extra);
    }
    info
}
