//! The table of built-in resources.

use super::{Resource, STORED_VERBS, Subresource};

/// Where objects live.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Cluster,
    Namespaced,
}
use Scope::{Cluster, Namespaced};

/// What can be done with the main endpoint.
#[derive(Clone, Copy)]
enum Verbs {
    /// Everything a stored object allows.
    Stored,
    /// Everything but `deletecollection`.
    OneByOne,
    /// Asked once, never stored.
    Create,
    /// Made by the server only.
    Read,
}

/// One line of the table: plural, kind, scope, verbs, short names, categories, subresources.
struct Row(&'static str, &'static str, Scope, Verbs, &'static [&'static str], &'static [&'static str], &'static str);

const ALL: &[&str] = &["all"];
const EXTENSIONS: &[&str] = &["api-extensions"];

/// The same in both versions.
const AUTOSCALERS: &[Row] =
    &[Row("horizontalpodautoscalers", "HorizontalPodAutoscaler", Namespaced, Verbs::Stored, &["hpa"], ALL, "status")];

/// Group, version and the resources in it.
const GROUPS: &[(&str, &str, &[Row])] = &[
    (
        "",
        "v1",
        &[
            Row("bindings", "Binding", Namespaced, Verbs::Create, &[], &[], ""),
            Row("configmaps", "ConfigMap", Namespaced, Verbs::Stored, &["cm"], &[], ""),
            Row("endpoints", "Endpoints", Namespaced, Verbs::Stored, &["ep"], &[], ""),
            Row("events", "Event", Namespaced, Verbs::Stored, &["ev"], &[], ""),
            Row("limitranges", "LimitRange", Namespaced, Verbs::Stored, &["limits"], &[], ""),
            Row("namespaces", "Namespace", Cluster, Verbs::OneByOne, &["ns"], &[], "finalize status"),
            Row("nodes", "Node", Cluster, Verbs::Stored, &["no"], &[], "status"),
            Row("persistentvolumeclaims", "PersistentVolumeClaim", Namespaced, Verbs::Stored, &["pvc"], &[], "status"),
            Row("persistentvolumes", "PersistentVolume", Cluster, Verbs::Stored, &["pv"], &[], "status"),
            Row(
                "pods",
                "Pod",
                Namespaced,
                Verbs::Stored,
                &["po"],
                ALL,
                "attach binding ephemeralcontainers eviction exec log portforward status",
            ),
            Row("podtemplates", "PodTemplate", Namespaced, Verbs::Stored, &[], &[], ""),
            Row(
                "replicationcontrollers",
                "ReplicationController",
                Namespaced,
                Verbs::Stored,
                &["rc"],
                ALL,
                "scale status",
            ),
            Row("resourcequotas", "ResourceQuota", Namespaced, Verbs::Stored, &["quota"], &[], "status"),
            Row("secrets", "Secret", Namespaced, Verbs::Stored, &[], &[], ""),
            Row("serviceaccounts", "ServiceAccount", Namespaced, Verbs::Stored, &["sa"], &[], "token"),
            Row("services", "Service", Namespaced, Verbs::Stored, &["svc"], ALL, "status"),
        ],
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        &[
            Row(
                "mutatingwebhookconfigurations",
                "MutatingWebhookConfiguration",
                Cluster,
                Verbs::Stored,
                &[],
                EXTENSIONS,
                "",
            ),
            Row(
                "validatingwebhookconfigurations",
                "ValidatingWebhookConfiguration",
                Cluster,
                Verbs::Stored,
                &[],
                EXTENSIONS,
                "",
            ),
        ],
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        &[Row(
            "customresourcedefinitions",
            "CustomResourceDefinition",
            Cluster,
            Verbs::Stored,
            &["crd", "crds"],
            EXTENSIONS,
            "status",
        )],
    ),
    ("apiregistration.k8s.io", "v1", &[Row("apiservices", "APIService", Cluster, Verbs::Read, &[], EXTENSIONS, "")]),
    (
        "apps",
        "v1",
        &[
            Row("controllerrevisions", "ControllerRevision", Namespaced, Verbs::Stored, &[], &[], ""),
            Row("daemonsets", "DaemonSet", Namespaced, Verbs::Stored, &["ds"], ALL, "status"),
            Row("deployments", "Deployment", Namespaced, Verbs::Stored, &["deploy"], ALL, "scale status"),
            Row("replicasets", "ReplicaSet", Namespaced, Verbs::Stored, &["rs"], ALL, "scale status"),
            Row("statefulsets", "StatefulSet", Namespaced, Verbs::Stored, &["sts"], ALL, "scale status"),
        ],
    ),
    (
        "authentication.k8s.io",
        "v1",
        &[
            Row("selfsubjectreviews", "SelfSubjectReview", Cluster, Verbs::Create, &[], &[], ""),
            Row("tokenreviews", "TokenReview", Cluster, Verbs::Create, &[], &[], ""),
        ],
    ),
    (
        "authorization.k8s.io",
        "v1",
        &[
            Row("localsubjectaccessreviews", "LocalSubjectAccessReview", Namespaced, Verbs::Create, &[], &[], ""),
            Row("selfsubjectaccessreviews", "SelfSubjectAccessReview", Cluster, Verbs::Create, &[], &[], ""),
            Row("selfsubjectrulesreviews", "SelfSubjectRulesReview", Cluster, Verbs::Create, &[], &[], ""),
            Row("subjectaccessreviews", "SubjectAccessReview", Cluster, Verbs::Create, &[], &[], ""),
        ],
    ),
    ("autoscaling", "v2", AUTOSCALERS),
    ("autoscaling", "v1", AUTOSCALERS),
    (
        "batch",
        "v1",
        &[
            Row("cronjobs", "CronJob", Namespaced, Verbs::Stored, &["cj"], ALL, "status"),
            Row("jobs", "Job", Namespaced, Verbs::Stored, &[], ALL, "status"),
        ],
    ),
    ("coordination.k8s.io", "v1", &[Row("leases", "Lease", Namespaced, Verbs::Stored, &[], &[], "")]),
    ("discovery.k8s.io", "v1", &[Row("endpointslices", "EndpointSlice", Namespaced, Verbs::Stored, &[], &[], "")]),
    ("events.k8s.io", "v1", &[Row("events", "Event", Namespaced, Verbs::Stored, &["ev"], &[], "")]),
    (
        "networking.k8s.io",
        "v1",
        &[
            Row("ingressclasses", "IngressClass", Cluster, Verbs::Stored, &[], &[], ""),
            Row("ingresses", "Ingress", Namespaced, Verbs::Stored, &["ing"], &[], "status"),
            Row("networkpolicies", "NetworkPolicy", Namespaced, Verbs::Stored, &["netpol"], &[], ""),
        ],
    ),
    ("node.k8s.io", "v1", &[Row("runtimeclasses", "RuntimeClass", Cluster, Verbs::Stored, &[], &[], "")]),
    (
        "policy",
        "v1",
        &[Row("poddisruptionbudgets", "PodDisruptionBudget", Namespaced, Verbs::Stored, &["pdb"], &[], "status")],
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        &[
            Row("clusterrolebindings", "ClusterRoleBinding", Cluster, Verbs::Stored, &[], &[], ""),
            Row("clusterroles", "ClusterRole", Cluster, Verbs::Stored, &[], &[], ""),
            Row("rolebindings", "RoleBinding", Namespaced, Verbs::Stored, &[], &[], ""),
            Row("roles", "Role", Namespaced, Verbs::Stored, &[], &[], ""),
        ],
    ),
    ("scheduling.k8s.io", "v1", &[Row("priorityclasses", "PriorityClass", Cluster, Verbs::Stored, &["pc"], &[], "")]),
    (
        "storage.k8s.io",
        "v1",
        &[
            Row("csidrivers", "CSIDriver", Cluster, Verbs::Stored, &[], &[], ""),
            Row("csinodes", "CSINode", Cluster, Verbs::Stored, &[], &[], ""),
            Row("storageclasses", "StorageClass", Cluster, Verbs::Stored, &["sc"], &[], ""),
            Row("volumeattachments", "VolumeAttachment", Cluster, Verbs::Stored, &[], &[], "status"),
        ],
    ),
];

/// Subresources that speak another kind or cannot be read and written like `status`:
/// name, group, version, kind, verbs.
const SPECIAL: &[(&str, &str, &str, &str, &[&str])] = &[
    ("attach", "", "v1", "PodAttachOptions", &["create", "get"]),
    ("binding", "", "v1", "Binding", &["create"]),
    ("eviction", "policy", "v1", "Eviction", &["create"]),
    ("exec", "", "v1", "PodExecOptions", &["create", "get"]),
    ("finalize", "", "v1", "Namespace", &["update"]),
    ("log", "", "v1", "Pod", &["get"]),
    ("portforward", "", "v1", "PodPortForwardOptions", &["create", "get"]),
    ("scale", "autoscaling", "v1", "Scale", &["get", "patch", "update"]),
    ("token", "authentication.k8s.io", "v1", "TokenRequest", &["create"]),
];

/// The whole table as resources.
pub(super) fn rows() -> Vec<Resource> {
    let mut resources = Vec::new();
    for (group, version, rows) in GROUPS {
        resources.extend(rows.iter().map(|row| resource(group, version, row)));
    }
    resources
}

fn resource(group: &str, version: &str, row: &Row) -> Resource {
    let Row(plural, kind, scope, verbs, short_names, categories, subresources) = row;
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: (*plural).to_owned(),
        singular: kind.to_lowercase(),
        kind: (*kind).to_owned(),
        list_kind: format!("{kind}List"),
        namespaced: *scope == Namespaced,
        short_names: owned(short_names),
        categories: owned(categories),
        verbs: match verbs {
            Verbs::Stored => owned(STORED_VERBS),
            Verbs::OneByOne => {
                STORED_VERBS.iter().filter(|verb| **verb != "deletecollection").map(|verb| (*verb).to_owned()).collect()
            }
            Verbs::Create => owned(&["create"]),
            Verbs::Read => owned(&["get", "list", "watch"]),
        },
        subresources: subresources.split_whitespace().map(|name| subresource(name, group, version, kind)).collect(),
        definition: Some(definition(group, version, kind)),
    }
}

fn subresource(name: &str, group: &str, version: &str, kind: &str) -> Subresource {
    let (group, version, kind, verbs) = match SPECIAL.iter().find(|special| special.0 == name) {
        Some((_, group, version, kind, verbs)) => (*group, *version, *kind, *verbs),
        None => (group, version, kind, ["get", "patch", "update"].as_slice()),
    };
    Subresource {
        name: name.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        verbs: owned(verbs),
    }
}

/// The name under which a kind's schema is published.
pub(crate) fn definition(group: &str, version: &str, kind: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "apiextensions.k8s.io" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"),
        "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}"),
        group => {
            let package = group.split('.').next().unwrap_or(group);
            format!("io.k8s.api.{package}.{version}.{kind}")
        }
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
