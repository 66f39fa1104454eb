//! Objects come from anybody: whatever stands in any field, nothing panics.

use jiff::Timestamp;
use osc_api::{
    Resource, builtin, convert, defaults, pod,
    selector::FieldSelector,
    strategy,
    table::{Include, Printer},
    validate,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Something of most fields that are looked at.
fn samples() -> Vec<Value> {
    let container = json!({
        "name": "a", "image": "i", "ports": [{"name": "p", "containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
        "env": [{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "envFrom": [{"secretRef": {"name": "s"}}], "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}],
        "resources": {"limits": {"cpu": "1", "a.b/c": "1"}, "requests": {"cpu": "1", "a.b/c": "1"}},
        "livenessProbe": {"httpGet": {"port": 80}}, "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
        "securityContext": {"runAsUser": 1}, "restartPolicy": "Always",
    });
    let pod = json!({
        "containers": [container], "initContainers": [container], "ephemeralContainers": [container],
        "volumes": [
            {"name": "v", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "x"}}]}}]}},
            {"name": "c", "configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": 1}]}},
            {"name": "h", "hostPath": {"path": "/"}},
        ],
        "tolerations": [{"key": "a", "operator": "Exists"}], "nodeSelector": {"a": "b"}, "overhead": {"cpu": "1"},
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}},
            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"topologyKey": "k"}}]},
        },
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"}],
        "schedulingGates": [{"name": "g"}], "readinessGates": [{"conditionType": "x"}],
    });
    let status = json!({
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "podIPs": [{"ip": "1"}],
        "containerStatuses": [{"name": "a", "restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}}],
        "initContainerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 1}}}],
        "addresses": [{"type": "InternalIP", "address": "1"}], "nodeInfo": {}, "capacity": {"cpu": "1", "storage": "1Gi"},
        "hard": {"pods": "1"}, "used": {"pods": "1"}, "loadBalancer": {"ingress": [{"ip": "1"}]}, "storedVersions": ["v1"],
        "currentMetrics": [{"resource": {"current": {"averageUtilization": 1}}}],
    });
    let spec = json!({
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {}}, "jobTemplate": {"spec": {"template": {"spec": pod}}},
        "schedule": "* * * * *", "ports": [{"port": 1, "targetPort": 2}], "type": "ClusterIP", "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {}}, "volumeClaimTemplates": [{"spec": {"resources": {"requests": {"storage": "1Gi"}}}}],
        "ingress": [{"ports": [{"port": 1}]}], "rules": [{"http": {"paths": [{"backend": {"service": {}}}]}}], "metrics": [{"type": "Resource"}],
        "limits": [{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "1"}}], "hard": {"pods": "1"}, "taints": [{"key": "a"}],
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["w"]}, "group": "example.com", "conversion": {"strategy": "None"},
        "versions": [{"name": "v1", "storage": true, "schema": {"openAPIV3Schema": {}}, "additionalPrinterColumns": [{"jsonPath": ".x"}]}],
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/"}, "nodeAffinity": {"required": {}},
        "resources": {"requests": {"storage": "1Gi"}}, "claimRef": {}, "minAvailable": "50%", "scaleTargetRef": {},
    });
    let metadata = json!({
        "name": "a", "namespace": "b", "generateName": "a-", "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["a/b"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": true}], "generation": 1,
    });
    let rest = json!({
        "webhooks": [{"name": "a.b.c", "clientConfig": {"service": {}}, "rules": [{"operations": ["CREATE"]}], "namespaceSelector": {}}],
        "rules": [{"verbs": ["get"], "nonResourceURLs": ["/"]}], "roleRef": {"kind": "Role"}, "subjects": [{"kind": "User"}],
        "data": {"a": "eA=="}, "binaryData": {"b": ""}, "stringData": {"c": "d"}, "immutable": true, "type": "kubernetes.io/tls",
        "handler": "h", "overhead": {"podFixed": {"cpu": "1"}}, "scheduling": {"tolerations": [{}], "nodeSelector": {}}, "value": 3,
        "subsets": [{"addresses": [{"ip": "1"}], "ports": [{"port": 1}]}], "endpoints": [{"addresses": ["1"]}], "ports": [{"port": 1}],
        "series": {"count": 1}, "source": {"component": "c"}, "involvedObject": {"kind": "Pod"}, "provisioner": "p",
    });
    let whole = |spec: &Value| {
        let mut object = rest.clone();
        object["metadata"] = metadata.clone();
        object["spec"] = spec.clone();
        object["status"] = status.clone();
        object
    };
    vec![whole(&spec), whole(&pod)]
}

/// All JSON pointers into a value.
fn pointers(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        pointers(child, &format!("{here}/{key}"), found);
    }
}

fn rubbish() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, 1, "x", [], {}])),
        Just(json!({"": null, "a": [{}]})),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ]
}

/// Everything that looks at objects.
fn exercise(resource: &Resource, object: &Value, other: &Value) {
    let now = Timestamp::UNIX_EPOCH;
    let mut stored = object.clone();
    defaults::apply(resource, &mut stored);
    convert::to_stored(resource, &mut stored);
    convert::from_stored(resource, &mut stored);
    let _ = validate::create(resource, &stored);
    let _ = validate::update(resource, other, &stored);
    let _ = validate::update(resource, &stored, other);
    let _ = validate::ephemeral_containers(other, &stored);
    let _ = Printer::builtin(resource).row(&stored, Include::Metadata, now);
    let _ = Printer::custom(&stored, "v1").row(&stored, Include::Object, now);
    let _ = Resource::from_crd(&stored);
    let _ = (pod::requests(&stored), pod::limits(&stored), pod::qos_class(&stored));
    let _ = FieldSelector::parse(resource, "metadata.name=a").map(|selector| selector.matches(&stored));
    let mut changed = stored.clone();
    strategy::prepare_update(resource, other, &mut changed);
    strategy::prepare_status_update(resource, other, &mut changed);
    strategy::prepare_create(resource, &mut stored, now);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_field_breaks_anything(
        resource in any::<prop::sample::Index>(),
        sample in 0_usize..2,
        at in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        values in prop::collection::vec(rubbish(), 6),
    ) {
        let whole = samples().remove(sample);
        let mut object = whole.clone();
        for (index, value) in at.iter().zip(values) {
            let mut places = Vec::new();
            pointers(&object, "", &mut places);
            if let Some(place) = object.pointer_mut(&places[index.index(places.len())]) {
                *place = value;
            }
        }
        let resources: Vec<_> = builtin().iter().collect();
        exercise(resources[resource.index(resources.len())], &object, &whole);
    }
}
