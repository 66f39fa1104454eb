//! Resource quotas: what is used is counted with what uses it.

use http::Method;
use serde_json::{Value, json};

use crate::common::{self, Cluster, config_map, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn with_quota(spec: Value) -> Cluster {
    let cluster = Cluster::start().await;
    cluster.create(QUOTAS, json!({"metadata": {"name": "q"}, "spec": spec})).await;
    cluster
}

/// Waits until the quota says so much is used.
async fn used(cluster: &Cluster, want: Value) {
    cluster.until(&format!("{QUOTAS}/q"), |_, quota| quota["status"]["used"] == want).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_only_so_many_get_in() {
    let cluster = with_quota(json!({"hard": {"pods": "5"}})).await;
    let (names, cluster) = ((0..20).map(|at| format!("p{at}")), &cluster);
    let answers = names.map(|name| async move { cluster.call(Method::POST, PODS, pod(&name)).await });
    let answers = futures::future::join_all(answers).await;
    let refused: Vec<&Value> = answers.iter().filter(|(code, _)| *code == 403).map(|(_, status)| status).collect();
    assert_eq!((answers.iter().filter(|(code, _)| *code == 201).count(), refused.len()), (5, 15), "{refused:?}");
    let message = refused[0]["message"].as_str().unwrap();
    assert!(
        message.ends_with("is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5"),
        "{message}"
    );
    used(cluster, json!({"pods": "5"})).await;
    // What ends and what goes makes room.
    let (_, list) = cluster.get(PODS).await;
    let name = |at: usize| list["items"][at]["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.delete(&format!("{PODS}/{}", name(0))).await;
    let path = format!("{PODS}/{}/status", name(1));
    assert_eq!(cluster.merge(&path, json!({"status": {"phase": "Succeeded"}})).await.0, 200);
    used(cluster, json!({"pods": "3"})).await;
    cluster.create(PODS, pod("again")).await;
}

#[tokio::test]
async fn amounts_are_summed_up_and_have_to_be_named() {
    let cluster = with_quota(json!({"hard": {"requests.cpu": "1", "limits.memory": "1Gi"}})).await;
    let sized = |name: &str, cpu: &str| {
        let mut pod = pod(name);
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}, "limits": {"memory": "512Mi"}});
        pod
    };
    let message = async |object: Value| cluster.call(Method::POST, PODS, object).await.1["message"].clone();
    assert_eq!(
        message(pod("p")).await,
        "pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    );
    cluster.create(PODS, sized("first", "600m")).await;
    used(&cluster, json!({"requests.cpu": "600m", "limits.memory": "512Mi"})).await;
    assert_eq!(
        message(sized("second", "500m")).await,
        "pods \"second\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, \
         limited: requests.cpu=1"
    );
    let dry = cluster.call(Method::POST, &format!("{PODS}?dryRun=All"), sized("dry", "300m")).await;
    assert_eq!(dry.0, 201, "{}", dry.1);
    cluster.create(PODS, sized("second", "400m")).await;
    // More is allowed at once, although nobody has counted for the new amount yet.
    let (code, _) = cluster
        .merge(&format!("{QUOTAS}/q"), json!({"spec": {"hard": {"requests.cpu": "2", "limits.memory": null}}}))
        .await;
    assert_eq!(code, 200);
    cluster.create(PODS, sized("third", "1")).await;
    used(&cluster, json!({"requests.cpu": "2"})).await;
    cluster.stop().await;
}

#[tokio::test]
async fn everything_with_a_namespace_can_be_counted() {
    let widgets = "count/widgets.example.com";
    let hard = json!({"configmaps": "1", "services.nodeports": "1", widgets: "1"});
    let cluster = with_quota(json!({"hard": hard})).await;
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", common::widgets()).await;
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    cluster.until(path, |code, _| code == 200).await;
    let widget = |name: &str| json!({"metadata": {"name": name}, "spec": {"size": 1}});
    cluster.create(path, widget("a")).await;
    assert_eq!(cluster.call(Method::POST, path, widget("b")).await.0, 403);
    cluster.create(MAPS, config_map("a")).await;
    assert_eq!(cluster.call(Method::POST, MAPS, config_map("b")).await.0, 403);
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}]}});
    cluster.create(services, service("s")).await;
    let (code, status) = cluster.merge(&format!("{services}/s"), json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!(code, 403, "two ports are more than one: {status}");
    let elsewhere = "/api/v1/namespaces/kube-public/configmaps";
    cluster.create(elsewhere, config_map("a")).await;
    cluster.create(elsewhere, config_map("b")).await;
    used(&cluster, json!({"configmaps": "1", "services.nodeports": "0", widgets: "1"})).await;
    cluster.stop().await;
}

#[tokio::test]
async fn scopes_choose_what_is_counted() {
    let cluster = with_quota(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]})).await;
    let mut asking = pod("asking");
    asking["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    cluster.create(PODS, pod("first")).await;
    assert_eq!(cluster.call(Method::POST, PODS, pod("second")).await.0, 403);
    cluster.create(PODS, asking).await;
    used(&cluster, json!({"pods": "1"})).await;
    cluster.stop().await;
}
