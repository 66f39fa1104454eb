//! What an administrator does before there is a KataConfig: the bundle, and our
//! programs, each with the token of its own account.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use osc_objects::names::NAMESPACE;
use osc_testkit::{command, host::built, kubectl::Kubectl};
use serde_json::{Value, json};

use crate::{
    kata_config,
    kubernetes::{Kubernetes, LIMIT, free_port},
};

const OPERATOR: &str = "controller-manager";
const CONTROLLER: &str = "machine-config-controller";
const DAEMON: &str = "machine-config-daemon";

/// Installs everything; gives the access for daemons of nodes.
pub fn install(cluster: &mut Kubernetes) -> PathBuf {
    let kubectl = Kubectl { namespace: NAMESPACE.into(), ..cluster.kubectl() };
    manifests(cluster, &kubectl);
    operator(cluster);
    let access = cluster.account(NAMESPACE, CONTROLLER);
    cluster.run(CONTROLLER, "target/release/machine-config-controller", &[], &access);
    cluster.account(NAMESPACE, DAEMON)
}

/// Starts the operator behind the Service of its webhook.
pub fn operator(cluster: &mut Kubernetes) {
    let port = free_port();
    let words = ["run", "--identity=one", "--webhook=webhook-service"].map(String::from);
    let words = [&words[..], &[format!("--webhook-listen={}:{port}", cluster.address)]].concat();
    let access = cluster.account(NAMESPACE, OPERATOR);
    cluster.run("osc-operator", "target/release/osc-operator", &words, &access);
    let kubectl = Kubectl { namespace: NAMESPACE.into(), ..cluster.kubectl() };
    // It runs beside the cluster, not in a pod that a selector could find.
    let endpoints = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "webhook-service"},
        "subsets": [{
            "addresses": [{"ip": cluster.address}],
            "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
        }],
    });
    kubectl.says("apply -f -", &endpoints.to_string(), "endpoints/webhook-service");
    let wanted = kata_config::kata_config("asked-only").to_string();
    cluster.eventually("the webhook answers", |kubectl| {
        !kubectl.with("create --dry-run=server -f -", &wanted).errors().contains("failed calling webhook")
    });
}

/// The bundle, as it is for any cluster, less the programs that run here beside it.
fn manifests(cluster: &Kubernetes, kubectl: &Kubectl<'_>) {
    let directory = cluster.root.join("bundle");
    let mut bundle = Command::new(built("target/release/osc-operator"));
    bundle.args(["bundle", "--image", "localhost/osc-operator:e2e"]);
    bundle.args(["--machine-config-image", "localhost/machine-config:e2e", "--payload-image", "localhost/payload:e2e"]);
    bundle.arg(&directory);
    command::run(bundle, b"", LIMIT).ok();
    for file in ["namespace", "crds", "rbac", "webhook", "machine-config-crds", "machine-config-rbac"] {
        kubectl.run("apply -f", &[&path(&directory, file)]).ok();
    }
    kubectl.ok("wait crd --all --for=condition=Established --timeout=30s");
    for programs in ["operator", "machine-config"] {
        kubectl.run("apply --dry-run=server -f", &[&path(&directory, programs)]).ok();
    }
    let selector = "patch service webhook-service --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/selector\"}]";
    kubectl.says(selector, "", "patched");
}

fn path(directory: &Path, file: &str) -> String {
    directory.join(format!("{file}.yaml")).display().to_string()
}
