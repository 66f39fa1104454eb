//! Manifests of the operator, made from the same code that runs: for kustomize and for
//! the Operator Lifecycle Manager.

mod dashboard;
mod machine_config;
mod monitoring;
mod olm;
mod probing;
mod rbac;
mod rules;
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
    /// Images of what configures machines; none where the platform does.
    pub machine_config: Option<MachineConfigImages>,
    /// Version of the operator, `X.Y.Z`.
    pub version: String,
    /// Version it replaces.
    pub replaces: Option<String>,
    /// Extension that MachineConfigs ask for.
    pub extension: String,
}

/// Images for clusters without the Machine Config Operator.
#[derive(Clone, Debug)]
pub struct MachineConfigImages {
    /// Image with controller and daemon.
    pub programs: String,
    /// Image with what nodes need to run sandboxes.
    pub payload: String,
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path inside the bundle.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Manifests for `kubectl apply -k`: the whole, and beside it directories `probing` and
/// `monitoring`, for clusters that want them.
pub fn kustomize(settings: &Settings) -> Vec<File> {
    let mut files = tree("", objects(settings));
    if let Some(images) = &settings.machine_config {
        files.extend(tree("probing/", vec![("probing.yaml", probing::objects(&settings.image, &images.payload))]));
    }
    files.extend(tree("monitoring/", monitoring::files(settings)));
    files
}

/// A directory that can be applied as a whole.
fn tree(directory: &str, objects: Vec<(&str, Vec<Value>)>) -> Vec<File> {
    let resources: Vec<&str> = objects.iter().map(|(path, _)| *path).collect();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    });
    let all = objects.into_iter().chain([("kustomization.yaml", vec![kustomization])]);
    all.map(|(path, objects)| file(&format!("{directory}{path}"), &objects)).collect()
}

/// A bundle in the format registry+v1.
pub fn olm(settings: &Settings) -> Vec<File> {
    olm::files(settings)
}

/// All objects in the order in which they are created.
fn objects(settings: &Settings) -> Vec<(&'static str, Vec<Value>)> {
    let place = Place::Service(NAMESPACE, configuration::SERVICE);
    let mut all = vec![
        ("namespace.yaml", vec![workload::namespace()]),
        ("crds.yaml", definitions()),
        ("rbac.yaml", rbac::objects()),
        ("webhook.yaml", vec![workload::webhook_service(), value(&configuration::configuration(&place, None))]),
        (
            "operator.yaml",
            vec![workload::deployment(settings), workload::metrics_service(workload::DEPLOYMENT, &workload::labels())],
        ),
    ];
    if let Some(images) = &settings.machine_config {
        let programs = machine_config::programs(&images.programs, &images.payload);
        all.push(("machine-config-crds.yaml", osc_objects::machine_config_crds().iter().map(value).collect()));
        all.push(("machine-config-rbac.yaml", machine_config::rbac_objects()));
        all.push(("machine-config.yaml", programs));
    }
    all
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
