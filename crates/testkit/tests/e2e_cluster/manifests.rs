//! Objects the tests give to kubectl.

use serde_json::{Value, json};

/// A pod named `name` that runs a shell script, in a sandbox or not.
pub fn pod(name: &str, script: &str, sandboxed: bool) -> Value {
    let container = json!({
        "name": "main",
        "image": "localhost/busybox:latest",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    });
    let mut spec = json!({
        "terminationGracePeriodSeconds": 2,
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    });
    if sandboxed {
        spec["runtimeClassName"] = "kata".into();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

/// A deployment of pods that only stay, each with the word `word` in its environment.
pub fn deployment(name: &str, replicas: u32, word: &str) -> Value {
    let mut template = pod(name, "exec sleep 100000", false);
    template["spec"]["terminationGracePeriodSeconds"] = 0.into();
    template["spec"]["containers"][0]["env"] = json!([{"name": "WORD", "value": word}]);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    })
}

/// A budget that no pod of `app` may be missing from, in a version of its group.
pub fn budget(app: &str, policy: &str) -> Value {
    json!({
        "apiVersion": format!("policy/{policy}"),
        "kind": "PodDisruptionBudget",
        "metadata": {"name": app},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": app}}},
    })
}

/// The definition of a kind of one's own, named after `word`: clients share a cluster.
pub fn definition(word: &str, rules: bool) -> Value {
    let mut size = json!({"type": "integer", "default": 3, "description": "How big."});
    if rules {
        size["x-kubernetes-validations"] = json!([{"rule": "self < 10", "message": "too big"}]);
    }
    let schema = json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "default": {}, "properties": {"size": size}}},
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{word}s.example.com")},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": format!("{word}s"), "singular": word, "kind": kind(word)},
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            }],
        },
    })
}

/// An object of that kind.
pub fn custom(word: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": kind(word), "metadata": {"name": "w"}, "spec": spec})
}

fn kind(word: &str) -> String {
    let mut kind = word.to_owned();
    kind[..1].make_ascii_uppercase();
    kind
}
