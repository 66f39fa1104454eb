//! TaintNodesByCondition: a new node takes pods only after it proved to be ready.

use serde_json::{Value, json};

use super::{Attributes, Operation, list, list_mut, text};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn admit(attributes: &Attributes<'_>, node: &mut Value) {
    if !attributes.is(&[Operation::Create], "", "nodes") {
        return;
    }
    let tainted = |taint: &Value| text(taint, "key") == NOT_READY && text(taint, "effect") == "NoSchedule";
    if list(&node["spec"], "taints").iter().any(tainted) {
        return;
    }
    let spec = super::slot(node, "spec", || json!({}));
    if let Some(taints) = spec.and_then(|spec| list_mut(spec, "taints")) {
        taints.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::World;
    use super::*;

    #[tokio::test]
    async fn new_nodes_are_tainted_once() {
        let world = World::with(&[]).await;
        for mut node in [json!({ "metadata": { "name": "n" } }), json!({ "metadata": { "name": "n" }, "spec": null })] {
            let given = node.clone();
            let attributes = world.asks(Operation::Create, "nodes", &given);
            admit(&attributes, &mut node);
            admit(&attributes, &mut node);
            assert_eq!(node["spec"]["taints"], json!([{ "key": NOT_READY, "effect": "NoSchedule" }]));
        }
        let given = json!({ "metadata": { "name": "n" } });
        let mut node = given.clone();
        admit(&world.asks(Operation::Update, "nodes", &given), &mut node);
        assert_eq!(node, given);
    }
}
