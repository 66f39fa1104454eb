//! Facts about pods several parts need: what a pod asks for, and its quality of service.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Quantity,
    value::{array, entries, has, text},
};

/// Amounts by resource name (`cpu`, `memory`, …). What cannot be read counts as nothing.
pub type Resources = BTreeMap<String, Quantity>;

/// What all of a pod asks for at once: the larger of its containers together and of its greediest
/// moment of initialisation, plus the overhead of its sandbox.
pub fn requests(pod: &Value) -> Resources {
    total(pod, "requests", |_, _| true)
}

/// What a pod may use at most. Overhead counts only for resources that are limited at all.
pub fn limits(pod: &Value) -> Resources {
    total(pod, "limits", |limits, name| limits.contains_key(name))
}

/// Whether an init container keeps running beside the main ones.
pub fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

/// `requests` or `limits` of a container.
pub fn container_resources(container: &Value, which: &str) -> Resources {
    let Some(resources) = container.get("resources") else { return Resources::new() };
    amounts(resources, which)
}

fn amounts(value: &Value, key: &str) -> Resources {
    entries(value, key)
        .map(|(name, value)| (name.clone(), Quantity::from_value(value).unwrap_or(Quantity::ZERO)))
        .collect()
}

fn total(pod: &Value, which: &str, counts: impl Fn(&Resources, &str) -> bool) -> Resources {
    let spec = &pod["spec"];
    let mut running = Resources::new();
    for container in array(spec, "containers") {
        add(&mut running, &container_resources(container, which));
    }
    let (mut sidecars, mut most) = (Resources::new(), Resources::new());
    for container in array(spec, "initContainers") {
        let mut now = container_resources(container, which);
        if is_sidecar(container) {
            add(&mut running, &now);
            add(&mut sidecars, &now);
            now = sidecars.clone();
        } else {
            add(&mut now, &sidecars);
        }
        raise(&mut most, &now);
    }
    raise(&mut running, &most);
    for (name, amount) in spec.get("resources").map(|resources| amounts(resources, which)).unwrap_or_default() {
        running.insert(name, amount);
    }
    for (name, amount) in amounts(spec, "overhead") {
        if counts(&running, &name) {
            let sum = running.get(&name).unwrap_or(&Quantity::ZERO).plus(&amount);
            running.insert(name, sum);
        }
    }
    running
}

fn add(sum: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = entry.plus(amount);
    }
}

fn raise(most: &mut Resources, other: &Resources) {
    for (name, amount) in other {
        let entry = most.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
///
/// Only cpu and memory count. Guaranteed means limits on both in every container, equal to requests.
pub fn qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let whole = spec.get("resources").filter(|resources| has(resources, "requests") || has(resources, "limits"));
    let (mut any, mut guaranteed) = (false, true);
    let mut judge = |requests: Resources, limits: Resources| {
        for name in ["cpu", "memory"] {
            let request = requests.get(name).filter(|amount| !amount.is_zero());
            let limit = limits.get(name).filter(|amount| !amount.is_zero());
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    };
    match whole {
        Some(resources) => judge(amounts(resources, "requests"), amounts(resources, "limits")),
        None => {
            for container in array(spec, "containers").iter().chain(array(spec, "initContainers")) {
                judge(container_resources(container, "requests"), container_resources(container, "limits"));
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Whether a pod will never run again.
pub fn is_finished(pod: &Value) -> bool {
    matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed")
}

/// Whether the condition `kind` of an object is `True`.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    array(&object["status"], "conditions")
        .iter()
        .any(|condition| text(condition, "type") == kind && text(condition, "status") == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(requests: Value, limits: Value) -> Value {
        json!({"resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn requests_cover_the_greediest_moment() {
        let cpu = |amount: &str| container(json!({"cpu": amount}), json!({}));
        let mut sidecar = cpu("100m");
        sidecar["restartPolicy"] = "Always".into();
        let rows = [
            (json!({"containers": [cpu("1"), cpu("500m")]}), "1500m"),
            (json!({"containers": [cpu("1")], "initContainers": [cpu("2")]}), "2"),
            (json!({"containers": [cpu("1")], "initContainers": [sidecar.clone(), cpu("2")]}), "2100m"),
            (json!({"containers": [cpu("3")], "initContainers": [cpu("2"), sidecar]}), "3100m"),
            (json!({"containers": [cpu("1")], "overhead": {"cpu": "250m"}}), "1250m"),
        ];
        for (spec, want) in rows {
            let pod = json!({"spec": spec});
            assert_eq!(requests(&pod)["cpu"].to_string(), want, "{pod}");
        }
        let pod = json!({"spec": {"containers": [cpu("1")], "overhead": {"cpu": "250m"}}});
        assert!(limits(&pod).is_empty());
    }

    #[test]
    fn quality_of_service_looks_at_cpu_and_memory() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let rows = [
            (json!([{}]), "BestEffort"),
            (json!([container(json!({"example.com/x": "1"}), json!({}))]), "BestEffort"),
            (json!([container(both.clone(), both.clone())]), "Guaranteed"),
            (json!([container(json!({}), both.clone())]), "Guaranteed"),
            (json!([container(both.clone(), both.clone()), {}]), "Burstable"),
            (json!([container(json!({"cpu": "1"}), json!({}))]), "Burstable"),
            (json!([container(json!({"cpu": "1000m", "memory": "1024Mi"}), both)]), "Guaranteed"),
        ];
        for (containers, want) in rows {
            assert_eq!(qos_class(&json!({"spec": {"containers": containers}})), want, "{containers}");
        }
    }
}
