//! Volumes, claims and classes.

use osc_schema::{Cause, Path};
use serde_json::{Map, Value};

use super::{
    pod,
    rules::{amounts, immutable, one_of, required},
};
use crate::value::{array, has, text};

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Fields of a volume's spec that say where it lies.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

fn modes(spec: &Value, path: &Path<'_>, missing: &str, causes: &mut Vec<Cause>) {
    let list = path.field("accessModes");
    let modes = array(spec, "accessModes");
    if modes.is_empty() {
        causes.push(Cause::required(list, missing));
    }
    for mode in modes.iter().filter(|mode| !mode.as_str().is_some_and(|mode| MODES.contains(&mode))) {
        causes.push(Cause::not_supported(list, mode, MODES));
    }
}

pub(super) fn volume(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    modes(spec, path, "", causes);
    if !has(&spec["capacity"], "storage") {
        causes.push(Cause::required(path.field("capacity"), ""));
    }
    amounts(spec, "capacity", path, causes);
    one_of(spec, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], path, causes);
    one_of(spec, "volumeMode", &["Block", "Filesystem"], path, causes);
    let mut sources = SOURCES.iter().filter(|source| has(spec, source));
    match sources.next() {
        None => causes.push(Cause::required(path, "must specify a volume type")),
        Some(&"hostPath") => pod::host_path(&spec["hostPath"], &path.field("hostPath"), causes),
        Some(&"local") => {
            required(&spec["local"], "path", &path.field("local"), causes);
            if !has(spec, "nodeAffinity") {
                causes.push(Cause::required(path.field("nodeAffinity"), "Local volume requires node affinity"));
            }
        }
        Some(_) => {}
    }
    for other in sources {
        causes.push(Cause::forbidden(path.field(other), "may not specify more than 1 volume type"));
    }
    if has(&spec["nodeAffinity"], "required") {
        let affinity = path.field("nodeAffinity");
        pod::node_selector(&spec["nodeAffinity"]["required"], &affinity.field("required"), causes);
    }
}

pub(super) fn claim(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    modes(spec, path, "at least 1 access mode is required", causes);
    one_of(spec, "volumeMode", &["Block", "Filesystem"], path, causes);
    let resources = path.field("resources");
    if !has(&spec["resources"]["requests"], "storage") {
        causes.push(Cause::required(resources.key("storage"), ""));
    }
    amounts(&spec["resources"], "requests", &resources, causes);
    if let Some(old) = old
        && fixed_part(&old["spec"], &old["spec"]) != fixed_part(spec, &old["spec"])
    {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        causes.push(Cause::forbidden(path, detail));
    }
}

/// The spec of a claim without what may change: its size, and what binding fills in.
fn fixed_part(spec: &Value, before: &Value) -> Map<String, Value> {
    let mut fixed = spec.as_object().cloned().unwrap_or_default();
    fixed.remove("volumeAttributesClassName");
    if let Some(resources) = fixed.get_mut("resources").and_then(Value::as_object_mut) {
        resources.remove("requests");
    }
    for key in ["volumeName", "storageClassName"] {
        if text(before, key).is_empty() {
            fixed.remove(key);
        }
    }
    fixed
}

pub(super) fn class(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let root = &Path::Root;
    required(object, "provisioner", root, causes);
    one_of(object, "reclaimPolicy", &["Delete", "Retain"], root, causes);
    one_of(object, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], root, causes);
    if let Some(old) = old {
        if old["parameters"] != object["parameters"] {
            causes.push(Cause::forbidden(root.field("parameters"), "updates to parameters are forbidden."));
        }
        if old["provisioner"] != object["provisioner"] {
            causes.push(Cause::forbidden(root.field("provisioner"), "updates to provisioner are forbidden."));
        }
        immutable(old, object, "volumeBindingMode", root, causes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{wrong, wrong_change};

    #[test]
    fn claims_and_volumes_are_judged() {
        assert_eq!(
            wrong("", "persistentvolumeclaims", json!({"spec": {}})),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value"
            ]
        );
        assert_eq!(
            wrong(
                "",
                "persistentvolumes",
                json!({"spec": {"accessModes": ["x"], "capacity": {"storage": "1Gi"}, "local": {"path": "/x"}}})
            ),
            [
                "spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            ]
        );
        let claim = |size: &str, volume: &str, mode: &str| json!({"metadata": {"name": "x"}, "spec": {"accessModes": [mode], "volumeName": volume, "resources": {"requests": {"storage": size}}}});
        let old = claim("1Gi", "", "ReadWriteOnce");
        assert_eq!(wrong_change("", "persistentvolumeclaims", &old, &claim("2Gi", "v", "ReadWriteOnce")), [""; 0]);
        assert_eq!(wrong_change("", "persistentvolumeclaims", &old, &claim("1Gi", "", "ReadWriteMany")).len(), 1);
    }
}
