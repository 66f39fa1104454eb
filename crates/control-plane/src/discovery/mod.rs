//! Telling clients which resources there are.
//!
//! Old clients ask group by group (`legacy`), new ones for everything at once
//! (`aggregated`), by the `as` parameter of the Accept header.

mod aggregated;
mod legacy;

use std::{
    cmp::Reverse,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use osc_api::status::Status;

use crate::{
    config::Config,
    request::{Path, accept},
    resources::{Served, Snapshot},
    response::{self, Body},
};

/// Documents made once for each set of resources.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    aggregated: [OnceLock<Bytes>; 4],
    pub(crate) openapi_v2: OnceLock<Bytes>,
}

/// Answers `/api`, `/apis` and what is directly below.
pub(crate) fn answer(
    snapshot: &Arc<Snapshot>,
    path: &Path,
    headers: &HeaderMap,
    config: &Config,
) -> Result<Response<Body>, Status> {
    if let Path::CoreVersions | Path::Groups = path
        && let Some(version) = aggregated_version(headers)?
    {
        let slot = usize::from(*path == Path::Groups) * 2 + usize::from(version == "v2");
        let make = || serde_json::to_vec(&aggregated::document(snapshot, path, version)).unwrap_or_default().into();
        let document: &Bytes = snapshot.documents.aggregated[slot].get_or_init(make);
        let media_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        return Ok(response::bytes(StatusCode::OK, &media_type, document.clone()));
    }
    let wire =
        crate::request::Accept::negotiate(headers).ok_or_else(|| Status::not_acceptable(&["application/json"]))?.wire;
    let value = match path {
        Path::CoreVersions => legacy::core_versions(config),
        Path::Groups => legacy::groups(snapshot),
        Path::Group(group) => legacy::group(snapshot, group).ok_or_else(Status::unknown_path)?,
        Path::GroupVersion(group, version) => {
            legacy::resources(snapshot, group, version).ok_or_else(Status::unknown_path)?
        }
        Path::Resource(_) | Path::Other => return Err(Status::unknown_path()),
    };
    Ok(response::value(StatusCode::OK, wire, &value))
}

/// The version of aggregated discovery the client likes best; `None` for plain JSON.
fn aggregated_version(headers: &HeaderMap) -> Result<Option<&'static str>, Status> {
    for range in accept::ranges(headers) {
        let json =
            matches!(range.media_type.as_str(), "application/json" | "application/yaml" | "application/*" | "*/*");
        match (range.parameter("as"), range.parameter("v")) {
            (None, _) if json => return Ok(None),
            (Some("APIGroupDiscoveryList"), Some("v2")) if json => return Ok(Some("v2")),
            (Some("APIGroupDiscoveryList"), Some("v2beta1")) if json => return Ok(Some("v2beta1")),
            _ => {}
        }
    }
    Err(Status::not_acceptable(&["application/json"]))
}

/// An API group.
struct Group {
    name: String,
    /// The preferred one first.
    versions: Vec<Version>,
}

/// A version of a group.
struct Version {
    name: String,
    resources: Vec<Arc<Served>>,
}

/// All groups, in order of appearance.
fn groups(snapshot: &Snapshot) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for served in snapshot.iter() {
        let resource = &served.resource;
        let group = match groups.iter().position(|group| group.name == resource.group) {
            Some(at) => &mut groups[at],
            None => groups.push_mut(Group { name: resource.group.clone(), versions: Vec::new() }),
        };
        match group.versions.iter_mut().find(|version| version.name == resource.version) {
            Some(version) => version.resources.push(Arc::clone(served)),
            None => {
                group.versions.push(Version { name: resource.version.clone(), resources: vec![Arc::clone(served)] })
            }
        }
    }
    for group in &mut groups {
        group.versions.sort_by_key(|version| Reverse(rank(&version.name)));
    }
    groups
}

/// Order of versions: stable before beta before alpha, then the higher number;
/// what is no such version comes last.
fn rank(version: &str) -> (u8, u32, u32) {
    let parse = || -> Option<(u8, u32, u32)> {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..end].parse().ok()?;
        match &rest[end..] {
            "" => Some((3, major, 0)),
            tail => {
                let (stage, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
                    (Some(minor), _) => (2, minor),
                    (_, Some(minor)) => (1, minor),
                    _ => return None,
                };
                Some((stage, major, minor.parse().ok()?))
            }
        }
    };
    parse().unwrap_or((0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["foo", "v1alpha1", "v2", "v1beta2", "v10", "v1beta10", "v1"];
        versions.sort_by_key(|version| Reverse(rank(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn clients_get_the_discovery_they_know() {
        let rows = [
            ("application/json", Ok(None)),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                Ok(Some("v2")),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                Ok(Some("v2beta1")),
            ),
            ("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json", Ok(None)),
            ("application/vnd.kubernetes.protobuf", Err(406)),
        ];
        for (given, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, given.parse().unwrap());
            assert_eq!(aggregated_version(&headers).map_err(|status| status.code), want, "{given}");
        }
    }

    #[test]
    fn both_kinds_of_discovery_tell_the_same() {
        let snapshot = crate::resources::Catalog::default().snapshot();
        let apps = legacy::resources(&snapshot, "apps", "v1").unwrap();
        let named = |name: &str| apps["resources"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned();
        let deployments = named("deployments").unwrap();
        assert_eq!(deployments["shortNames"][0], "deploy");
        let scale = named("deployments/scale").unwrap();
        assert_eq!((&scale["group"], &scale["kind"]), (&"autoscaling".into(), &"Scale".into()));
        let all = aggregated::document(&snapshot, &Path::Groups, "v2");
        let apps = all["items"].as_array().unwrap().iter().find(|it| it["metadata"]["name"] == "apps").unwrap();
        let resources = apps["versions"][0]["resources"].as_array().unwrap();
        let deployments = resources.iter().find(|it| it["resource"] == "deployments").unwrap();
        assert_eq!(deployments["scope"], "Namespaced");
        assert!(deployments["subresources"].as_array().unwrap().iter().any(|it| it["subresource"] == "scale"));
        assert_eq!(aggregated::document(&snapshot, &Path::CoreVersions, "v2")["items"].as_array().unwrap().len(), 1);
    }
}
