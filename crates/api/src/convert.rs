//! Kinds served in two shapes and stored in one.
//!
//! Events of `events.k8s.io/v1` are stored as core events, `autoscaling/v1` autoscalers as `v2`.

use serde_json::{Value, json};

use crate::{
    Resource, builtin,
    value::{array, integer, text},
};

/// Fields of an event: name in `events.k8s.io/v1`, name in the core group.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
];

/// The resource under which objects of `resource` are stored: itself, unless another shape is.
pub fn stored(resource: &Resource) -> &Resource {
    let other = match shape(resource) {
        Shape::Same => return resource,
        Shape::Event => builtin().find("", "v1", "events"),
        Shape::Autoscaler => builtin().find("autoscaling", "v2", "horizontalpodautoscalers"),
    };
    other.map_or(resource, |other| other.as_ref())
}

/// Brings an object of `resource` into its stored shape.
pub fn to_stored(resource: &Resource, object: &mut Value) {
    match shape(resource) {
        Shape::Same => return,
        Shape::Event => rename(object, EVENT_FIELDS.iter().map(|(new, core)| (*new, *core))),
        Shape::Autoscaler => autoscaler_to_v2(object),
    }
    set_version(stored(resource), object);
}

/// Brings a stored object into the shape of `resource`.
pub fn from_stored(resource: &Resource, object: &mut Value) {
    match shape(resource) {
        Shape::Same => return,
        Shape::Event => rename(object, EVENT_FIELDS.iter().map(|(new, core)| (*core, *new))),
        Shape::Autoscaler => autoscaler_to_v1(object),
    }
    set_version(resource, object);
}

enum Shape {
    Same,
    Event,
    Autoscaler,
}

fn shape(resource: &Resource) -> Shape {
    match (resource.group.as_str(), resource.version.as_str(), resource.plural.as_str()) {
        ("events.k8s.io", "v1", "events") => Shape::Event,
        ("autoscaling", "v1", "horizontalpodautoscalers") => Shape::Autoscaler,
        _ => Shape::Same,
    }
}

fn set_version(resource: &Resource, object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), resource.api_version().into());
        map.insert("kind".to_owned(), resource.kind.clone().into());
    }
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

/// The one target v1 knows becomes the first metric.
fn autoscaler_to_v2(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let target = spec.remove("targetCPUUtilizationPercentage").unwrap_or(Value::Null);
        let target = target.as_i64().unwrap_or(80);
        let metric = json!({"type": "Utilization", "averageUtilization": target});
        spec.insert("metrics".to_owned(), json!([{"type": "Resource", "resource": {"name": "cpu", "target": metric}}]));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
        && let Some(current) = status.remove("currentCPUUtilizationPercentage")
    {
        let current = json!({"averageUtilization": current});
        let metric = json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]);
        status.insert("currentMetrics".to_owned(), metric);
    }
}

/// Only the share of the processor can be said in v1.
fn autoscaler_to_v1(object: &mut Value) {
    move_share(object, "spec", "metrics", "target", "targetCPUUtilizationPercentage");
    move_share(object, "status", "currentMetrics", "current", "currentCPUUtilizationPercentage");
    for (part, fields) in [("spec", ["behavior"].as_slice()), ("status", &["conditions"])] {
        if let Some(map) = object.get_mut(part).and_then(Value::as_object_mut) {
            for field in fields {
                map.remove(*field);
            }
        }
    }
}

fn move_share(object: &mut Value, part: &str, metrics: &str, holder: &str, field: &str) {
    let share = object.get(part).map(|part| array(part, metrics)).unwrap_or_default().iter().find_map(|metric| {
        let resource = metric.get("resource")?;
        (text(resource, "name") == "cpu").then(|| integer(resource.get(holder)?, "averageUtilization")).flatten()
    });
    let Some(map) = object.get_mut(part).and_then(Value::as_object_mut) else { return };
    map.remove(metrics);
    if let Some(share) = share {
        map.insert(field.to_owned(), share.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_both_groups_are_one() {
        let events = builtin().find("events.k8s.io", "v1", "events").expect("a built-in");
        let given = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"name": "p"}, "reason": "R",
            "reportingController": "c", "deprecatedCount": 2,
        });
        let mut object = given.clone();
        to_stored(events, &mut object);
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "message": "n", "involvedObject": {"name": "p"}, "reason": "R",
            "reportingComponent": "c", "count": 2,
        });
        assert_eq!(object, core);
        assert_eq!(stored(events).group, "");
        from_stored(events, &mut object);
        assert_eq!(object, given);
    }

    #[test]
    fn autoscalers_of_both_versions_are_one() {
        let v1 = builtin().find("autoscaling", "v1", "horizontalpodautoscalers").expect("a built-in");
        let given = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
        });
        let mut object = given.clone();
        to_stored(v1, &mut object);
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        from_stored(v1, &mut object);
        assert_eq!(object, given);
    }
}
