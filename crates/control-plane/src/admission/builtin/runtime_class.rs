//! RuntimeClass: what a class costs and where it runs becomes part of the pod.

use std::collections::BTreeMap;

use osc_api::{Quantity, status::Status};
use serde_json::{Map, Value};

use super::{Attributes, Operation, list, list_mut, map_mut, text};
use crate::reader::Reader;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const UNFOUNDED: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

pub(super) fn admit(reader: &Reader, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    let Some(class) = class_of(reader, attributes, pod)? else { return Ok(()) };
    add_overhead(attributes, &class, pod)?;
    add_node_selector(attributes, &class, pod)?;
    add_tolerations(&class, pod);
    Ok(())
}

/// A webhook may have changed the class or the overhead since.
pub(super) fn check(reader: &Reader, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if !attributes.is(&[Operation::Create], "", "pods") {
        return Ok(());
    }
    let class = class_of(reader, attributes, pod)?;
    let (own, fixed) = (overhead(pod), fixed(class.as_ref().unwrap_or(&Value::Null)));
    match fixed.is_empty() {
        true if own.is_empty() => Ok(()),
        true => Err(attributes.forbidden(UNFOUNDED)),
        false if same(own, fixed) => Ok(()),
        false => Err(attributes.forbidden(MISMATCH)),
    }
}

fn class_of(reader: &Reader, attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, Status> {
    let name = text(&pod["spec"], "runtimeClassName");
    if !attributes.is(&[Operation::Create], "", "pods") || name.is_empty() {
        return Ok(None);
    }
    let class = reader.get("node.k8s.io", "runtimeclasses", "", name)?;
    let missing = || attributes.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"));
    class.ok_or_else(missing).map(Some)
}

fn add_overhead(attributes: &Attributes<'_>, class: &Value, pod: &mut Value) -> Result<(), Status> {
    let fixed = fixed(class);
    if fixed.is_empty() {
        return Ok(());
    }
    let own = overhead(pod);
    if !own.is_empty() && !same(own, fixed) {
        return Err(attributes.forbidden(MISMATCH));
    }
    pod["spec"]["overhead"] = Value::Object(fixed.clone());
    Ok(())
}

fn add_node_selector(attributes: &Attributes<'_>, class: &Value, pod: &mut Value) -> Result<(), Status> {
    let Some(wanted) = class["scheduling"]["nodeSelector"].as_object().filter(|wanted| !wanted.is_empty()) else {
        return Ok(());
    };
    let Some(own) = map_mut(&mut pod["spec"], "nodeSelector") else { return Ok(()) };
    for (key, value) in wanted {
        if let Some(other) = own.get(key).filter(|other| *other != value) {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(attributes.forbidden(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                word(value),
                word(other)
            )));
        }
        own.insert(key.clone(), value.clone());
    }
    Ok(())
}

fn add_tolerations(class: &Value, pod: &mut Value) {
    let wanted = list(&class["scheduling"], "tolerations");
    if wanted.is_empty() {
        return;
    }
    let Some(own) = list_mut(&mut pod["spec"], "tolerations") else { return };
    for toleration in wanted {
        if !own.iter().any(|known| includes(known, toleration)) {
            own.push(toleration.clone());
        }
    }
}

/// Whether `wide` tolerates at least what `narrow` does.
fn includes(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let differs = |field| text(wide, field) != text(narrow, field);
    if !text(wide, "key").is_empty() && differs("key") || !text(wide, "effect").is_empty() && differs("effect") {
        return false;
    }
    if text(wide, "effect") == "NoExecute" {
        // Without seconds it tolerates for ever.
        match (wide["tolerationSeconds"].as_i64(), narrow["tolerationSeconds"].as_i64()) {
            (None, _) => {}
            (Some(_), None) => return false,
            (Some(wide), Some(narrow)) if wide < narrow => return false,
            (Some(_), Some(_)) => {}
        }
    }
    match text(wide, "operator") {
        "Exists" => true,
        "" | "Equal" => ["", "Equal"].contains(&text(narrow, "operator")) && !differs("value") && !differs("key"),
        _ => false,
    }
}

fn overhead(pod: &Value) -> &Map<String, Value> {
    map(&pod["spec"]["overhead"])
}

fn fixed(class: &Value) -> &Map<String, Value> {
    map(&class["overhead"]["podFixed"])
}

fn map(value: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&EMPTY)
}

/// Equal amounts, however they are written.
fn same(left: &Map<String, Value>, right: &Map<String, Value>) -> bool {
    let amounts = |map: &Map<String, Value>| -> Option<BTreeMap<String, Quantity>> {
        map.iter().map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
    };
    amounts(left).is_some_and(|left| amounts(right).is_some_and(|right| left == right))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{World, pod};
    use super::*;
    use serde_json::json;

    fn class(name: &str, rest: Value) -> Value {
        let mut class = json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": { "name": name }, "handler": "kata" });
        class.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        class
    }

    async fn world() -> World {
        World::with(&[
            class("plain", json!({})),
            class("costly", json!({ "overhead": { "podFixed": { "memory": "160Mi", "cpu": "250m" } } })),
            class(
                "picky",
                json!({ "scheduling": { "nodeSelector": { "vm": "yes" },
                "tolerations": [{ "key": "vm", "operator": "Exists", "effect": "NoSchedule" }] } }),
            ),
        ])
        .await
    }

    /// What becomes of a pod with this spec, mutation and validation together.
    async fn admitted(world: &World, spec: Value) -> Result<Value, Status> {
        let mut pod = pod();
        pod["spec"] = spec;
        let given = pod.clone();
        let attributes = world.asks(Operation::Create, "pods", &given);
        admit(&world.reader, &attributes, &mut pod)?;
        check(&world.reader, &attributes, &pod)?;
        Ok(pod["spec"].take())
    }

    #[tokio::test]
    async fn classes_shape_pods() {
        let world = world().await;
        let rows = [
            (json!({}), json!({})),
            (json!({ "runtimeClassName": "plain" }), json!({ "runtimeClassName": "plain" })),
            (
                json!({ "runtimeClassName": "costly" }),
                json!({ "runtimeClassName": "costly", "overhead": { "memory": "160Mi", "cpu": "250m" } }),
            ),
            (
                json!({ "runtimeClassName": "costly", "overhead": { "memory": "163840Ki", "cpu": "0.25" } }),
                json!({ "runtimeClassName": "costly", "overhead": { "memory": "160Mi", "cpu": "250m" } }),
            ),
            (
                json!({ "runtimeClassName": "picky", "nodeSelector": { "disk": "ssd" }, "tolerations": [{ "key": "x" }] }),
                json!({ "runtimeClassName": "picky", "nodeSelector": { "disk": "ssd", "vm": "yes" },
                    "tolerations": [{ "key": "x" }, { "key": "vm", "operator": "Exists", "effect": "NoSchedule" }] }),
            ),
            (
                json!({ "runtimeClassName": "picky", "nodeSelector": { "vm": "yes" }, "tolerations": [{ "operator": "Exists" }] }),
                json!({ "runtimeClassName": "picky", "nodeSelector": { "vm": "yes" }, "tolerations": [{ "operator": "Exists" }] }),
            ),
        ];
        for (spec, want) in rows {
            assert_eq!(admitted(&world, spec.clone()).await.unwrap(), want, "{spec}");
        }
    }

    #[tokio::test]
    async fn unfit_pods_are_refused() {
        let world = world().await;
        let rows = [
            (json!({ "runtimeClassName": "none" }), "pod rejected: RuntimeClass \"none\" not found"),
            (json!({ "overhead": { "cpu": "1" } }), UNFOUNDED),
            (json!({ "runtimeClassName": "plain", "overhead": { "cpu": "1" } }), UNFOUNDED),
            (json!({ "runtimeClassName": "costly", "overhead": { "cpu": "250m" } }), MISMATCH),
            (json!({ "runtimeClassName": "costly", "overhead": { "cpu": "250m", "memory": "1Gi" } }), MISMATCH),
            (
                json!({ "runtimeClassName": "picky", "nodeSelector": { "vm": "no" } }),
                "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
            ),
        ];
        for (spec, why) in rows {
            let status = admitted(&world, spec.clone()).await.unwrap_err();
            assert_eq!((status.code, status.message), (403, format!("pods \"p\" is forbidden: {why}")), "{spec}");
        }
    }

    #[tokio::test]
    async fn only_new_pods_are_looked_at() {
        let world = world().await;
        let mut pod = pod();
        pod["spec"]["runtimeClassName"] = json!("gone since");
        pod["spec"]["overhead"] = json!({ "cpu": "1" });
        let given = pod.clone();
        let attributes = world.asks(Operation::Update, "pods", &given);
        admit(&world.reader, &attributes, &mut pod).unwrap();
        check(&world.reader, &attributes, &pod).unwrap();
        assert_eq!(pod, given);
    }

    #[test]
    fn wide_tolerations_include_narrow_ones() {
        let all = json!({ "operator": "Exists" });
        let key = json!({ "key": "k", "operator": "Exists" });
        let equal = json!({ "key": "k", "value": "v", "effect": "NoSchedule" });
        let brief = json!({ "key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 });
        let long = json!({ "key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 50 });
        for (wide, narrow, want) in [
            (&all, &equal, true),
            (&key, &equal, true),
            (&equal, &key, false),
            (&equal, &equal, true),
            (&long, &brief, true),
            (&brief, &long, false),
            (&brief, &key, false),
        ] {
            assert_eq!(includes(wide, narrow), want, "{wide} {narrow}");
        }
    }
}
