//! What the server fills in or protects in `metadata`: names, identities, times, generations.

use jiff::Timestamp;
use rand::{Rng as _, RngCore as _};
use serde_json::{Map, Value};

use crate::{
    Resource,
    value::{integer, text},
};

/// Longest prefix kept by `generateName`.
const MAX_GENERATED_PREFIX: usize = 58;
/// Letters of generated names: no vowels, so that no words appear.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name made from a `generateName` prefix: at most 58 characters of it and five random ones.
pub fn generated_name(prefix: &str) -> String {
    let end = (0..=prefix.len().min(MAX_GENERATED_PREFIX)).rev().find(|end| prefix.is_char_boundary(*end));
    let mut name = prefix[..end.unwrap_or(0)].to_owned();
    let mut random = rand::rng();
    name.extend((0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])));
    name
}

/// A new random UID (version 4).
pub fn new_uid() -> String {
    let mut bytes = [0_u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let n = u128::from_be_bytes(bytes);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        (n >> 80) & 0xffff,
        (n >> 64) & 0xffff,
        (n >> 48) & 0xffff,
        n & 0xffff_ffff_ffff
    )
}

/// `time` as `metav1.Time` writes it: UTC, whole seconds.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `time` as `metav1.MicroTime` writes it.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads a time of either precision.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The time at `key` of `value`.
pub(crate) fn time_at(value: &Value, key: &str) -> Option<Timestamp> {
    parse_time(text(value, key))
}

/// Prepares the metadata of an object about to be created.
///
/// Gives uid, creation time and first generation, takes away what only the server may set, and
/// makes a name from `generateName` if there is none. `managedFields` are left to their owner.
pub fn prepare_create(resource: &Resource, object: &mut Value, now: Timestamp) {
    let metadata = metadata_mut(object);
    for key in ["selfLink", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        metadata.remove(key);
    }
    if !resource.namespaced {
        metadata.remove("namespace");
    }
    let is_empty = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default().is_empty();
    if is_empty("name") && !is_empty("generateName") {
        let name = generated_name(metadata.get("generateName").and_then(Value::as_str).unwrap_or_default());
        metadata.insert("name".to_owned(), name.into());
    }
    metadata.insert("uid".to_owned(), new_uid().into());
    metadata.insert("creationTimestamp".to_owned(), format_time(now).into());
    if has_generation(resource) {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// Carries over what an update may not change, and counts the generation.
///
/// Call it when `new` is complete otherwise: the generation depends on everything but metadata and
/// status.
pub fn prepare_update(resource: &Resource, old: &Value, new: &mut Value) {
    let generation = integer(&old["metadata"], "generation");
    let next = if spec_changed(resource, old, new) {
        generation.unwrap_or(0).saturating_add(1)
    } else {
        generation.unwrap_or(0)
    };
    let kept = ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "name", "namespace"];
    let old_metadata = &old["metadata"];
    let metadata = metadata_mut(new);
    metadata.remove("selfLink");
    for key in kept {
        match old_metadata.get(key) {
            Some(value) => metadata.insert(key.to_owned(), value.clone()),
            None => metadata.remove(key),
        };
    }
    if has_generation(resource) {
        metadata.insert("generation".to_owned(), next.max(1).into());
    } else if let Some(generation) = generation {
        metadata.insert("generation".to_owned(), generation.into());
    } else {
        metadata.remove("generation");
    }
}

/// Counts the generation because deletion starts.
pub fn bump_generation(resource: &Resource, object: &mut Value) {
    if has_generation(resource) {
        let next = integer(&object["metadata"], "generation").unwrap_or(0).saturating_add(1);
        metadata_mut(object).insert("generation".to_owned(), next.into());
    }
}

/// The metadata of an object, made when it is missing or no map.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    match metadata {
        Value::Object(map) => map,
        _ => unreachable!("metadata was made a map above"),
    }
}

/// Built-in resources whose generation counts; custom resources always count.
const GENERATIONS: &[(&str, &str)] = &[
    ("", "pods"),
    ("", "replicationcontrollers"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("batch", "cronjobs"),
    ("batch", "jobs"),
    ("discovery.k8s.io", "endpointslices"),
    ("networking.k8s.io", "ingressclasses"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("scheduling.k8s.io", "priorityclasses"),
];

fn has_generation(resource: &Resource) -> bool {
    resource.is_custom() || GENERATIONS.iter().any(|(group, plural)| resource.is(group, plural))
}

/// Whether anything but metadata and status differs.
///
/// A custom resource without the status subresource has no status: every field counts.
fn spec_changed(resource: &Resource, old: &Value, new: &Value) -> bool {
    let status_counts = resource.is_custom() && resource.subresource("status").is_none();
    let counted = |object: &Value| -> Vec<(String, Value)> {
        let ignored =
            |key: &str| matches!(key, "metadata" | "apiVersion" | "kind") || (key == "status" && !status_counts);
        let fields = object.as_object().into_iter().flatten();
        fields.filter(|(key, _)| !ignored(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    counted(old) != counted(new)
}

/// Whether an object carries no finalizers.
pub fn has_no_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
}

/// Whether deletion of an object has begun.
pub fn is_deleting(object: &Value) -> bool {
    !text(&object["metadata"], "deletionTimestamp").is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin;

    #[test]
    fn generated_names_keep_their_prefix() {
        let name = generated_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generated_name(&"a".repeat(100)).len(), 63);
        assert!(generated_name(&"\u{e9}".repeat(100)).len() <= 63);
    }

    #[test]
    fn uids_are_random_and_of_version_4() {
        let uid = new_uid();
        assert_eq!((uid.len(), uid.as_bytes()[14]), (36, b'4'));
        assert_ne!(uid, new_uid());
    }

    #[test]
    fn times_have_the_precision_of_their_type() {
        let time: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        assert_eq!(format_time(time), "2026-01-02T03:04:05Z");
        assert_eq!(format_micro_time(time), "2026-01-02T03:04:05.678901Z");
    }

    #[test]
    fn creation_and_updates_protect_metadata() {
        let deployments = builtin().find("apps", "v1", "deployments").expect("a built-in");
        let now = Timestamp::UNIX_EPOCH;
        let mut made =
            json!({"metadata": {"generateName": "d-", "uid": "mine", "resourceVersion": "7"}, "spec": {"a": 1}});
        prepare_create(deployments, &mut made, now);
        assert_ne!(made["metadata"]["uid"], "mine");
        assert_eq!(made["metadata"]["generation"], 1);
        assert_eq!(made["metadata"]["creationTimestamp"], "1970-01-01T00:00:00Z");
        assert!(made["metadata"].get("resourceVersion").is_none());

        let rows = [
            (json!({"metadata": {"uid": "x", "labels": {"a": "b"}}, "spec": {"a": 1}, "status": {"b": 1}}), 1),
            (json!({"spec": {"a": 2}}), 2),
            (json!({"metadata": {"generation": 9}}), 2),
        ];
        for (mut new, generation) in rows {
            prepare_update(deployments, &made, &mut new);
            assert_eq!(new["metadata"]["generation"], generation, "{new}");
            assert_eq!(new["metadata"]["uid"], made["metadata"]["uid"]);
        }
    }
}
