//! Which nodes a pod names: selector, required and preferred affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

use crate::pods::labels;

/// Whether a node is among those the pod's selector and required affinity name.
pub(crate) fn admits(spec: &PodSpec, node: &Node) -> bool {
    let have = labels(&node.metadata);
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| have.get(key) == Some(value));
    let required =
        affinity(spec).and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| selects(selector, node))
}

/// Whether any term of a selector matches; a selector without terms matches nothing.
pub(crate) fn selects(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Sum of the weights of all preferred terms that match.
pub(crate) fn preference(spec: &PodSpec, node: &Node) -> i64 {
    let preferred =
        affinity(spec).and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
    let matching = preferred.into_iter().flatten().filter(|term| term_matches(&term.preference, node));
    matching.map(|term| i64::from(term.weight)).sum()
}

fn affinity(spec: &PodSpec) -> Option<&NodeAffinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term that says nothing selects nothing.
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name: BTreeMap<String, String> =
        [("metadata.name".to_owned(), node.metadata.name.clone().unwrap_or_default())].into();
    expressions.iter().all(|requirement| requirement_met(requirement, labels(&node.metadata)))
        && fields.iter().all(|requirement| requirement_met(requirement, &name))
}

fn requirement_met(requirement: &NodeSelectorRequirement, on: &BTreeMap<String, String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let have = on.get(&requirement.key);
    let compare = |holds: fn(i64, i64) -> bool| match (have.and_then(|have| have.parse().ok()), values) {
        (Some(have), [limit]) => limit.parse().is_ok_and(|limit| holds(have, limit)),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => have.is_some_and(|have| values.contains(have)),
        "NotIn" => have.is_none_or(|have| !values.contains(have)),
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => compare(|have, limit| have > limit),
        "Lt" => compare(|have, limit| have < limit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{object, pod};

    fn node() -> Node {
        object(json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8"}}}))
    }

    fn required(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}])
    }

    #[test]
    fn selectors_and_required_terms() {
        for (spec, want) in [
            (json!({}), true),
            (json!({"nodeSelector": {"zone": "a"}}), true),
            (json!({"nodeSelector": {"zone": "a", "disk": "ssd"}}), false),
            (required(expression("zone", "In", &["a", "b"])), true),
            (required(expression("zone", "In", &["b"])), false),
            (required(expression("zone", "NotIn", &["b"])), true),
            (required(expression("disk", "NotIn", &["b"])), true),
            (required(expression("zone", "Exists", &[])), true),
            (required(expression("disk", "DoesNotExist", &[])), true),
            (required(expression("cores", "Gt", &["4"])), true),
            (required(expression("cores", "Gt", &["8"])), false),
            (required(expression("cores", "Lt", &["16"])), true),
            (required(expression("zone", "Lt", &["16"])), false),
            (required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])), true),
            (required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}])), false),
            (required(json!([{}])), false),
            (required(json!([])), false),
            (
                required(json!([{"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
                             {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}])),
                true,
            ),
        ] {
            assert_eq!(admits(&pod(json!({"spec": spec})).spec.unwrap(), &node()), want, "{spec}");
        }
    }

    #[test]
    fn matching_preferences_add_up() {
        let spec = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "preference": expression("zone", "In", &["a"])[0]},
            {"weight": 5, "preference": expression("cores", "Exists", &[])[0]},
            {"weight": 80, "preference": expression("disk", "Exists", &[])[0]},
        ]}}});
        assert_eq!(preference(&pod(json!({"spec": spec})).spec.unwrap(), &node()), 15);
    }
}
