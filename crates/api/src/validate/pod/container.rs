//! One container.

use std::collections::HashSet;

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::super::{
    names,
    rules::{
        Seen, amount, named, not_found, not_negative, one_of, port_number, port_or_name, required, required_name,
        resource_name, within,
    },
};
use crate::{
    Quantity, pod,
    value::{array, entries, has, integer, text},
};

/// When a container runs.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Role {
    /// Beside the others.
    Main,
    /// Before the main ones.
    Init,
    /// Added to a running pod.
    Ephemeral,
}

/// What of the pod a container depends on.
pub(super) struct Surroundings<'a> {
    pub(super) volumes: &'a HashSet<&'a str>,
    pub(super) host_network: bool,
}

/// Fields of the pod that become variables or files.
const FIELD_PATHS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Judges one container.
pub(super) fn judge(
    container: &Value,
    role: Role,
    around: &Surroundings<'_>,
    path: &Path<'_>,
    causes: &mut Vec<Cause>,
) {
    required_name(container, "name", names::label, path, causes);
    image(container, path, causes);
    one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, causes);
    one_of(container, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], path, causes);
    ports(container, around.host_network, path, causes);
    environment(container, path, causes);
    mounts(container, around.volumes, path, causes);
    resources(container, path, causes);
    probes(container, role, path, causes);
    lifecycle(container, path, causes);
    security(container, path, causes);
    match role {
        Role::Init => one_of(container, "restartPolicy", &["Always"], path, causes),
        Role::Main | Role::Ephemeral => {
            one_of(container, "restartPolicy", &["Always", "Never", "OnFailure"], path, causes);
        }
    }
}

fn image(container: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(image) = required(container, "image", path, causes)
        && image.trim() != image
    {
        let detail = "must not have leading or trailing whitespace";
        causes.push(Cause::invalid(path.field("image"), &image.into(), detail));
    }
}

fn ports<'a>(container: &'a Value, host_network: bool, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("ports");
    let mut seen: Seen<'a> = Seen::new();
    for (index, port) in array(container, "ports").iter().enumerate() {
        let path = list.index(index);
        match text(port, "name") {
            "" => {}
            name => {
                named(name, names::port_name, &path.field("name"), causes);
                seen.add(name, &path.field("name"), causes);
            }
        }
        let number = integer(port, "containerPort").unwrap_or(0);
        match number {
            0 => causes.push(Cause::required(path.field("containerPort"), "")),
            number => port_number(number, &path.field("containerPort"), causes),
        }
        let host = integer(port, "hostPort").unwrap_or(0);
        if host != 0 {
            port_number(host, &path.field("hostPort"), causes);
        }
        if host_network && host != number {
            let detail = "must match `containerPort` when `hostNetwork` is true";
            causes.push(Cause::invalid(path.field("hostPort"), &host.into(), detail));
        }
        one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, causes);
    }
}

fn environment(container: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("env");
    for (index, variable) in array(container, "env").iter().enumerate() {
        let path = list.index(index);
        required_name(variable, "name", names::environment, &path, causes);
        if has(variable, "valueFrom") {
            value_from(variable, &path, causes);
        }
    }
    let list = path.field("envFrom");
    for (index, source) in array(container, "envFrom").iter().enumerate() {
        let path = list.index(index);
        let present = ["configMapRef", "secretRef"].into_iter().filter(|key| has(source, key));
        match present.collect::<Vec<_>>().as_slice() {
            [key] => {
                required_name(&source[*key], "name", names::subdomain, &path.field(key), causes);
            }
            [] => causes.push(Cause::invalid(path, &"".into(), "must specify one of: `configMapRef` or `secretRef`")),
            _ => causes.push(Cause::invalid(path, &"".into(), "may not have more than one field specified at a time")),
        }
    }
}

fn value_from(variable: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let source = &variable["valueFrom"];
    let path = path.field("valueFrom");
    if !text(variable, "value").is_empty() {
        causes.push(Cause::invalid(path, &"".into(), "may not be specified when `value` is not empty"));
    }
    let keys = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let present: Vec<&str> = keys.into_iter().filter(|key| has(source, key)).collect();
    match present.as_slice() {
        [] => {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            causes.push(Cause::invalid(path, &"".into(), detail));
        }
        ["fieldRef"] => field_ref(&source["fieldRef"], false, &path.field("fieldRef"), causes),
        ["resourceFieldRef"] => {
            required(&source["resourceFieldRef"], "resource", &path.field("resourceFieldRef"), causes);
        }
        [key @ ("configMapKeyRef" | "secretKeyRef")] => {
            let path = path.field(key);
            required_name(&source[*key], "name", names::subdomain, &path, causes);
            required_name(&source[*key], "key", names::config_key, &path, causes);
        }
        [_] => {}
        _ => causes.push(Cause::invalid(path, &"".into(), "may not have more than one field specified at a time")),
    }
}

/// A field of the pod; whole maps of labels and annotations only where files can hold them.
pub(super) fn field_ref(reference: &Value, as_file: bool, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let Some(field) = required(reference, "fieldPath", path, causes) else { return };
    let maps = ["metadata.labels", "metadata.annotations"];
    let subscript = maps
        .iter()
        .any(|map| field.strip_prefix(map).is_some_and(|rest| rest.starts_with("['") && rest.ends_with("']")));
    let known = subscript || FIELD_PATHS.contains(&field) || (as_file && maps.contains(&field));
    if !known {
        causes.push(Cause::not_supported(path.field("fieldPath"), &field.into(), FIELD_PATHS));
    }
}

fn mounts(container: &Value, volumes: &HashSet<&str>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    for (key, place) in [("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")] {
        let list = path.field(key);
        let mut seen = HashSet::new();
        for (index, mount) in array(container, key).iter().enumerate() {
            let path = list.index(index);
            match required(mount, "name", &path, causes) {
                Some(name) if !volumes.contains(name) => causes.push(not_found(&path.field("name"), name)),
                _ => {}
            }
            if let Some(target) = required(mount, place, &path, causes)
                && !seen.insert(target)
            {
                causes.push(Cause::invalid(path.field(place), &target.into(), "must be unique"));
            }
            for key in ["subPath", "subPathExpr"] {
                relative_path(text(mount, key), &path.field(key), causes);
            }
            if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                causes.push(Cause::invalid(path.field("subPathExpr"), &mount["subPathExpr"], detail));
            }
            let modes = ["Bidirectional", "HostToContainer", "None"];
            one_of(mount, "mountPropagation", &modes, &path, causes);
            one_of(mount, "recursiveReadOnly", &["Disabled", "Enabled", "IfPossible"], &path, causes);
        }
    }
}

/// A path below something else, without a way out.
pub(super) fn relative_path(target: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if target.starts_with('/') {
        causes.push(Cause::invalid(path, &target.into(), "must be a relative path"));
    }
    if target.split('/').any(|part| part == "..") {
        causes.push(Cause::invalid(path, &target.into(), "must not contain '..'"));
    }
}

fn resources(container: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let resources = &container["resources"];
    let path = path.field("resources");
    let (limits_path, requests_path) = (path.field("limits"), path.field("requests"));
    let mut limits = std::collections::BTreeMap::new();
    for (name, value) in entries(resources, "limits") {
        resource_name(name, &limits_path, causes);
        if let Some(amount) = amount(value, &limits_path.key(name), causes) {
            whole_if_extended(name, &amount, value, &limits_path, causes);
            limits.insert(name.as_str(), amount);
        }
    }
    for (name, value) in entries(resources, "requests") {
        resource_name(name, &requests_path, causes);
        let Some(request) = amount(value, &requests_path.key(name), causes) else { continue };
        whole_if_extended(name, &request, value, &requests_path, causes);
        match limits.get(name.as_str()) {
            Some(limit) if is_extended(name) && request != *limit => {
                let detail = format!("must be equal to {name} limit of {limit}");
                causes.push(Cause::invalid(requests_path, value, &detail));
            }
            Some(limit) if request > *limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                causes.push(Cause::invalid(requests_path, value, &detail));
            }
            None if is_extended(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                causes.push(Cause::required(limits_path, detail));
            }
            _ => {}
        }
    }
}

/// Devices and other resources of vendors: counted, never shared.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.split('/').next().unwrap_or_default().ends_with("kubernetes.io")
}

fn whole_if_extended(name: &str, amount: &Quantity, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if is_extended(name) && !amount.is_whole() {
        causes.push(Cause::invalid(path.key(name), value, "must be an integer"));
    }
}

fn probes(container: &Value, role: Role, path: &Path<'_>, causes: &mut Vec<Cause>) {
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[key];
        if !probe.is_object() {
            continue;
        }
        let path = path.field(key);
        if role == Role::Init && !pod::is_sidecar(container) {
            causes.push(Cause::forbidden(path, "may not be set for init containers without restartPolicy=Always"));
            continue;
        }
        handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], &path, causes);
        for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
            not_negative(probe, key, &path, causes);
        }
        if key != "readinessProbe" && integer(probe, "successThreshold").is_some_and(|threshold| threshold != 1) {
            causes.push(Cause::invalid(path.field("successThreshold"), &probe["successThreshold"], "must be 1"));
        }
    }
}

fn lifecycle(container: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field("lifecycle");
    for hook in ["postStart", "preStop"] {
        if has(&container["lifecycle"], hook) {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            handler(&container["lifecycle"][hook], &kinds, &path.field(hook), causes);
        }
    }
}

/// Exactly one way of asking or telling a container something.
fn handler(holder: &Value, kinds: &[&str], path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut present = kinds.iter().filter(|kind| has(holder, kind));
    let Some(first) = present.next() else {
        causes.push(Cause::required(path, "must specify a handler type"));
        return;
    };
    for other in present {
        causes.push(Cause::forbidden(path.field(other), "may not specify more than 1 handler type"));
    }
    let (action, path) = (&holder[*first], path.field(first));
    match *first {
        "exec" if array(action, "command").is_empty() => causes.push(Cause::required(path.field("command"), "")),
        "httpGet" => {
            required(action, "path", &path, causes);
            port_or_name(&action["port"], &path.field("port"), causes);
            one_of(action, "scheme", &["HTTP", "HTTPS"], &path, causes);
        }
        "tcpSocket" => port_or_name(&action["port"], &path.field("port"), causes),
        "grpc" => port_number(integer(action, "port").unwrap_or(0), &path.field("port"), causes),
        _ => {}
    }
}

fn security(container: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let context = &container["securityContext"];
    let path = path.field("securityContext");
    for key in ["runAsUser", "runAsGroup"] {
        within(context, key, 0, i64::from(i32::MAX), &path, causes);
    }
    let escalation = context["allowPrivilegeEscalation"] == false;
    if escalation && context["privileged"] == true {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        causes.push(Cause::invalid(path, context, detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::tests::wrong;
    use super::*;

    fn of(change: Value) -> Vec<String> {
        let mut container = json!({"name": "a", "image": "i"});
        container.as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
        let spec = json!({"containers": [container], "volumes": [{"name": "v"}]});
        let prefix = "spec.containers[0].";
        let wrong = wrong("", "pods", json!({"spec": spec}));
        wrong.into_iter().map(|sentence| sentence.strip_prefix(prefix).map(str::to_owned).unwrap_or(sentence)).collect()
    }

    #[test]
    fn containers_are_judged() {
        let rows = [
            (json!({"image": " i"}), "image: Invalid value: \" i\": must not have leading or trailing whitespace"),
            (
                json!({"imagePullPolicy": "x"}),
                "imagePullPolicy: Unsupported value: \"x\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ),
            (json!({"ports": [{}]}), "ports[0].containerPort: Required value"),
            (
                json!({"ports": [{"containerPort": 70_000}]}),
                "ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}),
                "ports[1].name: Duplicate value: \"a\"",
            ),
            (json!({"env": [{"value": "x"}]}), "env[0].name: Required value"),
            (
                json!({"env": [{"name": "A", "valueFrom": {}}]}),
                "env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            ),
            (
                json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}),
                "env[0].valueFrom.secretKeyRef.key: Required value",
            ),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]}),
                "volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            ),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "../x"}]}),
                "volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'",
            ),
            (
                json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
                "resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                json!({"resources": {"limits": {"cpu": "-1"}}}),
                "resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                json!({"resources": {"requests": {"a.b/c": "1"}}}),
                "resources.limits: Required value: Limit must be set for non overcommitable resources",
            ),
            (
                json!({"resources": {"limits": {"gpus": "1"}}}),
                "resources.limits: Invalid value: \"gpus\": must be a standard resource type or fully qualified",
            ),
            (json!({"livenessProbe": {}}), "livenessProbe: Required value: must specify a handler type"),
            (
                json!({"livenessProbe": {"httpGet": {"port": 1}, "exec": {"command": ["x"]}}}),
                "livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
            ),
            (
                json!({"livenessProbe": {"tcpSocket": {"port": "http"}, "successThreshold": 2}}),
                "livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ),
            (json!({"lifecycle": {"preStop": {"exec": {}}}}), "lifecycle.preStop.exec.command: Required value"),
        ];
        for (change, want) in rows {
            let wrong = of(change.clone());
            assert!(wrong.iter().any(|sentence| sentence == want), "{change}: {wrong:?}");
        }
    }

    #[test]
    fn good_containers_are_let_through() {
        let rows = [
            json!({"ports": [{"containerPort": 80, "name": "http"}], "env": [{"name": "A.b"}]}),
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}}]}),
            json!({"envFrom": [{"prefix": "P", "secretRef": {"name": "s"}}]}),
            json!({"resources": {"limits": {"cpu": "1", "example.com/x": "2"}, "requests": {"cpu": "0.5"}}}),
            json!({"readinessProbe": {"grpc": {"port": 80}, "successThreshold": 3}, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}),
            json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "x/y"}]}),
        ];
        for change in rows {
            assert_eq!(of(change.clone()), [""; 0], "{change}");
        }
    }
}
