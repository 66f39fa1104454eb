//! Horizontal pod autoscalers.

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    metadata, names,
    rules::{amount, named, one_of, required, required_one_of},
};
use crate::value::{array, has, integer, text};

/// Type of a metric and the field that describes it.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
/// Longest time over which scaling looks back, in seconds.
const LONGEST_WINDOW: i64 = 3600;
/// Longest time in which a policy counts changes, in seconds.
const LONGEST_PERIOD: i64 = 1800;

pub(super) fn autoscaler(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    let max = integer(spec, "maxReplicas").unwrap_or(0);
    if let Some(min) = integer(spec, "minReplicas").filter(|min| *min < 1) {
        causes.push(Cause::invalid(path.field("minReplicas"), &min.into(), "must be greater than or equal to 1"));
    }
    if max < 1 {
        causes.push(Cause::invalid(path.field("maxReplicas"), &max.into(), "must be greater than 0"));
    }
    if integer(spec, "minReplicas").is_some_and(|min| min > max) {
        let detail = "must be greater than or equal to `minReplicas`";
        causes.push(Cause::invalid(path.field("maxReplicas"), &max.into(), detail));
    }
    reference(&spec["scaleTargetRef"], &path.field("scaleTargetRef"), causes);
    let list = path.field("metrics");
    for (index, each) in array(spec, "metrics").iter().enumerate() {
        metric(each, &list.index(index), causes);
    }
    let behaviour = path.field("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        if has(&spec["behavior"], direction) {
            scaling(&spec["behavior"][direction], &behaviour.field(direction), causes);
        }
    }
}

fn reference(reference: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    for key in ["kind", "name"] {
        if let Some(given) = required(reference, key, path, causes) {
            named(given, names::path_segment, &path.field(key), causes);
        }
    }
}

fn metric(metric: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        causes.push(Cause::required(path.field("type"), "must specify a metric source type"));
    } else if !SOURCES.iter().any(|(name, _)| *name == kind) {
        let known = SOURCES.map(|(name, _)| name);
        causes.push(Cause::not_supported(path.field("type"), &kind.into(), &known));
    }
    for (name, field) in SOURCES {
        match (name == kind, has(metric, field)) {
            (true, false) => {
                let detail = "must populate information for the given metric source";
                causes.push(Cause::required(path.field(field), detail));
            }
            (true, true) => source(field, &metric[field], &path.field(field), causes),
            (false, true) if !kind.is_empty() => {
                causes.push(Cause::forbidden(path.field(field), "must populate the given metric source only"));
            }
            _ => {}
        }
    }
}

fn source(kind: &str, source: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    match kind {
        "resource" | "containerResource" => {
            if text(source, "name").is_empty() {
                causes.push(Cause::required(path.field("name"), "must specify a resource name"));
            }
            if kind == "containerResource" && text(source, "container").is_empty() {
                causes.push(Cause::required(path.field("container"), "must specify a container"));
            }
        }
        _ => identifier(&source["metric"], &path.field("metric"), causes),
    }
    if kind == "object" {
        reference(&source["describedObject"], &path.field("describedObject"), causes);
    }
    let (target, path) = (&source["target"], path.field("target"));
    aim(target, &path, causes);
    let given = |field: &str| has(target, field);
    let mut missing = |field: &str, detail: &str| causes.push(Cause::required(path.field(field), detail));
    match kind {
        "resource" | "containerResource" if !given("averageUtilization") && !given("averageValue") => {
            missing("averageUtilization", "must set either a target raw value or a target utilization");
        }
        "resource" | "containerResource" if given("averageUtilization") && given("averageValue") => {
            let detail = "may not set both a target raw value and a target utilization";
            causes.push(Cause::forbidden(path.field("averageValue"), detail));
        }
        "pods" if !given("averageValue") => missing("averageValue", "must specify a positive target averageValue"),
        "object" if !given("value") && !given("averageValue") => {
            missing("averageValue", "must set either a target value or averageValue");
        }
        "external" if !given("value") && !given("averageValue") => {
            missing("averageValue", "must set either a target value for metric or a per-pod target");
        }
        "external" if given("value") && given("averageValue") => {
            let detail = "may not set both a target value for metric and a per-pod target";
            causes.push(Cause::forbidden(path.field("value"), detail));
        }
        _ => {}
    }
}

fn identifier(metric: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    match text(metric, "name") {
        "" => causes.push(Cause::required(path.field("name"), "must specify a metric name")),
        name => named(name, names::path_segment, &path.field("name"), causes),
    }
    metadata::selector(&metric["selector"], &path.field("selector"), causes);
}

/// What a metric is to be.
fn aim(target: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    match text(target, "type") {
        "" => causes.push(Cause::required(path.field("type"), "must specify a metric target type")),
        "Utilization" | "Value" | "AverageValue" => {}
        other => {
            let detail = "must be either Utilization, Value, or AverageValue";
            causes.push(Cause::invalid(path.field("type"), &other.into(), detail));
        }
    }
    for key in ["value", "averageValue"].into_iter().filter(|key| has(target, key)) {
        let before = causes.len();
        let positive =
            amount(&target[key], &path.field(key), causes).is_some_and(|it| !it.is_zero() && !it.is_negative());
        if !positive {
            causes.truncate(before);
            causes.push(Cause::invalid(path.field(key), &target[key], "must be positive"));
        }
    }
    if let Some(share) = integer(target, "averageUtilization").filter(|share| *share < 1) {
        causes.push(Cause::invalid(path.field("averageUtilization"), &share.into(), "must be greater than 0"));
    }
}

fn scaling(rules: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(window) = integer(rules, "stabilizationWindowSeconds") {
        let path = path.field("stabilizationWindowSeconds");
        if window < 0 {
            causes.push(Cause::invalid(path, &window.into(), "must be greater than or equal to zero"));
        } else if window > LONGEST_WINDOW {
            causes.push(Cause::invalid(
                path,
                &window.into(),
                &format!("must be less than or equal to {LONGEST_WINDOW}"),
            ));
        }
    }
    one_of(rules, "selectPolicy", &["Disabled", "Max", "Min"], path, causes);
    let list = path.field("policies");
    let policies = array(rules, "policies");
    if policies.is_empty() {
        causes.push(Cause::required(list, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = list.index(index);
        required_one_of(policy, "type", &["Percent", "Pods"], &path, causes);
        for key in ["value", "periodSeconds"] {
            if let Some(number) = Some(integer(policy, key).unwrap_or(0)).filter(|number| *number <= 0) {
                causes.push(Cause::invalid(path.field(key), &number.into(), "must be greater than zero"));
            }
        }
        if let Some(period) = integer(policy, "periodSeconds").filter(|period| *period > LONGEST_PERIOD) {
            let detail = format!("must be less than or equal to {LONGEST_PERIOD}");
            causes.push(Cause::invalid(path.field("periodSeconds"), &period.into(), &detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::wrong;
    use super::*;

    #[test]
    fn autoscalers_are_judged() {
        let with = |key: &str, value: Value| {
            let mut spec = json!({"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}});
            spec[key] = value;
            spec
        };
        let metric = |metric: Value| with("metrics", json!([metric]));
        let cpu = |target: Value| metric(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        let down = |rules: Value| with("behavior", json!({"scaleDown": rules}));
        let at = "spec.metrics[0]";
        let rows = [
            (with("minReplicas", json!(1)), String::new()),
            (cpu(json!({"type": "Utilization", "averageUtilization": 80})), String::new()),
            (down(json!({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]})), String::new()),
            (
                with("maxReplicas", json!(-1)),
                "spec.maxReplicas: Invalid value: -1: must be greater than 0; spec.maxReplicas: Invalid value: -1: must \
                 be greater than or equal to `minReplicas`"
                    .into(),
            ),
            (
                with("minReplicas", json!(4)),
                "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`".into(),
            ),
            (with("scaleTargetRef", json!({"kind": "D"})), "spec.scaleTargetRef.name: Required value".into()),
            (metric(json!({})), format!("{at}.type: Required value: must specify a metric source type")),
            (
                metric(json!({"type": "Resource"})),
                format!("{at}.resource: Required value: must populate information for the given metric source"),
            ),
            (
                metric(json!({"type": "Resource", "pods": {},
                    "resource": {"name": "cpu", "target": {"type": "Value", "averageValue": "1"}}})),
                format!("{at}.pods: Forbidden: must populate the given metric source only"),
            ),
            (
                cpu(json!({"type": "Utilization"})),
                format!(
                    "{at}.resource.target.averageUtilization: Required value: must set either a target raw value or a \
                     target utilization"
                ),
            ),
            (
                cpu(json!({"type": "AverageValue", "averageValue": "0"})),
                format!("{at}.resource.target.averageValue: Invalid value: \"0\": must be positive"),
            ),
            (
                metric(json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "Value"}}})),
                format!("{at}.pods.target.averageValue: Required value: must specify a positive target averageValue"),
            ),
            (
                down(json!({})),
                "spec.behavior.scaleDown.policies: Required value: must specify at least one Policy".into(),
            ),
            (
                down(json!({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]})),
                "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"
                    .into(),
            ),
        ];
        for (spec, want) in rows {
            let found = wrong("autoscaling", "horizontalpodautoscalers", json!({"spec": spec}));
            assert_eq!(found.join("; "), want, "{spec}");
        }
    }
}
