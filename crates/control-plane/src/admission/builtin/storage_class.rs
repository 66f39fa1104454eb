//! DefaultStorageClass: claims that name no class get the default one, if there is one.

use std::cmp::Reverse;

use osc_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, text};
use crate::reader::Reader;

const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// How claims named their class before there was a field.
const OLD_NAME: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) async fn admit(reader: &Reader, attributes: &Attributes<'_>, claim: &mut Value) -> Result<(), Status> {
    let new = attributes.is(&[Operation::Create], "", "persistentvolumeclaims");
    // An empty name is an answer too: no class.
    let named =
        claim["spec"]["storageClassName"].is_string() || claim["metadata"]["annotations"].get(OLD_NAME).is_some();
    if !new || named || !claim["spec"].is_object() {
        return Ok(());
    }
    let classes = reader.list("storage.k8s.io", "storageclasses", "").await?;
    let defaults = classes.iter().filter(|class| text(&class["metadata"]["annotations"], IS_DEFAULT) == "true");
    // Of several the newest, then the first by name.
    let newest = defaults.max_by_key(|class| {
        let metadata = &class["metadata"];
        (text(metadata, "creationTimestamp"), Reverse(text(metadata, "name")))
    });
    if let Some(class) = newest {
        claim["spec"]["storageClassName"] = json!(text(&class["metadata"], "name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::World;
    use super::*;

    fn class(name: &str, default: &str, made: &str) -> Value {
        json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "x",
            "metadata": { "name": name, "creationTimestamp": made, "annotations": { IS_DEFAULT: default } } })
    }

    #[tokio::test]
    async fn claims_get_the_newest_default() {
        let world = World::with(&[
            class("old", "true", "2024-01-01T00:00:00Z"),
            class("b", "true", "2025-01-01T00:00:00Z"),
            class("a", "true", "2025-01-01T00:00:00Z"),
            class("no", "false", "2026-01-01T00:00:00Z"),
        ])
        .await;
        let none = World::with(&[]).await;
        for (world, spec, annotation, want) in [
            (&world, json!({}), None, json!("a")),
            (&world, json!({ "storageClassName": null }), None, json!("a")),
            (&world, json!({ "storageClassName": "" }), None, json!("")),
            (&world, json!({ "storageClassName": "x" }), None, json!("x")),
            (&world, json!({}), Some("x"), json!(null)),
            (&none, json!({}), None, json!(null)),
        ] {
            let mut claim = json!({ "metadata": { "name": "c", "namespace": "default" }, "spec": spec });
            if let Some(annotation) = annotation {
                claim["metadata"]["annotations"] = json!({ OLD_NAME: annotation });
            }
            let given = claim.clone();
            let attributes = world.asks(Operation::Create, "persistentvolumeclaims", &given);
            admit(&world.reader, &attributes, &mut claim).await.unwrap();
            assert_eq!(claim["spec"]["storageClassName"], want, "{given}");
        }
    }
}
