//! A store with objects in it, for the tests of this folder.

use std::sync::Arc;

use osc_access::Identity;
use osc_api::{Resource, builtin};
use osc_store::{Expect, Options, Store};
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::{objects, reader::Reader, resources::Catalog};

/// A cluster without server: only what can be read.
pub(super) struct World {
    pub reader: Reader,
    store: Store,
    catalog: Arc<Catalog>,
    pub identity: Identity,
    pub options: Value,
    _directory: tempfile::TempDir,
}

impl World {
    /// Holds these objects; the namespaces `default` and `kube-system` are there too.
    pub async fn with(objects: &[Value]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Options::default()).unwrap();
        let catalog = Arc::new(Catalog::default());
        let reader = Reader::new(store.clone(), catalog.clone());
        let identity = Identity::new("jane", ["dev"]);
        let world = Self { reader, store, catalog, identity, options: Value::Null, _directory: directory };
        for name in ["default", "kube-system"] {
            world.put(namespace(name, "Active")).await;
        }
        for object in objects {
            world.put(object.clone()).await;
        }
        world
    }

    /// Stores one more object.
    pub async fn put(&self, object: Value) {
        let kind = object["kind"].as_str().unwrap();
        let snapshot = self.catalog.snapshot();
        let served = snapshot.find_kind(object["apiVersion"].as_str().unwrap(), kind).unwrap();
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = served.key(text("namespace"), text("name")).unwrap();
        objects::put(&self.store, served, key, Expect::Absent, object.clone(), Vec::new()).await.unwrap();
    }

    /// A request of the world's user about `object` of a resource such as `pods` or `apps/deployments`.
    pub fn asks<'a>(&'a self, operation: Operation, resource: &str, object: &'a Value) -> Attributes<'a> {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Attributes {
            operation,
            resource: self::resource(resource),
            subresource: "",
            namespace: text("namespace"),
            name: text("name"),
            identity: &self.identity,
            dry_run: false,
            options: &self.options,
        }
    }
}

/// A built-in resource by `plural` or `group/plural`.
pub(super) fn resource(name: &str) -> &'static Resource {
    let (group, plural) = name.split_once('/').unwrap_or(("", name));
    builtin().iter().find(|resource| resource.is(group, plural)).unwrap()
}

pub(super) fn namespace(name: &str, phase: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } },
        "status": { "phase": phase },
    })
}

/// A pod `p` in `default` with one container.
pub(super) fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "p", "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "busybox" }] },
    })
}
