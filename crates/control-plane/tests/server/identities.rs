//! Who may do what, over the real door and through impersonation.

use http::{Method, Request, header};
use http_body_util::Full;
use osc_access::Identity;
use serde_json::{Value, json};

use crate::common::{self, Cluster, config_map, deployment};

/// Between looks at what takes effect a moment later.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn post(path: &str, body: &Value) -> Request<Full<bytes::Bytes>> {
    Request::builder().method(Method::POST).uri(path).body(Full::from(body.to_string())).unwrap()
}

fn get(path: &str) -> Request<Full<bytes::Bytes>> {
    Request::builder().uri(path).body(Full::default()).unwrap()
}

#[tokio::test]
async fn nobody_may_what_no_rule_allows() {
    let cluster = Cluster::start().await;
    let jane = Identity::new("jane", ["dev"]);
    let (code, status) = common::read(cluster.send_as(jane.clone(), get(MAPS)).await).await;
    assert_eq!(code, 403);
    let want = r#"configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" in the namespace "default""#;
    assert_eq!(status["message"], want);
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    cluster
        .create(
            &format!("{roles}/roles"),
            json!({"metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "patch"]}]}),
        )
        .await;
    cluster
        .create(
            &format!("{roles}/rolebindings"),
            json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"}]}),
        )
        .await;
    let allowed = async {
        while cluster.send_as(jane.clone(), get(MAPS)).await.status() != 200 {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(common::PATIENCE, allowed).await.expect("the binding takes effect");
    assert_eq!(cluster.send_as(jane.clone(), post(MAPS, &config_map("c"))).await.status(), 403);
    let apply = Request::builder()
        .method(Method::PATCH)
        .uri(format!("{MAPS}/c?fieldManager=x"))
        .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(Full::from(config_map("c").to_string()))
        .unwrap();
    assert_eq!(cluster.send_as(jane.clone(), apply).await.status(), 403, "patching is not creating");
    assert_eq!(cluster.send_as(jane, get("/api/v1/namespaces/kube-system/configmaps")).await.status(), 403);
    cluster.stop().await;
}

#[tokio::test]
async fn rights_are_not_given_away_by_who_lacks_them() {
    let cluster = Cluster::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    cluster
        .create(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-editor"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]}),
        )
        .await;
    cluster
        .create(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"metadata": {"name": "system:auth-editor"},
        "rules": [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["create", "update"]}]}),
        )
        .await;
    let role =
        json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    let jane = Identity::new("jane", ["dev"]);
    let refused = async {
        loop {
            let (code, status) =
                common::read(cluster.send_as(jane.clone(), post(&format!("{roles}/roles"), &role)).await).await;
            assert_ne!(code, 201);
            if status["message"].as_str().unwrap().contains("attempting to grant RBAC permissions not currently held") {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(common::PATIENCE, refused).await.expect("refused for the right reason");
    cluster.stop().await;
}

#[tokio::test]
async fn reviews_answer_without_being_stored() {
    let cluster = Cluster::start().await;
    for (group, want) in [("system:masters", true), ("dev", false)] {
        let asked = json!({"verb": "get", "resource": "pods", "namespace": "default"});
        let review = json!({"spec": {"user": "jane", "groups": [group], "resourceAttributes": asked}});
        let review = cluster.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await;
        assert_eq!(review["status"]["allowed"], want, "{group}");
    }
    let own = cluster.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(own["status"]["userInfo"]["username"], "kubernetes-admin");
    let asked = json!({"spec": {"namespace": "default"}});
    let rules = cluster.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", asked).await;
    assert!(rules["status"]["resourceRules"].is_array());
    cluster.stop().await;
}

#[tokio::test]
async fn tokens_live_as_long_as_their_pod() {
    let cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = cluster.create(pods, common::pod("p")).await;
    let account = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3607,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}}});
    let made = cluster.create(account, request).await;
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    let review = |token: String| {
        let cluster = &cluster;
        async move { cluster.create("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}})).await }
    };
    let seen = review(token.clone()).await;
    assert_eq!(seen["status"]["user"]["username"], "system:serviceaccount:default:default", "{seen}");
    cluster.delete(&format!("{pods}/p")).await;
    assert_eq!(review(token).await["status"]["authenticated"], false);
    let (code, _) = cluster.call(Method::POST, account, json!({"spec": {"expirationSeconds": 5}})).await;
    assert_eq!(code, 422);
    cluster.stop().await;
}

#[tokio::test]
async fn others_can_be_impersonated_by_who_may() {
    let cluster = Cluster::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let as_bob =
        |path: &str| Request::builder().uri(path).header("Impersonate-User", "bob").body(Full::default()).unwrap();
    let (code, status) = common::read(cluster.send(as_bob(deployments)).await).await;
    assert_eq!((code, status["message"].as_str().unwrap().contains("User \"bob\"")), (403, true));
    let (code, status) = common::read(cluster.send_as(Identity::new("jane", ["x"]), as_bob(deployments)).await).await;
    assert_eq!((code, status["message"].as_str().unwrap().contains("cannot impersonate")), (403, true), "{status}");
    cluster.create(deployments, deployment("d")).await;
    cluster.stop().await;
}
