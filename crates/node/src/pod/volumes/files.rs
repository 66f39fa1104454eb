//! What is in a volume of files made of objects.

use std::{collections::BTreeMap, path::PathBuf};

use super::atomic::Content;
use crate::pod::{
    cluster::Cluster,
    error::PodError,
    model::{Field, FileSource, Files, Item, Object, Pod},
};

/// Collects the files of one volume.
///
/// # Errors
/// [`PodError::Missing`] for what is neither there nor optional.
pub async fn collect(pod: &Pod, files: &Files, cluster: Option<&Cluster>) -> Result<Content, PodError> {
    let mut content = Content::new();
    for source in &files.sources {
        match (source, cluster) {
            (FileSource::Object { object, items }, Some(cluster)) => {
                let data = cluster.data(&pod.namespace, object).await?;
                let data = data.map(|data| (*data).clone()).unwrap_or_default();
                content.extend(pick(object, items, files.mode, data)?);
            }
            (FileSource::Token { audience, lifetime, path }, Some(cluster)) => {
                let token = cluster.token(pod, audience, *lifetime).await?;
                content.insert(path.clone(), (token.into_bytes(), files.mode));
            }
            (FileSource::Fields(fields), _) => {
                for file in fields {
                    let text = field(pod, &file.field).into_bytes();
                    content.insert(file.path.clone(), (text, file.mode.unwrap_or(files.mode)));
                }
            }
            (FileSource::Object { .. } | FileSource::Token { .. }, None) => {} // refused with the manifest
        }
    }
    Ok(content)
}

/// All keys under their own names, or those that are listed.
fn pick(object: &Object, items: &[Item], mode: u32, mut data: BTreeMap<String, Vec<u8>>) -> Result<Content, PodError> {
    if items.is_empty() {
        return Ok(data.into_iter().map(|(key, bytes)| (PathBuf::from(key), (bytes, mode))).collect());
    }
    let mut content = Content::new();
    for item in items {
        match data.remove(&item.key) {
            Some(bytes) => drop(content.insert(item.path.clone(), (bytes, item.mode.unwrap_or(mode)))),
            None if object.optional => {}
            None => {
                let (what, name) = (object.kind.name(), object.name.clone());
                return Err(PodError::Missing { what, name, key: Some(item.key.clone()) });
            }
        }
    }
    Ok(content)
}

fn field(pod: &Pod, field: &Field) -> String {
    let lines = |map: &BTreeMap<String, String>| {
        let lines: Vec<_> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        lines.join("\n")
    };
    match field {
        Field::Labels => lines(&pod.labels),
        Field::Annotations => lines(&pod.annotations),
        Field::Label(key) => pod.labels.get(key).cloned().unwrap_or_default(),
        Field::Annotation(key) => pod.annotations.get(key).cloned().unwrap_or_default(),
        Field::Known(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{Manifest, model::ObjectKind};

    #[test]
    fn keys_are_picked() {
        let data = || BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
        let object = |optional| Object { kind: ObjectKind::Secret, name: "s".into(), optional };
        let item = |key: &str| Item { key: key.into(), path: "x/y".into(), mode: Some(0o600) };
        let all = pick(&object(false), &[], 0o644, data()).expect("all");
        assert_eq!(all.into_keys().collect::<Vec<_>>(), [PathBuf::from("a"), PathBuf::from("b")]);
        let one = pick(&object(false), &[item("b")], 0o644, data()).expect("one");
        assert_eq!(one, Content::from([("x/y".into(), (b"2".to_vec(), 0o600))]));
        assert!(matches!(pick(&object(false), &[item("c")], 0, data()), Err(PodError::Missing { key: Some(_), .. })));
        assert!(pick(&object(true), &[item("c")], 0, data()).expect("optional").is_empty());
    }

    #[tokio::test]
    async fn fields_need_no_cluster() {
        let text = "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {x: 'y\"z', a: b}}, spec: {containers: [{name: c, image: i}], \
                    volumes: [{name: v, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]}}";
        let pod = Manifest::read("test", text).expect("good").remove(0).pod;
        let crate::pod::model::Source::Files(files) = &pod.volumes[0].source else { panic!("{pod:?}") };
        let content = collect(&pod, files, None).await.expect("content");
        assert_eq!(content[&PathBuf::from("labels")].0, b"a=\"b\"\nx=\"y\\\"z\"");
    }
}
