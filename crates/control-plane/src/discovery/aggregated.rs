//! `APIGroupDiscoveryList`: everything in one document.

use serde_json::{Value, json};

use super::Group;
use crate::{
    request::Path,
    resources::{Served, Snapshot},
};

/// The document for `/api` (the core group) or `/apis` (all others).
pub(super) fn document(snapshot: &Snapshot, path: &Path, version: &str) -> Value {
    let core = *path == Path::CoreVersions;
    let items: Vec<Value> =
        super::groups(snapshot).iter().filter(|group| group.name.is_empty() == core).map(group).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn group(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = version.resources.iter().map(|served| resource(served)).collect();
            json!({"version": version.name, "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": {"name": group.name, "creationTimestamp": null}, "versions": versions})
}

fn resource(served: &Served) -> Value {
    let resource = &served.resource;
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let parts = resource.subresources.iter().map(|part| {
            json!({
                "subresource": part.name,
                "responseKind": {"group": part.group, "version": part.version, "kind": part.kind},
                "verbs": part.verbs,
            })
        });
        entry["subresources"] = parts.collect();
    }
    entry
}
