//! DefaultTolerationSeconds: pods survive five minutes on a node that is silent or not ready.

use serde_json::{Value, json};

use super::{Attributes, Operation, list, list_mut, text};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: u32 = 300;

pub(super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) {
    if !attributes.is(&[Operation::Create, Operation::Update], "", "pods") || !pod["spec"].is_object() {
        return;
    }
    for key in TAINTS {
        if list(&pod["spec"], "tolerations").iter().any(|toleration| covers(toleration, key)) {
            continue;
        }
        if let Some(tolerations) = list_mut(&mut pod["spec"], "tolerations") {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
}

/// Whether a toleration already says what to do about this taint.
fn covers(toleration: &Value, key: &str) -> bool {
    let is_or_all = |field, wanted| ["", wanted].contains(&text(toleration, field));
    is_or_all("key", key) && is_or_all("effect", "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{World, pod};
    use super::*;

    #[tokio::test]
    async fn what_is_not_tolerated_yet_is_added() {
        let world = World::with(&[]).await;
        let rows = [
            (json!([]), vec![TAINTS[0], TAINTS[1]]),
            (json!(null), vec![TAINTS[0], TAINTS[1]]),
            (json!([{ "operator": "Exists" }]), vec![""]),
            (json!([{ "operator": "Exists", "effect": "NoSchedule" }]), vec!["", TAINTS[0], TAINTS[1]]),
            (json!([{ "key": TAINTS[0], "effect": "NoExecute" }]), vec![TAINTS[0], TAINTS[1]]),
            (json!([{ "key": TAINTS[1] }]), vec![TAINTS[1], TAINTS[0]]),
        ];
        for (tolerations, want) in rows {
            let mut pod = pod();
            pod["spec"]["tolerations"] = tolerations.clone();
            let given = pod.clone();
            let attributes = world.asks(Operation::Create, "pods", &given);
            admit(&attributes, &mut pod);
            let once = pod.clone();
            admit(&attributes, &mut pod);
            assert_eq!(once, pod, "once is enough");
            let keys: Vec<&str> = list(&pod["spec"], "tolerations").iter().map(|one| text(one, "key")).collect();
            assert_eq!(keys, want, "{tolerations}");
        }
    }
}
