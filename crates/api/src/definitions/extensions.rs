//! How lists and maps of the built-in kinds are merged by strategic patches and owned by appliers.
//!
//! The two differ: a container port is found by `containerPort` in a strategic patch and by
//! `containerPort` and `protocol` in server-side apply.

use serde_json::{Map, Value, json};

/// Who owns items of a list (`x-kubernetes-list-type`).
enum Owned {
    /// The list as a whole.
    Whole,
    /// Each value.
    Set,
    /// Each item, found by these keys.
    Map(&'static [&'static str]),
}
use Owned::{Map as ByKeys, Set, Whole};

/// How a strategic patch merges a list.
enum Patched {
    /// The list is replaced.
    Replaced,
    /// Values are added to the list.
    Added,
    /// Items are merged with the one of the same key.
    Merged(&'static str),
    /// As `Merged`, and fields not listed by the patch are dropped from the item.
    Retained(&'static str),
}
use Patched::{Added, Merged, Replaced, Retained};

/// Definition without its package prefix, field, ownership, patching.
const LISTS: &[(&str, &str, Owned, Patched)] = &[
    ("core.v1.PodSpec", "containers", ByKeys(&["name"]), Merged("name")),
    ("core.v1.PodSpec", "ephemeralContainers", ByKeys(&["name"]), Merged("name")),
    ("core.v1.PodSpec", "hostAliases", ByKeys(&["ip"]), Merged("ip")),
    ("core.v1.PodSpec", "imagePullSecrets", ByKeys(&["name"]), Merged("name")),
    ("core.v1.PodSpec", "initContainers", ByKeys(&["name"]), Merged("name")),
    ("core.v1.PodSpec", "resourceClaims", ByKeys(&["name"]), Retained("name")),
    ("core.v1.PodSpec", "schedulingGates", ByKeys(&["name"]), Merged("name")),
    (
        "core.v1.PodSpec",
        "topologySpreadConstraints",
        ByKeys(&["topologyKey", "whenUnsatisfiable"]),
        Merged("topologyKey"),
    ),
    ("core.v1.PodSpec", "volumes", ByKeys(&["name"]), Retained("name")),
    ("core.v1.Container", "env", ByKeys(&["name"]), Merged("name")),
    ("core.v1.Container", "ports", ByKeys(&["containerPort", "protocol"]), Merged("containerPort")),
    ("core.v1.Container", "volumeDevices", ByKeys(&["devicePath"]), Merged("devicePath")),
    ("core.v1.Container", "volumeMounts", ByKeys(&["mountPath"]), Merged("mountPath")),
    ("core.v1.EphemeralContainer", "env", ByKeys(&["name"]), Merged("name")),
    ("core.v1.EphemeralContainer", "ports", ByKeys(&["containerPort", "protocol"]), Merged("containerPort")),
    ("core.v1.EphemeralContainer", "volumeDevices", ByKeys(&["devicePath"]), Merged("devicePath")),
    ("core.v1.EphemeralContainer", "volumeMounts", ByKeys(&["mountPath"]), Merged("mountPath")),
    ("core.v1.ResourceRequirements", "claims", ByKeys(&["name"]), Replaced),
    ("core.v1.ContainerRestartRuleOnExitCodes", "values", Set, Replaced),
    ("core.v1.PodStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("core.v1.PodStatus", "hostIPs", Whole, Merged("ip")),
    ("core.v1.PodStatus", "podIPs", ByKeys(&["ip"]), Merged("ip")),
    ("core.v1.PodStatus", "resourceClaimStatuses", ByKeys(&["name"]), Retained("name")),
    ("core.v1.ContainerStatus", "allocatedResourcesStatus", ByKeys(&["name"]), Merged("name")),
    ("core.v1.ContainerStatus", "volumeMounts", ByKeys(&["mountPath"]), Merged("mountPath")),
    ("core.v1.ResourceStatus", "resources", ByKeys(&["resourceID"]), Replaced),
    ("core.v1.NamespaceStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("core.v1.NodeSpec", "podCIDRs", Set, Added),
    ("core.v1.NodeStatus", "addresses", ByKeys(&["type"]), Merged("type")),
    ("core.v1.NodeStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("core.v1.PersistentVolumeClaimStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("core.v1.ReplicationControllerStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("core.v1.ServiceAccount", "secrets", ByKeys(&["name"]), Merged("name")),
    ("core.v1.ServiceSpec", "ports", ByKeys(&["port", "protocol"]), Merged("port")),
    ("core.v1.ServiceStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("admissionregistration.v1.MutatingWebhook", "matchConditions", ByKeys(&["name"]), Merged("name")),
    ("admissionregistration.v1.MutatingWebhookConfiguration", "webhooks", ByKeys(&["name"]), Merged("name")),
    ("admissionregistration.v1.ValidatingWebhook", "matchConditions", ByKeys(&["name"]), Merged("name")),
    ("admissionregistration.v1.ValidatingWebhookConfiguration", "webhooks", ByKeys(&["name"]), Merged("name")),
    ("apps.v1.DaemonSetStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("apps.v1.DeploymentStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("apps.v1.ReplicaSetStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("apps.v1.StatefulSetStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("autoscaling.v2.HorizontalPodAutoscalerStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("batch.v1.JobStatus", "conditions", Whole, Merged("type")),
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", "values", Set, Replaced),
    ("batch.v1.UncountedTerminatedPods", "failed", Set, Replaced),
    ("batch.v1.UncountedTerminatedPods", "succeeded", Set, Replaced),
    ("discovery.v1.Endpoint", "addresses", Set, Replaced),
    ("policy.v1.PodDisruptionBudgetStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("storage.v1.CSIDriverSpec", "volumeLifecycleModes", Set, Replaced),
    ("storage.v1.CSINodeSpec", "drivers", ByKeys(&["name"]), Merged("name")),
    ("apiextensions.v1.CustomResourceDefinitionStatus", "conditions", ByKeys(&["type"]), Replaced),
    ("apiextensions.v1.JSONSchemaProps", "x-kubernetes-validations", ByKeys(&["rule"]), Merged("rule")),
    ("apiregistration.v1.APIServiceStatus", "conditions", ByKeys(&["type"]), Merged("type")),
    ("meta.v1.ObjectMeta", "finalizers", Set, Added),
    ("meta.v1.ObjectMeta", "ownerReferences", ByKeys(&["uid"]), Merged("uid")),
];

/// Maps that are owned whole, by definition and field; an empty field means the definition itself.
const WHOLE_MAPS: &[(&str, &str)] = &[
    ("core.v1.ConfigMapKeySelector", ""),
    ("core.v1.EndpointAddress", ""),
    ("core.v1.EndpointPort", ""),
    ("core.v1.LocalObjectReference", ""),
    ("core.v1.NodeSelector", ""),
    ("core.v1.NodeSelectorTerm", ""),
    ("core.v1.ObjectFieldSelector", ""),
    ("core.v1.ObjectReference", ""),
    ("core.v1.PodSpec", "nodeSelector"),
    ("core.v1.ReplicationControllerSpec", "selector"),
    ("core.v1.ResourceFieldSelector", ""),
    ("core.v1.ScopeSelector", ""),
    ("core.v1.ScopedResourceSelectorRequirement", ""),
    ("core.v1.SecretKeySelector", ""),
    ("core.v1.SecretReference", ""),
    ("core.v1.ServiceSpec", "selector"),
    ("core.v1.TopologySelectorTerm", ""),
    ("core.v1.TypedLocalObjectReference", ""),
    ("autoscaling.v1.CrossVersionObjectReference", ""),
    ("discovery.v1.EndpointPort", ""),
    ("meta.v1.LabelSelector", ""),
    ("meta.v1.OwnerReference", ""),
    ("node.v1.Scheduling", "nodeSelector"),
    ("rbac.v1.RoleRef", ""),
    ("rbac.v1.Subject", ""),
];

/// Objects of which a strategic patch keeps only the fields it lists under `$retainKeys`.
const RETAINED: &[(&str, &str)] = &[("apps.v1.DeploymentSpec", "strategy")];

/// Keys of [`LISTS`] that may be left out, and the value they then count with when an item is looked for.
const KEY_DEFAULTS: &[(&str, &str, &str)] =
    &[("core.v1.ContainerPort", "protocol", "TCP"), ("core.v1.ServicePort", "protocol", "TCP")];

/// Adds the extensions to `components.schemas`.
pub(super) fn inject(schemas: &mut Map<String, Value>) {
    for (name, schema) in schemas.iter_mut() {
        let Some(short) = short(name) else { continue };
        for (_, field, owned, patched) in LISTS.iter().filter(|row| row.0 == short) {
            extend(schema, field, list(owned, patched));
        }
        for (_, field) in WHOLE_MAPS.iter().filter(|row| row.0 == short) {
            extend(schema, field, json!({"x-kubernetes-map-type": "atomic"}));
        }
        for (_, field) in RETAINED.iter().filter(|row| row.0 == short) {
            extend(schema, field, json!({"x-kubernetes-patch-strategy": "retainKeys"}));
        }
        for (_, field, value) in KEY_DEFAULTS.iter().filter(|row| row.0 == short) {
            extend(schema, field, json!({"default": value}));
        }
        if ANYTHING.contains(&short) {
            open(schema);
        }
    }
}

/// Lets a definition hold any value: its alternatives are told apart by who reads it.
fn open(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        fields.retain(|name, _| name == "description");
        fields.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
    }
}

/// Definitions that hold any JSON, or one of several shapes.
const ANYTHING: &[&str] = &[
    "apiextensions.v1.JSON",
    "apiextensions.v1.JSONSchemaPropsOrArray",
    "apiextensions.v1.JSONSchemaPropsOrBool",
    "apiextensions.v1.JSONSchemaPropsOrStringArray",
];

/// `core.v1.Pod` for `io.k8s.api.core.v1.Pod`.
fn short(name: &str) -> Option<&str> {
    let (third, _) = name.rmatch_indices('.').nth(2)?;
    name.get(third + 1..)
}

fn list(owned: &Owned, patched: &Patched) -> Value {
    let mut extension = match owned {
        Whole => json!({"x-kubernetes-list-type": "atomic"}),
        Set => json!({"x-kubernetes-list-type": "set"}),
        ByKeys(keys) => json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}),
    };
    let (strategy, key) = match patched {
        Replaced => return extension,
        Added => ("merge", None),
        Merged(key) => ("merge", Some(*key)),
        Retained(key) => ("merge,retainKeys", Some(*key)),
    };
    extension["x-kubernetes-patch-strategy"] = strategy.into();
    if let Some(key) = key {
        extension["x-kubernetes-patch-merge-key"] = key.into();
    }
    extension
}

fn extend(schema: &mut Value, field: &str, extension: Value) {
    let place = if field.is_empty() { Some(schema) } else { schema["properties"].get_mut(field) };
    if let (Some(Value::Object(place)), Value::Object(extension)) = (place, extension) {
        place.extend(extension);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_something_that_exists() {
        let schemas = super::super::openapi();
        let exists = |definition: &str, field: &str| {
            schemas.iter().any(|(name, schema)| {
                short(name) == Some(definition) && (field.is_empty() || schema["properties"][field].is_object())
            })
        };
        let lists = LISTS.iter().map(|row| (row.0, row.1));
        let defaults = KEY_DEFAULTS.iter().map(|row| (row.0, row.1));
        let others = WHOLE_MAPS.iter().chain(RETAINED).copied();
        for (definition, field) in lists.chain(others).chain(defaults) {
            assert!(exists(definition, field), "{definition} {field}");
        }
    }
}
