//! The bundle of the Operator Lifecycle Manager.

use osc_objects::names::{NAMESPACE, kata};
use serde_json::{Value, json};

use super::{File, Settings, definitions, file, monitoring, rbac, workload};
use crate::webhook::configuration::{NAME, PATH, PORT};

const PACKAGE: &str = "sandboxed-containers-operator";
/// Where the manager mounts the certificate it makes.
const CERTIFICATES: &str = "/tmp/k8s-webhook-server/serving-certs";

pub(super) fn files(settings: &Settings) -> Vec<File> {
    let mut objects = vec![
        ("sandboxed-containers-operator.clusterserviceversion", service_version(settings)),
        ("monitor_serviceaccount", rbac::monitor_account()),
        ("controller-manager-metrics_service", workload::metrics_service(workload::DEPLOYMENT, &workload::labels())),
    ];
    objects.extend(["dashboard_role", "dashboard_rolebinding"].into_iter().zip(rbac::dashboard_objects()));
    objects.extend(monitoring::olm_objects(settings));
    let mut files: Vec<File> =
        objects.into_iter().map(|(name, object)| file(&format!("manifests/{name}.yaml"), &[object])).collect();
    files.push(file("manifests/kataconfiguration.openshift.io_kataconfigs.yaml", &definitions()));
    files.push(file("metadata/annotations.yaml", &[annotations()]));
    files
}

fn annotations() -> Value {
    json!({"annotations": {
        "operators.operatorframework.io.bundle.mediatype.v1": "registry+v1",
        "operators.operatorframework.io.bundle.manifests.v1": "manifests/",
        "operators.operatorframework.io.bundle.metadata.v1": "metadata/",
        "operators.operatorframework.io.bundle.package.v1": PACKAGE,
        "operators.operatorframework.io.bundle.channels.v1": "stable",
        "operators.operatorframework.io.bundle.channel.default.v1": "stable",
    }})
}

fn service_version(settings: &Settings) -> Value {
    let version = &settings.version;
    let mut made = json!({
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "ClusterServiceVersion",
        "metadata": {
            "name": format!("{PACKAGE}.v{version}"),
            "namespace": NAMESPACE,
            "annotations": {
                "alm-examples": example().to_string(),
                "capabilities": "Seamless Upgrades",
                "containerImage": settings.image,
                "features.operators.openshift.io/disconnected": "true",
                "olm.skipRange": format!(">=1.1.0 <{version}"),
                "operatorframework.io/suggested-namespace": NAMESPACE,
            },
            "labels": {"operatorframework.io/arch.amd64": "supported", "operatorframework.io/os.linux": "supported"},
        },
        "spec": {
            "displayName": "OpenShift sandboxed containers Operator",
            "description": "Runs pods in light virtual machines of their own: `runtimeClassName: kata`.",
            "version": version,
            "maturity": "beta",
            "minKubeVersion": "1.28.0",
            "keywords": ["sandboxed-containers", "kata"],
            "provider": {"name": "Sandboxed Containers"},
            "installModes": install_modes(),
            "customresourcedefinitions": {"owned": [{
                "name": "kataconfigs.kataconfiguration.openshift.io",
                "kind": "KataConfig",
                "version": "v1",
                "displayName": "KataConfig",
                "description": "Installs the runtime of sandboxed containers on the nodes it selects.",
            }]},
            "install": {"strategy": "deployment", "spec": strategy(settings)},
            "webhookdefinitions": [webhook()],
            "relatedImages": related_images(settings),
        },
    });
    if let Some(replaces) = &settings.replaces {
        made["spec"]["replaces"] = json!(format!("{PACKAGE}.v{replaces}"));
    }
    made
}

fn example() -> Value {
    json!([{
        "apiVersion": "kataconfiguration.openshift.io/v1",
        "kind": "KataConfig",
        "metadata": {"name": "example-kataconfig"},
        "spec": {"checkNodeEligibility": false, "logLevel": "info"},
    }])
}

fn install_modes() -> Value {
    let modes =
        [("OwnNamespace", true), ("SingleNamespace", true), ("MultiNamespace", false), ("AllNamespaces", false)];
    modes.map(|(mode, supported)| json!({"type": mode, "supported": supported})).into_iter().collect()
}

fn strategy(settings: &Settings) -> Value {
    let webhook = ["--webhook-certificates", CERTIFICATES];
    json!({
        "clusterPermissions": [{"serviceAccountName": rbac::ACCOUNT, "rules": rbac::cluster_rules()}],
        "permissions": [{"serviceAccountName": rbac::ACCOUNT, "rules": rbac::namespace_rules()}],
        "deployments": [{"name": workload::DEPLOYMENT, "spec": workload::deployment_spec(settings, &webhook)}],
    })
}

fn webhook() -> Value {
    json!({
        "type": "ValidatingAdmissionWebhook",
        "generateName": NAME,
        "admissionReviewVersions": ["v1"],
        "containerPort": 443,
        "targetPort": PORT,
        "deploymentName": workload::DEPLOYMENT,
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "webhookPath": PATH,
        "rules": [{
            "apiGroups": ["kataconfiguration.openshift.io"],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["kataconfigs"],
        }],
    })
}

fn related_images(settings: &Settings) -> Value {
    let operator = json!({"name": "operator", "image": settings.image});
    let monitor = settings.monitor_image.as_ref().map(|image| json!({"name": kata::MONITOR, "image": image}));
    std::iter::once(operator).chain(monitor).collect()
}
