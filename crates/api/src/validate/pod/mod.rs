//! Pods: new ones, changed ones, and the templates they are made from.

mod container;
mod scheduling;
mod volume;

pub(super) use scheduling::{node_selector, tolerations};
pub(super) use volume::host_path;

use std::collections::HashSet;

use osc_schema::{Cause, Path};
use serde_json::{Map, Value};

use super::{
    metadata, names,
    rules::{Seen, amounts, not_negative, one_of, optional_name, required_one_of, within},
};
use crate::value::{array, has, integer, text};

/// Judges a new pod.
pub(super) fn create(pod: &Value, causes: &mut Vec<Cause>) {
    let spec = &pod["spec"];
    let path = &Path::Root.field("spec");
    if !array(spec, "ephemeralContainers").is_empty() {
        causes.push(Cause::forbidden(path.field("ephemeralContainers"), "cannot be set on create"));
    }
    pod_spec(spec, path, causes);
}

/// Judges a pod template.
pub(super) fn template(template: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let metadata = path.field("metadata");
    metadata::labels(&template["metadata"], "labels", &metadata, causes);
    let spec = path.field("spec");
    if !array(&template["spec"], "ephemeralContainers").is_empty() {
        causes.push(Cause::forbidden(
            spec.field("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
    pod_spec(&template["spec"], &spec, causes);
}

fn pod_spec(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let volumes = volume::volumes(spec, path, causes);
    containers(spec, &volumes, path, causes);
    required_one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, causes);
    required_one_of(spec, "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], path, causes);
    if text(spec, "dnsPolicy") == "None" && array(&spec["dnsConfig"], "nameservers").is_empty() {
        let config = path.field("dnsConfig");
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        causes.push(Cause::required(config.field("nameservers"), detail));
    }
    not_negative(spec, "terminationGracePeriodSeconds", path, causes);
    within(spec, "activeDeadlineSeconds", 1, i64::from(i32::MAX), path, causes);
    metadata::labels(spec, "nodeSelector", path, causes);
    for key in ["nodeName", "serviceAccountName", "runtimeClassName", "priorityClassName"] {
        optional_name(spec, key, names::subdomain, path, causes);
    }
    for key in ["hostname", "subdomain"] {
        optional_name(spec, key, names::label, path, causes);
    }
    one_of(spec, "preemptionPolicy", &["Never", "PreemptLowerPriority"], path, causes);
    one_of(&spec["os"], "name", &["linux", "windows"], &path.field("os"), causes);
    amounts(spec, "overhead", path, causes);
    scheduling::judge(spec, path, causes);
}

/// All containers: names are unique among them, every mount has its volume.
fn containers(spec: &Value, volumes: &HashSet<&str>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut names = Seen::new();
    let host_network = spec["hostNetwork"] == true;
    if array(spec, "containers").is_empty() {
        causes.push(Cause::required(path.field("containers"), ""));
    }
    for (key, role) in [
        ("containers", container::Role::Main),
        ("initContainers", container::Role::Init),
        ("ephemeralContainers", container::Role::Ephemeral),
    ] {
        let list = path.field(key);
        for (index, each) in array(spec, key).iter().enumerate() {
            let path = list.index(index);
            names.add(text(each, "name"), &path.field("name"), causes);
            container::judge(each, role, &container::Surroundings { volumes, host_network }, &path, causes);
        }
    }
}

/// What may change in a running pod.
const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Judges a changed pod.
pub(super) fn update(old: &Value, pod: &Value, causes: &mut Vec<Cause>) {
    let (before, spec) = (&old["spec"], &pod["spec"]);
    let path = &Path::Root.field("spec");
    deadline(before, spec, path, causes);
    let gated = !array(before, "schedulingGates").is_empty();
    let gates = array(before, "schedulingGates");
    if array(spec, "schedulingGates").iter().any(|gate| !gates.contains(gate)) {
        let detail = "only deletion is allowed, but found new scheduling gate";
        causes.push(Cause::forbidden(path.field("schedulingGates"), detail));
    }
    let kept = array(before, "tolerations");
    let tolerations = array(spec, "tolerations");
    if !kept.iter().all(|toleration| tolerations.contains(toleration)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        causes.push(Cause::forbidden(path.field("tolerations"), detail));
    }
    if fixed_part(before, gated) != fixed_part(spec, gated) {
        causes.push(Cause::forbidden(path, CHANGEABLE));
    }
    for key in ["containers", "initContainers"] {
        let list = path.field(key);
        for (index, container) in array(spec, key).iter().enumerate() {
            if text(container, "image").is_empty() {
                let path = list.index(index);
                causes.push(Cause::required(path.field("image"), ""));
            }
        }
    }
}

fn deadline(before: &Value, spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field("activeDeadlineSeconds");
    match (integer(before, "activeDeadlineSeconds"), integer(spec, "activeDeadlineSeconds")) {
        (Some(old), Some(new)) if new > old => {
            causes.push(Cause::invalid(path, &new.into(), "must be less than or equal to previous value"));
        }
        (Some(_), None) => {
            causes.push(Cause::invalid(path, &Value::Null, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}

/// The spec without everything that may change.
fn fixed_part(spec: &Value, gated: bool) -> Map<String, Value> {
    let mut fixed = spec.as_object().cloned().unwrap_or_default();
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        fixed.remove(key);
    }
    if fixed.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|grace| grace <= 1) {
        fixed.remove("terminationGracePeriodSeconds");
    }
    if gated {
        fixed.remove("nodeSelector");
        fixed.remove("affinity");
    }
    for key in ["containers", "initContainers"] {
        for container in fixed.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    fixed
}

/// Judges the ephemeral containers of a running pod: they may be added, never changed or removed.
pub(super) fn ephemeral_containers(old: &Value, pod: &Value, causes: &mut Vec<Cause>) {
    let (before, now) = (array(&old["spec"], "ephemeralContainers"), array(&pod["spec"], "ephemeralContainers"));
    let spec = &Path::Root.field("spec");
    let path = spec.field("ephemeralContainers");
    for container in before {
        if !now.contains(container) {
            let detail = "existing ephemeral containers may not be removed or changed";
            causes.push(Cause::forbidden(path, detail));
        }
    }
    for (index, container) in now.iter().enumerate().filter(|(_, container)| !before.contains(container)) {
        let path = path.index(index);
        let target = text(container, "targetContainerName");
        let known = array(&pod["spec"], "containers").iter().any(|container| text(container, "name") == target);
        if !target.is_empty() && !known {
            causes.push(super::rules::not_found(&path.field("targetContainerName"), target));
        }
        if has(container, "livenessProbe") || has(container, "readinessProbe") || has(container, "startupProbe") {
            causes.push(Cause::forbidden(path, "probes are not allowed in ephemeral containers"));
        }
    }
    let volumes = volume::volumes(&pod["spec"], spec, &mut Vec::new());
    containers(&pod["spec"], &volumes, spec, causes);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{wrong, wrong_change};
    use super::*;

    #[test]
    fn pods_are_judged() {
        let ok = json!({"name": "a", "image": "i"});
        let rows = [
            (json!({"containers": [ok]}), vec![]),
            (json!({}), vec!["spec.containers: Required value"]),
            (
                json!({"containers": [{}]}),
                vec!["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"],
            ),
            (json!({"containers": [ok, ok]}), vec!["spec.containers[1].name: Duplicate value: \"a\""]),
            (
                json!({"containers": [ok], "restartPolicy": "Sometimes"}),
                vec![
                    "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (
                json!({"containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
                vec!["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
            ),
            (
                json!({"containers": [ok], "terminationGracePeriodSeconds": -1}),
                vec!["spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"containers": [ok], "ephemeralContainers": [{"name": "e", "image": "i"}]}),
                vec!["spec.ephemeralContainers: Forbidden: cannot be set on create"],
            ),
        ];
        for (spec, want) in rows {
            assert_eq!(wrong("", "pods", json!({"spec": spec})), want, "{spec}");
        }
    }

    #[test]
    fn little_of_a_pod_may_change() {
        let old = json!({"metadata": {"name": "a"}, "spec": {
            "containers": [{"name": "a", "image": "i", "imagePullPolicy": "Always"}], "activeDeadlineSeconds": 10,
            "tolerations": [{"key": "a", "operator": "Exists"}],
        }});
        let change = |change: fn(&mut Value)| {
            let mut new = old.clone();
            change(&mut new["spec"]);
            wrong_change("", "pods", &old, &new).len()
        };
        type Change = fn(&mut Value);
        let rows: &[(Change, usize)] = &[
            (|spec| spec["containers"][0]["image"] = "j:1".into(), 0),
            (|spec| spec["containers"][0]["image"] = "".into(), 1),
            (|spec| spec["activeDeadlineSeconds"] = 5.into(), 0),
            (|spec| spec["activeDeadlineSeconds"] = 15.into(), 1),
            (
                |spec| {
                    spec["tolerations"] =
                        json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}])
                },
                0,
            ),
            (|spec| spec["tolerations"] = json!([]), 1),
            (|spec| spec["nodeName"] = "n".into(), 1),
            (|spec| spec["containers"][0]["command"] = json!(["x"]), 1),
        ];
        for (index, (row, want)) in rows.iter().enumerate() {
            assert_eq!(change(*row), *want, "row {index}");
        }
    }
}
