//! The life of custom resources.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::common::{Cluster, PATIENCE, widgets};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRD: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

fn established(crd: &Value) -> bool {
    let conditions = crd["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

#[tokio::test]
async fn definitions_are_served_at_once_and_go_with_their_objects() {
    let cluster = Cluster::start().await;
    let begin = Instant::now();
    cluster.create(CRDS, widgets()).await;
    let crd = cluster.until(CRD, |_, crd| established(crd)).await;
    cluster.until(WIDGETS, |code, _| code == 200).await;
    assert!(begin.elapsed() < Duration::from_secs(2), "served after {:?}", begin.elapsed());
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    let (_, groups) = cluster.get("/apis/example.com/v1").await;
    assert_eq!(groups["resources"][0]["shortNames"], json!(["wi"]));
    let (_, document) = cluster.get("/openapi/v3/apis/example.com/v1").await;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    let mut held = widget("w", json!({"size": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.create(WIDGETS, held).await;
    cluster.delete(CRD).await;
    let going = cluster.until(&format!("{WIDGETS}/w"), |_, it| it["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(cluster.get(CRD).await.0, 200, "waits for {}", going["metadata"]["name"]);
    let (code, _) = cluster.call(Method::POST, WIDGETS, widget("x", json!({"size": 1}))).await;
    assert_eq!(code, 405, "no new ones");
    cluster.merge(&format!("{WIDGETS}/w"), json!({"metadata": {"finalizers": null}})).await;
    cluster.until(CRD, |code, _| code == 404).await;
    cluster.until(WIDGETS, |code, _| code == 404).await;
    cluster.stop().await;
}

#[tokio::test]
async fn objects_follow_their_schema() {
    let cluster = Cluster::start().await;
    cluster.create(CRDS, widgets()).await;
    cluster.until(WIDGETS, |code, _| code == 200).await;
    let made = cluster.create(WIDGETS, widget("w", json!({"size": 3, "unknown": true}))).await;
    assert_eq!(made["spec"], json!({"size": 3, "colour": "red"}), "defaults are stored, the unknown is not");
    for (spec, words) in [
        (json!({"size": 0}), "spec.size: Invalid value: 0"),
        (json!({"size": 30}), "too big"),
        (json!({}), "spec.size: Required value"),
        (json!({"size": "x"}), "must be of type integer"),
    ] {
        let (code, status) = cluster.call(Method::POST, WIDGETS, widget("x", spec.clone())).await;
        assert_eq!(code, 422, "{spec}: {status}");
        assert!(status["message"].as_str().unwrap().contains(words), "{spec}: {status}");
    }
    let path = format!("{WIDGETS}/w");
    let mut put = made.clone();
    put["metadata"]["resourceVersion"] = Value::Null;
    assert_eq!(cluster.call(Method::PUT, &path, put).await.0, 422, "custom resources need a version");
    let strategic = "application/strategic-merge-patch+json";
    assert_eq!(cluster.call_with(Method::PATCH, &path, strategic, "{}".into()).await.0, 415);
    let protobuf = "application/vnd.kubernetes.protobuf";
    assert_eq!(cluster.call_with(Method::POST, WIDGETS, protobuf, "x".into()).await.0, 415);
    let (_, status) = cluster.merge(&format!("{path}/status"), json!({"status": {"any": [1], "replicas": 2}})).await;
    assert_eq!((&status["status"]["any"], &status["metadata"]["generation"]), (&json!([1]), &json!(1)));
    let (_, scale) = cluster.merge(&format!("{path}/scale"), json!({"spec": {"replicas": 4}})).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(4), &json!(2)));
    assert_eq!(cluster.get(&path).await.1["metadata"]["generation"], 2);
    cluster.stop().await;
}

#[tokio::test]
async fn versions_share_their_objects() {
    let cluster = Cluster::start().await;
    let mut crd = widgets();
    let mut second = crd["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().push(second);
    cluster.create(CRDS, crd).await;
    cluster.until(WIDGETS, |code, _| code == 200).await;
    cluster.create(WIDGETS, widget("w", json!({"size": 3}))).await;
    let v2 = WIDGETS.replace("/v1/", "/v2/");
    let (_, list) = cluster.get(&v2).await;
    assert_eq!(
        (&list["apiVersion"], &list["items"][0]["apiVersion"]),
        (&json!("example.com/v2"), &json!("example.com/v2"))
    );
    let (_, group) = cluster.get("/apis/example.com").await;
    assert_eq!(group["preferredVersion"]["version"], "v2");
    // The storage version moves; the old one stays among those stored.
    let moved = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    let (code, value) = cluster.call_with(Method::PATCH, CRD, "application/json-patch+json", moved.to_string()).await;
    assert_eq!(code, 200, "{value}");
    cluster.until(CRD, |_, crd| crd["status"]["storedVersions"] == json!(["v1", "v2"])).await;
    let gone = json!([{"op": "remove", "path": "/spec/versions/0"}]);
    let (code, status) = cluster.call_with(Method::PATCH, CRD, "application/json-patch+json", gone.to_string()).await;
    assert_eq!(code, 422, "objects may be stored in it: {status}");
    cluster.stop().await;
}

#[tokio::test]
async fn bad_definitions_are_refused_and_rivals_wait() {
    let cluster = Cluster::start().await;
    let change = |path: &str, value: Value| {
        let mut crd = widgets();
        *crd.pointer_mut(path).unwrap() = value;
        crd
    };
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    for (crd, words) in [
        (change("/metadata/name", json!("other.example.com")), "must be spec.names.plural+\".\"+spec.group"),
        (change(&format!("{schema}/type"), json!("nonsense")), "spec.versions[0].schema.openAPIV3Schema"),
        (
            change(&format!("{schema}/x-kubernetes-validations/0/rule"), json!("self.nosuch < 1")),
            "x-kubernetes-validations[0].rule",
        ),
        (change("/spec/versions/0/storage", json!(false)), "exactly one version marked as storage version"),
    ] {
        let (code, status) = cluster.call(Method::POST, CRDS, crd).await;
        assert_eq!(code, 422, "{words}: {status}");
        assert!(status["message"].as_str().unwrap().contains(words), "{words}: {status}");
    }
    cluster.create(CRDS, widgets()).await;
    cluster.until(CRD, |_, crd| established(crd)).await;
    let mut rival = widgets();
    rival["metadata"]["name"] = json!("gadgets.example.com");
    rival["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    cluster.create(CRDS, rival).await;
    let path = format!("{CRDS}/gadgets.example.com");
    let crd =
        cluster.until(&path, |_, crd| crd["status"]["conditions"].as_array().is_some_and(|all| !all.is_empty())).await;
    assert!(!established(&crd), "{}", crd["status"]);
    cluster.delete(CRD).await;
    cluster.until(&path, |_, crd| established(crd)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn stricter_definitions_leave_old_objects_changeable() {
    let cluster = Cluster::start().await;
    cluster.create(CRDS, widgets()).await;
    cluster.until(WIDGETS, |code, _| code == 200).await;
    cluster.create(WIDGETS, widget("w", json!({"size": 9}))).await;
    let mut versions = widgets()["spec"]["versions"].clone();
    let spec = &mut versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["size"]["maximum"] = json!(5);
    spec["x-kubernetes-validations"][0]["rule"] = json!("self.size < 4");
    assert_eq!(cluster.merge(CRD, json!({"spec": {"versions": versions}})).await.0, 200);
    let dry_run = format!("{WIDGETS}?dryRun=All");
    let stricter = async {
        while cluster.call(Method::POST, &dry_run, widget("x", json!({"size": 9}))).await.0 != 422 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stricter).await.expect("the new schema is used");
    let one = format!("{WIDGETS}/w");
    assert_eq!(cluster.merge(&one, json!({"metadata": {"labels": {"a": "b"}}})).await.0, 200);
    let (code, status) = cluster.merge(&one, json!({"spec": {"size": 8}})).await;
    assert_eq!((code, &status["details"]["causes"][0]["field"]), (422, &json!("spec.size")));
    let (code, status) = cluster.merge(&one, json!({"spec": {"colour": "blue"}})).await;
    assert_eq!(code, 422, "the rule is about all of spec, which changes: {status}");
    cluster.stop().await;
}
