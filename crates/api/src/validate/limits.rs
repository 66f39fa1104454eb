//! Limit ranges and resource quotas.

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    names,
    rules::{Seen, amount, amounts, immutable, named},
};
use crate::{
    Quantity,
    value::{array, entries, has, text},
};

/// What a quota may limit by a plain name.
const LIMITED: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// What is counted in pieces.
const WHOLE: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const SCOPES: &[&str] =
    &["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"];
/// Scopes that exclude each other.
const OPPOSITES: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

pub(super) fn quota(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    let hard = path.field("hard");
    for (name, value) in entries(spec, "hard") {
        let path = hard.key(name);
        named(name, names::qualified_name, &path, causes);
        let special = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
        if !name.contains('/') && !special && !LIMITED.contains(&name.as_str()) {
            causes.push(Cause::invalid(path, &name.as_str().into(), "must be a standard resource for quotas"));
        }
        let amount = amount(value, &path, causes);
        if WHOLE.contains(&name.as_str()) && amount.is_some_and(|amount| !amount.is_whole()) {
            causes.push(Cause::invalid(path, value, "must be an integer"));
        }
    }
    scopes(spec, path, causes);
    if let Some(old) = old {
        immutable(&old["spec"], spec, "scopes", path, causes);
    }
}

fn scopes(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let given = array(spec, "scopes");
    let path = path.field("scopes");
    let mut wrong = |detail| causes.push(Cause::invalid(path, &spec["scopes"], detail));
    for scope in given {
        if !scope.as_str().is_some_and(|scope| SCOPES.contains(&scope)) {
            wrong("unsupported scope");
        }
        for _ in entries(spec, "hard").filter(|(name, _)| !fits(scope.as_str().unwrap_or_default(), name)) {
            wrong("unsupported scope applied to resource");
        }
    }
    for pair in OPPOSITES {
        if pair.iter().all(|one| given.iter().any(|scope| scope == one)) {
            wrong("conflicting scopes");
        }
    }
}

/// Scopes are about pods; best-effort pods have nothing but their number.
fn fits(scope: &str, name: &str) -> bool {
    match scope {
        "BestEffort" => name == "pods",
        _ => {
            let name = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
            matches!(name, "cpu" | "memory" | "pods" | "ephemeral-storage")
        }
    }
}

pub(super) fn range(object: &Value, causes: &mut Vec<Cause>) {
    let spec = Path::Root.field("spec");
    let list = spec.field("limits");
    let mut seen = Seen::new();
    for (index, limit) in array(&object["spec"], "limits").iter().enumerate() {
        let path = list.index(index);
        let kind = text(limit, "type");
        seen.add(kind, &path.field("type"), causes);
        if !matches!(kind, "Container" | "PersistentVolumeClaim" | "Pod") && !kind.contains('/') {
            let detail = "must be a standard limit type or fully qualified";
            causes.push(Cause::invalid(path.field("type"), &kind.into(), detail));
        }
        for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            amounts(limit, key, &path, causes);
        }
        if kind == "Pod" {
            for key in ["default", "defaultRequest"].into_iter().filter(|key| has(limit, key)) {
                causes.push(Cause::forbidden(path.field(key), "may not be specified when `type` is 'Pod'"));
            }
        }
        if kind == "PersistentVolumeClaim" && !has(&limit["min"], "storage") && !has(&limit["max"], "storage") {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            causes.push(Cause::required(path, detail));
        }
        order(limit, &path, causes);
    }
}

/// Bounds and defaults must be in the order their names promise: field, what it is called, and the same of what it may
/// not exceed.
const ORDER: [[&str; 4]; 6] = [
    ["min", "min value", "max", "max value"],
    ["min", "min value", "defaultRequest", "default request value"],
    ["defaultRequest", "default request value", "max", "max value"],
    ["min", "min value", "default", "default value"],
    ["default", "default value", "max", "max value"],
    ["defaultRequest", "default request value", "default", "default limit value"],
];

fn order(limit: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    for [low, low_words, high, high_words] in ORDER {
        for (name, value) in entries(limit, low) {
            let (Ok(least), Ok(most)) = (Quantity::from_value(value), Quantity::from_value(&limit[high][name])) else {
                continue;
            };
            if least > most {
                // The bound that is set by hand is to blame, the default where there is one.
                let blamed = if low == "min" && high != "max" { high } else { low };
                let detail = format!("{low_words} {least} is greater than {high_words} {most}");
                causes.push(Cause::invalid(path.field(blamed).key(name), &limit[blamed][name], &detail));
            }
        }
    }
    for (name, value) in entries(limit, "maxLimitRequestRatio") {
        if let Ok(ratio) = Quantity::from_value(value)
            && ratio < Quantity::units(1)
        {
            let detail = format!("ratio {ratio} is less than 1");
            causes.push(Cause::invalid(path.field("maxLimitRequestRatio").key(name), value, &detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{wrong, wrong_change};
    use super::*;

    #[test]
    fn quotas_are_judged() {
        let rows = [
            (json!({"hard": {"pods": "1", "requests.cpu": "1", "count/a.b": "1", "x.y/z": "1"}}), ""),
            (json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), ""),
            (
                json!({"hard": {"deployments": "1"}}),
                "spec.hard[deployments]: Invalid value: \"deployments\": must be a standard resource for quotas",
            ),
            (json!({"hard": {"pods": "0.5"}}), "spec.hard[pods]: Invalid value: \"500m\": must be an integer"),
            (
                json!({"hard": {"cpu": "-1"}}),
                "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (json!({"scopes": ["Some"]}), "spec.scopes: Invalid value: [\"Some\"]: unsupported scope"),
            (
                json!({"hard": {"services": "1"}, "scopes": ["Terminating"]}),
                "spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource",
            ),
            (
                json!({"scopes": ["Terminating", "NotTerminating"]}),
                "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes",
            ),
        ];
        for (spec, want) in rows {
            assert_eq!(wrong("", "resourcequotas", json!({"spec": spec})).join("; "), want, "{spec}");
        }
        let scoped = |scopes: Value| json!({"metadata": {"name": "x"}, "spec": {"scopes": scopes}});
        let found = wrong_change("", "resourcequotas", &scoped(json!(["Terminating"])), &scoped(json!(null)));
        assert_eq!(found, ["spec.scopes: Invalid value: \"null\": field is immutable"]);
    }

    #[test]
    fn ranges_are_in_order() {
        let rows = [
            (json!({"type": "Container", "min": {"cpu": "1"}, "default": {"cpu": "2"}, "max": {"cpu": "3"}}), ""),
            (
                json!({"type": "Some"}),
                "type: Invalid value: \"Some\": must be a standard limit type or fully qualified",
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "1"}}),
                "default: Forbidden: may not be specified when `type` is 'Pod'",
            ),
            (
                json!({"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
                "min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ),
            (
                json!({"type": "Container", "min": {"cpu": "2"}, "defaultRequest": {"cpu": "1"}}),
                "defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
            ),
            (
                json!({"type": "Container", "defaultRequest": {"cpu": "2"}, "default": {"cpu": "1"}}),
                "defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default limit value 1",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}),
                "maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            ),
        ];
        for (limit, want) in rows {
            let found = wrong("", "limitranges", json!({"spec": {"limits": [limit]}})).join("; ");
            let want = if want.is_empty() { String::new() } else { format!("spec.limits[0].{want}") };
            assert_eq!(found, want, "{limit}");
        }
        let pair = json!({"spec": {"limits": [{"type": "Pod"}, {"type": "Pod"}, {"type": "PersistentVolumeClaim"}]}});
        assert_eq!(
            wrong("", "limitranges", pair),
            [
                "spec.limits[1].type: Duplicate value: \"Pod\"",
                "spec.limits[2]: Required value: either minimum or maximum storage value is required, but neither was provided",
            ]
        );
    }
}
