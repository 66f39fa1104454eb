//! What can be asked for: resources, their names, verbs and subresources.
//!
//! [`builtin`] is the fixed part; custom resources make a [`Resource`] of their own with
//! [`Resource::from_crd`].

mod builtin;
mod custom;

pub(crate) use builtin::definition;

use std::sync::{Arc, LazyLock};

/// The verbs of a resource that can be stored.
pub const STORED_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One resource in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version such as `v1`.
    pub version: String,
    /// Lower-case plural, the name in paths.
    pub plural: String,
    /// Lower-case singular.
    pub singular: String,
    /// CamelCase kind.
    pub kind: String,
    /// Kind of a list of these.
    pub list_kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What people type instead of the plural.
    pub short_names: Vec<String>,
    /// Groups of resources such as `all`.
    pub categories: Vec<String>,
    /// What the main endpoint can do.
    pub verbs: Vec<String>,
    /// Endpoints below an object.
    pub subresources: Vec<Subresource>,
    /// Where the schema is found: a definition of [`crate::definitions`] for built-in kinds,
    /// nothing for custom resources.
    pub definition: Option<String>,
}

/// An endpoint below an object, such as `status` or `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Name in the path.
    pub name: String,
    /// API group of the kind it speaks.
    pub group: String,
    /// Version of the kind it speaks.
    pub version: String,
    /// Kind it speaks.
    pub kind: String,
    /// What it can do.
    pub verbs: Vec<String>,
}

impl Resource {
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `plural` or `plural.group`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether this is a custom resource.
    pub fn is_custom(&self) -> bool {
        self.definition.is_none()
    }

    /// Whether the main endpoint can do `verb`.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether `group` and `plural` name this resource in any version.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// `v1` or `group/version`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Group and version of an `apiVersion`; the core group is empty.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// All built-in resources.
pub struct Builtin {
    all: Vec<Arc<Resource>>,
}

impl Builtin {
    /// Every built-in resource; the core group first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.all.iter()
    }

    /// The resource served at this group, version and plural.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.all.iter().find(|resource| resource.version == version && resource.is(group, plural))
    }

    /// The resource whose objects have this group, version and kind.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.all.iter().find(|resource| resource.version == version && resource.group == group && resource.kind == kind)
    }
}

/// The resources that exist without any CustomResourceDefinition.
pub fn builtin() -> &'static Builtin {
    static BUILTIN: LazyLock<Builtin> =
        LazyLock::new(|| Builtin { all: builtin::rows().into_iter().map(Arc::new).collect() });
    &BUILTIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_resolvable() {
        let mut seen = std::collections::BTreeSet::new();
        for resource in builtin().iter() {
            assert!(seen.insert((&resource.group, &resource.version, &resource.plural)), "{resource:?}");
            let found = builtin().find_kind(&resource.group, &resource.version, &resource.kind);
            assert_eq!(found, Some(resource));
        }
        let pods = builtin().find("", "v1", "pods").expect("pods are built in");
        assert_eq!(pods.subresource("eviction").map(|sub| sub.group.as_str()), Some("policy"));
        assert_eq!(pods.short_names, ["po"]);
    }
}
