//! Acting as somebody else, by `Impersonate-*` headers.

use std::collections::BTreeMap;

use crate::identity::{ANONYMOUS, AUTHENTICATED, Identity, SERVICE_ACCOUNTS, UNAUTHENTICATED, service_account_of};
use crate::rbac::{Attributes, Authorizer, Decision};

const EXTRA_PREFIX: &str = "impersonate-extra-";
const GROUP: &str = "authentication.k8s.io";

/// Whom a request wants to act as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impersonation {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Why a request may not act as somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Groups, uid or extra without a user: answer 400.
    #[error("requested impersonation of groups, uid or extra without impersonating a user: add Impersonate-User")]
    NoUser,
    /// Not allowed: answer 403 with this message.
    #[error("{0}")]
    Forbidden(String),
}

impl Impersonation {
    /// Reads the headers of a request, their names in lower case; `None` when none of them is about this.
    pub fn from_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Option<Self>, Refused> {
        let mut wish = Impersonation::default();
        for (name, value) in headers {
            match name {
                "impersonate-user" => value.clone_into(&mut wish.user),
                "impersonate-uid" => value.clone_into(&mut wish.uid),
                "impersonate-group" => wish.groups.push(value.to_owned()),
                _ => {
                    if let Some(key) = name.strip_prefix(EXTRA_PREFIX) {
                        wish.extra.entry(unescape(key)).or_default().push(value.to_owned());
                    }
                }
            }
        }
        if wish == Impersonation::default() {
            return Ok(None);
        }
        if wish.user.is_empty() { Err(Refused::NoUser) } else { Ok(Some(wish)) }
    }

    /// Becomes the wished identity, if `own` may.
    pub fn assume(self, own: &Identity, authorizer: &Authorizer) -> Result<Identity, Refused> {
        let may = |action: Attributes<'_>| match authorizer.authorize(own, &action) {
            Decision::Allowed { .. } => Ok(()),
            Decision::Denied { message, .. } => Err(Refused::Forbidden(message)),
        };
        let verb = "impersonate";
        match service_account_of(&self.user) {
            Some((namespace, name)) => may(Attributes::resource(verb, "", "serviceaccounts", namespace, name))?,
            None => may(Attributes::resource(verb, "", "users", "", &self.user))?,
        }
        for group in &self.groups {
            may(Attributes::resource(verb, "", "groups", "", group))?;
        }
        if !self.uid.is_empty() {
            may(Attributes::resource(verb, GROUP, "uids", "", &self.uid))?;
        }
        for (key, values) in &self.extra {
            for value in values {
                may(Attributes::resource(verb, GROUP, "userextras", "", value).on_subresource(key))?;
            }
        }
        Ok(self.into_identity())
    }

    fn into_identity(self) -> Identity {
        let Impersonation { user, uid, mut groups, extra } = self;
        if groups.is_empty()
            && let Some((namespace, _)) = service_account_of(&user)
        {
            groups = vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")];
        }
        let implied = if user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
            groups.push(implied.to_owned());
        }
        Identity { user, uid, groups, extra }
    }
}

/// Undoes percent-encoding, by which clients get slashes into header names. What is none is kept.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = match (first, tail) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::Kind;
    use serde_json::json;

    fn authorizer() -> Authorizer {
        let authorizer = Authorizer::new();
        let role = json!({ "metadata": { "name": "r" }, "rules": [
            { "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob", "system:anonymous"], "verbs": ["impersonate"] },
            { "apiGroups": [""], "resources": ["groups"], "resourceNames": ["dev"], "verbs": ["impersonate"] },
            { "apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"] },
            { "apiGroups": [GROUP], "resources": ["userextras/a/b"], "verbs": ["impersonate"] },
        ] });
        authorizer.put(Kind::ClusterRole, &role).unwrap();
        let binding = json!({ "metadata": { "name": "b" }, "roleRef": { "kind": "ClusterRole", "name": "r" },
            "subjects": [{ "kind": "User", "name": "jane" }] });
        authorizer.put(Kind::ClusterRoleBinding, &binding).unwrap();
        authorizer
    }

    #[test]
    fn impersonation_needs_permission_for_every_part() {
        let authorizer = authorizer();
        let jane = Identity::new("jane", ["x"]);
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let rows: [(Headers<'_>, Result<&[&str], &str>); 9] = [
            (&[("impersonate-user", "bob")], Ok(&["system:authenticated"])),
            (&[("impersonate-user", "bob"), ("impersonate-group", "dev")], Ok(&["dev", "system:authenticated"])),
            (&[("impersonate-user", "system:anonymous")], Ok(&["system:unauthenticated"])),
            (
                &[("impersonate-user", "system:serviceaccount:a:b")],
                Ok(&["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]),
            ),
            (&[("impersonate-user", "bob"), ("impersonate-extra-a%2fb", "v")], Ok(&["system:authenticated"])),
            (&[("impersonate-user", "bob"), ("impersonate-extra-c", "v")], Err("userextras/c")),
            (&[("impersonate-user", "root")], Err(r#"users "root" is forbidden: User "jane" cannot impersonate"#)),
            (&[("impersonate-user", "bob"), ("impersonate-group", "system:masters")], Err("groups")),
            (&[("impersonate-group", "dev")], Err("without impersonating a user")),
        ];
        for (headers, want) in rows {
            let seen = Impersonation::from_headers(headers.iter().copied())
                .and_then(|wish| wish.expect("headers ask for it").assume(&jane, &authorizer));
            match (seen, want) {
                (Ok(identity), Ok(groups)) => assert_eq!(identity.groups, groups, "{headers:?}"),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{headers:?}: {error}"),
                (seen, want) => panic!("{headers:?}: {seen:?}, expected {want:?}"),
            }
        }
    }

    #[test]
    fn other_headers_do_not_matter() {
        assert_eq!(Impersonation::from_headers([("accept", "x"), ("user", "y")]), Ok(None));
    }

    #[test]
    fn keys_are_unescaped_as_far_as_they_can_be() {
        for (key, want) in [("a%2Fb", "a/b"), ("%", "%"), ("%2", "%2"), ("%zz", "%zz"), ("%ff", "%ff"), ("é%41", "éA")]
        {
            assert_eq!(unescape(key), want);
        }
    }
}
