//! Request bodies: JSON, YAML and, for built-in kinds, protobuf.

use http::{HeaderMap, header::CONTENT_TYPE};
use osc_api::{protobuf, status::Status};
use serde_json::Value;

use super::strict;

/// What a body may be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON; also when nothing is said.
    Json,
    /// YAML, one document.
    Yaml,
    /// The Kubernetes envelope around protobuf.
    Protobuf,
}

/// Media types for bodies of built-in kinds.
pub const BUILT_IN: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Media types for bodies of custom resources.
pub const CUSTOM: &[&str] = &["application/json", "application/yaml"];

/// A body as a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What it says.
    pub value: Value,
    /// Paths of fields given more than once.
    pub duplicates: Vec<String>,
}

/// The media type of the body, without parameters, in lower case.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The encoding of the body, if it is among `accepted`.
///
/// # Errors
/// 415 for everything else.
pub fn encoding(headers: &HeaderMap, accepted: &[&str]) -> Result<Encoding, Status> {
    let media_type = media_type(headers);
    let encoding = match media_type.as_str() {
        "" | "application/json" => Some(Encoding::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Some(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" if accepted.contains(&media_type.as_str()) => Some(Encoding::Protobuf),
        _ => None,
    };
    encoding.ok_or_else(|| Status::unsupported_media_type(accepted))
}

/// Reads a body.
///
/// # Errors
/// 400 when it is not what it claims to be or not an object.
pub fn decode(encoding: Encoding, body: &[u8]) -> Result<Decoded, Status> {
    let decoded = match encoding {
        Encoding::Json => json(body)?,
        Encoding::Yaml => yaml(body)?,
        Encoding::Protobuf => Decoded { value: protobuf::decode(body)?, duplicates: Vec::new() },
    };
    if decoded.value.is_object() {
        Ok(decoded)
    } else {
        Err(Status::bad_request("couldn't get version/kind; json parse error: the body is not an object"))
    }
}

/// Reads JSON of any shape.
///
/// # Errors
/// 400 when it is not JSON.
pub fn json(body: &[u8]) -> Result<Decoded, Status> {
    let mut duplicates = Vec::new();
    let mut source = serde_json::Deserializer::from_slice(body);
    let value = strict::read(&mut source, &mut duplicates).and_then(|value| source.end().map(|()| value));
    let value = value.map_err(|error| Status::bad_request(format!("the body is not valid JSON: {error}")))?;
    Ok(Decoded { value, duplicates })
}

/// Brackets that may be open at once in YAML. The parser goes through all of them at each token, so that without a
/// bound a body of a few hundred kilobytes keeps it busy for minutes.
const MOST_OPEN: usize = 256;

/// The most brackets open at once; those in texts count, because telling them apart takes the parser itself.
fn open_brackets(body: &[u8]) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in body {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// Reads one YAML document of any shape.
///
/// # Errors
/// 400 when it is not YAML.
pub fn yaml(body: &[u8]) -> Result<Decoded, Status> {
    // What programs send as YAML is mostly JSON, which is read much faster.
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(decoded) = json(body)
    {
        return Ok(decoded);
    }
    if open_brackets(body) > MOST_OPEN {
        let why =
            format!("more than {MOST_OPEN} brackets are open at once in a YAML body: make it flatter, or send JSON");
        return Err(Status::bad_request(why));
    }
    let mut duplicates = Vec::new();
    let value = strict::read(serde_yaml_ng::Deserializer::from_slice(body), &mut duplicates)
        .map_err(|error| Status::bad_request(format!("the body is not valid YAML: {error}")))?;
    Ok(Decoded { value, duplicates })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn encodings_are_known_by_their_media_type() {
        let rows = [
            ("", BUILT_IN, Some(Encoding::Json)),
            ("application/json; charset=utf-8", CUSTOM, Some(Encoding::Json)),
            ("Application/YAML", CUSTOM, Some(Encoding::Yaml)),
            ("application/vnd.kubernetes.protobuf", BUILT_IN, Some(Encoding::Protobuf)),
            ("application/vnd.kubernetes.protobuf", CUSTOM, None),
            ("application/cbor", BUILT_IN, None),
        ];
        for (given, accepted, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, given.parse().unwrap());
            let got = encoding(&headers, accepted);
            assert_eq!(got.as_ref().ok(), want.as_ref(), "{given}");
            assert!(got.is_ok() || got.is_err_and(|status| status.code == 415), "{given}");
        }
    }

    #[test]
    fn yaml_may_not_nest_without_end() {
        let nested = |depth: usize| format!("a: {}{}\nb: {{c: d}}", "[".repeat(depth), "]".repeat(depth));
        assert!(yaml(nested(100).as_bytes()).is_ok());
        assert_eq!(yaml(nested(MOST_OPEN + 1).as_bytes()).unwrap_err().code, 400);
        let text = json!({"a": "[".repeat(2 * MOST_OPEN)}).to_string();
        assert!(yaml(text.as_bytes()).is_ok(), "in JSON, texts are told apart");
    }

    #[test]
    fn only_objects_pass() {
        assert_eq!(decode(Encoding::Json, b"{\"a\":1}").unwrap().value, json!({"a": 1}));
        assert_eq!(decode(Encoding::Yaml, b"a: 1\n").unwrap().value, json!({"a": 1}));
        for (encoding, body) in [
            (Encoding::Json, "" as &str),
            (Encoding::Json, "[]"),
            (Encoding::Json, "{} x"),
            (Encoding::Json, "{\"a\":"),
            (Encoding::Yaml, "a: [\n"),
            (Encoding::Yaml, "text"),
            (Encoding::Protobuf, "{}"),
        ] {
            assert_eq!(decode(encoding, body.as_bytes()).unwrap_err().code, 400, "{encoding:?} {body}");
        }
    }
}
