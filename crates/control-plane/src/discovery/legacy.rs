//! `APIVersions`, `APIGroupList`, `APIResourceList`.

use std::sync::Arc;

use osc_api::api_version;
use serde_json::{Value, json};

use super::{Group, Version};
use crate::{
    config::Config,
    resources::{Served, Snapshot},
};

/// `/api`.
pub(super) fn core_versions(config: &Config) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": config.advertised()}],
    })
}

/// `/apis`.
pub(super) fn groups(snapshot: &Snapshot) -> Value {
    let groups: Vec<Value> =
        super::groups(snapshot).iter().filter(|group| !group.name.is_empty()).map(api_group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(super) fn group(snapshot: &Snapshot, name: &str) -> Option<Value> {
    let groups = super::groups(snapshot);
    let mut value = api_group(groups.iter().find(|group| group.name == name && !name.is_empty())?);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn api_group(group: &Group) -> Value {
    let version =
        |version: &Version| json!({"groupVersion": api_version(&group.name, &version.name), "version": version.name});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions[0]})
}

/// `/api/v1` or `/apis/<group>/<version>`.
pub(super) fn resources(snapshot: &Snapshot, group: &str, version: &str) -> Option<Value> {
    let here = |served: &&Arc<Served>| served.resource.group == group && served.resource.version == version;
    let resources: Vec<Value> = snapshot.iter().filter(here).flat_map(|served| entries(served)).collect();
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": api_version(group, version), "resources": resources,
        })
    })
}

/// A resource and its subresources.
fn entries(served: &Served) -> Vec<Value> {
    let resource = &served.resource;
    let mut main = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        main["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        main["categories"] = json!(resource.categories);
    }
    if resource.can("list") {
        // Tells clients when the encoding in storage changes: never, within one program.
        main["storageVersionHash"] =
            crate::openapi::short_hash(&[&resource.group, &resource.version, &resource.kind]).into();
    }
    let subresources = resource.subresources.iter().map(|part| {
        let mut entry = json!({
            "name": format!("{}/{}", resource.plural, part.name), "singularName": "",
            "namespaced": resource.namespaced, "kind": part.kind, "verbs": part.verbs,
        });
        if (&part.group, &part.version) != (&resource.group, &resource.version) {
            if !part.group.is_empty() {
                entry["group"] = part.group.as_str().into();
            }
            entry["version"] = part.version.as_str().into();
        }
        entry
    });
    let mut all = vec![main];
    all.extend(subresources);
    all
}
