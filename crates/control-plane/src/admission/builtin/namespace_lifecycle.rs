//! NamespaceLifecycle: objects live in namespaces that exist and stay.

use osc_api::status::{Cause, Status};

use super::{Attributes, Operation, text};
use crate::reader::Reader;

/// Namespaces the cluster cannot do without.
const UNDELETABLE: [&str; 3] = ["default", "kube-public", "kube-system"];

pub(super) fn admit(reader: &Reader, attributes: &Attributes<'_>) -> Result<(), Status> {
    if attributes.is(&[Operation::Delete], "", "namespaces") && UNDELETABLE.contains(&attributes.name) {
        return Err(attributes.forbidden("this namespace may not be deleted"));
    }
    let resource = attributes.resource;
    if !resource.namespaced || attributes.operation == Operation::Delete {
        return Ok(());
    }
    // One may ask about permissions in namespaces that do not exist.
    if resource.is("authorization.k8s.io", "localsubjectaccessreviews") {
        return Ok(());
    }
    let name = attributes.namespace;
    let Some(namespace) = reader.get("", "namespaces", "", name)? else {
        let namespaces = osc_api::builtin().find("", "v1", "namespaces");
        return Err(namespaces.map_or_else(Status::unknown_path, |resource| Status::not_found(resource, name)));
    };
    let ends =
        text(&namespace["status"], "phase") == "Terminating" || namespace["metadata"]["deletionTimestamp"].is_string();
    if attributes.operation != Operation::Create || !ends {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let cause =
        Cause::new("NamespaceTerminating", format!("namespace {name} is being terminated"), "metadata.namespace");
    Err(attributes.forbidden(why).with_causes([cause]))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{World, namespace, resource};
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn namespaces_must_exist_and_stay() {
        let world = World::with(&[namespace("ending", "Terminating")]).await;
        let gone = "pods \"x\" is forbidden: unable to create new content in namespace ending because it is being \
                    terminated";
        let kept = "namespaces \"kube-system\" is forbidden: this namespace may not be deleted";
        let rows = [
            (Operation::Create, "pods", "default", "x", None),
            (Operation::Create, "pods", "ending", "x", Some((403, gone))),
            (Operation::Update, "pods", "ending", "x", None),
            (Operation::Delete, "pods", "ending", "x", None),
            (Operation::Create, "pods", "absent", "x", Some((404, "namespaces \"absent\" not found"))),
            (Operation::Create, "nodes", "", "x", None),
            (Operation::Delete, "namespaces", "", "kube-system", Some((403, kept))),
            (Operation::Delete, "namespaces", "", "ending", None),
            (Operation::Update, "namespaces", "", "kube-system", None),
        ];
        for (operation, kind, namespace, name, want) in rows {
            let object = json!({});
            let attributes =
                Attributes { namespace, name, resource: resource(kind), ..world.asks(operation, kind, &object) };
            let seen = admit(&world.reader, &attributes).err();
            let seen = seen.as_ref().map(|status| (status.code, status.message.as_str()));
            assert_eq!(seen, want, "{operation:?} {kind} {namespace}");
        }
    }

    #[tokio::test]
    async fn the_cause_tells_that_the_namespace_ends() {
        let world = World::with(&[namespace("ending", "Terminating")]).await;
        let object = json!({ "metadata": { "name": "x", "namespace": "ending" } });
        let status = admit(&world.reader, &world.asks(Operation::Create, "configmaps", &object)).unwrap_err();
        assert_eq!(status.details.unwrap().causes[0].reason, "NamespaceTerminating");
    }
}
