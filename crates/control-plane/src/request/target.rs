//! What a path names, and what the method does to it.

use http::Method;

/// What a request does, in the words of role-based access control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// One object is read.
    Get,
    /// A collection is read.
    List,
    /// Changes are followed.
    Watch,
    /// An object is made, or an action posted.
    Create,
    /// An object is replaced.
    Update,
    /// An object is changed in part.
    Patch,
    /// One object is deleted.
    Delete,
    /// A collection is deleted.
    DeleteCollection,
}

impl Verb {
    /// The word used in access rules and discovery.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// The word used in metrics: that of the method, but for reading many.
    pub fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Watch => "WATCH",
            Self::Create => "POST",
            Self::Update => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::DeleteCollection => "DELETECOLLECTION",
        }
    }
}

/// A path below `/api` or `/apis` that names a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourcePath {
    /// API group; empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Namespace, or empty: all of them, or a cluster-scoped resource.
    pub namespace: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Name of one object, or empty for the collection.
    pub name: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Whether the path itself asks for a watch, in the way of old clients: `/api/v1/watch/pods`.
    pub watch: bool,
}

impl ResourcePath {
    /// What `method` does here; `watch` is what the query says.
    pub fn verb(&self, method: &Method, watch: bool) -> Option<Verb> {
        let one = !self.name.is_empty();
        Some(match *method {
            Method::GET | Method::HEAD if (watch || self.watch) && self.subresource.is_empty() => Verb::Watch,
            _ if self.watch => return None,
            Method::GET | Method::HEAD if one => Verb::Get,
            Method::GET | Method::HEAD => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT if one => Verb::Update,
            Method::PATCH if one => Verb::Patch,
            Method::DELETE if one => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ => return None,
        })
    }
}

/// What a path is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// `/api`: versions of the core group.
    CoreVersions,
    /// `/apis`: all other groups.
    Groups,
    /// `/apis/<group>`.
    Group(String),
    /// `/api/v1` or `/apis/<group>/<version>`.
    GroupVersion(String, String),
    /// Objects.
    Resource(ResourcePath),
    /// Anything else: health, version, OpenAPI.
    Other,
}

impl Path {
    /// Takes a URL path apart; percent escapes are resolved per segment.
    pub fn parse(path: &str) -> Self {
        let segments: Option<Vec<String>> =
            path.split('/').filter(|segment| !segment.is_empty()).map(|segment| unescape(segment, false)).collect();
        let Some(segments) = segments else { return Self::Other };
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).into()),
            ["api", version] => Self::GroupVersion(String::new(), (*version).into()),
            ["apis", group, version] => Self::GroupVersion((*group).into(), (*version).into()),
            ["api", version, "watch", rest @ ..] if !rest.is_empty() => watched(resource("", version, rest)),
            ["apis", group, version, "watch", rest @ ..] if !rest.is_empty() => watched(resource(group, version, rest)),
            ["api", version, rest @ ..] => resource("", version, rest),
            ["apis", group, version, rest @ ..] => resource(group, version, rest),
            _ => Self::Other,
        }
    }
}

fn watched(path: Path) -> Path {
    match path {
        Path::Resource(path) if path.subresource.is_empty() => Path::Resource(ResourcePath { watch: true, ..path }),
        _ => Path::Other,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Path {
    let base = ResourcePath { group: group.into(), version: version.into(), ..ResourcePath::default() };
    let make = |namespace: &str, resource: &str, name: &str, subresource: &str| {
        Path::Resource(ResourcePath {
            namespace: namespace.into(),
            resource: resource.into(),
            name: name.into(),
            subresource: subresource.into(),
            ..base.clone()
        })
    };
    match rest {
        ["namespaces", name] => make(name, "namespaces", name, ""),
        ["namespaces", name, part @ ("status" | "finalize")] => make(name, "namespaces", name, part),
        ["namespaces", namespace, resource] => make(namespace, resource, "", ""),
        ["namespaces", namespace, resource, name] => make(namespace, resource, name, ""),
        ["namespaces", namespace, resource, name, part] => make(namespace, resource, name, part),
        [resource] => make("", resource, "", ""),
        [resource, name] => make("", resource, name, ""),
        [resource, name, part] => make("", resource, name, part),
        _ => Path::Other,
    }
}

/// Resolves `%XX`; with `plus`, `+` means a blank. `None` for broken escapes
/// and for what is not UTF-8 afterwards.
pub fn unescape(text: &str, plus: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => out.push(hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?),
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> String {
        match Path::parse(path) {
            Path::Resource(it) => [it.group, it.version, it.namespace, it.resource, it.name, it.subresource].join("|"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        let table = [
            ("/api", "CoreVersions"),
            ("/apis/", "Groups"),
            ("/apis/apps", "Group(\"apps\")"),
            ("/api/v1", "GroupVersion(\"\", \"v1\")"),
            ("/apis/apps/v1", "GroupVersion(\"apps\", \"v1\")"),
            ("/api/v1/pods", "|v1||pods||"),
            ("/api/v1/nodes/n", "|v1||nodes|n|"),
            ("/api/v1/nodes/n/status", "|v1||nodes|n|status"),
            ("/api/v1/namespaces", "|v1||namespaces||"),
            ("/api/v1/namespaces/a", "|v1|a|namespaces|a|"),
            ("/api/v1/namespaces/a/finalize", "|v1|a|namespaces|a|finalize"),
            ("/api/v1/namespaces/a/pods", "|v1|a|pods||"),
            ("/api/v1/namespaces/a/pods/p/exec", "|v1|a|pods|p|exec"),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", "apps|v1|a|deployments|d|scale"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io|v1||clusterroles|system:node|",
            ),
            ("/api/v1/namespaces/a/pods/p/proxy/x/y", "Other"),
            ("/api/v1/pods/%zz", "Other"),
            ("/healthz", "Other"),
        ];
        for (given, want) in table {
            assert_eq!(at(given), want, "{given}");
        }
    }

    #[test]
    fn methods_become_verbs() {
        let one = ResourcePath { name: "p".into(), ..ResourcePath::default() };
        let all = ResourcePath::default();
        let old = ResourcePath { watch: true, ..ResourcePath::default() };
        let table = [
            (&one, Method::GET, false, Some(Verb::Get)),
            (&one, Method::GET, true, Some(Verb::Watch)),
            (&all, Method::GET, false, Some(Verb::List)),
            (&all, Method::GET, true, Some(Verb::Watch)),
            (&all, Method::POST, false, Some(Verb::Create)),
            (&one, Method::PUT, false, Some(Verb::Update)),
            (&all, Method::PUT, false, None),
            (&one, Method::PATCH, false, Some(Verb::Patch)),
            (&one, Method::DELETE, false, Some(Verb::Delete)),
            (&all, Method::DELETE, false, Some(Verb::DeleteCollection)),
            (&one, Method::TRACE, false, None),
            (&old, Method::GET, false, Some(Verb::Watch)),
            (&old, Method::POST, false, None),
        ];
        for (path, method, watch, want) in table {
            assert_eq!(path.verb(&method, watch), want, "{method} {path:?} {watch}");
        }
    }
}
