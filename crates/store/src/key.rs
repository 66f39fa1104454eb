//! What names an object, a set of objects and a moment.

use std::fmt;
use std::sync::Arc;

/// Longest key in bytes. Group, plural, namespace and name of Kubernetes together stay below it.
pub const MAX_KEY: usize = 1024;

/// A moment in the life of the store: each change gets the next one.
///
/// Zero is the moment before the first change. Revisions never repeat and never go back, not even after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(u64);

impl Revision {
    /// The empty store.
    pub const ZERO: Self = Self(0);

    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The moment of the change after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A part of a key that cannot be one: the caller should answer that there is no such object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part} {value:?} cannot be part of a key: it is empty, contains a slash or makes the key longer than {MAX_KEY}"
)]
pub struct BadKey {
    /// Which part: `plural`, `namespace` or `name`.
    pub part: &'static str,
    /// What was given for it.
    pub value: String,
}

/// Names one object: `<group or core>/<plural>/<namespace or nothing>/<name>`.
///
/// Keys are ordered by these bytes, so objects of one kind are together, and in it those of one namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of an object. The core group may be given as `""`; cluster-scoped objects have the namespace `""`.
    pub fn new(group: &str, plural: &str, namespace: &str, name: &str) -> Result<Self, BadKey> {
        let prefix = resource_prefix(group, plural)?;
        let text = format!("{prefix}{}/{}", part("namespace", namespace, true)?, part("name", name, false)?);
        if text.len() > MAX_KEY {
            return Err(BadKey { part: "name", value: name.chars().take(64).collect() });
        }
        Ok(Self(text.into()))
    }

    /// The name of the object.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The namespace of the object, `""` if it has none.
    pub fn namespace(&self) -> &str {
        self.0.split('/').nth(2).unwrap_or_default()
    }

    /// The whole key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key read back from disk, or handed out as text before.
    ///
    /// Text that no [`Key::new`] made is refused: tokens of clients end up here.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let mut parts = text.splitn(4, '/');
        let mut next = || parts.next().unwrap_or_default();
        Self::new(next(), next(), next(), next())
    }

    /// Text that came from a [`Key`].
    pub(crate) fn trusted(text: &str) -> Self {
        Self(text.into())
    }

    /// The prefixes this key is under: its kind and, if it has one, its namespace in it.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        let slashes: Vec<usize> = self.0.match_indices('/').map(|(at, _)| at).take(3).collect();
        let namespaced = slashes.len() == 3 && slashes[2] > slashes[1] + 1;
        let kind = slashes.get(1).map(|&at| &self.0[..=at]);
        let namespace = slashes.get(2).filter(|_| namespaced).map(|&at| &self.0[..=at]);
        kind.into_iter().chain(namespace)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names all objects of a kind, or those of them in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// All objects of a kind.
    pub fn resource(group: &str, plural: &str) -> Result<Self, BadKey> {
        Ok(Self(resource_prefix(group, plural)?.into()))
    }

    /// The objects of a kind in a namespace; with the namespace `""` those of all.
    pub fn namespace(group: &str, plural: &str, namespace: &str) -> Result<Self, BadKey> {
        let mut text = resource_prefix(group, plural)?;
        if !namespace.is_empty() {
            text += part("namespace", namespace, false)?;
            text.push('/');
        }
        Ok(Self(text.into()))
    }

    /// Is this object among those meant?
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }

    /// The prefix as text: it ends with a slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first text after all keys meant.
    pub(crate) fn end(&self) -> String {
        // A prefix ends with a slash, and zero is the character after it.
        let mut end = self.0[..self.0.len() - 1].to_owned();
        end.push('0');
        end
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn resource_prefix(group: &str, plural: &str) -> Result<String, BadKey> {
    let group = if group.is_empty() { "core" } else { part("group", group, false)? };
    Ok(format!("{group}/{}/", part("plural", plural, false)?))
}

fn part<'a>(name: &'static str, value: &'a str, may_be_empty: bool) -> Result<&'a str, BadKey> {
    if value.contains('/') || (value.is_empty() && !may_be_empty) || value.len() > MAX_KEY {
        return Err(BadKey { part: name, value: value.chars().take(64).collect() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_parts_and_prefixes() {
        let rows = [
            (("", "pods", "a", "x"), "core/pods/a/x", vec!["core/pods/", "core/pods/a/"]),
            (
                ("apps", "deployments", "a", "x"),
                "apps/deployments/a/x",
                vec!["apps/deployments/", "apps/deployments/a/"],
            ),
            (("", "nodes", "", "n"), "core/nodes//n", vec!["core/nodes/"]),
        ];
        for ((group, plural, namespace, name), text, prefixes) in rows {
            let key = Key::new(group, plural, namespace, name).unwrap();
            assert_eq!(key.as_str(), text);
            assert_eq!((key.namespace(), key.name()), (namespace, name), "{text}");
            assert_eq!(key.prefixes().collect::<Vec<_>>(), prefixes, "{text}");
            assert_eq!(Key::parse(text).unwrap(), key);
            for prefix in key.prefixes() {
                let prefix = Prefix(prefix.into());
                assert!(prefix.contains(&key) && *prefix.end() > *text && *prefix.0 < *text, "{prefix} {text}");
            }
        }
    }

    #[test]
    fn parts_that_would_reach_other_objects_are_refused() {
        let long = "x".repeat(MAX_KEY);
        for (plural, namespace, name) in [
            ("pods", "a", "x/y"),
            ("pods", "a/b", "x"),
            ("pods/x", "a", "x"),
            ("", "a", "x"),
            ("pods", "a", ""),
            ("pods", "a", &long),
        ] {
            assert!(Key::new("", plural, namespace, name).is_err(), "{plural} {namespace} {name}");
        }
        for text in ["", "core", "core/pods", "core/pods/a", "core/pods/a/", "core/pods/a/x/y"] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
        assert!(Prefix::namespace("", "pods", "a/b").is_err());
    }

    #[test]
    fn a_prefix_ends_where_its_kind_ends() {
        let pods = Prefix::resource("", "pods").unwrap();
        assert!(!pods.contains(&Key::new("", "podtemplates", "a", "x").unwrap()));
        assert_eq!(Prefix::namespace("", "pods", "").unwrap(), pods);
    }
}
