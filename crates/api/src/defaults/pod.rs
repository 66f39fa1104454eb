//! Pods and pod templates.

use serde_json::{Map, Value, json};

use crate::value::{fill, fill_number, fill_text, has, items_mut, map_mut, text};

/// Mode of files in volumes: 0644.
const FILE_MODE: i64 = 0o644;

/// A pod: as a template, and what only running pods have.
pub(super) fn pod(pod: &mut Value) {
    let Some(spec) = map_mut(pod, "spec") else { return };
    fill(spec, "enableServiceLinks", true);
    for list in ["containers", "initContainers"] {
        items_mut(spec, list).for_each(request_limits);
    }
    pod_spec(spec);
}

/// The `template` of `holder`: the spec of pods to come.
pub(super) fn template(holder: &mut Value) {
    if let Some(spec) = map_mut(holder, "template").and_then(|template| map_mut(template, "spec")) {
        pod_spec(spec);
    }
}

/// What is limited and not asked for is asked for in full.
fn request_limits(container: &mut Value) {
    let Some(limits) = container["resources"]["limits"].as_object().filter(|limits| !limits.is_empty()).cloned() else {
        return;
    };
    let requests = &mut container["resources"]["requests"];
    if requests.is_null() {
        *requests = Value::Object(Map::new());
    }
    for (name, amount) in limits {
        fill(requests, &name, amount);
    }
}

fn pod_spec(spec: &mut Value) {
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "restartPolicy", "Always");
    fill_text(spec, "schedulerName", "default-scheduler");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    same_account(spec);
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for each in items_mut(spec, list).filter(|each| each.is_object()) {
            container(each, list == "ephemeralContainers");
            if host_network {
                items_mut(each, "ports").for_each(host_port);
            }
        }
    }
    items_mut(spec, "volumes").filter(|volume| volume.is_object()).for_each(volume);
}

/// `serviceAccount` is the older name of `serviceAccountName`: whichever is given counts for both.
fn same_account(spec: &mut Value) {
    let (new, old) = (text(spec, "serviceAccountName").to_owned(), text(spec, "serviceAccount").to_owned());
    let name = if new.is_empty() { old } else { new };
    if let Some(spec) = spec.as_object_mut().filter(|_| !name.is_empty()) {
        spec.insert("serviceAccountName".to_owned(), name.clone().into());
        spec.insert("serviceAccount".to_owned(), name.into());
    }
}

fn host_port(port: &mut Value) {
    if let Some(number) = port["containerPort"].as_i64() {
        fill_number(port, "hostPort", number);
    }
}

fn container(container: &mut Value, ephemeral: bool) {
    let policy = pull_policy(text(container, "image"));
    fill_text(container, "imagePullPolicy", policy);
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    if !ephemeral || has(container, "resources") {
        fill(container, "resources", json!({}));
    }
    items_mut(container, "ports").for_each(|port| fill_text(port, "protocol", "TCP"));
    items_mut(container, "env").filter_map(|variable| variable.get_mut("valueFrom")).for_each(field_ref);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(each) = map_mut(container, name) {
            probe(each);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = map_mut(container, "lifecycle").and_then(|lifecycle| map_mut(lifecycle, hook)) {
            http_get(handler);
        }
    }
}

/// `Always` for images that may change under their name, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Value) {
    fill_number(probe, "timeoutSeconds", 1);
    fill_number(probe, "periodSeconds", 10);
    fill_number(probe, "successThreshold", 1);
    fill_number(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = map_mut(probe, "grpc") {
        fill(grpc, "service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = map_mut(handler, "httpGet") {
        fill_text(get, "path", "/");
        fill_text(get, "scheme", "HTTP");
    }
}

fn field_ref(holder: &mut Value) {
    if let Some(field) = map_mut(holder, "fieldRef") {
        fill_text(field, "apiVersion", "v1");
    }
}

/// A volume of a pod.
fn volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|volume| volume.keys().all(|key| key == "name")) {
        fill(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = map_mut(volume, source) {
            fill(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = map_mut(volume, "downwardAPI") {
        items_mut(source, "items").for_each(field_ref);
    }
    if let Some(source) = map_mut(volume, "projected") {
        items_mut(source, "sources").for_each(projection);
    }
    if let Some(source) = map_mut(volume, "hostPath") {
        fill(source, "type", "");
    }
    if let Some(source) = map_mut(volume, "image") {
        let policy = pull_policy(text(source, "reference"));
        fill_text(source, "pullPolicy", policy);
    }
    let template = map_mut(volume, "ephemeral").and_then(|source| map_mut(source, "volumeClaimTemplate"));
    if let Some(spec) = template.and_then(|template| map_mut(template, "spec")) {
        fill_text(spec, "volumeMode", "Filesystem");
    }
}

fn projection(source: &mut Value) {
    if let Some(token) = map_mut(source, "serviceAccountToken") {
        fill(token, "expirationSeconds", 3600);
    }
    if let Some(source) = map_mut(source, "downwardAPI") {
        items_mut(source, "items").for_each(field_ref);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::tests::applied;

    #[test]
    fn a_small_pod_is_stored_like_this() {
        let pod = applied(
            "",
            "pods",
            json!({"spec": {"containers": [{"name": "a", "image": "busybox"}], "volumes": [{"name": "v"}]}}),
        );
        let want = json!({
            "containers": [{
                "name": "a",
                "image": "busybox",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        assert_eq!(pod["spec"], want);
    }

    #[test]
    fn parts_of_pods_are_filled() {
        let pod = applied(
            "",
            "pods",
            json!({"spec": {
                "hostNetwork": true,
                "serviceAccount": "robot",
                "containers": [{
                    "name": "a",
                    "image": "registry:5000/a:1",
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
                    "ports": [{"containerPort": 80}],
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, {"name": "X", "value": ""}],
                    "livenessProbe": {"httpGet": {"port": 80}},
                    "readinessProbe": {"grpc": {"port": 80}, "periodSeconds": 3},
                }],
                "volumes": [
                    {"name": "c", "configMap": {"name": "c"}},
                    {"name": "p", "projected": {"sources": [
                        {"serviceAccountToken": {"path": "token"}},
                        {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                    ]}},
                    {"name": "h", "hostPath": {"path": "/"}},
                ],
            }}),
        );
        let spec = &pod["spec"];
        let container = &spec["containers"][0];
        assert_eq!(spec["serviceAccountName"], "robot");
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(container["resources"]["requests"], json!({"cpu": "100m", "memory": "1Gi"}));
        assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(container["env"][1], json!({"name": "X", "value": ""}));
        assert_eq!(
            container["livenessProbe"],
            json!({
                "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                "failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1,
            })
        );
        assert_eq!(container["readinessProbe"]["grpc"], json!({"port": 80, "service": ""}));
        assert_eq!(container["readinessProbe"]["periodSeconds"], 3);
        let volumes = &spec["volumes"];
        assert_eq!(volumes[0]["configMap"]["defaultMode"], 420);
        assert_eq!(volumes[1]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
        assert_eq!(volumes[1]["projected"]["sources"][1]["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(volumes[2]["hostPath"]["type"], "");
    }

    #[test]
    fn images_that_may_change_are_always_pulled() {
        let rows = [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.2", "IfNotPresent"),
            ("registry:5000/busybox", "Always"),
            ("registry:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:00", "IfNotPresent"),
            ("busybox:latest@sha256:00", "Always"),
        ];
        for (image, want) in rows {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }
}
