//! Credentials of registries, as pull secrets hold them.

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_cri::v1::AuthConfig;
use serde_json::Value;

/// The registry of images that name none.
const DEFAULT: &str = "docker.io";
/// Other names people wrote into their configuration for it.
const DEFAULT_ALIASES: [&str; 4] = ["index.docker.io", "index.docker.io/v1", "registry-1.docker.io", "docker.io/v1"];

/// Keys of a secret that hold credentials, by the type of the secret.
pub const KEYS: [&str; 2] = [".dockerconfigjson", ".dockercfg"];

/// Credentials in the content of one of [`KEYS`] that fit `image`, the most
/// specific first.
pub fn credentials(image: &str, content: &[u8]) -> Vec<AuthConfig> {
    let Ok(config) = serde_json::from_slice::<Value>(content) else { return Vec::new() };
    let entries = config.get("auths").unwrap_or(&config).as_object();
    let image = full_name(image);
    let mut found: Vec<(usize, AuthConfig)> = entries
        .into_iter()
        .flatten()
        .filter_map(|(registry, entry)| Some((fits(registry, &image)?, credential(entry)?)))
        .collect();
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, credential)| credential).collect()
}

/// Registry and repository of an image, its tag and digest cut off.
fn full_name(image: &str) -> String {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let name = name[last..].find(':').map_or(name, |colon| &name[..last + colon]);
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("{DEFAULT}/{name}"),
        None => format!("{DEFAULT}/library/{name}"),
    }
}

/// How much of the image's name the entry's covers; `None` where it does not fit.
fn fits(registry: &str, image: &str) -> Option<usize> {
    let bare = registry.split_once("://").map_or(registry, |(_, rest)| rest).trim_end_matches('/');
    let bare = if DEFAULT_ALIASES.contains(&bare) { DEFAULT } else { bare };
    let mut parts = image.split('/');
    let all = bare.split('/').all(|wanted| parts.next().is_some_and(|part| matches(wanted, part)));
    all.then_some(bare.len())
}

/// `*` stands for anything but a dot.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let lengths = 0..=rest.find(['.', '/']).unwrap_or(rest.len());
            lengths.into_iter().filter(|&length| rest.is_char_boundary(length)).any(|l| matches(after, &rest[l..]))
        }),
    }
}

fn credential(entry: &Value) -> Option<AuthConfig> {
    let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let mut credential = AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        ..Default::default()
    };
    if let Some((user, password)) = decode(&text("auth")) {
        (credential.username, credential.password) = (user, password);
    }
    let empty = [&credential.username, &credential.identity_token, &credential.registry_token];
    (!empty.iter().all(|text| text.is_empty())).then_some(credential)
}

/// `user:password`, encoded.
fn decode(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64_STANDARD.decode(auth.trim()).ok()?).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_most_specific_entry_comes_first() {
        let auth = BASE64_STANDARD.encode("user:pass:word");
        let config = json!({"auths": {
            "reg.example.com": {"username": "wide", "password": "w"},
            "https://reg.example.com/team/": {"auth": auth},
            "*.example.com": {"username": "glob", "password": "g"},
            "other.example.com": {"username": "no", "password": "n"},
            "reg.example.com/empty": {},
        }});
        let found = credentials("reg.example.com/team/app:1", config.to_string().as_bytes());
        let names: Vec<_> = found.iter().map(|c| (c.username.as_str(), c.password.as_str())).collect();
        assert_eq!(names, [("user", "pass:word"), ("wide", "w"), ("glob", "g")]);
    }

    #[test]
    fn images_have_a_registry() {
        for (image, entry, want) in [
            ("busybox", "https://index.docker.io/v1/", true),
            ("team/app@sha256:00", "docker.io", true),
            ("localhost:5000/a:1", "localhost:5000", true),
            ("localhost:5000/a:1", "localhost", false),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a", true),
            ("a.b.c/x", "*.b.c", true),
            ("a.b.c/x", "*.c", false),
            ("a.b.c/x", "a.b.c/y", false),
        ] {
            assert_eq!(fits(entry, &full_name(image)).is_some(), want, "{image} {entry}");
        }
    }

    #[test]
    fn rubbish_has_no_credentials() {
        for text in ["", "[]", "{\"auths\": 3}", "{\"a\": {\"auth\": \"%\"}}"] {
            assert!(credentials("a/b", text.as_bytes()).is_empty(), "{text}");
        }
    }
}
