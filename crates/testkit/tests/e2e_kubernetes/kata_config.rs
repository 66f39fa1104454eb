//! From a KataConfig to nodes that run sandboxes, and back.

use std::time::Duration;

use osc_testkit::{command::until, kubectl::Kubectl};
use serde_json::{Value, json};

use crate::{manifests, streams};

/// Name of the KataConfig of these steps.
pub const NAME: &str = "example-kataconfig";
/// Label of the nodes it selects.
pub const LABEL: &str = "sandboxes=yes";
/// How long a change may take until all nodes have it.
const ROLLOUT: Duration = Duration::from_secs(120);

/// A KataConfig for the nodes with [`LABEL`].
pub fn kata_config(name: &str) -> Value {
    json!({
        "apiVersion": "kataconfiguration.openshift.io/v1",
        "kind": "KataConfig",
        "metadata": {"name": name},
        "spec": {"kataConfigPoolSelector": {"matchLabels": {"sandboxes": "yes"}}},
    })
}

/// A pod that serves [`streams::SERVER`] on one node.
pub fn pod_on(node: &str, name: &str, sandboxed: bool) -> Value {
    let mut pod = manifests::pod(name, streams::SERVER, sandboxed);
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    pod["spec"]["terminationGracePeriodSeconds"] = 0.into();
    pod
}

/// Reason of what is in progress, and the nodes that are ready.
pub fn state(kubectl: &Kubectl<'_>) -> (String, Vec<Value>) {
    let config = kubectl.get(&format!("kataconfig {NAME}"));
    let conditions = config["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let progress = conditions.iter().find(|condition| condition["type"] == "InProgress");
    let reason = progress.and_then(|condition| condition["reason"].as_str()).unwrap_or("none");
    (reason.to_owned(), config["status"]["kataNodes"]["installed"].as_array().cloned().unwrap_or_default())
}

/// Waits until exactly `nodes` have sandboxes, and nothing is under way.
#[track_caller]
pub fn installed(kubectl: &Kubectl<'_>, nodes: &[&str]) {
    let wanted = (String::new(), nodes.iter().map(|&node| Value::from(node)).collect());
    eventually(kubectl, &format!("sandboxes on {nodes:?}"), || state(kubectl) == wanted);
}

/// The first node gets sandboxes while a pod runs there, and runs one.
pub fn first_node(kubectl: &Kubectl<'_>, node: &str) {
    kubectl.says("apply -f -", &pod_on(node, "plain", false).to_string(), "created");
    kubectl.ok("wait pod/plain --for=condition=Ready --timeout=60s");
    let container = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
    let started = container(&kubectl.get("pod plain"));
    kubectl.says(&format!("label node {node} {LABEL}"), "", "labeled");

    kubectl.says("apply -f -", &kata_config(NAME).to_string(), "created");
    installed(kubectl, &[node]);
    kubectl.says("get mcp kata-oc", "", "rendered-kata-oc-");
    let now = container(&kubectl.get("pod plain"));
    assert_eq!((&now["containerID"], &now["restartCount"]), (&started["containerID"], &json!(0)), "not restarted");

    kubectl.says("apply -f -", &pod_on(node, "box", true).to_string(), "created");
    kubectl.ok("wait pod/box --for=condition=Ready --timeout=120s");
    let inside = kubectl.ok("exec box -- uname -r");
    assert_ne!(inside, nix::sys::utsname::uname().unwrap().release().to_str().unwrap());
}

/// A node that is selected gets sandboxes; one that no longer is loses them.
pub fn another_node(kubectl: &Kubectl<'_>, first: &str, node: &str) {
    kubectl.says(&format!("label node {node} {LABEL}"), "", "labeled");
    installed(kubectl, &[first, node]);
    kubectl.says(&format!("label node {node} sandboxes-"), "", "label");
    installed(kubectl, &[first]);
}

/// What must not be: a second KataConfig, and one that makes no sense.
pub fn refusals(kubectl: &Kubectl<'_>) {
    let duplicate = "A KataConfig instance already exists, refusing to create a duplicate";
    kubectl.refuses("create -f -", &kata_config("another").to_string(), duplicate);
    let level = format!("patch kataconfig {NAME} --type=merge -p {{\"spec\":{{\"logLevel\":\"loud\"}}}}");
    kubectl.refuses(&level, "", "spec.logLevel: Unsupported value: \"loud\"");
}

/// A pod is in the way; without it everything goes.
pub fn removal(kubectl: &Kubectl<'_>) {
    kubectl.says(&format!("delete kataconfig {NAME} --wait=false"), "", "deleted");
    eventually(kubectl, "the pod is in the way", || state(kubectl).0 == "BlockedByExistingKataPods");
    kubectl.says("delete pod box", "", "deleted");
    let gone = || kubectl.run(&format!("get kataconfig {NAME}"), &[]).errors().contains("not found");
    eventually(kubectl, "the KataConfig is gone", gone);
    let nodes = kubectl.ok("get nodes --show-labels");
    assert!(!nodes.contains("kata-oc"), "{nodes}");
    // The collector of garbage takes its time.
    eventually(kubectl, "no runtime class", || kubectl.get("runtimeclasses")["items"] == json!([]));
    kubectl.refuses("get mcp kata-oc", "", "not found");
}

#[track_caller]
fn eventually(kubectl: &Kubectl<'_>, what: &str, seen: impl FnMut() -> bool) {
    if !until(ROLLOUT, seen) {
        let words = kubectl.run("get kataconfigs,mcp,nodes,pods,events --output=wide", &[]).text();
        panic!("{what}: {words}\n{}", kubectl.run("describe kataconfigs", &[]).text());
    }
}
