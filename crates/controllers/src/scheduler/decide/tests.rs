use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    cache::Cache,
    testing::{object, pod},
};

fn node(name: &str, extra: Value) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    merge(&mut node, extra);
    object(node)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn view(nodes: Vec<Node>, placed: Vec<Pod>) -> View {
    let mut view = View::new(
        Cache::with(vec![object(json!({"metadata": {"name": "default", "labels": {"team": "a"}}}))]),
        Cache::with(vec![
            object(json!({"metadata": {"name": "bound", "namespace": "default"},
                          "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}})),
            object(json!({"metadata": {"name": "open", "namespace": "default"}, "status": {"phase": "Pending"}})),
        ]),
        Cache::with(vec![object(json!({"metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]}}}}))]),
    );
    for node in nodes {
        view.node_changed(&node.metadata.name.clone().unwrap(), Some(Arc::new(node)));
    }
    for (number, pod) in placed.into_iter().enumerate() {
        view.pod_changed(&format!("uid-{number}"), Some(Arc::new(pod)));
    }
    view
}

fn wants(spec: Value) -> Pod {
    pod(json!({"metadata": {"name": "p", "namespace": "default", "labels": {"app": "a"}}, "spec": spec}))
}

fn on(node: &str, labels: Value, spec: Value) -> Pod {
    let mut pod: Pod = pod(json!({"metadata": {"name": "q", "namespace": "default", "labels": labels}, "spec": spec}));
    pod.spec.as_mut().unwrap().node_name = Some(node.into());
    pod
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
}

fn anti(topology: &str) -> Value {
    json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": topology, "labelSelector": {"matchLabels": {"app": "a"}}}]}}})
}

fn affine(selector: Value) -> Value {
    json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": selector}}]}}})
}

fn spread(skew: i32) -> Value {
    json!({"topologySpreadConstraints": [{"maxSkew": skew, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}}]})
}

#[test]
fn one_reason_per_node_in_the_words_of_the_stock_scheduler() {
    let plain = || node("n1", json!({}));
    let tainted =
        || node("n2", json!({"spec": {"taints": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]}}));
    let tainted_too =
        || node("n3", json!({"spec": {"taints": [{"key": "dedicated", "value": "db", "effect": "NoExecute"}]}}));
    let app = json!({"app": "a"});
    let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    for (nodes, placed, spec, want) in [
        (vec![], vec![], json!({}), "no nodes available to schedule pods"),
        (
            vec![plain(), tainted(), tainted_too()],
            vec![],
            cpu("5"),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {dedicated: db}.",
        ),
        (
            vec![node("n1", json!({"spec": {"unschedulable": true}}))],
            vec![],
            json!({}),
            "0/1 nodes are available: 1 node(s) were unschedulable.",
        ),
        (
            vec![plain()],
            vec![],
            json!({"nodeSelector": {"disk": "ssd"}}),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            vec![plain()],
            vec![on("n1", json!({}), port.clone())],
            port.clone(),
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
        ),
        (
            vec![plain()],
            vec![on("n1", json!({}), cpu("3"))],
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1500m", "memory": "9Gi"}}}]}),
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.",
        ),
        (
            vec![plain()],
            vec![],
            json!({"overhead": {"memory": "160Mi"}, "containers": [
                {"name": "c", "resources": {"requests": {"memory": "8Gi"}}}]}),
            "0/1 nodes are available: 1 Insufficient memory.",
        ),
        (
            vec![plain()],
            vec![],
            json!({"containers": [{"name": "c", "resources": {"limits": {"example.com/gpu": "1"}}}]}),
            "0/1 nodes are available: 1 Insufficient example.com/gpu.",
        ),
        (
            vec![node("n1", json!({"status": {"allocatable": {"pods": "1"}}}))],
            vec![on("n1", json!({}), json!({}))],
            json!({}),
            "0/1 nodes are available: 1 Too many pods.",
        ),
        (
            vec![plain()],
            vec![],
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]}),
            "0/1 nodes are available: persistentvolumeclaim \"none\" not found.",
        ),
        (
            vec![plain()],
            vec![],
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "open"}}]}),
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
        ),
        (
            vec![plain()],
            vec![],
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "bound"}}]}),
            "0/1 nodes are available: 1 node(s) had volume node affinity conflict.",
        ),
        (
            vec![plain()],
            vec![],
            affine(json!({"app": "other"})),
            "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
        ),
        (
            vec![plain()],
            vec![on("n1", app.clone(), json!({}))],
            anti("kubernetes.io/hostname"),
            "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.",
        ),
        (
            vec![plain()],
            vec![on("n1", json!({"app": "z"}), anti("kubernetes.io/hostname"))],
            json!({}),
            "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
        ),
        (
            vec![plain(), node("n4", json!({"spec": {"unschedulable": true}}))],
            vec![on("n1", app.clone(), json!({}))],
            spread(1),
            "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable.",
        ),
        (
            vec![plain()],
            vec![],
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).",
        ),
    ] {
        let decision = decide(&wants(spec.clone()), &view(nodes, placed));
        assert_eq!(decision, Decision::Unschedulable(want.into()), "{spec}");
    }
}

#[test]
fn the_right_node_is_chosen() {
    let two = || vec![node("n1", json!({})), node("n2", json!({"metadata": {"labels": {"disk": "ssd"}}}))];
    let prefer = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]}}});
    let app = || json!({"app": "a"});
    for (why, nodes, placed, spec, want) in [
        ("equal nodes: by name", two(), vec![], json!({}), "n1"),
        ("the emptier one", two(), vec![on("n1", json!({}), cpu("2"))], json!({}), "n2"),
        ("fewer requests weigh too", two(), vec![on("n1", json!({}), json!({}))], json!({}), "n2"),
        ("preference beats emptiness", two(), vec![on("n2", json!({}), cpu("2"))], prefer, "n2"),
        (
            "where the volume is",
            two(),
            vec![],
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "bound"}}]}),
            "n2",
        ),
        (
            "beside its friend",
            two(),
            vec![on("n2", json!({"app": "db"}), cpu("3"))],
            affine(json!({"app": "db"})),
            "n2",
        ),
        ("first of its kind may start", two(), vec![], affine(json!({"app": "a"})), "n1"),
        ("away from its like", two(), vec![on("n1", app(), json!({}))], anti("kubernetes.io/hostname"), "n2"),
        ("spread evenly", two(), vec![on("n1", app(), json!({})), on("n2", json!({}), cpu("3"))], spread(1), "n2"),
        (
            "soft taints repel",
            vec![
                node("n1", json!({"spec": {"taints": [{"key": "old", "effect": "PreferNoSchedule"}]}})),
                node("n2", json!({})),
            ],
            vec![on("n2", json!({}), cpu("1"))],
            json!({}),
            "n2",
        ),
        (
            "a tolerated cordon is none",
            vec![node("n1", json!({"spec": {"unschedulable": true}}))],
            vec![],
            json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}),
            "n1",
        ),
    ] {
        assert_eq!(decide(&wants(spec), &view(nodes, placed)), Decision::Bind(want.into()), "{why}");
    }
}

proptest! {
    /// However pods arrive, no node ever gets more than it has, and a pod is only
    /// refused when it fits nowhere.
    #[test]
    fn placement_never_oversubscribes(
        nodes in proptest::collection::vec((1u32..8000, 1u32..64, 1u32..6), 1..5),
        pods in proptest::collection::vec((0u32..4000, 0u32..32), 1..25),
    ) {
        let nodes: Vec<Node> = nodes.iter().enumerate().map(|(number, (cpu, memory, pods))| {
            node(&format!("n{number}"), json!({"status": {"allocatable": {
                "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi"), "pods": pods.to_string()}}}))
        }).collect();
        let mut view = view(nodes, vec![]);
        for (number, (cpu, memory)) in pods.iter().enumerate() {
            let pod = wants(json!({"containers": [{"name": "c", "resources": {"requests": {
                "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")}}}]}));
            let room = |place: &Place| {
                place.used.get("cpu") + i64::from(*cpu) <= place.allocatable.get("cpu")
                    && place.used.get("memory") + (i64::from(*memory) << 20) <= place.allocatable.get("memory")
                    && (place.pods.len() as i64) < place.allocatable.get("pods")
            };
            match decide(&pod, &view) {
                Decision::Bind(node) => {
                    prop_assert!(room(&view.places[&node]));
                    view.assume(&format!("u{number}"), &node, Arc::new(pod));
                }
                Decision::Unschedulable(_) => prop_assert!(!view.nodes().any(room)),
            }
        }
        for place in view.nodes() {
            for name in ["cpu", "memory"] {
                prop_assert!(place.used.get(name) <= place.allocatable.get(name));
            }
        }
    }
}
