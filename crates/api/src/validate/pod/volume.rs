//! Volumes of pods.

use std::collections::HashSet;

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    super::{
        names,
        rules::{Seen, amount, one_of, required, required_name, within},
    },
    container::{field_ref, relative_path},
};
use crate::value::{array, has, integer, text};

/// Largest mode of a file.
const MAX_MODE: i64 = 0o777;

/// Judges all volumes of a pod; the answer is their names.
pub(super) fn volumes<'a>(spec: &'a Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> HashSet<&'a str> {
    let list = path.field("volumes");
    let mut seen = Seen::new();
    for (index, volume) in array(spec, "volumes").iter().enumerate() {
        let path = list.index(index);
        required_name(volume, "name", names::label, &path, causes);
        seen.add(text(volume, "name"), &path.field("name"), causes);
        one_source(volume, &path, causes);
    }
    array(spec, "volumes").iter().map(|volume| text(volume, "name")).collect()
}

fn one_source(volume: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut sources =
        volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
    let Some((kind, value)) = sources.next() else {
        causes.push(Cause::required(path, "must specify a volume type"));
        return;
    };
    for (other, _) in sources {
        causes.push(Cause::forbidden(path.field(other), "may not specify more than 1 volume type"));
    }
    source(kind, value, &path.field(kind), causes);
}

fn source(kind: &str, source: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    mode(source, "defaultMode", path, causes);
    match kind {
        "emptyDir" if has(source, "sizeLimit") => {
            amount(&source["sizeLimit"], &path.field("sizeLimit"), causes);
        }
        "hostPath" => host_path(source, path, causes),
        "secret" => {
            required(source, "secretName", path, causes);
            key_paths(source, path, causes);
        }
        "configMap" => {
            required(source, "name", path, causes);
            key_paths(source, path, causes);
        }
        "persistentVolumeClaim" => {
            required(source, "claimName", path, causes);
        }
        "downwardAPI" => downward(source, path, causes),
        "projected" => projected(source, path, causes),
        "csi" => {
            required(source, "driver", path, causes);
        }
        "nfs" => {
            required(source, "server", path, causes);
            required(source, "path", path, causes);
        }
        "image" => {
            required(source, "reference", path, causes);
            one_of(source, "pullPolicy", &["Always", "IfNotPresent", "Never"], path, causes);
        }
        "ephemeral" if !source["volumeClaimTemplate"]["spec"].is_object() => {
            causes.push(Cause::required(path.field("volumeClaimTemplate"), ""));
        }
        _ => {}
    }
}

/// A path on the node.
pub(in super::super) fn host_path(source: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let kinds = ["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if let Some(target) = required(source, "path", path, causes)
        && target.split('/').any(|part| part == "..")
    {
        causes.push(Cause::invalid(path.field("path"), &target.into(), "must not contain '..'"));
    }
    one_of(source, "type", &kinds, path, causes);
}

fn mode(holder: &Value, key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if integer(holder, key).is_some_and(|mode| !(0..=MAX_MODE).contains(&mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        causes.push(Cause::invalid(path.field(key), &holder[key], detail));
    }
}

fn key_paths(source: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("items");
    for (index, item) in array(source, "items").iter().enumerate() {
        let path = list.index(index);
        required(item, "key", &path, causes);
        file_path(item, &path, causes);
    }
}

/// Where in the volume a file appears.
fn file_path(item: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(target) = required(item, "path", path, causes) {
        relative_path(target, &path.field("path"), causes);
        if target.starts_with("..") && !target.starts_with("../") && target != ".." {
            causes.push(Cause::invalid(path.field("path"), &target.into(), "must not start with '..'"));
        }
    }
    mode(item, "mode", path, causes);
}

fn downward(source: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("items");
    for (index, item) in array(source, "items").iter().enumerate() {
        let path = list.index(index);
        file_path(item, &path, causes);
        match (has(item, "fieldRef"), has(item, "resourceFieldRef")) {
            (true, false) => field_ref(&item["fieldRef"], true, &path.field("fieldRef"), causes),
            (false, true) => {
                let path = path.field("resourceFieldRef");
                required(&item["resourceFieldRef"], "containerName", &path, causes);
                required(&item["resourceFieldRef"], "resource", &path, causes);
            }
            (true, true) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                causes.push(Cause::invalid(path, &"resource".into(), detail));
            }
            (false, false) => {
                causes.push(Cause::required(path, "one of fieldRef and resourceFieldRef is required"));
            }
        }
    }
}

fn projected(source: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("sources");
    for (index, each) in array(source, "sources").iter().enumerate() {
        let path = list.index(index);
        let mut kinds = each.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let Some((kind, value)) = kinds.next() else {
            causes.push(Cause::required(path, "must specify a projection type"));
            continue;
        };
        if kinds.next().is_some() {
            causes.push(Cause::forbidden(path, "may not specify more than 1 projection type per source"));
        }
        let path = path.field(kind);
        match kind.as_str() {
            "secret" | "configMap" => {
                required(value, "name", &path, causes);
                key_paths(value, &path, causes);
            }
            "downwardAPI" => downward(value, &path, causes),
            "serviceAccountToken" => {
                required(value, "path", &path, causes);
                if integer(value, "expirationSeconds").is_some_and(|seconds| seconds < 600) {
                    let detail = "may not specify a duration less than 10 minutes";
                    causes.push(Cause::invalid(path.field("expirationSeconds"), &value["expirationSeconds"], detail));
                }
                within(value, "expirationSeconds", i64::MIN, 1 << 32, &path, causes);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::tests::wrong;
    use super::*;

    fn of(volume: &Value) -> Vec<String> {
        let mut volume = volume.clone();
        volume["name"] = "v".into();
        wrong("", "pods", json!({"spec": {"containers": [{"name": "a", "image": "i"}], "volumes": [volume]}}))
    }

    #[test]
    fn volumes_are_judged() {
        let rows = [
            (
                json!({"hostPath": {"path": "/"}, "emptyDir": {}}),
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            ),
            (
                json!({"hostPath": {"path": "/a/../b"}}),
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            ),
            (json!({"secret": {}}), "spec.volumes[0].secret.secretName: Required value"),
            (
                json!({"configMap": {"name": "c", "defaultMode": 1000}}),
                "spec.volumes[0].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive",
            ),
            (
                json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "/p"}]}}),
                "spec.volumes[0].configMap.items[0].path: Invalid value: \"/p\": must be a relative path",
            ),
            (
                json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}}),
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p"}]}}),
                "spec.volumes[0].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required",
            ),
        ];
        for (volume, want) in rows {
            let wrong = of(&volume);
            assert!(wrong.iter().any(|sentence| sentence == want), "{volume}: {wrong:?}");
        }
        for good in [
            json!({}),
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}),
            json!({"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
            json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": "a/b", "mode": 256}]}}),
        ] {
            assert_eq!(of(&good), [""; 0], "{good}");
        }
    }
}
