//! What webhooks may say, and what comes of it.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::server::{Server, config_map, mutating, patches, says, validating};
use crate::admission::{Attributes, Chain, Operation, testing::World};

#[tokio::test]
async fn a_denial_reaches_the_client() {
    let server = Server::start(&["127.0.0.1"], |path, review| match path {
        "/silent" => says(review, json!({ "allowed": false })),
        _ => says(review, json!({ "allowed": false, "status": { "code": 418, "reason": "Tea", "message": "short" } })),
    })
    .await;
    let rows = [
        ("/silent", 403, "Forbidden", "admission webhook \"h.example.org\" denied the request without explanation"),
        ("/tea", 418, "Tea", "admission webhook \"h.example.org\" denied the request: short"),
    ];
    for (path, code, reason, message) in rows {
        for configuration in [mutating, validating] {
            // Ignoring failures is no way around a denial.
            let hook = server.hook("h.example.org", path, json!({ "failurePolicy": "Ignore" }));
            let world = World::with(&[configuration("w", &[hook])]).await;
            let chain = Chain::new(world.reader.clone());
            let mut object = config_map();
            let given = object.clone();
            let attributes = world.asks(Operation::Create, "configmaps", &given);
            let mutated = chain.mutate(&attributes, &mut object, None).await;
            let seen = match mutated {
                Ok(_) => chain.validate(&attributes, Some(&object), None).await.unwrap_err(),
                Err(status) => status,
            };
            assert_eq!((seen.code, seen.reason.as_str(), seen.message.as_str()), (code, reason, message));
        }
    }
}

#[tokio::test]
async fn a_patch_changes_the_object_and_warnings_are_passed_on() {
    let server = Server::start(&["127.0.0.1"], |_, review| {
        let mut reply = patches(review, &json!([{ "op": "add", "path": "/data/by", "value": "hook" }]));
        let mut body: Value = serde_json::from_slice(&reply.body).unwrap();
        body["response"]["warnings"] = json!(["mind the gap"]);
        reply.body = body.to_string().into_bytes();
        reply
    })
    .await;
    let world = World::with(&[mutating("w", &[server.hook("h", "/", json!({}))])]).await;
    let chain = Chain::new(world.reader.clone());
    let mut object = config_map();
    let given = object.clone();
    let old = json!({ "metadata": { "name": "c" }, "data": { "a": "old" } });
    let options = json!({ "kind": "UpdateOptions" });
    let attributes = Attributes { options: &options, ..world.asks(Operation::Update, "configmaps", &given) };
    let warnings = chain.mutate(&attributes, &mut object, Some(&old)).await.unwrap();
    assert_eq!(warnings, ["mind the gap"]);
    assert_eq!(object["data"], json!({ "by": "hook" }));

    let review = server.reviews().remove(0);
    assert_eq!((&review["kind"], &review["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
    let request = &review["request"];
    let want = json!({
        "uid": request["uid"],
        "kind": { "group": "", "version": "v1", "kind": "ConfigMap" },
        "resource": { "group": "", "version": "v1", "resource": "configmaps" },
        "requestKind": { "group": "", "version": "v1", "kind": "ConfigMap" },
        "requestResource": { "group": "", "version": "v1", "resource": "configmaps" },
        "name": "c", "namespace": "default", "operation": "UPDATE",
        "userInfo": { "username": "jane", "groups": ["dev", "system:authenticated"] },
        "object": given, "oldObject": old, "dryRun": false, "options": options,
    });
    assert_eq!(*request, want);
}

#[tokio::test]
async fn conditions_and_dry_run_decide_before_the_call() {
    let server = Server::start(&["127.0.0.1"], |_, review| says(review, json!({ "allowed": false }))).await;
    let condition = |expression: &str| json!([{ "name": "c", "expression": expression }]);
    let rows = [
        (json!({ "matchConditions": condition("object.metadata.name == 'other'") }), false, None),
        (json!({ "matchConditions": condition("object.metadata.name == 'c'") }), false, Some(403)),
        (json!({ "matchConditions": condition("object.absent == 1") }), false, Some(500)),
        (json!({ "matchConditions": condition("object.absent == 1"), "failurePolicy": "Ignore" }), false, None),
        (json!({ "sideEffects": "NoneOnDryRun" }), true, Some(403)),
        (json!({ "sideEffects": "Some", "failurePolicy": "Ignore" }), true, Some(400)),
        (json!({ "sideEffects": "Some", "objectSelector": { "matchLabels": { "a": "b" } } }), true, None),
    ];
    for (rest, dry_run, want) in rows {
        let world = World::with(&[validating("w", &[server.hook("h", "/", rest.clone())])]).await;
        let chain = Chain::new(world.reader.clone());
        let object = config_map();
        let attributes = Attributes { dry_run, ..world.asks(Operation::Create, "configmaps", &object) };
        let seen = chain.validate(&attributes, Some(&object), None).await;
        assert_eq!(seen.err().map(|status| status.code), want, "{rest}");
    }
}

#[tokio::test]
async fn webhooks_are_not_asked_about_webhooks() {
    let server = Server::start(&["127.0.0.1"], |_, review| says(review, json!({ "allowed": false }))).await;
    let everything =
        json!({ "rules": [{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"] }] });
    let hook = server.hook("h", "/", everything);
    let world = World::with(&[mutating("w", std::slice::from_ref(&hook)), validating("w", &[hook])]).await;
    let chain = Chain::new(world.reader.clone());
    for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        let mut object = json!({ "metadata": { "name": "w" } });
        let given = object.clone();
        let attributes = world.asks(Operation::Delete, &format!("admissionregistration.k8s.io/{kind}"), &given);
        chain.mutate(&attributes, &mut object, None).await.unwrap();
        chain.validate(&attributes, Some(&object), None).await.unwrap();
    }
    assert!(server.paths().is_empty());
}

#[tokio::test]
async fn a_service_is_followed_to_its_endpoints_and_connections_are_kept() {
    let server = Server::start(&["hook.default.svc"], |_, review| says(review, json!({}))).await;
    let port = server.address.port();
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "hook", "namespace": "default" },
        "spec": { "ports": [{ "port": 443, "targetPort": port }] } });
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "s", "namespace": "default", "labels": { "kubernetes.io/service-name": "hook" } },
        "ports": [{ "port": port }], "endpoints": [{ "addresses": ["127.0.0.1"] }] });
    let client = json!({ "clientConfig": { "caBundle": server.bundle,
        "service": { "namespace": "default", "name": "hook", "path": "/validate" } } });
    let world = World::with(&[service, slice, validating("w", &[server.hook("h", "/", client)])]).await;
    let chain = Chain::new(world.reader.clone());
    let object = config_map();
    let attributes = world.asks(Operation::Create, "configmaps", &object);
    for _ in 0..5 {
        chain.validate(&attributes, Some(&object), None).await.unwrap();
    }
    assert_eq!(server.paths(), ["/validate"; 5]);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    assert_eq!(chain.webhooks.client.kept(), 1);
}
