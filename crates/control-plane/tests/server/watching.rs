//! Lists and watches: pages, selectors, bookmarks, versions that are too old.

use http::{Method, Request, header::ACCEPT};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::common::{self, Cluster, config_map, deployment, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn pages_show_one_moment() {
    let cluster = Cluster::start().await;
    for at in 0..7 {
        cluster.create(MAPS, config_map(&format!("c{at}"))).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = cluster.get(&format!("{MAPS}?limit=3")).await;
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["c0".into(), "c1".into(), "c2".into()], &json!(4))
    );
    cluster.create(MAPS, config_map("c99")).await;
    cluster.delete(&format!("{MAPS}/c4")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = cluster.get(&format!("{MAPS}?limit=500&continue={token}")).await;
    assert_eq!(names(&rest), ["c3", "c4", "c5", "c6"], "as it was");
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(rest["metadata"].get("continue").is_none());
    let (_, chosen) = cluster.get(&format!("{MAPS}?limit=2&fieldSelector=metadata.name!=c0")).await;
    assert_eq!(names(&chosen), ["c1", "c2"], "pages are filled with what is selected");
    cluster.stop().await;
}

#[tokio::test]
async fn watches_tell_every_change_in_order() {
    let cluster = Cluster::start().await;
    cluster.create(MAPS, config_map("a")).await;
    let mut watch = cluster.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    cluster.create(MAPS, config_map("b")).await;
    cluster.merge(&format!("{MAPS}/b"), json!({"data": {"x": "y"}})).await;
    cluster.delete(&format!("{MAPS}/b")).await;
    let mut last = 0;
    for want in ["ADDED", "MODIFIED", "DELETED"] {
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], want);
        let version: u64 = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(version > last, "every event has a newer version");
        last = version;
    }
    cluster.stop().await;
    assert_eq!(watch.next().await, None, "the end of the server ends watches");
}

#[tokio::test]
async fn selected_objects_come_and_go() {
    let cluster = Cluster::start().await;
    let mut watch = cluster.watch(&format!("{PODS}?watch=true&labelSelector=app%3Dy")).await;
    let mut by_name = cluster.watch(&format!("{PODS}?watch=true&fieldSelector=metadata.name%3Dq")).await;
    cluster.create(PODS, pod("p")).await;
    cluster.merge(&format!("{PODS}/p"), json!({"metadata": {"labels": {"app": "y"}}})).await;
    cluster.merge(&format!("{PODS}/p"), json!({"metadata": {"labels": {"more": "z"}}})).await;
    let (_, left) = cluster.merge(&format!("{PODS}/p"), json!({"metadata": {"labels": {"app": "x"}}})).await;
    cluster.create(PODS, pod("q")).await;
    assert_eq!(watch.brief().await, "ADDED p");
    assert_eq!(watch.brief().await, "MODIFIED p");
    let gone = watch.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    assert_eq!(gone["object"]["metadata"]["labels"]["app"], "y", "as it was last seen");
    assert_eq!(by_name.brief().await, "ADDED q");
    cluster.stop().await;
}

#[tokio::test]
async fn watch_lists_end_with_a_bookmark() {
    let cluster = Cluster::start().await;
    cluster.create(MAPS, config_map("a")).await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = cluster.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    let version = mark["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    cluster.create(MAPS, config_map("b")).await;
    let mut resumed = cluster.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    assert_eq!(resumed.brief().await, "ADDED b");
    cluster.stop().await;
}

#[tokio::test]
async fn old_versions_expire_inside_the_stream() {
    let cluster = Cluster::open(|config| {
        config.store.history = 20;
        config.store.recent = 20;
    })
    .await;
    cluster.create(MAPS, config_map("a")).await;
    let (_, first) = cluster.get(&format!("{MAPS}?limit=0")).await;
    let version = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for at in 0..200 {
        cluster.merge(&format!("{MAPS}/a"), json!({"data": {"n": at.to_string()}})).await;
    }
    let mut watch = cluster.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)), "{event}");
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(watch.next().await, None);
    let (code, status) = cluster.get(&format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    cluster.stop().await;
}

#[tokio::test]
async fn watches_end_when_asked_to() {
    let cluster = Cluster::start().await;
    let mut watch = cluster.watch(&format!("{MAPS}?watch=true&timeoutSeconds=1")).await;
    assert_eq!(watch.next().await, None);
    cluster.stop().await;
}

#[tokio::test]
async fn tables_and_metadata_are_lists_and_watches_too() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("p")).await;
    let ask = |path: String, accept: &'static str| {
        let request =
            Request::builder().method(Method::GET).uri(path).header(ACCEPT, accept).body(Full::default()).unwrap();
        cluster.send(request)
    };
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, list) = common::read(ask(PODS.into(), table).await).await;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(list["columnDefinitions"][0]["format"], "name");
    assert_eq!(list["rows"][0]["cells"][2], "Pending");
    assert_eq!(list["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, sorted) = common::read(ask(format!("{PODS}?includeObject=Object"), table).await).await;
    assert_eq!(sorted["rows"][0]["object"]["spec"]["containers"][0]["name"], "c");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let (_, list) = common::read(ask(PODS.into(), partial).await).await;
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("PartialObjectMetadataList"), &json!("p"))
    );
    assert!(list["items"][0].get("spec").is_none());
    assert_eq!(ask(PODS.into(), "application/vnd.kubernetes.protobuf").await.status(), 406);
    cluster.stop().await;
}

#[tokio::test]
async fn old_clients_ask_for_watches_in_the_path() {
    let cluster = Cluster::start().await;
    let mut all = cluster.watch("/api/v1/watch/configmaps").await;
    let mut namespaced = cluster.watch("/api/v1/watch/namespaces/default/configmaps").await;
    let mut one = cluster.watch("/api/v1/watch/namespaces/default/configmaps/b").await;
    let mut deployments = cluster.watch("/apis/apps/v1/watch/deployments").await;
    for name in ["a", "b"] {
        cluster.create(MAPS, config_map(name)).await;
    }
    cluster.create("/apis/apps/v1/namespaces/default/deployments", deployment("d")).await;
    assert_eq!((all.brief().await.as_str(), namespaced.brief().await.as_str()), ("ADDED a", "ADDED a"));
    assert_eq!((one.brief().await.as_str(), deployments.brief().await.as_str()), ("ADDED b", "ADDED d"));
    assert_eq!(cluster.call(Method::POST, "/api/v1/watch/configmaps", json!({})).await.0, 405);
    assert_eq!(cluster.get("/api/v1/watch/nosuch").await.0, 404);
    cluster.stop().await;
}
