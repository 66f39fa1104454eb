//! What a service account's token says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// Claims of a token, by their names in RFC 7519.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// User name.
    pub sub: String,
    /// Audiences.
    pub aud: Vec<String>,
    /// End, in seconds since 1970.
    pub exp: i64,
    /// Issue, in seconds since 1970.
    pub iat: i64,
    /// Begin, in seconds since 1970.
    pub nbf: i64,
    /// Id of the token.
    #[serde(default)]
    pub jti: String,
    /// The objects behind it.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
}

/// The objects a token speaks for and is bound to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kubernetes {
    /// Namespace of account and pod.
    pub namespace: String,
    /// The account.
    #[serde(rename = "serviceaccount")]
    pub account: Named,
    /// The pod the token dies with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    /// The node of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
    /// The secret the token dies with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
}

/// One object at one time: a namesake made later has another uid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Name.
    pub name: String,
    /// Unique id.
    pub uid: String,
}

impl Named {
    /// An object.
    pub fn new(name: impl Into<String>, uid: impl Into<String>) -> Named {
        Named { name: name.into(), uid: uid.into() }
    }
}

/// An object that must be alive for a token to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Plural of a core kind: `serviceaccounts`, `pods`, `secrets`, `nodes`.
    pub resource: &'static str,
    /// Namespace, empty for nodes.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

impl Claims {
    /// Every object the token depends on, with the uid it must still have.
    pub fn dependencies(&self) -> impl Iterator<Item = (Reference<'_>, &str)> {
        let objects = &self.kubernetes;
        // A node named beside a pod only tells where the pod runs; alone, the token is bound to it.
        let node = objects.node.as_ref().filter(|_| objects.pod.is_none());
        [
            ("serviceaccounts", Some(&objects.account)),
            ("pods", objects.pod.as_ref()),
            ("secrets", objects.secret.as_ref()),
            ("nodes", node),
        ]
        .into_iter()
        .filter_map(move |(resource, named)| {
            let named = named?;
            let namespace = if resource == "nodes" { "" } else { objects.namespace.as_str() };
            Some((Reference { resource, namespace, name: &named.name }, named.uid.as_str()))
        })
    }

    /// Whom the token speaks for.
    pub fn identity(&self) -> Identity {
        let objects = &self.kubernetes;
        let mut extra = BTreeMap::new();
        let mut add = |key: &str, value: String| {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        };
        if !self.jti.is_empty() {
            add("credential-id", format!("JTI={}", self.jti));
        }
        for (kind, named) in [("pod", &objects.pod), ("node", &objects.node)] {
            if let Some(named) = named {
                add(&format!("{kind}-name"), named.name.clone());
                add(&format!("{kind}-uid"), named.uid.clone());
            }
        }
        Identity { extra, ..Identity::service_account(&objects.namespace, &objects.account.name, &objects.account.uid) }
    }
}
