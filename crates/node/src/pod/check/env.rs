//! Environment variables.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::container::PodFacts;
use crate::pod::{
    model::{EnvFrom, EnvValue, Object, ObjectKind},
    problem::Problems,
    quantity,
    resources::{machine_cpus, machine_memory},
};

/// Objects whose keys become variables.
pub(super) fn from(given: &core::Container) -> Vec<EnvFrom> {
    let object = |kind, name: &str, optional: Option<bool>| Object {
        kind,
        name: name.to_owned(),
        optional: optional.unwrap_or(false),
    };
    let one = |from: &core::EnvFromSource| {
        let object = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => object(ObjectKind::ConfigMap, &map.name, map.optional),
            (None, Some(secret)) => object(ObjectKind::Secret, &secret.name, secret.optional),
            (None, None) => return None,
        };
        Some(EnvFrom { object, prefix: from.prefix.clone().unwrap_or_default() })
    };
    given.env_from.iter().flatten().filter_map(one).collect()
}

/// The variables proper.
pub(super) fn variables(
    path: &str,
    container: &core::Container,
    pod: &PodFacts<'_>,
    problems: &mut Problems,
) -> Vec<(String, EnvValue)> {
    let mut variables = Vec::new();
    for (n, variable) in container.env.iter().flatten().enumerate() {
        let path = format!("{path}.env[{n}]");
        let name = &variable.name;
        let good = !name.is_empty() && !name.contains(['=', '\0']);
        problems.unless(good, format!("{path}.name"), format!("{name:?} cannot be a variable"));
        let value = match &variable.value_from {
            None => EnvValue::Text(variable.value.clone().unwrap_or_default()),
            Some(source) => from_source(&format!("{path}.valueFrom"), source, container, pod, problems),
        };
        variables.push((name.clone(), value));
    }
    variables
}

fn from_source(
    path: &str,
    source: &core::EnvVarSource,
    container: &core::Container,
    pod: &PodFacts<'_>,
    problems: &mut Problems,
) -> EnvValue {
    let object = |kind, name: &str, optional: Option<bool>| Object {
        kind,
        name: name.to_owned(),
        optional: optional.unwrap_or(false),
    };
    if let Some(field) = &source.field_ref {
        return field_value(&format!("{path}.fieldRef.fieldPath"), &field.field_path, pod, problems);
    }
    if let Some(key) = &source.config_map_key_ref {
        return EnvValue::Key(object(ObjectKind::ConfigMap, &key.name, key.optional), key.key.clone());
    }
    if let Some(key) = &source.secret_key_ref {
        return EnvValue::Key(object(ObjectKind::Secret, &key.name, key.optional), key.key.clone());
    }
    if let Some(field) = &source.resource_field_ref {
        let value = resource(field, container);
        problems.unless(value.is_some(), format!("{path}.resourceFieldRef"), "cpu and memory can be had");
        return EnvValue::Known(value.unwrap_or_default());
    }
    problems.add(path, "has no source that is known here");
    EnvValue::Known(String::new())
}

fn field_value(path: &str, field: &str, pod: &PodFacts<'_>, problems: &mut Problems) -> EnvValue {
    if let Some(value) = known_field(field, pod) {
        return EnvValue::Known(value);
    }
    match field {
        "status.podIP" => return EnvValue::PodIp,
        "status.podIPs" => return EnvValue::PodIps,
        "status.hostIP" | "status.hostIPs" if problems.in_cluster => return EnvValue::HostIp,
        "spec.nodeName" if problems.in_cluster => return EnvValue::NodeName,
        _ => problems.add(path, format!("{field:?} is not known without a cluster")),
    }
    EnvValue::Known(String::new())
}

/// Fields that do not depend on where and how the pod runs.
fn known_field(field: &str, pod: &PodFacts<'_>) -> Option<String> {
    let keyed = field.strip_suffix("']").and_then(|field| field.split_once("['"));
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    match (field, keyed) {
        ("metadata.name", _) => pod.meta.name.clone(),
        ("metadata.namespace", _) => Some(pod.meta.namespace.clone().unwrap_or_else(|| "default".into())),
        ("metadata.uid", _) => Some(pod.uid.to_owned()),
        ("spec.serviceAccountName", _) => {
            Some(pod.spec.service_account_name.clone().unwrap_or_else(|| "default".into()))
        }
        (_, Some(("metadata.labels", key))) => Some(entry(&pod.meta.labels, key)),
        (_, Some(("metadata.annotations", key))) => Some(entry(&pod.meta.annotations, key)),
        _ => None,
    }
}

/// A request or limit in units of the divisor, rounded up; the machine's amount
/// where a container has no limit, as in Kubernetes.
pub(super) fn resource(field: &core::ResourceFieldSelector, container: &core::Container) -> Option<String> {
    let (list, name) = field.resource.split_once('.')?;
    let resources = container.resources.clone().unwrap_or_default();
    let amounts = match list {
        "limits" => resources.limits,
        "requests" => resources.requests.or(resources.limits),
        _ => return None,
    };
    let given = amounts.and_then(|amounts| amounts.get(name).and_then(|amount| quantity::thousandths(&amount.0)));
    let machine = match name {
        "cpu" => machine_cpus() * 1000,
        "memory" => machine_memory().saturating_mul(1000),
        "ephemeral-storage" => 0,
        _ => return None,
    };
    let amount = given.unwrap_or(if list == "limits" { machine } else { 0 });
    let divisor = field.divisor.as_ref().and_then(|divisor| quantity::thousandths(&divisor.0)).filter(|&d| d > 0);
    Some(amount.div_ceil(divisor.unwrap_or(1000)).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn resources_are_told_in_units_of_the_divisor() {
        let resources = json!({"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}});
        let container: core::Container =
            serde_json::from_value(json!({"name": "c", "resources": resources})).expect("container");
        for (resource, divisor, want) in [
            ("limits.cpu", "", Some("2")),
            ("limits.cpu", "1m", Some("1500")),
            ("limits.memory", "1Mi", Some("64")),
            ("requests.cpu", "1m", Some("250")),
            ("requests.memory", "", Some("0")),
            ("limits.hugepages-2Mi", "", None),
            ("cpu", "", None),
        ] {
            let mut field = json!({"resource": resource});
            if !divisor.is_empty() {
                field["divisor"] = divisor.into();
            }
            let field = serde_json::from_value(field).expect("selector");
            assert_eq!(super::resource(&field, &container).as_deref(), want, "{resource} {divisor}");
        }
    }
}
