//! Manifests of the operator, made from the same code that runs: for kustomize and for
//! the Operator Lifecycle Manager.

mod olm;
mod rbac;
mod workload;

use osc_objects::names::NAMESPACE;
use serde_json::{Value, json};

use crate::webhook::configuration::{self, Place};

/// What manifests depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of the operator.
    pub image: String,
    /// Image of the monitor; none, no monitor.
    pub monitor_image: Option<String>,
    /// Version of the operator, `X.Y.Z`.
    pub version: String,
    /// Version it replaces.
    pub replaces: Option<String>,
    /// Extension that MachineConfigs ask for.
    pub extension: String,
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path inside the bundle.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Manifests for `kubectl apply -k`.
pub fn kustomize(settings: &Settings) -> Vec<File> {
    let mut files: Vec<File> = objects(settings).iter().map(|(path, objects)| file(path, objects)).collect();
    let resources: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    });
    files.push(file("kustomization.yaml", &[kustomization]));
    files
}

/// A bundle in the format registry+v1.
pub fn olm(settings: &Settings) -> Vec<File> {
    olm::files(settings)
}

/// All objects in the order in which they are created.
fn objects(settings: &Settings) -> Vec<(&'static str, Vec<Value>)> {
    let place = Place::Service(NAMESPACE, configuration::SERVICE);
    vec![
        ("namespace.yaml", vec![workload::namespace()]),
        ("crds.yaml", definitions()),
        ("rbac.yaml", rbac::objects()),
        ("webhook.yaml", vec![workload::webhook_service(), value(&configuration::configuration(&place, None))]),
        ("operator.yaml", vec![workload::deployment(settings), workload::metrics_service()]),
    ]
}

fn definitions() -> Vec<Value> {
    osc_objects::own_crds().iter().map(value).collect()
}

fn value(object: &impl serde::Serialize) -> Value {
    serde_json::to_value(object).expect("an object of the API is plain data")
}

fn file(path: &str, objects: &[Value]) -> File {
    let texts = objects.iter().map(|object| serde_yaml_ng::to_string(object).expect("JSON is YAML"));
    File { path: path.into(), text: texts.collect::<Vec<_>>().join("---\n") }
}
