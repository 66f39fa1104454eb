//! The number of replicas, whatever the kind.

use http::{Response, StatusCode};
use osc_api::{
    selector::LabelSelector,
    status::{Cause, Status},
};
use serde_json::{Value, json};

use super::change::refused;
use crate::{
    call::Call,
    objects,
    request::{Verb, body},
    resources::Served,
    response::Body,
    write::{self, Ownership, update},
};

/// `GET` of the scale.
pub(super) fn get(call: &Call) -> Result<Response<Body>, Status> {
    let object = objects::expect(&call.api.store, &call.served, &call.path.namespace, &call.path.name)?;
    call.plain(StatusCode::OK, &scale_of(&call.served, &object))
}

/// `PUT` or `PATCH` of the scale.
pub(super) async fn change(call: &Call) -> Result<Response<Body>, Status> {
    let warn = |warnings| call.warn(warnings);
    let intent = write::intent(call, Ownership::Update, &warn)?;
    let wish = Wish::read(call)?;
    let updated = update::update(&intent, |object| {
        let scale = scale_of(&call.served, object);
        let wanted = wish.of(call, &scale)?;
        let replicas = replicas(call, &wanted)?;
        let mut object = object.clone();
        set(&mut object, &spec_path(&call.served), replicas.into());
        // Bound to a version only if the client says so.
        match wish.version(&wanted, &scale) {
            Some(version) => object["metadata"]["resourceVersion"] = version.into(),
            None => drop(object["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"))),
        }
        Ok(object)
    })
    .await?;
    call.plain(StatusCode::OK, &scale_of(&call.served, &updated))
}

/// How the client says what it wants.
enum Wish {
    Whole(Value),
    Merge(Value),
    Json,
}

impl Wish {
    fn read(call: &Call) -> Result<Self, Status> {
        if call.verb == Verb::Update {
            return Ok(Self::Whole(write::body::foreign(call, "autoscaling/v1", "Scale")?));
        }
        const PATCHES: &[&str] =
            &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
        match body::media_type(&call.headers).as_str() {
            "application/json-patch+json" => Ok(Self::Json),
            // Scale has no lists: both ways of merging are the same.
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                Ok(Self::Merge(body::json(&call.body)?.value))
            }
            _ => Err(Status::unsupported_media_type(PATCHES)),
        }
    }

    fn of(&self, call: &Call, scale: &Value) -> Result<Value, Status> {
        let patched = match self {
            Self::Whole(wanted) => return Ok(wanted.clone()),
            Self::Merge(patch) => osc_patch::merge(scale, patch),
            Self::Json => osc_patch::json_patch(scale, &call.body),
        };
        patched.map_err(|error| refused(&error))
    }

    /// The version the client insists on.
    fn version(&self, wanted: &Value, scale: &Value) -> Option<String> {
        let version = wanted["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty())?;
        let untouched = scale["metadata"]["resourceVersion"] == version;
        (matches!(self, Self::Whole(_)) || !untouched).then(|| version.to_owned())
    }
}

fn replicas(call: &Call, wanted: &Value) -> Result<i64, Status> {
    let replicas = &wanted["spec"]["replicas"];
    let wrong = |why: &str| {
        let message = format!("Invalid value: {replicas}: {why}");
        let cause = Cause::new("FieldValueInvalid", message, "spec.replicas");
        Status::invalid_kind("autoscaling", "Scale", &call.path.name, [cause])
    };
    match replicas {
        Value::Null => Ok(0),
        Value::Number(number) => match number.as_i64() {
            Some(number) if number < 0 => Err(wrong("must be greater than or equal to 0")),
            Some(number) if number <= i64::from(i32::MAX) => Ok(number),
            _ => Err(wrong("must be a 32-bit integer")),
        },
        _ => Err(wrong("must be an integer")),
    }
}

fn scale_of(served: &Served, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale =
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {}, "status": {"replicas": 0}});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(field) {
            scale["metadata"][field] = value.clone();
        }
    }
    if let Some(replicas) = at(object, &spec_path(served)).filter(|replicas| replicas.is_i64()) {
        scale["spec"]["replicas"] = replicas.clone();
    }
    if let Some(replicas) = at(object, &status_path(served)).filter(|replicas| replicas.is_i64()) {
        scale["status"]["replicas"] = replicas.clone();
    }
    let selector = match &served.custom {
        Some(custom) => {
            let path = custom.scale.as_ref().and_then(|scale| scale.selector.as_ref());
            path.and_then(|path| at(object, path)).and_then(Value::as_str).map(str::to_owned)
        }
        None => LabelSelector::from_object(&object["spec"]["selector"]).ok().map(|selector| selector.to_string()),
    };
    if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

fn spec_path(served: &Served) -> Vec<String> {
    let custom = served.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    custom.map_or_else(|| vec!["spec".into(), "replicas".into()], |scale| scale.spec_replicas.clone())
}

fn status_path(served: &Served) -> Vec<String> {
    let custom = served.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    custom.map_or_else(|| vec!["status".into(), "replicas".into()], |scale| scale.status_replicas.clone())
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

fn set(object: &mut Value, path: &[String], value: Value) {
    let mut place = object;
    for name in path {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[name.as_str()];
    }
    *place = value;
}
