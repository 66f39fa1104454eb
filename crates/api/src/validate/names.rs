//! The alphabets of names. Every function returns what is wrong, nothing when the name is good.

/// What a DNS label looks like, as messages spell it.
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                         '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used \
                         for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                          alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or \
                          'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                         with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                           '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                           'my_value',  or '12345', regex used for validation is \
                           '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn alphanumeric_ends(text: &str, inner: impl Fn(u8) -> bool, end: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|c| end(*c)) && bytes.last().is_some_and(|c| end(*c)) && bytes.iter().all(|c| inner(*c))
}

fn lower(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    alphanumeric_ends(text, |c| lower(c) || c == b'-', lower)
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn check(good: bool, length: usize, max: usize, message: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if length > max {
        wrong.push(too_long(max));
    }
    if !good {
        wrong.push(message.to_owned());
    }
    wrong
}

/// RFC 1123 label: namespaces, container names.
pub fn label(text: &str) -> Vec<String> {
    check(is_label(text), text.len(), 63, LABEL)
}

/// RFC 1123 subdomain: most names.
pub fn subdomain(text: &str) -> Vec<String> {
    check(is_subdomain(text), text.len(), 253, SUBDOMAIN)
}

/// RFC 1035 label: services.
pub fn label_1035(text: &str) -> Vec<String> {
    let good = is_label(text) && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    check(good, text.len(), 63, LABEL_1035)
}

/// A path segment: names of roles and bindings.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|part| text.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

fn qualified_part(text: &str) -> bool {
    let end = |c: u8| c.is_ascii_alphanumeric();
    alphanumeric_ends(text, |c| end(c) || matches!(c, b'-' | b'_' | b'.'), end)
}

/// `name` or `prefix/name`: label keys, finalizers, resource names.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                 with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                 validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix \
                 and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(subdomain(prefix).into_iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !qualified_part(name) {
        wrong.push(QUALIFIED.to_owned());
    }
    wrong
}

/// Values of labels.
pub fn label_value(text: &str) -> Vec<String> {
    check(text.is_empty() || qualified_part(text), text.len(), 63, LABEL_VALUE)
}

/// Names of ports: lower-case letters, digits and single dashes, at least one letter, at most 15.
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 15 {
        wrong.push("must be no more than 15 characters".to_owned());
    }
    if text.is_empty() || !text.bytes().all(|c| lower(c) || c == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|c| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// Names of environment variables: anything printable but `=`.
pub fn environment(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// Keys of ConfigMaps and Secrets, which become file names.
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 253 {
        wrong.push(too_long(253));
    }
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        wrong.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    match text {
        "." => wrong.push("must not be '.'".to_owned()),
        text if text.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_alphabets() {
        type Check = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let rows: &[(Check, &[&str], &[&str])] = &[
            (label, &["a", "a-b", "0"], &["", "A", "-a", "a-", "a.b", "a_b", &long]),
            (subdomain, &["a.b-c.d", "0.1"], &["", ".", "a..b", "a.", "A.b", "a/b"]),
            (label_1035, &["a1"], &["1a", "a.b", ""]),
            (path_segment, &["system:node", "a b"], &[".", "..", "a/b", "50%"]),
            (
                qualified_name,
                &["a", "A_b.c", "x.y/Z", "kubernetes.io/x"],
                &["", "/a", "a/", "a/b/c", "-a", "X.y/a", &long],
            ),
            (label_value, &["", "a", "A_b.c"], &["-", "a b", "a/b", &long]),
            (port_name, &["http", "a-1"], &["", "80", "-a", "a--b", "http_1", "a234567890123456"]),
            (environment, &["A", "a.b", "x y"], &["", "a=b", "\u{e9}"]),
            (config_key, &["a.b", "_x", ".hidden"], &["", ".", "..", "..a", "a/b"]),
        ];
        for (check, good, bad) in rows {
            for name in *good {
                assert_eq!(check(name), [""; 0], "{name}");
            }
            for name in *bad {
                assert_ne!(check(name), [""; 0], "{name}");
            }
        }
    }
}
