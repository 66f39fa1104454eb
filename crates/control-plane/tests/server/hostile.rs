//! Requests nobody sane sends: each is answered, none does harm.

use http::{Method, Request};
use http_body_util::Full;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::common::{self, Cluster};

const REQUESTS: usize = 4000;
const METHODS: &[Method] = &[Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD];
const PLACES: &[&str] = &[
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/default/services",
    "/api/v1/namespaces/default/events",
    "/api/v1/namespaces/default/serviceaccounts",
    "/api/v1/namespaces/default/nosuch",
    "/api/v1/namespaces",
    "/api/v1/nodes",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apps/v1/namespaces/default/controllerrevisions",
    "/apis/batch/v1/namespaces/default/jobs",
    "/apis/batch/v1/namespaces/default/cronjobs",
    "/apis/example.com/v1/namespaces/default/widgets",
    "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
    "/apis/events.k8s.io/v1/namespaces/default/events",
    "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    "/apis/authentication.k8s.io/v1/tokenreviews",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
];
const NAMES: &[&str] = &[
    "",
    "",
    "",
    "/a",
    "/a",
    "/a",
    "/a/status",
    "/a/scale",
    "/a/binding",
    "/a/eviction",
    "/a/log",
    "/a/exec",
    "/a/token",
    "/a/finalize",
    "/a/ephemeralcontainers",
    "/%2e%2e",
    "/a%2fb",
    "/%00",
    "/a/b/c/d",
];
const QUERIES: &[&str] = &[
    "",
    "",
    "",
    "",
    "",
    "?limit=-1",
    "?limit=1&continue=e30",
    "?labelSelector=((",
    "?fieldSelector=%3D%3D",
    "?fieldManager=x&force=true",
    "?fieldManager=%0a",
    "?dryRun=All",
    "?fieldValidation=Strict",
    "?resourceVersion=x",
    "?gracePeriodSeconds=-99999999999999999999",
    "?propagationPolicy=No",
    "?command=%ff",
    "?container=&follow=1",
];
const TYPES: &[&str] = &[
    "application/json",
    "application/json",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "",
    "text/plain; x",
];
const KEYS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "containers",
    "template",
    "selector",
    "matchLabels",
    "versions",
    "schema",
    "openAPIV3Schema",
    "properties",
    "type",
    "replicas",
    "rules",
    "verbs",
    "data",
    "op",
    "path",
    "value",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "resources",
    "ports",
    "conditions",
    "clusterIP",
    "target",
    "uid",
    "resourceVersion",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "subjects",
    "roleRef",
    "webhooks",
    "names",
    "group",
    "scope",
    "x-kubernetes-validations",
    "rule",
    "default",
    "fieldsV1",
];

/// A value that looks like a manifest from afar.
fn value(random: &mut StdRng, depth: usize) -> Value {
    let scalar = depth == 0 || random.random_bool(0.3);
    match random.random_range(0..if scalar { 7 } else { 12 }) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => json!(random.random::<i64>()),
        3 => json!(random.random::<f64>()),
        4 => json!(
            ["a", "", "v1", "apps/v1", "Pod", "Deployment", "object", "2024-01-01T00:00:00Z", "a=b", "%", "\u{0}", "ü"]
                .choose(random)
        ),
        5 => json!([]),
        6 => json!({}),
        7 | 8 => (0..random.random_range(0..4)).map(|_| value(random, depth - 1)).collect(),
        _ => object(random, depth),
    }
}

fn object(random: &mut StdRng, depth: usize) -> Value {
    let count = random.random_range(0..8);
    let fields =
        (0..count).map(|_| ((*KEYS.choose(random).unwrap()).to_owned(), value(random, depth.saturating_sub(1))));
    Value::Object(fields.collect())
}

fn body(random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..10) {
        0 => Vec::new(),
        1 => (0..random.random_range(0..200)).map(|_| random.random()).collect(),
        2 => [b"k8s\0".to_vec(), (0..random.random_range(0..200)).map(|_| random.random()).collect()].concat(),
        3 => "[".repeat(50_000).into_bytes(),
        4 => value(random, 6).to_string().into_bytes(),
        5 => {
            let mut pod = common::pod("a");
            pod["spec"]["containers"][0][*KEYS.choose(random).unwrap()] = value(random, 4);
            pod.to_string().into_bytes()
        }
        6 => {
            let mut crd = common::widgets();
            let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            schema[*KEYS.choose(random).unwrap()] = value(random, 4);
            crd.to_string().into_bytes()
        }
        7 => {
            let mut deployment = common::deployment("a");
            deployment["spec"][*KEYS.choose(random).unwrap()] = value(random, 5);
            deployment.to_string().into_bytes()
        }
        _ => {
            let mut whole = object(random, 6);
            whole["metadata"] = json!({"name": "a"});
            whole[*KEYS.choose(random).unwrap()] = object(random, 6);
            whole.to_string().into_bytes()
        }
    }
}

#[tokio::test]
async fn every_request_is_answered() {
    let cluster = Cluster::start().await;
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", common::widgets()).await;
    // Reproducible: a failure names the request that caused it.
    let mut random = StdRng::seed_from_u64(7);
    let mut succeeded = 0;
    for at in 0..REQUESTS {
        let pick = |random: &mut StdRng, from: &[&'static str]| *from.choose(random).unwrap();
        let (place, query) = (pick(&mut random, PLACES), pick(&mut random, QUERIES));
        let path = format!("{place}{}{query}", pick(&mut random, NAMES));
        let method = METHODS.choose(&mut random).unwrap().clone();
        let (media_type, body) = (pick(&mut random, TYPES), body(&mut random));
        let shown =
            format!("{at}: {method} {path} {media_type} {}", String::from_utf8_lossy(&body[..body.len().min(300)]));
        let request = Request::builder().method(method).uri(&path).header("content-type", media_type);
        let (code, answer) = common::read(cluster.send(request.body(Full::from(body)).unwrap()).await).await;
        assert!((200..=505).contains(&code) && code != 500, "{shown}: {answer}");
        succeeded += usize::from(code < 300);
        if code >= 400 {
            assert_eq!((&answer["kind"], &answer["code"]), (&json!("Status"), &json!(code)), "{shown}");
        }
    }
    assert!(succeeded > REQUESTS / 50, "only {succeeded} requests got past the checks in front");
    assert_eq!(cluster.get("/readyz").await, (200, json!("ok")));
    cluster.stop().await;
}
