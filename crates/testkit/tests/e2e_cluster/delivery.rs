//! What `make build` delivers, on a cluster that has none of it: images are loaded, the
//! bundle is applied as an administrator does, a KataConfig comes and goes.
//!
//! This cluster offers sandboxes by itself (`--sandboxes`), so it has no operator but the one
//! in a pod. All that is changed in the manifests is the node's root directory: prober and
//! daemon get one beside the machine's.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use osc_objects::names::NAMESPACE;
use osc_testkit::{
    cluster::Cluster,
    command,
    host::{LIMIT, built},
    kubectl::Kubectl,
    processes,
};
use serde_json::{Value, json};

use super::{
    kataconfig::{CONFIG, condition, gone, installed},
    node_root::NodeRoot,
};

const OPERATOR: &str = "controller-manager";
const CONTROLLER: &str = "machine-config-controller";
const DAEMON: &str = "machine-config-daemon";
const PROBER: &str = "sandboxed-containers-prober";

/// What is told apart of programs of which several run and one acts.
struct Replicated {
    deployment: &'static str,
    program: &'static str,
    label: &'static str,
    lease: &'static str,
    metric: &'static str,
}

const REPLICATED: [Replicated; 2] = [
    Replicated {
        deployment: OPERATOR,
        program: "/usr/bin/osc-operator run",
        label: "control-plane=controller-manager",
        lease: "290f4947.kataconfiguration.openshift.io",
        metric: "osc_operator_leader 1",
    },
    Replicated {
        deployment: CONTROLLER,
        program: "/usr/bin/machine-config-controller",
        label: "name=machine-config-controller",
        lease: "machine-config-controller",
        metric: "mcc_leader 1",
    },
];

#[test]
fn images_and_bundle_bring_sandboxes_and_take_them_away() {
    let cluster = cluster();
    let kubeconfig = cluster.root.join("kubeconfig");
    let kubectl = Kubectl { namespace: NAMESPACE.into(), ..Kubectl::new(&kubeconfig) };
    let root = NodeRoot::make(cluster.root.join("node"));
    let before = root.node.files();
    let bundle = bundle(&cluster);
    kubectl.run("apply -k", &[&bundle]).ok();
    kubectl.ok(&format!("scale deployment/{OPERATOR} --replicas=2"));
    for program in [OPERATOR, CONTROLLER].map(|name| format!("deployment/{name}")) {
        kubectl.ok(&format!("rollout status {program} --timeout=90s"));
    }
    for program in [DAEMON, PROBER].map(|name| format!("daemonset/{name}")) {
        kubectl.ok(&format!("rollout status {program} --timeout=90s"));
    }
    for program in &REPLICATED {
        confined(&kubectl, program);
        one_acts(&cluster, &kubectl, program);
    }

    let wanted = kata_config(CONFIG);
    kubectl.says("create -f -", &wanted, "created");
    installed(&cluster, &["worker-1"]);
    on_the_node(&kubectl, &root);
    assert_eq!(condition(&cluster.get(&["kataconfig", CONFIG]), "Degraded")[1], "AsExpected");
    let duplicate = "A KataConfig instance already exists, refusing to create a duplicate";
    kubectl.refuses("create -f -", &kata_config("second"), duplicate);
    measured(&kubectl);
    nobody_was_refused(&kubectl);

    kubectl.says(&format!("delete kataconfig {CONFIG} --timeout=60s"), "", "deleted");
    gone(&cluster);
    cluster.eventually("the node is as it was", || root.node.files() == before);
    assert_eq!(root.told(), ["restart containerd.service"; 2], "once to bring it, once to take it away");
    assert!(!root.engine_knows());
    kubectl.run("delete -k", &[&bundle]).ok();
    kubectl.refuses(&format!("get namespace {NAMESPACE}"), "", "not found");
    drop(root);
    cluster.end();
}

/// A cluster whose node has the images.
fn cluster() -> Cluster {
    let images = ["osc-operator", "machine-config", "sandboxed-containers-payload"];
    let archives = images.map(|image| built(&format!("target/images/{image}.tar")));
    let mut options = vec!["--sandboxes"];
    for archive in &archives {
        options.extend(["--image-archive", archive.to_str().unwrap()]);
    }
    let cluster = Cluster::up_with(&options);
    forget_class(&cluster);
    cluster
}

/// The RuntimeClass is the cluster's own; the operator makes another.
fn forget_class(cluster: &Cluster) {
    cluster.kubectl(&["delete", "runtimeclass", "kata"], "").ok();
}

/// Applies what the programs need of the bundle, less the programs.
pub fn define(cluster: &Cluster) {
    forget_class(cluster);
    write_bundle(cluster);
    for file in ["namespace", "crds", "rbac", "machine-config-crds", "machine-config-rbac"] {
        let path = cluster.root.join(format!("bundle/{file}.yaml"));
        cluster.kubectl(&["apply", "-f", path.to_str().unwrap()], "").ok();
    }
    cluster.kubectl(&["wait", "crd", "--all", "--for=condition=Established", "--timeout=30s"], "").ok();
}

fn write_bundle(cluster: &Cluster) {
    let mut write = Command::new(built("target/release/osc-operator"));
    write.args(["bundle", "--extension=kata-containers", "--image=localhost/osc-operator:latest"]);
    write.arg("--machine-config-image=localhost/machine-config:latest");
    write.arg("--payload-image=localhost/sandboxed-containers-payload:latest");
    write.arg(cluster.root.join("bundle"));
    command::run(write, b"", LIMIT).ok();
}

/// Writes the bundle, and beside it what this node needs different; gives that directory.
fn bundle(cluster: &Cluster) -> String {
    write_bundle(cluster);
    let spec = "/spec/template/spec";
    let root = json!({
        "op": "replace",
        "path": format!("{spec}/volumes/0/hostPath/path"),
        "value": cluster.root.join("node"),
    });
    // Mounted below that root for all to see, engines would take them for theirs.
    let groups = [
        json!({
            "op": "add",
            "path": format!("{spec}/volumes/-"),
            "value": {"name": "groups", "hostPath": {"path": "/sys/fs/cgroup"}},
        }),
        json!({
            "op": "add",
            "path": format!("{spec}/containers/0/volumeMounts/-"),
            "value": {"name": "groups", "mountPath": "/host/sys/fs/cgroup", "readOnly": true},
        }),
    ];
    let probing = json!([root, groups[0], groups[1]]);
    let patch = |name, patch: Value| json!({"target": {"kind": "DaemonSet", "name": name}, "patch": patch.to_string()});
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../bundle", "../bundle/probing"],
        "patches": [patch(DAEMON, json!([root])), patch(PROBER, probing)],
    });
    let directory = cluster.root.join("here");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    directory.display().to_string()
}

fn kata_config(name: &str) -> String {
    json!({
        "apiVersion": "kataconfiguration.openshift.io/v1",
        "kind": "KataConfig",
        "metadata": {"name": name},
        "spec": {"checkNodeEligibility": true},
    })
    .to_string()
}

fn pods(kubectl: &Kubectl<'_>, label: &str) -> Vec<Value> {
    kubectl.get(&format!("pods -l {label}"))["items"].as_array().unwrap().clone()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The kernel holds each of these pods to what its manifest says.
fn confined(kubectl: &Kubectl<'_>, program: &Replicated) {
    let pods = pods(kubectl, program.label);
    assert_eq!(pods.len(), 2, "{pods:#?}");
    for pod in pods {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
        let id = id.trim_start_matches("containerd://");
        let file = |pid: i32, name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let running = processes::with(&[program.program]);
        let process = running.iter().find(|process| file(process.pid, "cgroup").contains(id)).unwrap();
        let status = file(process.pid, "status");
        for line in [
            "Uid:\t65532\t65532\t65532\t65532",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            assert!(status.lines().any(|found| found == line), "{line} in {status}");
        }
        let mounts = file(process.pid, "mountinfo");
        let root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[4] == "/");
        assert!(root.unwrap()[5].split(',').any(|option| option == "ro"), "{mounts}");
    }
}

/// One of the replicas has the lease and acts; when it goes, the other does, at once.
fn one_acts(cluster: &Cluster, kubectl: &Kubectl<'_>, program: &Replicated) {
    let held = || {
        let lease = kubectl.get(&format!("lease {}", program.lease));
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    let acting = || {
        let all = pods(kubectl, program.label);
        let says = |pod: &&Value| page(&pod["status"]["podIP"]).lines().any(|line| line == program.metric);
        all.iter().filter(says).map(|pod| name(pod).to_owned()).collect::<Vec<_>>()
    };
    cluster.eventually("one acts", || acting() == [held()]);
    let first = held();
    kubectl.ok(&format!("delete pod {first} --wait=false"));
    let seen = command::until(LIMIT / 6, || ![first.clone(), String::new()].contains(&held()));
    assert!(seen, "the lease of {} was not handed over", program.deployment);
    kubectl.ok(&format!("rollout status deployment/{} --timeout=60s", program.deployment));
    cluster.eventually("one acts again", || acting() == [held()]);
}

/// What a program tells at this address; nothing while it does not.
fn page(address: &Value) -> String {
    let address = format!("{}:8080", address.as_str().unwrap_or_default()).parse();
    let read = |address| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    address.ok().and_then(|address| read(address).ok()).unwrap_or_default()
}

/// What a KataConfig brought to the node.
fn on_the_node(kubectl: &Kubectl<'_>, root: &NodeRoot) {
    let node = kubectl.get("node worker-1");
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["feature.node.kubernetes.io/runtime.kata"], "true", "{labels}");
    assert_eq!(labels["node-role.kubernetes.io/kata-oc"], "", "{labels}");
    let class = kubectl.get("runtimeclass kata");
    assert_eq!(class["metadata"]["ownerReferences"][0]["kind"], "KataConfig", "{class}");
    assert_eq!(Vec::from_iter(root.node.versions()), [root.node.current().unwrap()]);
    let shim = root.node.payloads().join("current/bin/containerd-shim-kata-v2");
    assert!(shim.exists() && root.node.drop_in().exists());
    assert_eq!(root.told(), ["restart containerd.service"]);
    assert!(root.engine_knows(), "the engine reads its new configuration");
}

/// Services lead to what is scraped, of whichever replica.
fn measured(kubectl: &Kubectl<'_>) {
    for (program, line) in [
        (OPERATOR, "osc_operator_passes_total"),
        (CONTROLLER, "mcc_rounds_total"),
        (DAEMON, "mcd_state{state=\"Done\",config=\"rendered-kata-oc-"),
    ] {
        let service = kubectl.get(&format!("service {program}-metrics"));
        let text = page(&service["spec"]["clusterIP"]);
        assert!(text.contains(line), "no {line} from {program}: {text}");
    }
}

/// With the rights of the bundle, nothing was asked for in vain.
fn nobody_was_refused(kubectl: &Kubectl<'_>) {
    for label in REPLICATED.map(|program| program.label).into_iter().chain(["name=machine-config-daemon"]) {
        let log = kubectl.ok(&format!("logs -l {label} --all-containers --tail=-1"));
        assert!(log.contains("\"level\":\"INFO\""), "{label}: {log}");
        let bad = |line: &&str| line.contains("\"ERROR\"") || line.to_lowercase().contains("forbidden");
        assert_eq!(log.lines().find(bad), None, "{label}");
    }
}
