//! What every cluster has from the start.

use std::net::IpAddr;

use osc_access::{Identity, rbac};
use osc_api::status::Status;
use serde_json::{Value, json};
use tracing::info;

use crate::{
    api::Api,
    call::WriteOptions,
    write::{self, Intent, Ownership, create, update},
};

/// Roles with this annotation follow the program; an administrator who sets it
/// to false keeps his own.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Creates what is missing and brings roles up to date.
///
/// # Errors
/// The first refusal: a cluster without these objects is not usable.
pub(crate) async fn run(api: &Api) -> Result<(), Status> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(api, "", "v1", "namespaces", json!({"metadata": {"name": name}})).await?;
    }
    for (kind, object) in rbac::bootstrap::objects() {
        ensure_role(api, kind, object).await?;
    }
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(api, "scheduling.k8s.io", "v1", "priorityclasses", class).await?;
    }
    own_service(api).await
}

/// The Service `kubernetes`, by which pods find this server.
async fn own_service(api: &Api) -> Result<(), Status> {
    let address = api.config.service_network.first().to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let port = json!({"name": "https", "port": 443, "protocol": "TCP", "targetPort": api.config.port()});
    let service = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": address, "ports": [port]},
    });
    ensure(api, "", "v1", "services", service).await?;
    let advertised = api.config.advertise;
    if advertised.is_loopback() || advertised.is_unspecified() {
        // Kubernetes allows no such endpoints: they would mean something else in every pod.
        return Ok(());
    }
    let ports = json!([{"name": "https", "port": api.config.port(), "protocol": "TCP"}]);
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": advertised.to_string()}], "ports": ports}],
    });
    replace(api, "", "v1", "endpoints", endpoints).await?;
    let slice = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if matches!(advertised, IpAddr::V4(_)) { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [advertised.to_string()], "conditions": {"ready": true}}],
        "ports": ports,
    });
    replace(api, "discovery.k8s.io", "v1", "endpointslices", slice).await
}

async fn ensure_role(api: &Api, kind: rbac::Kind, object: Value) -> Result<(), Status> {
    let group = "rbac.authorization.k8s.io";
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let Some(old) = api.reader.get(group, kind.plural(), "", name)? else {
        return ensure(api, group, "v1", kind.plural(), object).await;
    };
    let follows = old["metadata"]["annotations"][AUTO_UPDATE] == "true";
    // The rules of aggregating roles are filled in by their controller.
    let fields: &[&str] = if object.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
        &["aggregationRule"]
    } else {
        &["rules", "subjects"]
    };
    if !follows || fields.iter().all(|field| object.get(*field) == old.get(*field)) {
        return Ok(());
    }
    info!(kind = kind.plural(), name, "bootstrap role brought up to date");
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    change(api, group, "v1", kind.plural(), "", name, |old| {
        let mut new = old.clone();
        for field in &fields {
            write::shape::copy_field(&mut new, &object, field);
        }
        Ok(new)
    })
    .await
}

/// Creates an object unless it is there.
async fn ensure(api: &Api, group: &str, version: &str, plural: &str, mut object: Value) -> Result<(), Status> {
    let snapshot = api.catalog.snapshot();
    let served = snapshot.find(group, version, plural).ok_or_else(Status::unknown_path)?;
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    if api.reader.get(group, plural, &namespace, &name)?.is_some() {
        return Ok(());
    }
    object["apiVersion"] = served.api_version.as_str().into();
    object["kind"] = served.resource.kind.as_str().into();
    let identity = Identity::administrator();
    let intent = Intent {
        api,
        served,
        identity: &identity,
        namespace: &namespace,
        name: &name,
        subresource: "",
        options: options(),
        ownership: Ownership::Update,
        warn: &write::nobody,
    };
    match create::create(&intent, object).await {
        Err(status) if status.reason == "AlreadyExists" => Ok(()),
        other => other.map(drop),
    }
}

/// Creates an object, or gives the one there its content.
async fn replace(api: &Api, group: &str, version: &str, plural: &str, object: Value) -> Result<(), Status> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    ensure(api, group, version, plural, object.clone()).await?;
    change(api, group, version, plural, &namespace, &name, |old| {
        let mut new = old.clone();
        for field in
            object.as_object().into_iter().flatten().map(|(field, _)| field).filter(|field| *field != "metadata")
        {
            write::shape::copy_field(&mut new, &object, field);
        }
        Ok(new)
    })
    .await
}

async fn change(
    api: &Api,
    group: &str,
    version: &str,
    plural: &str,
    namespace: &str,
    name: &str,
    change: impl Fn(&Value) -> Result<Value, Status> + Sync,
) -> Result<(), Status> {
    let snapshot = api.catalog.snapshot();
    let served = snapshot.find(group, version, plural).ok_or_else(Status::unknown_path)?;
    let identity = Identity::administrator();
    let intent = Intent {
        api,
        served,
        identity: &identity,
        namespace,
        name,
        subresource: "",
        options: options(),
        ownership: Ownership::Update,
        warn: &write::nobody,
    };
    update::update(&intent, change).await.map(drop)
}

fn options() -> WriteOptions {
    WriteOptions { dry_run: false, manager: "kube-apiserver".into() }
}
