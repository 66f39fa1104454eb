//! Volumes and what makes them.

use serde_json::{Value, json};

use crate::value::{fill, fill_text, map_mut};

pub(super) fn volume(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill_text(spec, "volumeMode", "Filesystem");
    if let Some(path) = map_mut(spec, "hostPath") {
        fill(path, "type", "");
    }
}

pub(super) fn claim(object: &mut Value) {
    if let Some(spec) = map_mut(object, "spec") {
        fill_text(spec, "volumeMode", "Filesystem");
    }
}

pub(super) fn class(object: &mut Value) {
    fill_text(object, "reclaimPolicy", "Delete");
    fill_text(object, "volumeBindingMode", "Immediate");
}

pub(super) fn driver(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill(spec, "attachRequired", true);
    fill(spec, "podInfoOnMount", false);
    fill(spec, "requiresRepublish", false);
    fill(spec, "seLinuxMount", false);
    fill(spec, "storageCapacity", false);
    fill_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    fill(spec, "volumeLifecycleModes", json!(["Persistent"]));
}
