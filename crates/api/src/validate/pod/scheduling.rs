//! Where a pod may run.

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::super::{
    metadata, names,
    rules::{Seen, named, one_of, required, required_one_of, within},
};
use crate::value::{array, has, integer, text};

/// Judges tolerations, affinity, spreading and gates.
pub(super) fn judge(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    tolerations(array(spec, "tolerations"), &path.field("tolerations"), causes);
    let affinity = path.field("affinity");
    node_affinity(&spec["affinity"]["nodeAffinity"], &affinity.field("nodeAffinity"), causes);
    for key in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(&spec["affinity"][key], &affinity.field(key), causes);
    }
    spread(spec, path, causes);
    let gates = path.field("schedulingGates");
    let mut seen = Seen::new();
    for (index, gate) in array(spec, "schedulingGates").iter().enumerate() {
        let path = gates.index(index);
        named(text(gate, "name"), names::qualified_name, &path, causes);
        seen.add(text(gate, "name"), &path, causes);
    }
}

/// Judges a list of tolerations.
pub(in super::super) fn tolerations(tolerations: &[Value], list: &Path<'_>, causes: &mut Vec<Cause>) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = list.index(index);
        match text(toleration, "key") {
            "" if text(toleration, "operator") != "Exists" => {
                let detail =
                    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                causes.push(Cause::invalid(path.field("operator"), &text(toleration, "operator").into(), detail));
            }
            "" => {}
            key => named(key, names::qualified_name, &path.field("key"), causes),
        }
        one_of(toleration, "operator", &["Equal", "Exists"], &path, causes);
        one_of(toleration, "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"], &path, causes);
        if text(toleration, "operator") == "Exists" && !text(toleration, "value").is_empty() {
            let detail = "value must be empty when `operator` is 'Exists'";
            causes.push(Cause::invalid(path.field("operator"), &toleration["value"], detail));
        }
        if has(toleration, "tolerationSeconds") && text(toleration, "effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            causes.push(Cause::invalid(path.field("effect"), &text(toleration, "effect").into(), detail));
        }
    }
}

fn node_affinity(affinity: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let key = "requiredDuringSchedulingIgnoredDuringExecution";
    if has(affinity, key) {
        node_selector(&affinity[key], &path.field(key), causes);
    }
    let key = "preferredDuringSchedulingIgnoredDuringExecution";
    let list = path.field(key);
    for (index, preferred) in array(affinity, key).iter().enumerate() {
        let path = list.index(index);
        weight(preferred, &path, causes);
        node_term(&preferred["preference"], &path.field("preference"), causes);
    }
}

fn weight(preferred: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if !(1..=100).contains(&integer(preferred, "weight").unwrap_or(0)) {
        causes.push(Cause::invalid(path.field("weight"), &preferred["weight"], "must be in the range 1-100"));
    }
}

/// Judges a selector of nodes.
pub(in super::super) fn node_selector(selector: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("nodeSelectorTerms");
    let terms = array(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        causes.push(Cause::required(list, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(term, &list.index(index), causes);
    }
}

fn node_term(term: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    for key in ["matchExpressions", "matchFields"] {
        let list = path.field(key);
        for (index, expression) in array(term, key).iter().enumerate() {
            let path = list.index(index);
            named(text(expression, "key"), names::qualified_name, &path.field("key"), causes);
            let values = array(expression, "values").len();
            match text(expression, "operator") {
                "In" | "NotIn" if values == 0 => {
                    let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                    causes.push(Cause::required(path.field("values"), detail));
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    causes.push(Cause::forbidden(path.field("values"), detail));
                }
                "Gt" | "Lt" if values != 1 => {
                    let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    causes.push(Cause::required(path.field("values"), detail));
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => {
                    causes.push(Cause::invalid(path.field("operator"), &other.into(), "not a valid selector operator"));
                }
            }
        }
    }
}

fn pod_affinity(affinity: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let key = "requiredDuringSchedulingIgnoredDuringExecution";
    let list = path.field(key);
    for (index, term) in array(affinity, key).iter().enumerate() {
        pod_term(term, &list.index(index), causes);
    }
    let key = "preferredDuringSchedulingIgnoredDuringExecution";
    let list = path.field(key);
    for (index, preferred) in array(affinity, key).iter().enumerate() {
        let path = list.index(index);
        weight(preferred, &path, causes);
        pod_term(&preferred["podAffinityTerm"], &path.field("podAffinityTerm"), causes);
    }
}

fn pod_term(term: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    metadata::selector(&term["labelSelector"], &path.field("labelSelector"), causes);
    match text(term, "topologyKey") {
        "" => causes.push(Cause::required(path.field("topologyKey"), "can not be empty")),
        key => named(key, names::qualified_name, &path.field("topologyKey"), causes),
    }
}

fn spread(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("topologySpreadConstraints");
    for (index, constraint) in array(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = list.index(index);
        if integer(constraint, "maxSkew").unwrap_or(0) <= 0 {
            causes.push(Cause::invalid(path.field("maxSkew"), &constraint["maxSkew"], "must be greater than zero"));
        }
        within(constraint, "minDomains", 1, i64::from(i32::MAX), &path, causes);
        required(constraint, "topologyKey", &path, causes);
        required_one_of(constraint, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], &path, causes);
        metadata::selector(&constraint["labelSelector"], &path.field("labelSelector"), causes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::tests::wrong;

    #[test]
    fn scheduling_is_judged() {
        let rows = [
            (
                json!({"tolerations": [{"operator": "Equal"}]}),
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
            ),
            (
                json!({"tolerations": [{"key": "a", "effect": "No"}]}),
                "spec.tolerations[0].effect: Unsupported value: \"No\"",
            ),
            (
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}}),
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
            ),
            (
                json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}}),
                "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
            ),
            (
                json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a"}]}),
                "spec.topologySpreadConstraints[0].whenUnsatisfiable: Required value",
            ),
            (
                json!({"schedulingGates": [{"name": "a"}, {"name": "a"}]}),
                "spec.schedulingGates[1]: Duplicate value: \"a\"",
            ),
        ];
        for (spec, want) in rows {
            let mut spec = spec;
            spec["containers"] = json!([{"name": "a", "image": "i"}]);
            let wrong = wrong("", "pods", json!({"spec": spec}));
            assert!(wrong.len() == 1 && wrong[0].starts_with(want), "{spec}: {wrong:?}");
        }
    }
}
