//! Taints and tolerations.

use k8s_openapi::api::core::v1::{Taint, Toleration};

pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
pub(crate) const NO_EXECUTE: &str = "NoExecute";
pub(crate) const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub(crate) const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
pub(crate) const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
pub(crate) const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
pub(crate) const PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
pub(crate) const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

/// Whether one toleration covers one taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let same_or_any = |wanted: &Option<String>, have: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == have);
    if !same_or_any(&toleration.effect, &taint.effect) || !same_or_any(&toleration.key, &taint.key) {
        return false;
    }
    let any_key = toleration.key.as_deref().unwrap_or_default().is_empty();
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        // Without a key only Exists is meaningful.
        "" | "Equal" => {
            !any_key && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

/// First taint with one of `effects` that nothing tolerates.
pub(crate) fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// A taint without value.
pub(crate) fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.into(), effect: effect.into(), value: None, time_added: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    #[test]
    fn tolerations_cover_taints_by_key_value_and_effect() {
        let red: Taint = object(json!({"key": "colour", "value": "red", "effect": "NoSchedule"}));
        for (toleration, want) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "colour", "operator": "Exists"}), true),
            (json!({"key": "colour", "value": "red"}), true),
            (json!({"key": "colour", "operator": "Equal", "value": "red", "effect": "NoSchedule"}), true),
            (json!({"key": "colour", "value": "blue"}), false),
            (json!({"key": "colour"}), false),
            (json!({"key": "shape", "operator": "Exists"}), false),
            (json!({"key": "colour", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"value": "red"}), false),
            (json!({"operator": "Sometimes", "key": "colour"}), false),
        ] {
            assert_eq!(tolerates(&object(toleration.clone()), &red), want, "{toleration}");
        }
    }

    #[test]
    fn only_the_asked_effects_count() {
        let taints = [taint("a", PREFER_NO_SCHEDULE), taint("b", NO_EXECUTE)];
        assert_eq!(untolerated(&taints, &[], &[NO_SCHEDULE]), None);
        assert_eq!(untolerated(&taints, &[], &[NO_SCHEDULE, NO_EXECUTE]).unwrap().key, "b");
    }
}
