//! Status of releases before 1.5, read once and rewritten.
//!
//! Those releases had no conditions: `installationStatus.IsInProgress` said "True" or
//! "False", and lists of nodes hung below it. 1.5.0 used the key of the runtime class,
//! a string until then, for a list.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{ConditionType, InProgressReason, KataConfigStatus};
use crate::{ConditionStatus, Conditions};

/// Most names taken over from a list.
const MAX_NAMES: usize = 10_000;

pub(super) fn migrate(mut old: KataConfigStatus, now: Timestamp) -> KataConfigStatus {
    let class = old.runtime_class.take();
    let total = old.total_nodes_count.take();
    let installation = old.installation_status.take();
    let removal = old.uninstallation_status.take();
    old.upgrade_status = None;
    old.prev_mcp_generation = None;

    if old.runtime_classes.is_empty() {
        old.runtime_classes = class.as_ref().map(strings).unwrap_or_default();
    }
    if let Some(installation) = installation.filter(|_| old.conditions.is_empty()) {
        take_progress(&mut old, &installation, removal.as_ref(), now);
        old.kata_nodes.node_count = total.as_ref().and_then(Value::as_i64).unwrap_or(0).max(0);
    }
    old
}

fn take_progress(status: &mut KataConfigStatus, installation: &Value, removal: Option<&Value>, now: Timestamp) {
    let list = |from: &Value, path: &str| from.pointer(path).map(strings).unwrap_or_default();
    let nodes = &mut status.kata_nodes;
    nodes.installed = list(installation, "/completed/completedNodesList");
    nodes.installing = list(installation, "/inprogress/binariesInstallNodesList");
    if let Some(removal) = removal {
        nodes.uninstalling = list(removal, "/inprogress/binariesUninstallNodesList");
    }
    nodes.ready_node_count = i64::try_from(nodes.installed.len()).unwrap_or(i64::MAX);

    let says_yes = |value: Option<&Value>| {
        value.is_some_and(|value| value.as_bool() == Some(true) || value.as_str() == Some("True"))
    };
    let removing = removal.is_some_and(|removal| says_yes(removal.pointer("/inprogress/status")));
    let installing =
        says_yes(installation.get("IsInProgress")) || says_yes(installation.pointer("/inprogress/isInProgress"));
    let (reason, holds) = match (removing, installing) {
        (true, _) => (InProgressReason::Uninstalling, ConditionStatus::True),
        (_, true) => (InProgressReason::Installing, ConditionStatus::True),
        _ => (InProgressReason::Idle, ConditionStatus::False),
    };
    status.conditions.set(ConditionType::InProgress.as_str(), holds, reason.as_str(), "", now);
}

/// A string, or a list of strings or of objects with a name.
fn strings(value: &Value) -> Vec<String> {
    let one = |value: &Value| {
        let text = value.as_str().or_else(|| value.get("name").and_then(Value::as_str));
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    match value {
        Value::Array(items) => items.iter().take(MAX_NAMES).filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(status: Value) -> KataConfigStatus {
        serde_json::from_value::<KataConfigStatus>(status).unwrap().migrated(Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_legacy_1_4_status_loads_and_gains_the_present_fields() {
        let status = read(json!({"runtimeClass": "kata", "totalNodesCount": 2, "prevMcpGeneration": 4,
            "installationStatus": {"IsInProgress": "True",
                "inprogress": {"inProgressNodesCount": 1, "isInProgress": true, "binariesInstallNodesList": ["w1"]},
                "completed": {"completedNodesCount": 1, "completedNodesList": ["w0"]},
                "failed": {"failedNodesCount": 0}},
            "unInstallationStatus": {"inprogress": {"status": "False"}}, "upgradeStatus": {}}));
        assert_eq!(status.runtime_classes, ["kata"]);
        assert_eq!((status.kata_nodes.node_count, status.kata_nodes.ready_node_count), (2, 1));
        assert_eq!(status.kata_nodes.installing, ["w1"]);
        assert_eq!(status.conditions.of("InProgress").unwrap().reason, "Installing");
        let written = serde_json::to_value(&status).unwrap();
        for gone in ["runtimeClass", "installationStatus", "unInstallationStatus", "upgradeStatus", "totalNodesCount"] {
            assert!(written.get(gone).is_none(), "{gone} is still written");
        }
    }

    #[test]
    fn the_runtime_class_may_be_a_string_a_list_or_nonsense() {
        for (class, wanted) in [
            (json!("kata"), vec!["kata"]),
            (json!(["kata", "kata-remote"]), vec!["kata", "kata-remote"]),
            (json!(7), vec![]),
            (json!(""), vec![]),
        ] {
            assert_eq!(read(json!({"runtimeClass": class.clone()})).runtime_classes, wanted, "{class}");
        }
        assert_eq!(read(json!({"runtimeClasses": ["a"], "runtimeClass": "b"})).runtime_classes, ["a"]);
    }

    #[test]
    fn a_present_status_is_left_alone() {
        let value = json!({"runtimeClasses": ["kata"], "kataNodes": {"nodeCount": 1, "readyNodeCount": 1,
            "installed": ["w0"]}, "conditions": [{"type": "InProgress", "status": "False", "reason": "",
            "message": "", "lastTransitionTime": "2024-01-01T00:00:00Z"}], "waitingForMcoToStart": false});
        assert_eq!(serde_json::to_value(read(value.clone())).unwrap(), value);
    }
}
