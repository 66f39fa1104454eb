//! Pod templates: identity and names derived from them.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Label that tells the pods of one template from those of another.
pub(crate) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Letters and digits that spell no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Ten characters that stand for `value`; `collisions` makes another ten of the same value.
pub(crate) fn hash<T: Serialize>(value: &T, collisions: i32) -> String {
    // Kubernetes types always serialise; an empty text would still only cost a collision.
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut hasher = Sha256::new();
    hasher.update(&text);
    hasher.update(collisions.to_be_bytes());
    let digest = hasher.finalize();
    digest.iter().take(10).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

/// Whether two templates make the same pods; the hash label does not count.
pub(crate) fn same(left: &PodTemplateSpec, right: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(meta) = &mut template.metadata {
            if let Some(labels) = &mut meta.labels {
                labels.remove(POD_TEMPLATE_HASH);
            }
            meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
            meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
            meta.creation_timestamp = None;
        }
        template
    };
    let (left, right) = (plain(left), plain(right));
    left.spec == right.spec && left.metadata.unwrap_or_default() == right.metadata.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    #[test]
    fn hashes_are_stable_and_differ_by_content_and_collision() {
        let template = |image: &str| -> PodTemplateSpec {
            object(json!({"spec": {"containers": [{"name": "c", "image": image}]}}))
        };
        assert_eq!(hash(&template("a"), 0), hash(&template("a"), 0));
        assert_ne!(hash(&template("a"), 0), hash(&template("b"), 0));
        assert_ne!(hash(&template("a"), 0), hash(&template("a"), 1));
        assert_eq!(hash(&template("a"), 0).len(), 10);
    }

    #[test]
    fn the_hash_label_does_not_make_a_template_different() {
        let template = |labels: serde_json::Value| -> PodTemplateSpec {
            object(json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c"}]}}))
        };
        assert!(same(&template(json!({"a": "b"})), &template(json!({"a": "b", "pod-template-hash": "x"}))));
        assert!(same(&template(json!(null)), &template(json!({}))));
        assert!(!same(&template(json!({"a": "b"})), &template(json!({"a": "c"}))));
    }
}
