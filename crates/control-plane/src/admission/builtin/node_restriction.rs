//! NodeRestriction: a node's agent minds its own node and the pods on it.
//!
//! A broken-out pod may hold its agent's credentials; this keeps it from reaching over to other nodes.

use osc_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, is_mirror, text};
use crate::reader::Reader;

const LEASES: &str = "kube-node-lease";

pub(super) fn admit(
    reader: &Reader,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if !attributes.identity.is_in(osc_access::identity::NODES) {
        return Ok(());
    }
    let Some(node) = attributes.identity.node_name() else {
        return Err(attributes.forbidden(format!("could not determine node from user {:?}", attributes.identity.user)));
    };
    let old = old.unwrap_or(&Value::Null);
    let refusal =
        match (attributes.resource.group.as_str(), attributes.resource.plural.as_str(), attributes.subresource) {
            ("", "nodes", _) => of_node(attributes, node),
            ("", "pods", "") => of_pod(attributes, node, object, old),
            ("", "pods", "eviction") => match reader.get("", "pods", attributes.namespace, attributes.name)? {
                Some(pod) => of_foreign_pod(node, &pod, "evict"),
                None => None,
            },
            ("", "pods", _) => of_foreign_pod(node, old, "update"),
            ("", "serviceaccounts", "token") => of_token(reader, attributes, node, object)?,
            ("coordination.k8s.io", "leases", _) => of_lease(attributes, node),
            _ => None,
        };
    refusal.map_or(Ok(()), |why| Err(attributes.forbidden(why)))
}

fn of_node(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    let other = attributes.name;
    (other != node).then(|| format!("node {node:?} is not allowed to modify node {other:?}"))
}

fn of_pod(attributes: &Attributes<'_>, node: &str, object: &Value, old: &Value) -> Option<String> {
    match attributes.operation {
        Operation::Create if !is_mirror(object) => Some(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        )),
        Operation::Create => of_foreign_pod(node, object, "create"),
        Operation::Delete => of_foreign_pod(node, old, "delete"),
        operation => Some(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            operation.as_str()
        )),
    }
}

fn of_foreign_pod(node: &str, pod: &Value, verb: &str) -> Option<String> {
    let here = text(&pod["spec"], "nodeName") == node;
    (!here).then(|| format!("node {node:?} can only {verb} pods with spec.nodeName set to itself"))
}

/// A node gets tokens for the pods that run on it only.
fn of_token(
    reader: &Reader,
    attributes: &Attributes<'_>,
    node: &str,
    request: &Value,
) -> Result<Option<String>, Status> {
    let bound = &request["spec"]["boundObjectRef"];
    if text(bound, "kind") != "Pod" || text(bound, "name").is_empty() {
        return Ok(Some("node requested token not bound to a pod".to_owned()));
    }
    if text(bound, "uid").is_empty() {
        return Ok(Some("node requested token with a pod binding without a uid".to_owned()));
    }
    let pod = reader.get("", "pods", attributes.namespace, text(bound, "name"))?.unwrap_or_default();
    if text(&pod["metadata"], "uid") != text(bound, "uid") {
        let (name, uid) = (text(bound, "name"), text(bound, "uid"));
        return Ok(Some(format!("the UID in the bound object reference ({uid}) is not that of pod {name:?}")));
    }
    if text(&pod["spec"], "serviceAccountName") != attributes.name {
        return Ok(Some("node requested token of an account the pod does not use".to_owned()));
    }
    let here = text(&pod["spec"], "nodeName") == node;
    Ok((!here).then(|| "node requested token bound to a pod scheduled on a different node".to_owned()))
}

fn of_lease(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    if attributes.namespace != LEASES {
        return Some(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    let own = attributes.name == node;
    (!own).then(|| "can only access node lease with the same name as the requesting node".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{World, pod, resource};
    use super::*;
    use osc_access::Identity;
    use serde_json::json;

    fn pod_on(node: &str) -> Value {
        let mut pod = pod();
        pod["spec"]["nodeName"] = json!(node);
        pod["spec"]["serviceAccountName"] = json!("robot");
        pod["metadata"]["uid"] = json!("u");
        pod
    }

    #[tokio::test]
    async fn agents_mind_their_own_business() {
        let world = World::with(&[pod_on("n")]).await;
        let (own, foreign) = (pod_on("n"), pod_on("other"));
        let mut mirror = own.clone();
        mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
        let mut foreign_mirror = mirror.clone();
        foreign_mirror["spec"]["nodeName"] = json!("other");
        let token = |uid: &str| json!({ "spec": { "boundObjectRef": { "kind": "Pod", "name": "p", "uid": uid } } });
        let nothing = Value::Null;
        let (create, update, delete) = (Operation::Create, Operation::Update, Operation::Delete);
        let rows = [
            (create, "nodes", "", "n", "", nothing.clone(), &nothing, true),
            (update, "nodes", "status", "n", "", nothing.clone(), &nothing, true),
            (update, "nodes", "status", "other", "", nothing.clone(), &nothing, false),
            (create, "pods", "", "p", "default", own.clone(), &nothing, false),
            (create, "pods", "", "p", "default", mirror, &nothing, true),
            (create, "pods", "", "p", "default", foreign_mirror, &nothing, false),
            (delete, "pods", "", "p", "default", nothing.clone(), &own, true),
            (delete, "pods", "", "p", "default", nothing.clone(), &foreign, false),
            (update, "pods", "", "p", "default", own.clone(), &own, false),
            (update, "pods", "status", "p", "default", own.clone(), &own, true),
            (update, "pods", "status", "p", "default", own.clone(), &foreign, false),
            (create, "pods", "eviction", "p", "default", nothing.clone(), &nothing, true),
            (create, "serviceaccounts", "token", "robot", "default", token("u"), &nothing, true),
            (create, "serviceaccounts", "token", "robot", "default", token("x"), &nothing, false),
            (create, "serviceaccounts", "token", "robot", "default", json!({}), &nothing, false),
            (create, "serviceaccounts", "token", "default", "default", token("u"), &nothing, false),
            (update, "coordination.k8s.io/leases", "", "n", LEASES, nothing.clone(), &nothing, true),
            (update, "coordination.k8s.io/leases", "", "other", LEASES, nothing.clone(), &nothing, false),
            (update, "coordination.k8s.io/leases", "", "n", "default", nothing.clone(), &nothing, false),
            (create, "events", "", "e", "default", nothing.clone(), &nothing, true),
        ];
        let agent = Identity::node("n");
        for (operation, kind, subresource, name, namespace, object, old, want) in rows {
            let asked = world.asks(operation, kind, &object);
            let attributes =
                Attributes { subresource, name, namespace, identity: &agent, resource: resource(kind), ..asked };
            let seen = admit(&world.reader, &attributes, &object, Some(old));
            assert_eq!(seen.is_ok(), want, "{operation:?} {kind}/{subresource} {name} {namespace}: {seen:?}");
            let human = Attributes { identity: &world.identity, ..attributes };
            assert!(admit(&world.reader, &human, &object, Some(old)).is_ok(), "people are not meant");
        }
        let odd = Identity::new("someone", ["system:nodes"]);
        let object = json!({});
        let attributes = Attributes { identity: &odd, ..world.asks(create, "events", &object) };
        assert!(admit(&world.reader, &attributes, &object, None).is_err());
    }
}
