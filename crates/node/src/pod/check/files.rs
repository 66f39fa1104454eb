//! Volumes of files made of objects: `configMap`, `secret`, `downwardAPI` and
//! `projected`, which unites them.

use std::{path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1 as core;

use super::{env::resource, volume::stays_inside};
use crate::pod::{
    model::{Field, FieldFile, FileSource, Files, Item, Object, ObjectKind},
    problem::Problems,
};

/// Mode of files that are given none, as in Kubernetes.
const MODE: i32 = 0o644;
/// Tokens live an hour, and no less than ten minutes.
const LIFETIME: i64 = 3600;
const LIFETIME_MIN: i64 = 600;

pub(super) fn config_map(path: &str, given: &core::ConfigMapVolumeSource, problems: &mut Problems) -> Files {
    let object = object(ObjectKind::ConfigMap, &given.name, given.optional);
    let items = items(path, given.items.as_deref(), problems);
    files("kubernetes.io~configmap", vec![FileSource::Object { object, items }], given.default_mode)
}

pub(super) fn secret(path: &str, given: &core::SecretVolumeSource, problems: &mut Problems) -> Files {
    let object = object(ObjectKind::Secret, given.secret_name.as_deref().unwrap_or_default(), given.optional);
    let items = items(path, given.items.as_deref(), problems);
    files("kubernetes.io~secret", vec![FileSource::Object { object, items }], given.default_mode)
}

pub(super) fn downward(
    path: &str,
    given: &core::DownwardAPIVolumeSource,
    pod: &core::Pod,
    uid: &str,
    problems: &mut Problems,
) -> Files {
    let fields = fields(path, given.items.as_deref(), pod, uid, problems);
    files("kubernetes.io~downward-api", vec![FileSource::Fields(fields)], given.default_mode)
}

pub(super) fn projected(
    path: &str,
    given: &core::ProjectedVolumeSource,
    pod: &core::Pod,
    uid: &str,
    problems: &mut Problems,
) -> Files {
    let mut sources = Vec::new();
    for (n, source) in given.sources.iter().flatten().enumerate() {
        let path = format!("{path}.sources[{n}]");
        if let Some(map) = &source.config_map {
            let object = object(ObjectKind::ConfigMap, &map.name, map.optional);
            sources.push(FileSource::Object { object, items: items(&path, map.items.as_deref(), problems) });
        } else if let Some(secret) = &source.secret {
            let object = object(ObjectKind::Secret, &secret.name, secret.optional);
            sources.push(FileSource::Object { object, items: items(&path, secret.items.as_deref(), problems) });
        } else if let Some(api) = &source.downward_api {
            sources.push(FileSource::Fields(fields(&path, api.items.as_deref(), pod, uid, problems)));
        } else if let Some(token) = &source.service_account_token {
            let seconds = token.expiration_seconds.unwrap_or(LIFETIME).max(LIFETIME_MIN);
            sources.push(FileSource::Token {
                audience: token.audience.clone().unwrap_or_default(),
                lifetime: Duration::from_secs(seconds.unsigned_abs()),
                path: inside(&format!("{path}.serviceAccountToken.path"), &token.path, problems),
            });
        } else {
            problems.add(path, "has no source that is known here");
        }
    }
    files("kubernetes.io~projected", sources, given.default_mode)
}

fn files(plugin: &'static str, sources: Vec<FileSource>, mode: Option<i32>) -> Files {
    Files { plugin, sources, mode: permissions(mode.unwrap_or(MODE)) }
}

fn permissions(mode: i32) -> u32 {
    mode.cast_unsigned() & 0o777
}

fn object(kind: ObjectKind, name: &str, optional: Option<bool>) -> Object {
    Object { kind, name: name.to_owned(), optional: optional.unwrap_or(false) }
}

fn items(path: &str, given: Option<&[core::KeyToPath]>, problems: &mut Problems) -> Vec<Item> {
    let mut items = Vec::new();
    for (n, item) in given.unwrap_or_default().iter().enumerate() {
        let file = inside(&format!("{path}.items[{n}].path"), &item.path, problems);
        items.push(Item { key: item.key.clone(), path: file, mode: item.mode.map(permissions) });
    }
    items
}

fn fields(
    path: &str,
    given: Option<&[core::DownwardAPIVolumeFile]>,
    pod: &core::Pod,
    uid: &str,
    problems: &mut Problems,
) -> Vec<FieldFile> {
    let mut fields = Vec::new();
    for (n, file) in given.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}.items[{n}]");
        match field(file, pod, uid) {
            Some(field) => fields.push(FieldFile {
                path: inside(&format!("{path}.path"), &file.path, problems),
                mode: file.mode.map(permissions),
                field,
            }),
            None => problems.add(path, "is not a field that files can have"),
        }
    }
    fields
}

fn field(file: &core::DownwardAPIVolumeFile, pod: &core::Pod, uid: &str) -> Option<Field> {
    if let Some(selector) = &file.resource_field_ref {
        let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        let name = selector.container_name.as_deref();
        let container = containers.into_iter().find(|container| Some(container.name.as_str()) == name)?;
        return resource(selector, container).map(Field::Known);
    }
    let name = file.field_ref.as_ref()?.field_path.as_str();
    let keyed = name.strip_suffix("']").and_then(|name| name.split_once("['"));
    match (name, keyed) {
        ("metadata.labels", _) => Some(Field::Labels),
        ("metadata.annotations", _) => Some(Field::Annotations),
        ("metadata.name", _) => pod.metadata.name.clone().map(Field::Known),
        ("metadata.namespace", _) => pod.metadata.namespace.clone().map(Field::Known),
        ("metadata.uid", _) => Some(Field::Known(uid.to_owned())),
        (_, Some(("metadata.labels", key))) => Some(Field::Label(key.to_owned())),
        (_, Some(("metadata.annotations", key))) => Some(Field::Annotation(key.to_owned())),
        _ => None,
    }
}

fn inside(path: &str, given: &str, problems: &mut Problems) -> PathBuf {
    let file = PathBuf::from(given);
    let good = !given.is_empty() && !given.starts_with("..") && stays_inside(&file);
    problems.unless(good, path, format!("{given:?} is not a relative path without `..`"));
    file
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_projected_volume_unites_all_sources() {
        let pod: core::Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).expect("pod");
        let given = serde_json::from_value(json!({"defaultMode": 256, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 60}},
            {"configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "ca.crt", "mode": 292}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                {"path": "one", "fieldRef": {"fieldPath": "metadata.labels['a']"}}]}},
            {"secret": {"name": "s", "optional": true}},
        ]}))
        .expect("volume");
        let mut problems = Problems::default();
        let files = projected("v", &given, &pod, "u", &mut problems);
        assert_eq!(problems.found, []);
        assert!(files.is_secret() && files.mode == 0o400);
        let token =
            FileSource::Token { audience: String::new(), lifetime: Duration::from_secs(600), path: "token".into() };
        assert_eq!(files.sources[0], token);
        let FileSource::Fields(fields) = &files.sources[2] else { panic!("{files:?}") };
        assert_eq!(fields[0].field, Field::Known("n".into()));
        assert_eq!(fields[1].field, Field::Label("a".into()));
    }

    #[test]
    fn paths_cannot_leave_the_volume() {
        for (path, good) in [("a", true), ("a/b", true), ("", false), ("/a", false), ("../a", false), ("..data", false)]
        {
            let mut problems = Problems::default();
            inside("p", path, &mut problems);
            assert_eq!(problems.found.is_empty(), good, "{path}");
        }
    }
}
