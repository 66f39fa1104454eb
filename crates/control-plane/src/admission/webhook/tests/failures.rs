//! Webhooks that fail: insisting ones fail the request, others are passed over.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Reply, Server, config_map, mutating, patches, says, validating};
use crate::admission::{Chain, Operation, testing::World};

/// Asks one hook and returns the failure, after seeing that ignoring it lets the object pass unchanged.
async fn failure(configuration: fn(&str, &[Value]) -> Value, hook: Value) -> String {
    let mut message = String::new();
    for policy in ["Ignore", "Fail"] {
        let mut hook = hook.clone();
        hook["failurePolicy"] = json!(policy);
        let world = World::with(&[configuration("w", &[hook])]).await;
        let chain = Chain::new(world.reader.clone());
        let mut object = config_map();
        let given = object.clone();
        let attributes = world.asks(Operation::Create, "configmaps", &given);
        let mut seen = chain.mutate(&attributes, &mut object, None).await;
        if seen.is_ok() {
            seen = chain.validate(&attributes, Some(&object), None).await;
        }
        assert_eq!(object, given);
        match seen {
            Ok(_) => assert_eq!(policy, "Ignore"),
            Err(status) => {
                assert_eq!((policy, status.code, status.reason.as_str()), ("Fail", 500, "InternalError"));
                assert!(
                    status.message.starts_with("Internal error occurred: failed calling webhook \"h\": "),
                    "{status}"
                );
                message = status.message;
            }
        }
    }
    message
}

#[tokio::test]
async fn bad_answers_fail() {
    let server = Server::start(&["127.0.0.1"], |path, review| match path {
        "/uid" => says(review, json!({ "uid": "another" })),
        "/rubbish" => Reply { body: b"<html>".to_vec(), ..says(review, json!({})) },
        "/code" => Reply { code: 503, body: b"not today".to_vec(), ..says(review, json!({})) },
        "/large" => Reply { body: vec![b' '; 9 << 20], ..says(review, json!({})) },
        "/patch" => patches(review, &json!([{ "op": "test", "path": "/data/a", "value": "b" }])),
        "/not-a-patch" => patches(review, &json!({ "data": {} })),
        "/rename" => patches(review, &json!([{ "op": "replace", "path": "/metadata/name", "value": "other" }])),
        "/move" => {
            patches(review, &json!([{ "op": "replace", "path": "/metadata/namespace", "value": "kube-system" }]))
        }
        _ => says(review, json!({})),
    })
    .await;
    let rows = [
        ("/uid", "received invalid webhook response: expected response.uid="),
        ("/rubbish", "answer is not JSON"),
        ("/code", "the server answered 503 Service Unavailable: not today"),
        ("/large", "larger than"),
        ("/patch", "patch that cannot be applied"),
        ("/not-a-patch", "patch that cannot be applied"),
        ("/rename", "changes metadata.name"),
        ("/move", "changes metadata.namespace"),
    ];
    for (path, want) in rows {
        let message = failure(mutating, server.hook("h", path, json!({}))).await;
        assert!(message.contains(want), "{path}: {message}");
    }
    let message = failure(validating, server.hook("h", "/uid", json!({}))).await;
    assert!(message.contains("response.uid"), "{message}");
    let message = failure(validating, server.hook("h", "/", json!({ "admissionReviewVersions": ["v9"] }))).await;
    assert!(message.contains("does not accept v1"), "{message}");
}

#[tokio::test]
async fn silence_fails_in_time() {
    let server =
        Server::start(&["127.0.0.1"], |_, review| Reply { after: Duration::from_secs(60), ..says(review, json!({})) })
            .await;
    let begun = Instant::now();
    let message = failure(validating, server.hook("h", "/", json!({ "timeoutSeconds": 1 }))).await;
    assert!(message.contains("?timeout=1s\": context deadline exceeded"), "{message}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn strangers_are_not_trusted() {
    let server = Server::start(&["hook.other.svc"], |_, review| says(review, json!({}))).await;
    let stranger = Server::start(&["127.0.0.1"], |_, review| says(review, json!({}))).await;
    let mut foreign = stranger.hook("h", "/", json!({}));
    foreign["clientConfig"]["caBundle"] = json!(server.bundle);
    let message = failure(validating, foreign).await;
    assert!(message.contains("TLS handshake failed"), "another authority: {message}");
    let message = failure(validating, server.hook("h", "/", json!({}))).await;
    assert!(message.contains("TLS handshake failed"), "another name: {message}");
    let mut no_bundle = stranger.hook("h", "/", json!({}));
    no_bundle["clientConfig"]["caBundle"] = json!("");
    assert!(failure(validating, no_bundle).await.contains("caBundle"));
    assert!(server.paths().is_empty() && stranger.paths().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn absent_servers_fail() {
    let server = Server::start(&["127.0.0.1"], |_, review| says(review, json!({}))).await;
    let hook = server.hook("h", "/", json!({}));
    drop(server);
    let message = failure(mutating, hook.clone()).await;
    assert!(message.contains("cannot connect to 127.0.0.1"), "{message}");
    let mut lost = hook;
    let bundle = lost["clientConfig"]["caBundle"].clone();
    lost["clientConfig"] = json!({ "caBundle": bundle, "service": { "namespace": "default", "name": "none" } });
    assert!(failure(mutating, lost).await.contains("service \"none\" not found"));
}
