//! Schemas of the built-in kinds.
//!
//! Fields, types and documentation come from `k8s-openapi`; what it does not carry (how lists and
//! maps are merged and owned) is added from the table in `extensions`.

mod extensions;

use std::sync::LazyLock;

use k8s_openapi::{
    api::{
        admissionregistration::v1 as admissionregistration, apps::v1 as apps, authentication::v1 as authentication,
        authorization::v1 as authorization, autoscaling::v1 as autoscaling, autoscaling::v2 as autoscaling_v2,
        batch::v1 as batch, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
        events::v1 as events, networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
        scheduling::v1 as scheduling, storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
    apimachinery::pkg::apis::meta::v1 as meta,
    kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration,
};
use osc_schema::{Definitions, Node};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::{Resource, builtin, resource};

/// The definition of `meta/v1` `DeleteOptions`.
pub const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// The schemas as OpenAPI v3 `components.schemas`, built anew by every call: a few megabytes.
pub fn openapi() -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    macro_rules! add {
        ($($package:ident: $($kind:ident)+;)+) => { $($(generator.subschema_for::<$package::$kind>();)+)+ };
    }
    add! {
        core: Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod
            PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
        admissionregistration: MutatingWebhookConfiguration ValidatingWebhookConfiguration;
        apiextensions: CustomResourceDefinition;
        apiregistration: APIService;
        apps: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        authentication: SelfSubjectReview TokenRequest TokenReview;
        authorization: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview;
        autoscaling: HorizontalPodAutoscaler Scale;
        autoscaling_v2: HorizontalPodAutoscaler;
        batch: CronJob Job;
        coordination: Lease;
        discovery: EndpointSlice;
        events: Event;
        meta: DeleteOptions;
        networking: Ingress IngressClass NetworkPolicy;
        node: RuntimeClass;
        policy: Eviction PodDisruptionBudget;
        rbac: ClusterRole ClusterRoleBinding Role RoleBinding;
        scheduling: PriorityClass;
        storage: CSIDriver CSINode StorageClass VolumeAttachment;
    }
    let mut schemas = generator.take_definitions(true);
    extensions::inject(&mut schemas);
    for resource in builtin().iter() {
        let schema = resource.definition.as_ref().and_then(|name| schemas.get_mut(name)).and_then(Value::as_object_mut);
        if let Some(schema) = schema {
            let kind = json!([{"group": resource.group, "version": resource.version, "kind": resource.kind}]);
            schema.insert("x-kubernetes-group-version-kind".to_owned(), kind);
        }
    }
    schemas
}

/// The schemas of all built-in kinds, ready to be walked.
pub fn definitions() -> &'static Definitions {
    static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
        // Fixed input: the tests below fail before anybody else can.
        Definitions::from_openapi(&openapi()).expect("the built-in schemas are valid OpenAPI")
    });
    &DEFINITIONS
}

/// The schema of a built-in resource; nothing for custom ones.
pub fn schema_of(resource: &Resource) -> Option<Node<'static>> {
    definitions().node(resource.definition.as_deref()?)
}

/// The schema of a built-in kind that need not be a resource (`Scale`, `Eviction`, `TokenRequest`, …).
///
/// Kinds of `meta/v1` are found in every group, as clients send them.
pub fn schema_of_kind(group: &str, version: &str, kind: &str) -> Option<Node<'static>> {
    definitions().node(&definition_of_kind(group, version, kind))
}

/// The name of the definition [`schema_of_kind`] looks at.
pub(crate) fn definition_of_kind(group: &str, version: &str, kind: &str) -> String {
    match (group, version, kind) {
        (_, _, "DeleteOptions") => DELETE_OPTIONS.to_owned(),
        // Clients before 1.22 evict in v1beta1, whose shape is the same.
        ("policy", "v1beta1", "Eviction") => resource::definition("policy", "v1", "Eviction"),
        _ => resource::definition(group, version, kind),
    }
}

#[cfg(test)]
mod tests {
    use osc_schema::{ListType, MapType};

    use super::*;

    #[test]
    fn every_builtin_kind_has_a_schema() {
        for resource in builtin().iter() {
            let node = schema_of(resource).unwrap_or_else(|| panic!("{} has no schema", resource.qualified()));
            assert!(node.property("metadata").is_some(), "{}", resource.qualified());
            for sub in resource.subresources.iter().filter(|sub| !sub.kind.ends_with("Options")) {
                assert!(schema_of_kind(&sub.group, &sub.version, &sub.kind).is_some(), "{sub:?}");
            }
        }
        assert!(schema_of_kind("policy", "v1beta1", "Eviction").is_some());
        assert!(schema_of_kind("apps", "v1", "DeleteOptions").is_some());
    }

    #[test]
    fn list_keys_for_apply_and_for_patches_differ() {
        let pods = builtin().find("", "v1", "pods").expect("a built-in");
        let spec = schema_of(pods).and_then(|pod| pod.field("spec")).expect("pods have a spec");
        let container = spec.field("containers").and_then(Node::items).expect("a list");
        let ports = container.field("ports").expect("containers have ports");
        assert_eq!(ports.list_type(), &ListType::Map(vec!["containerPort".into(), "protocol".into()]));
        assert_eq!((ports.patch_merge_key(), ports.patch_strategy().merge), (Some("containerPort"), true));
        let volumes = spec.field("volumes").expect("pods have volumes");
        assert!(volumes.patch_strategy().retain_keys && volumes.patch_strategy().merge);
        assert_eq!(spec.field("nodeSelector").map(Node::map_type), Some(MapType::Atomic));
        assert_eq!(spec.field("tolerations").map(|node| node.patch_strategy().merge), Some(false));
        let owners = schema_of(pods).and_then(|pod| pod.field("metadata")?.field("ownerReferences")).expect("a list");
        assert_eq!(owners.patch_merge_key(), Some("uid"));
        let selector =
            schema_of_kind("apps", "v1", "Deployment").and_then(|node| node.field("spec")?.field("selector"));
        assert_eq!(selector.map(Node::map_type), Some(MapType::Atomic));
    }
}
