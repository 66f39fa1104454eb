//! Which fields of a Pod are understood, as one table.

use serde_json::Value;

/// Fields of a pod, containers left out. `*` ends a free-form map.
const POD: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata.annotations.*",
    "metadata.labels.*",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.activeDeadlineSeconds",
    "spec.dnsConfig.nameservers",
    "spec.dnsConfig.options[].name",
    "spec.dnsConfig.options[].value",
    "spec.dnsConfig.searches",
    "spec.dnsPolicy",
    "spec.hostAliases[].hostnames",
    "spec.hostAliases[].ip",
    "spec.hostNetwork",
    "spec.hostname",
    "spec.overhead.*",
    "spec.restartPolicy",
    "spec.runtimeClassName",
    "spec.securityContext.fsGroup",
    "spec.securityContext.runAsGroup",
    "spec.securityContext.runAsNonRoot",
    "spec.securityContext.runAsUser",
    "spec.securityContext.seccompProfile.type",
    "spec.securityContext.supplementalGroups",
    "spec.securityContext.sysctls[].name",
    "spec.securityContext.sysctls[].value",
    "spec.shareProcessNamespace",
    "spec.terminationGracePeriodSeconds",
    "spec.volumes[].downwardAPI.*",
    "spec.volumes[].emptyDir.medium",
    "spec.volumes[].emptyDir.sizeLimit",
    "spec.volumes[].hostPath.path",
    "spec.volumes[].hostPath.type",
    "spec.volumes[].name",
];

/// Fields of a container.
const CONTAINER: &[&str] = &[
    "args",
    "command",
    "env[].name",
    "env[].value",
    "env[].valueFrom.fieldRef.apiVersion",
    "env[].valueFrom.fieldRef.fieldPath",
    "env[].valueFrom.resourceFieldRef.*",
    "image",
    "imagePullPolicy",
    "lifecycle.postStart.exec.command",
    "lifecycle.postStart.httpGet.*",
    "lifecycle.postStart.sleep.seconds",
    "lifecycle.preStop.exec.command",
    "lifecycle.preStop.httpGet.*",
    "lifecycle.preStop.sleep.seconds",
    "livenessProbe.*",
    "name",
    "ports[].containerPort",
    "ports[].hostIP",
    "ports[].hostPort",
    "ports[].name",
    "ports[].protocol",
    "readinessProbe.*",
    "resources.limits.*",
    "resources.requests.*",
    "restartPolicy",
    "securityContext.allowPrivilegeEscalation",
    "securityContext.capabilities.add",
    "securityContext.capabilities.drop",
    "securityContext.privileged",
    "securityContext.readOnlyRootFilesystem",
    "securityContext.runAsGroup",
    "securityContext.runAsNonRoot",
    "securityContext.runAsUser",
    "securityContext.seccompProfile.type",
    "startupProbe.*",
    "stdin",
    "stdinOnce",
    "tty",
    "volumeMounts[].mountPath",
    "volumeMounts[].mountPropagation",
    "volumeMounts[].name",
    "volumeMounts[].readOnly",
    "volumeMounts[].subPath",
    "volumeMounts[].subPathExpr",
    "workingDir",
];

/// Fields that only matter to a cluster: no effect on one machine, and no harm.
const IGNORED: &[&str] = &[
    "metadata.creationTimestamp",
    "metadata.finalizers",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.ownerReferences",
    "metadata.resourceVersion",
    "metadata.selfLink",
    "spec.affinity",
    "spec.automountServiceAccountToken",
    "spec.containers[].terminationMessagePath",
    "spec.containers[].terminationMessagePolicy",
    "spec.enableServiceLinks",
    "spec.nodeName",
    "spec.nodeSelector",
    "spec.os",
    "spec.preemptionPolicy",
    "spec.priority",
    "spec.priorityClassName",
    "spec.schedulerName",
    "spec.securityContext.fsGroupChangePolicy",
    "spec.serviceAccount",
    "spec.serviceAccountName",
    "spec.tolerations",
    "spec.topologySpreadConstraints",
    "status",
];

/// How a field is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    Used,
    /// Some fields below it may be used.
    Descend,
    Ignored,
    Refused,
}

/// Fields of `pod` that are set but not used: the ones without effect here, and
/// the ones whose effect would be missed.
#[derive(Debug, Default)]
pub struct Unused {
    /// Paths without effect on one machine.
    pub ignored: Vec<String>,
    /// Paths that are not supported.
    pub refused: Vec<String>,
}

/// Sorts the fields of `pod` (as serialised from its type) that are not used.
pub fn unused(pod: &Value) -> Unused {
    let mut found = Unused::default();
    visit(pod, String::new(), String::new(), &mut found);
    found
}

/// `path` has list positions for people, `pattern` has none.
fn visit(value: &Value, path: String, pattern: String, found: &mut Unused) {
    match treatment(&pattern) {
        Treatment::Used => {}
        Treatment::Ignored => found.ignored.push(path),
        Treatment::Refused => found.refused.push(path),
        Treatment::Descend => match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                    visit(value, join(&path, name), join(&pattern, name), found);
                }
            }
            Value::Array(items) => {
                for (position, item) in items.iter().enumerate() {
                    visit(item, format!("{path}[{position}]"), format!("{pattern}[]"), found);
                }
            }
            _ => {}
        },
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn treatment(pattern: &str) -> Treatment {
    let pattern = pattern.replacen("spec.initContainers", "spec.containers", 1);
    let container = pattern.strip_prefix("spec.containers[].");
    if IGNORED.contains(&pattern.as_str()) {
        return Treatment::Ignored;
    }
    if ["", "metadata", "spec", "spec.containers", "spec.containers[]"].contains(&pattern.as_str()) {
        return Treatment::Descend;
    }
    let (table, pattern) = container.map_or((POD, pattern.as_str()), |field| (CONTAINER, field));
    let mut treatment = Treatment::Refused;
    for &entry in table {
        match entry.strip_suffix(".*").unwrap_or(entry).strip_prefix(pattern) {
            Some("") => return Treatment::Used,
            Some(rest) if rest.starts_with(['.', '[']) => treatment = Treatment::Descend,
            _ => {}
        }
    }
    treatment
}

/// Paths in `given` that the typed `understood` has lost: unknown fields.
pub fn unknown(given: &Value, understood: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(given, understood, String::new(), &mut found);
    found
}

fn compare(given: &Value, understood: &Value, path: String, found: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = join(&path, name);
                match understood.get(name) {
                    Some(kept) => compare(value, kept, path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(understood)) => {
            for (position, (given, understood)) in given.iter().zip(understood).enumerate() {
                compare(given, understood, format!("{path}[{position}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_sorted_by_the_table() {
        for (pod, ignored, refused) in [
            (json!({"metadata": {"name": "a", "labels": {"x": "y"}}}), vec![], vec![]),
            (
                json!({"spec": {"nodeName": "a", "serviceAccountName": "b"}}),
                vec!["spec.nodeName", "spec.serviceAccountName"],
                vec![],
            ),
            (json!({"spec": {"hostPID": true}}), vec![], vec!["spec.hostPID"]),
            (
                json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "c"}}]}}),
                vec![],
                vec!["spec.volumes[1].secret"],
            ),
            (
                json!({"spec": {"containers": [{"livenessProbe": {"exec": {}}, "envFrom": [{"prefix": "A"}]}]}}),
                vec![],
                vec!["spec.containers[0].envFrom"],
            ),
            (
                json!({"spec": {"initContainers": [{"env": [{"name": "a", "valueFrom": {"secretKeyRef": {}}}]}]}}),
                vec![],
                vec!["spec.initContainers[0].env[0].valueFrom.secretKeyRef"],
            ),
            (json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]}}), vec![], vec![]),
        ] {
            let found = unused(&pod);
            assert_eq!(
                (found.ignored, found.refused),
                (ignored.into_iter().map(String::from).collect(), refused.into_iter().map(String::from).collect()),
                "{pod}"
            );
        }
    }

    #[test]
    fn unknown_fields_are_those_the_type_loses() {
        let given = json!({"a": 1, "b": [{"c": 1, "d": null, "e": 2}]});
        let understood = json!({"a": 1, "b": [{"c": 1}]});
        assert_eq!(unknown(&given, &understood), ["b[0].e"]);
    }
}
