//! Image names, completed the way container engines complete them, so that a
//! pod finds the image under the name it writes.

use super::ImageError;

/// The full name: registry, path and tag.
pub fn normalize(name: &str) -> Result<String, ImageError> {
    let bad = |problem| ImageError::Name { name: name.to_owned(), problem };
    if name.contains('@') {
        return Err(bad("a digest cannot be chosen"));
    }
    let (repository, tag) = split_tag(name);
    let (registry, path) = match repository.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
        _ if repository.contains('/') => ("docker.io", repository.to_owned()),
        _ => ("docker.io", format!("library/{repository}")),
    };
    if !registry.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')) {
        return Err(bad("its registry is not a host name"));
    }
    if !path.split('/').all(is_component) {
        return Err(bad("parts of its path may only have a-z, 0-9, and single '.', '_' or '-' between them"));
    }
    if !is_tag(tag) {
        return Err(bad("its tag may have 1 to 128 letters, digits, '.', '_' and '-'"));
    }
    Ok(format!("{registry}/{path}:{tag}"))
}

/// The last part of a full name, without its tag.
pub fn short(name: &str) -> &str {
    let (repository, _) = split_tag(name);
    repository.rsplit('/').next().unwrap_or(repository)
}

/// A colon before the last slash belongs to a port.
fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

fn is_registry(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':'])
}

fn is_component(part: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    part.bytes().all(|byte| inner(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && part.bytes().next().is_some_and(inner)
        && part.bytes().last().is_some_and(inner)
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !tag.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_engines_do() {
        for (name, want) in [
            ("busybox", Some("docker.io/library/busybox:latest")),
            ("me/app:1.2", Some("docker.io/me/app:1.2")),
            ("localhost/hello", Some("localhost/hello:latest")),
            ("localhost:5000/a/b:x", Some("localhost:5000/a/b:x")),
            ("quay.io/org/app", Some("quay.io/org/app:latest")),
            ("localhost:5000/app", Some("localhost:5000/app:latest")),
            ("", None),
            ("Upper", None),
            ("a//b", None),
            ("-a", None),
            ("a:", None),
            ("a:-x", None),
            ("a@sha256:00", None),
            ("bad host.io/a", None),
        ] {
            assert_eq!(normalize(name).ok().as_deref(), want, "{name}");
        }
        assert_eq!(short("localhost:5000/a/web:1"), "web");
    }
}
