//! A KataConfig on a real Kubernetes: operator, webhook, rights, RuntimeClass, and
//! sandboxed pods that a real kubelet runs.

use osc_objects::names::NAMESPACE;
use osc_testkit::{
    command::until,
    host::{LIMIT, repository},
    kubectl::Kubectl,
};

use crate::{commands, delivery, kata_config, kubernetes::Kubernetes, show, streams};

#[test]
fn a_kataconfig_installs_moves_and_removes_sandboxes() {
    let mut cluster = show("etcd, API server, controllers and scheduler run", Kubernetes::start);
    let daemon =
        show("bundle applied; operator and controller run with its rights", || delivery::install(&mut cluster));
    show("two kubelets join, each with a containerd of its own", || {
        cluster.add_node("worker-1", &daemon);
        cluster.add_node("worker-2", &daemon);
    });
    let kubeconfig = cluster.kubeconfig.clone();
    let kubectl = Kubectl::new(&kubeconfig);
    show("the operator's account may do what it needs, and no more", || rights(&kubectl));
    show("KataConfig: node installed, plain pod goes on, sandboxed pod runs", || {
        kata_config::first_node(&kubectl, "worker-1");
    });
    show("admission charged the overhead of RuntimeClass kata", || charged(&kubectl));
    show("exec, terminal, logs, cp and port-forward into the sandbox", || streams::work(&kubectl, "box"));
    show("hello-openshift answers over the network from its sandbox", || hello(&kubectl));
    show("second KataConfig and bad log level are refused", || kata_config::refusals(&kubectl));
    show("a label brings sandboxes to a node, without it they go", || {
        kata_config::another_node(&kubectl, "worker-1", "worker-2");
    });
    show("an operator that was killed is replaced by another", || {
        cluster.kill("osc-operator");
        delivery::operator(&mut cluster);
        kata_config::refusals(&kubectl);
    });
    show("deletion waits for the sandboxed pod, then nothing is left", || {
        kata_config::removal(&kubectl);
        for node in ["worker-1", "worker-2"] {
            let payload = cluster.node_root(node).join("opt/sandboxed-containers/current");
            cluster.eventually("no payload", |_| !payload.exists());
        }
        kubectl.says("delete pod plain", "", "deleted");
        cluster.end();
    });
}

/// The sample of the documentation.
fn hello(kubectl: &Kubectl<'_>) {
    let sample = repository().join("examples/hello-openshift.yaml");
    kubectl.run("apply -f", &[sample.to_str().unwrap()]).ok();
    kubectl.ok("wait pod/hello-openshift --for=condition=Ready --timeout=120s");
    let address = kubectl.ok("get pod hello-openshift -o jsonpath={.status.podIP}");
    let answered =
        until(LIMIT, || commands::answer(&format!("{address}:8888")).is_ok_and(|text| text.contains("Hello")));
    assert!(answered, "no answer from {address}");
    kubectl.says("delete pod hello-openshift", "", "deleted");
}

/// The accounts of the bundle may do what they need, and nothing beside it.
fn rights(kubectl: &Kubectl<'_>) {
    let operator = format!("system:serviceaccount:{NAMESPACE}:controller-manager");
    for (may, line) in [
        (true, "patch nodes"),
        (true, "create runtimeclasses"),
        (true, "delete machineconfigpools/kata-oc"),
        (false, "delete machineconfigpools/worker"),
        (false, "delete nodes"),
        (false, "get secrets"),
        (false, "create pods"),
    ] {
        let asked = kubectl.run(&format!("auth can-i {line} --as={operator}"), &[]);
        assert_eq!(asked.text(), if may { "yes" } else { "no" }, "{line}");
    }
}

/// Admission of the API server has charged what the machine costs.
fn charged(kubectl: &Kubectl<'_>) {
    let class = kubectl.get("runtimeclass kata");
    let pod = kubectl.get("pod box");
    commands::overhead(kubectl);
    assert!(class["overhead"]["podFixed"]["memory"].is_string(), "{class}");
    assert_eq!(pod["spec"]["overhead"], class["overhead"]["podFixed"]);
    assert_eq!(pod["spec"]["nodeSelector"]["node-role.kubernetes.io/kata-oc"], "");
}
