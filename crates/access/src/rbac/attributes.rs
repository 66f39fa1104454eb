//! What a request wants to do.

use std::fmt::Write as _;

use crate::identity::Identity;

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or a special verb such as
    /// `impersonate`; for paths the HTTP method in lower case.
    pub verb: &'a str,
    /// On what.
    pub target: Target<'a>,
}

/// On what a request acts. Empty strings stand for "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Objects of the API.
    Resource {
        /// API group, empty for the core.
        group: &'a str,
        /// Plural of the kind.
        resource: &'a str,
        /// Such as `log` or `status`.
        subresource: &'a str,
        /// Namespace; empty for cluster-scoped kinds and for all namespaces.
        namespace: &'a str,
        /// Name of the object; for list, watch and deletecollection the one a field selector pins, if any.
        name: &'a str,
    },
    /// Anything else the server serves, such as `/healthz`.
    Path(&'a str),
}

impl<'a> Attributes<'a> {
    /// An action on objects of the API.
    pub fn resource(verb: &'a str, group: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Self {
        Attributes { verb, target: Target::Resource { group, resource, subresource: "", namespace, name } }
    }

    /// An action on a path outside the API's resources.
    pub fn path(verb: &'a str, path: &'a str) -> Self {
        Attributes { verb, target: Target::Path(path) }
    }

    /// The same action on a subresource.
    #[must_use]
    pub fn on_subresource(mut self, name: &'a str) -> Self {
        if let Target::Resource { subresource, .. } = &mut self.target {
            *subresource = name;
        }
        self
    }

    /// Why `identity` is refused, without naming the object: `User "x" cannot list resource "pods" in …`.
    pub fn refusal(&self, identity: &Identity) -> String {
        let (user, verb) = (&identity.user, self.verb);
        match self.target {
            Target::Path(path) => format!("User {user:?} cannot {verb} path {path:?}"),
            Target::Resource { group, resource, subresource, namespace, .. } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                let mut text = format!(
                    "User {user:?} cannot {verb} resource \"{resource}{slash}{subresource}\" in API group {group:?} "
                );
                let scope = match namespace {
                    "" => write!(text, "at the cluster scope"),
                    namespace => write!(text, "in the namespace {namespace:?}"),
                };
                scope.expect("a String takes everything");
                text
            }
        }
    }

    /// The whole message of the 403: `pods "a" is forbidden: User …`.
    pub fn forbidden(&self, identity: &Identity) -> String {
        self.is_forbidden(&self.refusal(identity))
    }

    /// Puts what is forbidden before `why`.
    pub fn is_forbidden(&self, why: &str) -> String {
        let Target::Resource { group, resource, name, .. } = self.target else { return format!("forbidden: {why}") };
        let dot = if group.is_empty() { "" } else { "." };
        match name {
            "" => format!("{resource}{dot}{group} is forbidden: {why}"),
            name => format!("{resource}{dot}{group} {name:?} is forbidden: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_clients_expect() {
        let user = Identity::new("x", ["g"]);
        let rows = [
            (
                Attributes::resource("list", "", "pods", "default", ""),
                r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#,
            ),
            (
                Attributes::resource("get", "", "pods", "default", "a").on_subresource("log"),
                r#"pods "a" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "default""#,
            ),
            (
                Attributes::resource("list", "apps", "deployments", "", ""),
                r#"deployments.apps is forbidden: User "x" cannot list resource "deployments" in API group "apps" at the cluster scope"#,
            ),
            (Attributes::path("get", "/metrics"), r#"forbidden: User "x" cannot get path "/metrics""#),
        ];
        for (attributes, want) in rows {
            assert_eq!(attributes.forbidden(&user), want);
        }
    }
}
