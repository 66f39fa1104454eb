//! Whether a new `registries.conf` (version 2) can change where running pods'
//! images come from. If not, the engine may read it under their feet.

use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Registries {
    #[serde(rename = "unqualified-search-registries")]
    search: Vec<String>,
    registry: Vec<Registry>,
    #[serde(flatten)]
    rest: toml::Table,
}

#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

impl Registry {
    fn key(&self) -> &str {
        if self.prefix.is_empty() { &self.location } else { &self.prefix }
    }

    fn by_digest(&self, mirror: &Mirror) -> bool {
        mirror.pull_from_mirror == "digest-only" || (self.mirror_by_digest_only && mirror.pull_from_mirror.is_empty())
    }
}

/// Whether images resolve as before, apart from digests found in more places:
/// then no pod needs to move. What cannot be read is not safe.
pub(super) fn safe(before: Option<&[u8]>, after: Option<&[u8]>) -> bool {
    let read = |bytes: Option<&[u8]>| {
        let text = std::str::from_utf8(bytes.unwrap_or_default()).ok()?;
        toml::from_str::<Registries>(text).ok()
    };
    match (read(before), read(after)) {
        (Some(before), Some(after)) => extends(&before, &after),
        _ => false,
    }
}

fn extends(before: &Registries, after: &Registries) -> bool {
    let kept = |old: &Registry| {
        let same = |new: &&Registry| new.key() == old.key();
        after.registry.iter().find(same).is_some_and(|new| only_adds_digests(old, new))
    };
    let known = |new: &Registry| before.registry.iter().any(|old| old.key() == new.key());
    let harmless = |new: &Registry| {
        let direct = new.prefix.is_empty() || new.prefix == new.location;
        direct && !new.blocked && !new.insecure && new.mirror.iter().all(|mirror| new.by_digest(mirror))
    };
    after.search.starts_with(&before.search)
        && before.rest == after.rest
        && before.registry.iter().all(kept)
        && after.registry.iter().filter(|new| !known(new)).all(harmless)
}

fn only_adds_digests(old: &Registry, new: &Registry) -> bool {
    let same = old.prefix == new.prefix
        && old.location == new.location
        && old.blocked == new.blocked
        && old.insecure == new.insecure;
    let kept = |mirror: &Mirror| {
        new.mirror.iter().any(|other| {
            other.location == mirror.location
                && other.insecure == mirror.insecure
                && old.by_digest(mirror) == new.by_digest(other)
        })
    };
    let added = new.mirror.iter().filter(|mirror| !old.mirror.iter().any(|other| other.location == mirror.location));
    same && old.mirror.iter().all(kept) && added.into_iter().all(|mirror| new.by_digest(mirror))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_17_only_digest_mirrors_are_safe() {
        let a = "[[registry]]\nlocation = \"a\"\n";
        let mirrored = |how: &str| format!("{a}[[registry.mirror]]\nlocation = \"m\"\n{how}\n");
        let by_digest = mirrored("pull-from-mirror = \"digest-only\"");
        for (before, after, want) in [
            ("", "", true),
            ("", "unqualified-search-registries = ['a']", true),
            ("unqualified-search-registries = ['a']", "unqualified-search-registries = ['a', 'b']", true),
            ("unqualified-search-registries = ['a']", "unqualified-search-registries = ['b', 'a']", false),
            ("unqualified-search-registries = ['a']", "", false),
            ("", a, true),
            (a, "", false),
            (a, &by_digest, true),
            (&by_digest, a, false),
            (a, &mirrored(""), false),
            (a, &mirrored("pull-from-mirror = \"tag-only\""), false),
            (&by_digest, &mirrored("pull-from-mirror = \"all\""), false),
            (a, "[[registry]]\nlocation = \"a\"\nblocked = true\n", false),
            (a, "[[registry]]\nlocation = \"a\"\ninsecure = true\n", false),
            (
                "",
                "[[registry]]\nlocation = \"a\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m\"\n",
                true,
            ),
            ("", "[[registry]]\nprefix = \"b\"\nlocation = \"a\"\n", false),
            ("", "short-name-mode = 'enforcing'", false),
            ("", "not toml at all [", false),
        ] {
            assert_eq!(safe(Some(before.as_bytes()), Some(after.as_bytes())), want, "{before:?} to {after:?}");
        }
        assert!(safe(None, Some(a.as_bytes())));
    }
}
