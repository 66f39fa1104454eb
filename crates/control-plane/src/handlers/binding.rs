//! Placing a pod on a node.

use http::{Response, StatusCode};
use osc_api::status::{Cause, Status};
use serde_json::{Value, json};

use crate::{
    call::Call,
    response::Body,
    write::{self, Intent, Ownership, update},
};

/// `POST` to `pods/<name>/binding`, or to `bindings` with the pod named in the body.
pub(super) async fn create(call: &Call, name: &str) -> Result<Response<Body>, Status> {
    let binding = write::body::foreign(call, "v1", "Binding")?;
    let given = binding["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() && !given.is_empty() && given != name {
        return Err(Status::bad_request(format!("the binding is of pod {given}, the path of {name}")));
    }
    let name = if name.is_empty() { given } else { name };
    let node = target(&binding)?;
    let pods = call.snapshot.find("", "v1", "pods").ok_or_else(Status::unknown_path)?;
    let warn = |warnings| call.warn(warnings);
    let base = write::intent(call, Ownership::Update, &warn)?;
    let intent = Intent { served: pods, name, subresource: "binding", ..base };
    update::update(&intent, |pod| bind(&intent, pod, &binding, node)).await?;
    call.plain(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

fn target(binding: &Value) -> Result<&str, Status> {
    let target = &binding["target"];
    let (kind, node) = (target["kind"].as_str().unwrap_or_default(), target["name"].as_str().unwrap_or_default());
    let cause = if !matches!(kind, "" | "Node") {
        Cause::new(
            "FieldValueNotSupported",
            format!("Unsupported value: {kind:?}: supported values: \"Node\""),
            "target.kind",
        )
    } else if node.is_empty() {
        Cause::new("FieldValueRequired", "Required value", "target.name")
    } else {
        return Ok(node);
    };
    let name = binding["metadata"]["name"].as_str().unwrap_or_default();
    Err(Status::invalid_kind("", "Binding", name, [cause]))
}

/// The pod as it is on `node`.
fn bind(intent: &Intent<'_>, pod: &Value, binding: &Value, node: &str) -> Result<Value, Status> {
    let conflict = |why: String| Err(Status::conflict(&intent.served.resource, intent.name, why));
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return conflict(format!("pod {} is being deleted, cannot be assigned to a host", intent.name));
    }
    if let Some(taken) = pod["spec"]["nodeName"].as_str().filter(|taken| !taken.is_empty()) {
        return conflict(format!("pod {} is already assigned to node {taken:?}", intent.name));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {} has non-empty .spec.schedulingGates", intent.name));
    }
    let uid = binding["metadata"]["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && pod["metadata"]["uid"] != uid {
        return conflict(format!("Precondition failed: UID in precondition: {uid}"));
    }
    let mut bound = pod.clone();
    bound["spec"]["nodeName"] = node.into();
    for map in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][map].as_object().into_iter().flatten() {
            bound["metadata"][map][key] = value.clone();
        }
    }
    scheduled(&mut bound);
    Ok(bound)
}

/// Sets the condition PodScheduled.
fn scheduled(pod: &mut Value) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": osc_api::meta::format_time(jiff::Timestamp::now()),
    });
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(condition);
    }
}
