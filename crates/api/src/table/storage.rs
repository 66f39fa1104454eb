//! Volumes, claims and classes.

use serde_json::Value;

use super::{AGE, Cell, Column, NAME, column, joined, size, wide, workload::truth};
use crate::value::{array, text};

/// Marks the class used where none is named.
const DEFAULT_CLASS: &str = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";

pub(super) const VOLUMES: &[Column] = &[
    NAME,
    column("Capacity", Cell::Text("/spec/capacity/storage")),
    column("Access Modes", Cell::Made(|volume, _| modes(&volume["spec"]))),
    column("Reclaim Policy", Cell::Text("/spec/persistentVolumeReclaimPolicy")),
    column("Status", Cell::Made(|volume, _| phase(volume))),
    column(
        "Claim",
        Cell::Made(|volume, _| match &volume["spec"]["claimRef"] {
            Value::Object(_) => {
                let claim = &volume["spec"]["claimRef"];
                format!("{}/{}", text(claim, "namespace"), text(claim, "name"))
            }
            _ => String::new(),
        }),
    ),
    column("StorageClass", Cell::Text("/spec/storageClassName")),
    column("VolumeAttributesClass", Cell::Made(|volume, _| unset(text(&volume["spec"], "volumeAttributesClassName")))),
    column("Reason", Cell::Text("/status/reason")),
    AGE,
    wide("VolumeMode", Cell::Made(|volume, _| unset(text(&volume["spec"], "volumeMode")))),
];

pub(super) const CLAIMS: &[Column] = &[
    NAME,
    column("Status", Cell::Made(|claim, _| phase(claim))),
    column("Volume", Cell::Text("/spec/volumeName")),
    column(
        "Capacity",
        Cell::Made(|claim, _| if_bound(claim, text(&claim["status"]["capacity"], "storage").to_owned())),
    ),
    column("Access Modes", Cell::Made(|claim, _| if_bound(claim, modes(&claim["status"])))),
    column("StorageClass", Cell::Text("/spec/storageClassName")),
    column("VolumeAttributesClass", Cell::Made(|claim, _| unset(text(&claim["spec"], "volumeAttributesClassName")))),
    AGE,
    wide("VolumeMode", Cell::Made(|claim, _| unset(text(&claim["spec"], "volumeMode")))),
];

pub(super) const CLASSES: &[Column] = &[
    column(
        "Name",
        Cell::Made(|class, _| {
            let name = text(&class["metadata"], "name");
            let default = class.pointer(DEFAULT_CLASS).and_then(Value::as_str) == Some("true");
            if default { format!("{name} (default)") } else { name.to_owned() }
        }),
    ),
    column("Provisioner", Cell::Text("/provisioner")),
    column("ReclaimPolicy", Cell::Text("/reclaimPolicy")),
    column("VolumeBindingMode", Cell::Text("/volumeBindingMode")),
    column("AllowVolumeExpansion", Cell::Made(|class, _| (class["allowVolumeExpansion"] == true).to_string())),
    AGE,
];

pub(super) const DRIVERS: &[Column] = &[
    NAME,
    column("AttachRequired", Cell::Text("/spec/attachRequired")),
    column("PodInfoOnMount", Cell::Text("/spec/podInfoOnMount")),
    column("StorageCapacity", Cell::Text("/spec/storageCapacity")),
    column(
        "Modes",
        Cell::Made(|driver, _| joined(array(&driver["spec"], "volumeLifecycleModes").iter().filter_map(Value::as_str))),
    ),
    AGE,
];

pub(super) const DRIVER_NODES: &[Column] =
    &[NAME, column("Drivers", Cell::Counted(|node| size(&node["spec"], "drivers"))), AGE];

pub(super) const ATTACHMENTS: &[Column] = &[
    NAME,
    column("Attacher", Cell::Text("/spec/attacher")),
    column("PV", Cell::Text("/spec/source/persistentVolumeName")),
    column("Node", Cell::Text("/spec/nodeName")),
    column("Attached", Cell::Made(|attachment, _| truth(attachment["status"]["attached"] == true).to_lowercase())),
    AGE,
];

fn unset(value: &str) -> String {
    if value.is_empty() { "<unset>" } else { value }.to_owned()
}

fn phase(object: &Value) -> String {
    if crate::meta::is_deleting(object) { "Terminating" } else { text(&object["status"], "phase") }.to_owned()
}

fn if_bound(claim: &Value, shown: String) -> String {
    if text(&claim["spec"], "volumeName").is_empty() { String::new() } else { shown }
}

/// `RWO,RWX` for the access modes of `holder`.
fn modes(holder: &Value) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => Some("RWO"),
        Some("ReadOnlyMany") => Some("ROX"),
        Some("ReadWriteMany") => Some("RWX"),
        Some("ReadWriteOncePod") => Some("RWOP"),
        _ => None,
    };
    joined(array(holder, "accessModes").iter().filter_map(short))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::cells;

    #[test]
    fn claims_show_what_they_got() {
        let claim = json!({
            "spec": {"volumeName": "v", "storageClassName": "c", "volumeMode": "Block"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadWriteMany"]},
        });
        let cells: Vec<String> =
            cells("", "persistentvolumeclaims", &claim).into_iter().map(|(_, cell)| cell).collect();
        assert_eq!(cells[1..7].join("|"), "Bound|v|1Gi|RWO,RWX|c|<unset>");
        assert_eq!(cells[8], "Block");
    }
}
