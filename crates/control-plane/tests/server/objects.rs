//! Objects through the API: what writes do, what is refused, and with which words.

use http::Method;
use serde_json::{Value, json};

use crate::common::{self, Cluster, config_map, deployment, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn the_server_owns_identity_and_versions() {
    let cluster = Cluster::start().await;
    let made = cluster.create(MAPS, config_map("c")).await;
    let metadata = &made["metadata"];
    assert_eq!((&metadata["namespace"], &made["kind"]), (&json!("default"), &json!("ConfigMap")));
    assert!(metadata["uid"].is_string() && metadata["creationTimestamp"].is_string());
    let path = format!("{MAPS}/c");
    let (code, same) = cluster.call(Method::PUT, &path, made.clone()).await;
    assert_eq!((code, &same), (200, &made), "a write without change changes nothing");
    let (code, changed) = cluster.merge(&path, json!({"data": {"k": "w"}, "metadata": {"uid": metadata["uid"]}})).await;
    assert_eq!((code, &changed["data"]["k"]), (200, &json!("w")));
    assert_ne!(changed["metadata"]["resourceVersion"], metadata["resourceVersion"]);
    let (code, status) = cluster.call(Method::PUT, &path, made.clone()).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")), "a stale version");
    let mut other = changed.clone();
    other["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    assert_eq!(cluster.call(Method::PUT, &path, other).await.0, 409, "another uid");
    let mut free = changed;
    free["metadata"]["resourceVersion"] = Value::Null;
    assert_eq!(cluster.call(Method::PUT, &path, free).await.0, 200, "no version, no precondition");
    let (code, status) = cluster.delete(&path).await;
    assert_eq!((code, &status["details"]["uid"]), (200, &metadata["uid"]));
    assert_eq!(cluster.get(&path).await.1["message"], "configmaps \"c\" not found");
    cluster.stop().await;
}

/// Clients made from the published schemas refuse an answer that lacks a number or is of
/// another kind than the operation says.
#[tokio::test]
async fn answers_are_what_strictly_typed_clients_insist_on() {
    let cluster = Cluster::start().await;
    let set = json!({
        "metadata": {"name": "s"},
        "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    let made = cluster.create("/apis/apps/v1/namespaces/default/statefulsets", set).await;
    assert_eq!(made["status"], json!({"availableReplicas": 0, "replicas": 0}));
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    cluster.create("/api/v1/namespaces/default/services", service).await;
    let (code, gone) = cluster.delete("/api/v1/namespaces/default/services/s").await;
    assert_eq!((code, &gone["kind"], &gone["spec"]["ports"][0]["port"]), (200, &json!("Service"), &json!(80)));
    let (code, gone) = cluster.delete("/apis/apps/v1/namespaces/default/statefulsets/s").await;
    assert_eq!((code, &gone["kind"], &gone["status"]), (200, &json!("Status"), &json!("Success")));
    cluster.stop().await;
}

#[tokio::test]
async fn refusals_have_the_codes_clients_expect() {
    let cluster = Cluster::start().await;
    cluster.create(MAPS, config_map("c")).await;
    let post = Method::POST;
    let rows: Vec<(Method, String, &str, String, u16)> = vec![
        (post.clone(), MAPS.into(), "application/json", config_map("c").to_string(), 409),
        (post.clone(), MAPS.into(), "application/json", "{".into(), 400),
        (post.clone(), MAPS.into(), "application/json", "[]".into(), 400),
        (post.clone(), MAPS.into(), "application/cbor", "x".into(), 415),
        (post.clone(), MAPS.into(), "application/vnd.kubernetes.protobuf", "x".into(), 400),
        (post.clone(), MAPS.into(), "application/json", pod("p").to_string(), 400),
        (
            post.clone(),
            MAPS.into(),
            "application/json",
            json!({"metadata": {"name": "x", "namespace": "other"}}).to_string(),
            400,
        ),
        (post.clone(), MAPS.into(), "application/json", json!({"metadata": {}}).to_string(), 422),
        (post.clone(), MAPS.into(), "application/json", json!({"metadata": {"name": "X"}}).to_string(), 422),
        (post.clone(), MAPS.into(), "application/json", "x".repeat(4 << 20), 413),
        (
            post.clone(),
            format!("{MAPS}?fieldValidation=Strict"),
            "application/json",
            json!({"metadata": {"name": "y"}, "x": 1}).to_string(),
            400,
        ),
        (
            post.clone(),
            format!("{MAPS}?fieldValidation=Strict"),
            "application/json",
            r#"{"metadata": {"name": "y"}, "data": {"a": "1", "a": "2"}}"#.into(),
            400,
        ),
        (post.clone(), format!("{MAPS}?dryRun=Some"), "application/json", config_map("y").to_string(), 422),
        (post, "/api/v1/namespaces/nowhere/configmaps".into(), "application/json", config_map("y").to_string(), 404),
        (Method::PUT, MAPS.into(), "application/json", String::new(), 405),
        (Method::GET, format!("{MAPS}/x"), "application/json", String::new(), 404),
        (Method::GET, "/api/v1/nosuch".into(), "application/json", String::new(), 404),
        (Method::GET, "/nosuch".into(), "application/json", String::new(), 404),
        (Method::GET, format!("{PODS}?fieldSelector=spec.x=y"), "application/json", String::new(), 400),
        (Method::GET, format!("{PODS}?labelSelector=a%20b"), "application/json", String::new(), 400),
        (Method::GET, format!("{PODS}?resourceVersionMatch=Exact"), "application/json", String::new(), 422),
        (Method::GET, format!("{PODS}?resourceVersion=99999999"), "application/json", String::new(), 504),
        (Method::GET, format!("{PODS}?continue=x"), "application/json", String::new(), 400),
        (Method::PATCH, format!("{MAPS}/c"), "application/json", "{}".into(), 415),
        (
            Method::PATCH,
            format!("{MAPS}/c"),
            "application/json-patch+json",
            r#"[{"op":"test","path":"/data/k","value":"x"}]"#.into(),
            422,
        ),
        (Method::PATCH, format!("{MAPS}/c"), "application/apply-patch+yaml", "{}".into(), 422),
        (
            Method::DELETE,
            format!("{MAPS}/c"),
            "application/json",
            json!({"preconditions": {"uid": "x"}}).to_string(),
            409,
        ),
        (Method::DELETE, "/api/v1/namespaces/default".into(), "application/json", String::new(), 403),
    ];
    for (method, path, media_type, body, want) in rows {
        let shown = format!("{method} {path} {media_type} {}", body.chars().take(60).collect::<String>());
        let (code, status) = cluster.call_with(method, &path, media_type, body).await;
        assert_eq!(code, want, "{shown}: {status}");
        assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")), "{shown}: {status}");
        assert_eq!(status["code"], want, "{shown}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_json_patch_that_does_not_fit_is_refused_in_the_words_of_kubernetes() {
    let cluster = Cluster::start().await;
    cluster.create(MAPS, config_map("c")).await;
    cluster.create(DEPLOYMENTS, deployment("d")).await;
    for path in [format!("{MAPS}/c"), format!("{DEPLOYMENTS}/d"), format!("{DEPLOYMENTS}/d/scale")] {
        let patch =
            |body: Value| cluster.call_with(Method::PATCH, &path, "application/json-patch+json", body.to_string());
        let (code, status) = patch(json!([{"op": "test", "path": "/kind", "value": "x"}])).await;
        let cause = json!({"reason": "FieldValueInvalid", "field": "patch[0]",
            "message": "testing value /kind failed: test failed"});
        let want = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "the server rejected our request due to an error in our request", "reason": "Invalid",
            "details": {"causes": [cause]}, "code": 422});
        assert_eq!((code, status), (422, want), "{path}");
        let (code, status) = patch(json!({"op": "test"})).await;
        let message = "error decoding patch: json: cannot unmarshal object into Go value of type []interface {}";
        assert_eq!((code, &status["reason"], &status["message"]), (400, &json!("BadRequest"), &json!(message)));
    }
    // Kubernetes puts what is not there.
    let label = json!([{"op": "replace", "path": "/data/new", "value": "v"}]).to_string();
    let (code, map) =
        cluster.call_with(Method::PATCH, &format!("{MAPS}/c"), "application/json-patch+json", label).await;
    assert_eq!((code, &map["data"]["new"]), (200, &json!("v")));
    cluster.stop().await;
}

#[tokio::test]
async fn names_are_generated() {
    let cluster = Cluster::start().await;
    let object = json!({"metadata": {"generateName": "a-long-prefix-"}});
    let one = cluster.create(MAPS, object.clone()).await;
    let two = cluster.create(MAPS, object).await;
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&one).starts_with("a-long-prefix-") && name(&one).len() == 19, "{one}");
    assert_ne!(name(&one), name(&two));
    cluster.stop().await;
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let cluster = Cluster::start().await;
    let mut wanted = deployment("d");
    wanted["status"] = json!({"replicas": 7});
    let made = cluster.create(DEPLOYMENTS, wanted).await;
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["status"].get("replicas").is_none());
    assert_eq!(made["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    let path = format!("{DEPLOYMENTS}/d");
    let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 5, "observedGeneration": 1}});
    let (_, status) = cluster.merge(&format!("{path}/status"), both.clone()).await;
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(2), &json!(5)));
    assert_eq!(status["metadata"]["generation"], 1, "status is no change of what is wanted");
    let (_, main) = cluster.merge(&path, json!({"spec": {"replicas": 6}, "status": {"replicas": 9}})).await;
    assert_eq!((&main["spec"]["replicas"], &main["status"]["replicas"]), (&json!(6), &json!(5)));
    assert_eq!(main["metadata"]["generation"], 2);
    let (_, scale) = cluster.merge(&format!("{path}/scale"), json!({"spec": {"replicas": 3}})).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    assert_eq!(scale["status"], json!({"replicas": 5, "selector": "app=x"}));
    assert_eq!(cluster.get(&path).await.1["metadata"]["generation"], 3);
    cluster.stop().await;
}

#[tokio::test]
async fn patches_come_in_four_languages() {
    let cluster = Cluster::start().await;
    cluster.create(DEPLOYMENTS, deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d?fieldManager=me");
    let containers = |value: &Value| value["spec"]["template"]["spec"]["containers"].clone();
    let add = json!({"spec": {"template": {"spec": {"containers": [{"name": "e", "image": "nginx"}]}}}}).to_string();
    let (code, value) = cluster.call_with(Method::PATCH, &path, "application/strategic-merge-patch+json", add).await;
    assert_eq!((code, containers(&value).as_array().map(Vec::len)), (200, Some(2)), "{value}");
    let replace =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "b:1"}]).to_string();
    let (code, value) = cluster.call_with(Method::PATCH, &path, "application/json-patch+json", replace).await;
    assert_eq!(
        (code, value["spec"]["template"]["spec"]["containers"].to_string().contains("b:1")),
        (200, true),
        "{value}"
    );
    let apply = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 9}}";
    let with = |query: &str| format!("{DEPLOYMENTS}/d?{query}");
    let send = |query: &str, body: &str| {
        let (path, body) = (with(query), body.to_owned());
        let cluster = &cluster;
        async move { cluster.call_with(Method::PATCH, &path, "application/apply-patch+yaml", body).await }
    };
    let (code, conflict) = send("fieldManager=other", apply).await;
    assert_eq!((code, &conflict["details"]["causes"][0]["field"]), (409, &json!(".spec.replicas")), "{conflict}");
    assert_eq!(conflict["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let (code, value) = send("fieldManager=other&force=true", apply).await;
    assert_eq!((code, &value["spec"]["replicas"]), (200, &json!(9)));
    let new = apply.replace("name: d", "name: n").replace("replicas: 9",
        "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}");
    let (code, _) = cluster
        .call_with(Method::PATCH, &format!("{DEPLOYMENTS}/n?fieldManager=x"), "application/apply-patch+yaml", new)
        .await;
    assert_eq!(code, 201, "apply creates");
    cluster.stop().await;
}

#[tokio::test]
async fn a_patch_without_version_never_loses_a_race() {
    let cluster = Cluster::start().await;
    cluster.create(MAPS, config_map("c")).await;
    let path = format!("{MAPS}/c");
    let writes = (0..32).map(|at| cluster.merge(&path, json!({"data": {format!("k{at}"): "v"}})));
    for (code, value) in futures::future::join_all(writes).await {
        assert_eq!(code, 200, "{value}");
    }
    assert_eq!(cluster.get(&path).await.1["data"].as_object().unwrap().len(), 33);
    cluster.stop().await;
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}/c");
    let (code, value) = cluster.call(Method::POST, &format!("{MAPS}?dryRun=All"), config_map("c")).await;
    assert_eq!((code, value["metadata"]["uid"].is_string()), (201, true));
    assert_eq!(cluster.get(&path).await.0, 404);
    cluster.create(MAPS, config_map("c")).await;
    let (code, value) = cluster.merge(&format!("{path}?dryRun=All"), json!({"data": {"k": "w"}})).await;
    assert_eq!((code, &value["data"]["k"]), (200, &json!("w")));
    assert_eq!(cluster.delete(&format!("{path}?dryRun=All")).await.0, 200);
    assert_eq!(cluster.get(&path).await.1["data"]["k"], "v");
    cluster.stop().await;
}

#[tokio::test]
async fn finalizers_hold_what_is_deleted() {
    let cluster = Cluster::start().await;
    let mut held = config_map("c");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.create(MAPS, held).await;
    let path = format!("{MAPS}/c");
    let (code, value) = cluster.delete(&path).await;
    assert_eq!((code, value["metadata"]["deletionTimestamp"].is_string()), (200, true));
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert_eq!(cluster.merge(&path, more).await.0, 422, "none may be added now");
    assert_eq!(cluster.merge(&path, json!({"metadata": {"finalizers": null}})).await.0, 200);
    assert_eq!(cluster.get(&path).await.0, 404);
    cluster.create(MAPS, config_map("o")).await;
    let (_, value) =
        cluster.call(Method::DELETE, &format!("{MAPS}/o"), json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!(value["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    cluster.stop().await;
}

#[tokio::test]
async fn pods_get_time_once_they_have_a_node() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("p")).await;
    let path = format!("{PODS}/p");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let (code, _) = cluster.call(Method::POST, &format!("{path}/binding"), binding.clone()).await;
    assert_eq!(code, 201);
    assert_eq!(cluster.call(Method::POST, &format!("{path}/binding"), binding).await.0, 409, "bound already");
    let (_, bound) = cluster.get(&path).await;
    assert_eq!(
        (&bound["spec"]["nodeName"], &bound["status"]["conditions"][0]["type"]),
        (&json!("n"), &json!("PodScheduled"))
    );
    let (_, going) = cluster.delete(&path).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let (_, longer) = cluster.call(Method::DELETE, &path, json!({"gracePeriodSeconds": 60})).await;
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 30, "only shorter");
    let (_, shorter) = cluster.call(Method::DELETE, &path, json!({"gracePeriodSeconds": 5})).await;
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let (code, _) = cluster.call(Method::DELETE, &path, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!((code, cluster.get(&path).await.0), (200, 404));
    cluster.create(PODS, pod("q")).await;
    cluster.delete(&format!("{PODS}/q")).await;
    assert_eq!(cluster.get(&format!("{PODS}/q")).await.0, 404, "nobody runs it, nobody has to stop it");
    cluster.stop().await;
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let cluster = Cluster::start().await;
    for name in ["p", "q"] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = json!("n");
        cluster.create(PODS, pod).await;
        cluster.merge(&format!("{PODS}/{name}/status"), json!({"status": {"phase": "Running"}})).await;
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    cluster
        .create(
            budgets,
            json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}}),
        )
        .await;
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    assert_eq!(cluster.merge(&format!("{budgets}/b/status"), status).await.0, 200);
    let evict = |name: &str, version: &str| {
        let body = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": name}});
        let path = format!("{PODS}/{name}/eviction");
        let cluster = &cluster;
        async move { cluster.call(Method::POST, &path, body).await }
    };
    assert_eq!(evict("p", "policy/v1beta1").await.0, 201);
    let (code, status) = evict("q", "policy/v1").await;
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (429, &json!("DisruptionBudget")), "{status}");
    assert!(cluster.get(&format!("{PODS}/p")).await.1["metadata"]["deletionTimestamp"].is_string());
    cluster.stop().await;
}

#[tokio::test]
async fn namespaces_end_by_being_finalized() {
    let cluster = Cluster::start().await;
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "a"}})).await;
    let (_, going) = cluster.delete("/api/v1/namespaces/a").await;
    assert_eq!(
        (&going["status"]["phase"], &going["spec"]["finalizers"]),
        (&json!("Terminating"), &json!(["kubernetes"]))
    );
    let (code, status) = cluster.call(Method::POST, "/api/v1/namespaces/a/configmaps", config_map("c")).await;
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (403, &json!("NamespaceTerminating")), "{status}");
    let mut last = going;
    last["spec"] = json!({});
    assert_eq!(cluster.call(Method::PUT, "/api/v1/namespaces/a/finalize", last).await.0, 200);
    assert_eq!(cluster.get("/api/v1/namespaces/a").await.0, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let cluster = Cluster::start().await;
    let made = cluster.create(MAPS, config_map("c")).await;
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", common::widgets()).await;
    let things = "/apis/example.com/v1/namespaces/default/widgets";
    cluster.until(things, |code, _| code == 200).await;
    cluster
        .create(
            things,
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1}}),
        )
        .await;
    let cluster = cluster.restart(|_| {}).await;
    assert_eq!(cluster.get(&format!("{MAPS}/c")).await.1, made);
    assert_eq!(cluster.get(&format!("{things}/w")).await.1["spec"]["colour"], "red", "served from the first moment");
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = cluster.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    cluster.create(MAPS, config_map("d")).await;
    assert_eq!(watch.brief().await, "ADDED d", "nothing twice, nothing lost");
    drop(watch);
    cluster.stop().await;
}

#[tokio::test]
async fn pods_are_not_resized_in_place() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("p")).await;
    // As in a cluster that does not know the subresource: clients tell their users so.
    let (code, status) = cluster.merge(&format!("{PODS}/p/resize"), json!({"spec": {}})).await;
    assert_eq!((code, &status["reason"]), (404, &json!("NotFound")));
    let (_, resources) = cluster.get("/api/v1").await;
    let names = resources["resources"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
    assert!(!names.into_iter().any(|name| name == "pods/resize"));
    cluster.stop().await;
}
