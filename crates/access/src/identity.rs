//! Who a request speaks for.

use std::collections::BTreeMap;

/// The user of requests without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// Group of requests without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group of everybody who proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group that bypasses authorisation.
pub const MASTERS: &str = "system:masters";
/// Group of node agents.
pub const NODES: &str = "system:nodes";
/// Group of all service accounts; those of one namespace are in `system:serviceaccounts:<namespace>`.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const NODE_PREFIX: &str = "system:node:";

/// Who a request speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Unique id, empty when unknown.
    pub uid: String,
    /// Groups, in the order in which the credential named them.
    pub groups: Vec<String>,
    /// Further facts by key, such as the pod a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A proven user; [`AUTHENTICATED`] is added to the groups.
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Identity {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Identity { user: user.into(), groups, ..Identity::default() }
    }

    /// Nobody in particular.
    pub fn anonymous() -> Identity {
        Identity { user: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Identity::default() }
    }

    /// The administrator of this machine, whom no rule restrains.
    pub fn administrator() -> Identity {
        Identity::new("kubernetes-admin", [MASTERS])
    }

    /// The agent of one node.
    pub fn node(name: &str) -> Identity {
        Identity::new(format!("{NODE_PREFIX}{name}"), [NODES])
    }

    /// A service account; `uid` is empty when unknown.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Identity {
        let own = format!("{SERVICE_ACCOUNTS}:{namespace}");
        let user = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}");
        Identity { uid: uid.to_owned(), ..Identity::new(user, [SERVICE_ACCOUNTS.to_owned(), own]) }
    }

    /// Whether the identity is in `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node whose agent this is.
    pub fn node_name(&self) -> Option<&str> {
        if self.is_in(NODES) { self.user.strip_prefix(NODE_PREFIX) } else { None }
    }
}

/// Namespace and name behind the user name of a service account.
pub fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    let usable = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    usable.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_service_accounts_are_taken_apart() {
        for (user, want) in [
            ("system:serviceaccount:a:b", Some(("a", "b"))),
            ("system:serviceaccount:a:b:c", None),
            ("system:serviceaccount::b", None),
            ("system:serviceaccount:a", None),
            ("bob", None),
        ] {
            assert_eq!(service_account_of(user), want, "{user}");
        }
    }

    #[test]
    fn a_node_name_without_the_group_is_just_a_user() {
        assert_eq!(Identity::node("n").node_name(), Some("n"));
        assert_eq!(Identity::new("system:node:n", ["other"]).node_name(), None);
    }
}
