//! Services, endpoints, policies.

use serde_json::{Value, json};

use crate::value::{array, fill, fill_number, fill_text, has, items_mut, map_mut, text};

pub(super) fn service(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill_text(spec, "type", "ClusterIP");
    fill_text(spec, "sessionAffinity", "None");
    if text(spec, "sessionAffinity") == "ClientIP" {
        fill(spec, "sessionAffinityConfig", json!({}));
        if let Some(config) = map_mut(spec, "sessionAffinityConfig") {
            fill(config, "clientIP", json!({}));
            fill(&mut config["clientIP"], "timeoutSeconds", 10_800);
        }
    }
    let kind = text(spec, "type").to_owned();
    if kind != "ExternalName" {
        fill_text(spec, "internalTrafficPolicy", "Cluster");
        // One stack is all there is; upstream this is decided together with the cluster address.
        fill(spec, "ipFamilies", json!(["IPv4"]));
        fill_text(spec, "ipFamilyPolicy", "SingleStack");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        fill_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in items_mut(spec, "ports") {
        fill_text(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            if matches!(port.get("targetPort"), Some(Value::String(name)) if name.is_empty()) {
                port["targetPort"] = number;
            } else if let Some(number) = number.as_i64() {
                fill_number(port, "targetPort", number);
            }
        }
    }
}

pub(super) fn endpoints(object: &mut Value) {
    for subset in items_mut(object, "subsets") {
        items_mut(subset, "ports").for_each(|port| fill_text(port, "protocol", "TCP"));
    }
}

pub(super) fn endpoint_slice(object: &mut Value) {
    for port in items_mut(object, "ports") {
        fill(port, "name", "");
        fill_text(port, "protocol", "TCP");
    }
}

pub(super) fn policy(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    for direction in ["ingress", "egress"] {
        for rule in items_mut(spec, direction) {
            items_mut(rule, "ports").for_each(|port| fill_text(port, "protocol", "TCP"));
        }
    }
    if array(spec, "policyTypes").is_empty() {
        let types = if has(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("policyTypes".to_owned(), types);
        }
    }
}

pub(super) fn ingress_class(object: &mut Value) {
    if let Some(parameters) = map_mut(object, "spec").and_then(|spec| map_mut(spec, "parameters")) {
        fill_text(parameters, "scope", "Cluster");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::tests::applied;

    #[test]
    fn services_are_stored_like_this() {
        let service = applied(
            "",
            "services",
            json!({"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}, {"port": 1, "targetPort": "x"}]}}),
        );
        let want = json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "selector": {"a": "b"},
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [
                {"port": 80, "targetPort": 80, "protocol": "TCP"},
                {"port": 1, "targetPort": "x", "protocol": "TCP"},
            ],
        });
        assert_eq!(service["spec"], want);
        let outside = applied("", "services", json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}));
        assert_eq!(outside["spec"]["externalTrafficPolicy"], "Cluster");
        assert_eq!(outside["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
    }

    #[test]
    fn policies_apply_to_what_they_mention() {
        let policy = |spec| {
            applied("networking.k8s.io", "networkpolicies", json!({"spec": spec}))["spec"]["policyTypes"].clone()
        };
        assert_eq!(policy(json!({})), json!(["Ingress"]));
        assert_eq!(policy(json!({"egress": [{"ports": [{"port": 1}]}]})), json!(["Ingress", "Egress"]));
    }
}
