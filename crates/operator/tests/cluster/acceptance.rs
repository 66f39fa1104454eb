//! What administrators were promised, where it takes the platform's own kinds or a cluster
//! of another shape than the worked timeline has.

use std::fmt::Debug;

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Namespace, Node},
    node::v1::RuntimeClass,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use osc_objects::{ContainerRuntimeConfig, KataConfig, MachineConfig, MachineConfigPool};
use osc_operator::{Options, bundle};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::kit::{NAMESPACE, World, degraded, options, settings, state};

const KATA: &str = "rendered-kata-oc-1";
const WORKER: &str = "rendered-worker-1";
const CONSOLE: &str = "openshift-config-managed";
const MONITOR: &str = "openshift-sandboxed-containers-monitor";
const SCC: &str = "sandboxed-containers-operator-scc";
const DASHBOARD: &str = "grafana-dashboard-sandboxed-containers";

/// Kinds of the platform that the operator looks for, and what its bundle brings for the
/// platform only.
async fn become_the_platform(world: &World) {
    for (group, kind, plural) in [
        ("security.openshift.io", "SecurityContextConstraints", "securitycontextconstraints"),
        ("console.openshift.io", "ConsoleLink", "consolelinks"),
        ("config.openshift.io", "Infrastructure", "infrastructures"),
    ] {
        let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": "Cluster",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
        world.create_value(definition, false).await;
    }
    world.create_value(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CONSOLE}}), false).await;
    for file in bundle::olm(&settings()).iter().filter(|file| file.path.contains("dashboard_role")) {
        let object = serde_yaml_ng::Deserializer::from_str(&file.text);
        world.create_value(Value::deserialize(object).expect("YAML"), false).await;
    }
}

fn constraints(world: &World) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "security.openshift.io".into(),
        version: "v1".into(),
        api_version: "security.openshift.io/v1".into(),
        kind: "SecurityContextConstraints".into(),
        plural: "securitycontextconstraints".into(),
    };
    Api::all_with(world.client.clone(), &resource)
}

fn config_map(world: &World, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(world.client.clone(), namespace)
}

/// One object as JSON.
async fn read<K>(world: &World, name: &str) -> Value
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::all(world.client.clone());
    serde_json::to_value(api.get(name).await.unwrap_or_else(|error| panic!("{name}: {error}"))).expect("JSON")
}

async fn label(world: &World, node: &str, value: Value) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"foo": value}}}));
    nodes.patch(node, &PatchParams::default(), &patch).await.expect("a label");
}

async fn change(world: &World, patch: Value) {
    let configs: Api<KataConfig> = Api::all(world.client.clone());
    configs.patch("example", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a change");
}

/// Rows 1, 4, 5, 7, 8, 13 and 16 of the acceptance behaviours, with exactly the rights of the
/// bundle for the platform.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_platform_everything_comes_in_its_time_and_goes() {
    let world = World::start().await;
    become_the_platform(&world).await;
    label(&world, "w0", json!("bar")).await;
    let spec = json!({"logLevel": "debug", "kataConfigPoolSelector": {"matchLabels": {"foo": "bar"}}});
    world.create_config("example", spec).await.expect("a first one");
    let operator = world.operator(options()).await;
    world.until_state("example", "True/Installing/0/0").await;
    world.until::<ContainerRuntimeConfig>(None, "the log level", |found| found.len() == 1).await;
    asked_for(&world).await;

    world.pool("kata-oc", 1, KATA, true).await;
    world.until_state("example", "True/Installing/1/0").await;
    nothing_is_offered(&world).await;
    world.set_node("w0", KATA, "Done", "").await;
    world.pool("kata-oc", 1, KATA, false).await;
    world.until_state("example", "False//1/1").await;
    offered(&world).await;
    nothing_is_written_without_need(&world).await;
    old_constraints_are_repaired(&world).await;

    // Row 8: a node that is labelled later; row 13: a level that is no longer asked for.
    label(&world, "w1", json!("bar")).await;
    world.until::<Node>(None, "w1 follows", |nodes| role(nodes) == ["w0", "w1"]).await;
    world.until_state("example", "True/Updating/1/1").await;
    world.pool("kata-oc", 2, KATA, true).await;
    world.set_node("w1", KATA, "Done", "").await;
    world.pool("kata-oc", 2, KATA, false).await;
    world.until_state("example", "False//2/2").await;
    change(&world, json!({"spec": {"logLevel": "info"}})).await;
    let level = |found: &[ContainerRuntimeConfig], level: &str| {
        let settings = found.first().and_then(|one| one.spec.container_runtime_config.clone()).unwrap_or_default();
        settings.log_level.as_deref() == Some(level)
    };
    world.until::<ContainerRuntimeConfig>(None, "info", |found| level(found, "info")).await;
    operator.stop().await;
    let operator = world.operator(Options { monitor_image: Some("monitor:2".into()), ..options() }).await;
    let image = |sets: &[DaemonSet]| {
        let sets = serde_json::to_value(sets).expect("JSON");
        let all = sets.as_array().expect("a list").iter();
        let images = all.map(|set| set["spec"]["template"]["spec"]["containers"][0]["image"].clone());
        images.into_iter().any(|image| image == "monitor:2")
    };
    world.until::<DaemonSet>(None, "another image", image).await;
    removed(&world).await;
    operator.stop().await;
    world.stop().await;
}

/// Names of the nodes in the pool.
fn role(nodes: &[Node]) -> Vec<String> {
    let labelled = nodes.iter().filter(|node| node.labels().contains_key(osc_objects::names::kata::ROLE_LABEL));
    labelled.map(ResourceExt::name_any).collect()
}

/// What is asked of machine configuration, to the letter.
async fn asked_for(world: &World) {
    let config = read::<MachineConfig>(world, "50-enable-sandboxed-containers-extension").await;
    let labels = json!({"machineconfiguration.openshift.io/role": "kata-oc", "app": "example"});
    assert_eq!(config["metadata"]["labels"], labels);
    assert_eq!(config["spec"]["extensions"], json!(["kata-containers"]));
    assert_eq!(config["spec"]["config"], json!({"ignition": {"version": "3.2.0"}}));
    let pool = read::<MachineConfigPool>(world, "kata-oc").await;
    let prefix = "pools.operator.machineconfiguration.openshift.io";
    assert_eq!(pool["metadata"]["labels"], json!({format!("{prefix}/kata-oc"): ""}));
    let roles = json!([{"key": "machineconfiguration.openshift.io/role", "operator": "In",
        "values": ["kata-oc", "worker"]}]);
    assert_eq!(pool["spec"]["machineConfigSelector"]["matchExpressions"], roles);
    assert_eq!(pool["spec"]["nodeSelector"]["matchLabels"], json!({"node-role.kubernetes.io/kata-oc": ""}));
    let level = read::<ContainerRuntimeConfig>(world, "kata-crio-config").await;
    assert_eq!(level["spec"]["containerRuntimeConfig"], json!({"logLevel": "debug"}));
    let pools = &level["spec"]["machineConfigPoolSelector"]["matchLabels"];
    assert_eq!(*pools, json!({format!("{prefix}/kata-oc"): ""}));
    let finalizers = &read::<KataConfig>(world, "example").await["metadata"]["finalizers"];
    assert_eq!(*finalizers, json!(["kataconfiguration.openshift.io/finalizer"]));
    assert_eq!(world.kata_nodes().await, ["w0"], "nobody else matches");
    let labels = read::<Namespace>(world, NAMESPACE).await["metadata"]["labels"].clone();
    assert_eq!(labels["openshift.io/cluster-monitoring"], "true");
    for mode in ["enforce", "audit", "warn"] {
        assert_eq!(labels[format!("pod-security.kubernetes.io/{mode}")], "privileged");
    }
}

async fn nothing_is_offered(world: &World) {
    assert!(world.names::<RuntimeClass>().await.is_empty());
    assert!(constraints(world).get_opt(SCC).await.expect("an answer").is_none());
    assert!(!world.names::<DaemonSet>().await.iter().any(|name| name == MONITOR));
}

async fn offered(world: &World) {
    world.until::<DaemonSet>(None, "the monitor", |sets| sets.iter().any(|set| set.name_any() == MONITOR)).await;
    let class = read::<RuntimeClass>(world, "kata").await;
    assert_eq!(class["handler"], "kata");
    assert_eq!(class["overhead"]["podFixed"]["cpu"], "250m");
    let selector = json!({"node-role.kubernetes.io/kata-oc": ""});
    assert_eq!(class["scheduling"]["nodeSelector"], selector, "not what the KataConfig selects by");
    let owner = &class["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("KataConfig"), &json!("example")));
    assert_eq!(read::<KataConfig>(world, "example").await["status"]["runtimeClasses"], json!(["kata"]));
    let scc = constraints(world).get(SCC).await.expect("constraints").data;
    // Constraints for more than one account took over pods of the platform.
    assert_eq!(scc["users"], json!([format!("system:serviceaccount:{NAMESPACE}:monitor")]));
    assert_eq!((&scc["groups"], &scc["priority"]), (&Value::Null, &Value::Null));
    assert_eq!((&scc["allowPrivilegedContainer"], &scc["allowHostDirVolumePlugin"]), (&json!(false), &json!(true)));
    let api: Api<DaemonSet> = Api::namespaced(world.client.clone(), NAMESPACE);
    let monitor = serde_json::to_value(api.get(MONITOR).await.expect("the monitor")).expect("JSON");
    let pod = &monitor["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["nodeSelector"]), (&json!("monitor"), &selector));
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!((&security["runAsUser"], &security["privileged"]), (&json!(1001), &json!(false)));
    assert_eq!(security["seLinuxOptions"]["type"], "osc_monitor.process");
    let shown = config_map(world, CONSOLE);
    let copied = async {
        loop {
            if let Some(map) = shown.get_opt(DASHBOARD).await.expect("an answer") {
                return map;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let copy = tokio::time::timeout(crate::kit::PATIENCE, copied).await.expect("the dashboard is copied");
    assert_eq!(copy.labels()["console.openshift.io/dashboard"], "true");
    assert!(copy.data.is_some_and(|data| data.contains_key("kata-resources.json")));
}

/// A pass over a cluster that is as it shall be leaves the KataConfig alone: transition times
/// stay, and no status wakes the next pass.
async fn nothing_is_written_without_need(world: &World) {
    let before = read::<KataConfig>(world, "example").await;
    let classes: Api<RuntimeClass> = Api::all(world.client.clone());
    let old = classes.get("kata").await.expect("there").uid();
    classes.delete("kata", &DeleteParams::default()).await.expect("a deletion");
    // It is made anew by a pass.
    let anew = |found: &[RuntimeClass]| found.iter().any(|class| class.uid() != old);
    world.until::<RuntimeClass>(None, "made anew", anew).await;
    assert_eq!(read::<KataConfig>(world, "example").await, before);
}

/// Those of release 1.2 demand a context that a monitor of today does not have.
async fn old_constraints_are_repaired(world: &World) {
    let old = json!({"seLinuxContext": {"type": "MustRunAs", "seLinuxOptions": {"type": "old.process"}}});
    constraints(world).patch(SCC, &PatchParams::default(), &Patch::Merge(old)).await.expect("an old one");
    let classes: Api<RuntimeClass> = Api::all(world.client.clone());
    classes.delete("kata", &DeleteParams::default()).await.expect("another pass");
    let repaired = async {
        while constraints(world).get(SCC).await.expect("there").data["seLinuxContext"] != json!({"type": "RunAsAny"}) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::kit::PATIENCE, repaired).await.expect("they are repaired");
}

/// Row 16: labels and configuration first; the rest when the workers are done.
async fn removed(world: &World) {
    world.delete_config("example").await;
    world.until_state("example", "True/Uninstalling/2/2").await;
    world.until::<MachineConfig>(None, "none of ours", |configs| configs.is_empty()).await;
    world.until::<Node>(None, "without the role", |nodes| role(nodes).is_empty()).await;
    world.pool("worker", 2, WORKER, true).await;
    world.until_state("example", "True/Uninstalling/0/0").await;
    assert!(world.names::<MachineConfigPool>().await.contains(&"kata-oc".to_owned()));
    assert_eq!(world.names::<ContainerRuntimeConfig>().await, ["kata-crio-config"]);
    assert!(world.names::<DaemonSet>().await.iter().any(|name| name == MONITOR));
    assert!(constraints(world).get_opt(SCC).await.expect("an answer").is_some());
    for name in ["w0", "w1"] {
        world.set_node(name, WORKER, "Done", "").await;
    }
    world.pool("worker", 2, WORKER, false).await;
    world.until::<KataConfig>(None, "gone", |configs| configs.is_empty()).await;
    assert_eq!(world.names::<MachineConfigPool>().await, ["master", "worker"]);
    assert!(world.names::<ContainerRuntimeConfig>().await.is_empty());
    assert!(!world.names::<DaemonSet>().await.iter().any(|name| name == MONITOR));
    assert!(constraints(world).get_opt(SCC).await.expect("an answer").is_none());
    world.until::<RuntimeClass>(None, "gone with its owner", |classes| classes.is_empty()).await;
}

/// Rows 11 and 23: no worker of its own, and an image instead of the extension; what the nodes
/// then have is recognised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_converged_cluster_takes_a_layered_image_and_is_seen_to_have_it() {
    const LAYERED: &str = "rendered-master-2";
    const IMAGE: &str = "registry.example/os:1";
    let world = World::start().await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    for name in ["w0", "w1"] {
        nodes.delete(name, &DeleteParams::default()).await.expect("a deletion");
    }
    world.pool("worker", 0, WORKER, false).await;
    let map = |name: &str, data: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE}, "data": data})
    };
    world.create_value(map("osc-feature-gates", json!({"layeredImageDeployment": "true"})), false).await;
    let image = json!({"osImageURL": IMAGE, "kernelArguments": " a=1  b "});
    world.create_value(map("layered-image-deploy-cm", image), false).await;
    let operator = world.operator(options()).await;
    let selector = json!({"kataConfigPoolSelector": {"matchLabels": {"nobody": "has-it"}}});
    world.create_config("example", selector).await.expect("a first one");
    let config = world.until_state("example", "True/Installing/0/0").await;
    assert!(config.status.expect("a status").waiting_for_mco_to_start);
    world.until::<MachineConfig>(None, "the image", |configs| configs.len() == 1).await;
    let made = read::<MachineConfig>(&world, "50-enable-sandboxed-containers-image").await;
    assert_eq!(made["metadata"]["labels"]["machineconfiguration.openshift.io/role"], "master");
    assert_eq!((&made["spec"]["osImageURL"], &made["spec"]["kernelArguments"]), (&json!(IMAGE), &json!(["a=1", "b"])));

    let rendered = json!({"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig",
        "metadata": {"name": LAYERED}, "spec": {"osImageURL": IMAGE}});
    world.create_value(rendered, false).await;
    world.pool("master", 1, LAYERED, true).await;
    let config = world.until_state("example", "True/Installing/1/0").await;
    assert_eq!(config.status.expect("a status").kata_nodes.waiting_to_install, ["m0"]);
    world.set_node("m0", LAYERED, "Done", "").await;
    world.pool("master", 1, LAYERED, false).await;
    let config = world.until_state("example", "False//1/1").await;
    assert_eq!((degraded(&config).as_str(), world.kata_nodes().await), ("AsExpected", Vec::<String>::new()));
    world.until::<RuntimeClass>(None, "kata", |classes| classes.len() == 1).await;
    let class = read::<RuntimeClass>(&world, "kata").await;
    assert_eq!(class["scheduling"]["nodeSelector"], json!({"node-role.kubernetes.io/master": ""}));
    assert_eq!(world.names::<MachineConfigPool>().await, ["master", "worker"]);
    // A gate that is changed later changes nothing.
    config_map(&world, NAMESPACE).delete("osc-feature-gates", &DeleteParams::default()).await.expect("a deletion");
    let classes: Api<RuntimeClass> = Api::all(world.client.clone());
    classes.delete("kata", &DeleteParams::default()).await.expect("a deletion");
    world.until::<RuntimeClass>(None, "another pass", |classes| classes.len() == 1).await;
    assert_eq!(world.names::<MachineConfig>().await, ["50-enable-sandboxed-containers-image", LAYERED]);
    operator.stop().await;
    world.stop().await;
}

/// Row 24: what a release of years ago wrote is served, read, and replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_of_release_1_4_gains_the_present_fields() {
    let world = World::start().await;
    world.create_config("example", json!({})).await.expect("a first one");
    let legacy = json!({"runtimeClass": "kata", "totalNodesCount": 2, "prevMcpGeneration": 3, "upgradeStatus": {},
        "installationStatus": {"IsInProgress": "False",
            "completed": {"completedNodesCount": 2, "completedNodesList": ["w0", "w1"]}}});
    let configs: Api<KataConfig> = Api::all(world.client.clone());
    let patch = Patch::Merge(json!({"status": legacy}));
    configs.patch_status("example", &PatchParams::default(), &patch).await.expect("a status");
    let served = read::<KataConfig>(&world, "example").await["status"].clone();
    assert_eq!(served["installationStatus"], legacy["installationStatus"], "nothing is dropped");
    let operator = world.operator(options()).await;
    // Kata was there already, so this is no installation.
    let config = world.until_config("example", "moving", |config| state(config).starts_with("True/Updating")).await;
    let status = serde_json::to_value(config.status).expect("JSON");
    assert_eq!(status["runtimeClasses"], json!(["kata"]));
    for field in ["runtimeClass", "totalNodesCount", "installationStatus", "upgradeStatus", "prevMcpGeneration"] {
        assert_eq!(status[field], Value::Null, "{field}");
    }
    operator.stop().await;
    world.stop().await;
}
