//! Reading Kubernetes' protobuf bodies.
//!
//! Newer clients send built-in kinds this way: four magic bytes, then an envelope with `apiVersion`,
//! `kind` and the bytes of the object. What the bytes mean comes from two places: types from the
//! schemas of [`crate::definitions`], field numbers from `messages.txt`. Answers may always be
//! JSON, so nothing is ever written as protobuf.
//!
//! Bodies come from anybody: lengths are checked against what is there, nesting is bounded, fields
//! nobody knows are skipped.

mod decode;
mod messages;
mod wire;

use serde_json::Value;

use crate::{Status, definitions, split_api_version};
use wire::{Field, Reader};

/// What every body begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The magic bytes are missing.
    #[error("the body is no Kubernetes protobuf: it does not begin with the bytes 6b 38 73 00")]
    NoMagic,
    /// The kind has no protobuf form here; clients may send JSON.
    #[error("{kind} of {api_version} is not read as protobuf: send JSON")]
    UnknownKind {
        /// `apiVersion` of the envelope.
        api_version: String,
        /// `kind` of the envelope.
        kind: String,
    },
    /// The bytes end early or break the encoding.
    #[error("the body is broken protobuf in {message}: {problem}")]
    Malformed {
        /// The message being read.
        message: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl From<DecodeError> for Status {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::UnknownKind { .. } => Self::new(415, "UnsupportedMediaType", error.to_string()),
            _ => Self::bad_request(error.to_string()),
        }
    }
}

fn malformed(message: &str, problem: &'static str) -> DecodeError {
    DecodeError::Malformed { message: message.to_owned(), problem }
}

/// Reads a body: envelope and object.
pub fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    let envelope = Envelope::read(body.strip_prefix(MAGIC).ok_or(DecodeError::NoMagic)?)?;
    let (group, version) = split_api_version(&envelope.api_version);
    let unknown =
        || DecodeError::UnknownKind { api_version: envelope.api_version.clone(), kind: envelope.kind.clone() };
    let definition = definitions::definition_of_kind(group, version, &envelope.kind);
    let node = definitions::definitions().node(&definition).ok_or_else(unknown)?;
    let message = messages::message_of(&definition).ok_or_else(unknown)?;
    let mut object = decode::object(message, node, envelope.raw)?;
    object.insert("apiVersion".to_owned(), envelope.api_version.into());
    object.insert("kind".to_owned(), envelope.kind.into());
    Ok(Value::Object(object))
}

/// `runtime.Unknown`: what stands around every object.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    const NAME: &'static str = "runtime.Unknown";

    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let broken = |problem| malformed(Self::NAME, problem);
        let mut envelope = Self::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, field)) = reader.next_field().map_err(broken)? {
            match (number, field) {
                (1, Field::Bytes(bytes)) => (envelope.api_version, envelope.kind) = Self::type_meta(bytes)?,
                (2, Field::Bytes(bytes)) => envelope.raw = bytes,
                (3, Field::Bytes(encoding)) if !encoding.is_empty() => return Err(broken("it has a content encoding")),
                _ => {}
            }
        }
        if envelope.kind.len() > 253 || envelope.api_version.len() > 253 {
            return Err(broken("kind or apiVersion is too long"));
        }
        Ok(envelope)
    }

    fn type_meta(bytes: &[u8]) -> Result<(String, String), DecodeError> {
        let broken = |problem| malformed(Self::NAME, problem);
        let (mut api_version, mut kind) = (String::new(), String::new());
        let mut reader = Reader::new(bytes);
        while let Some((number, field)) = reader.next_field().map_err(broken)? {
            let target = match number {
                1 => &mut api_version,
                2 => &mut kind,
                _ => continue,
            };
            *target = field.text().map_err(broken)?.to_owned();
        }
        Ok((api_version, kind))
    }
}

/// Whether bodies of this kind can be read; custom resources cannot.
pub fn knows(group: &str, version: &str, kind: &str) -> bool {
    messages::message_of(&definitions::definition_of_kind(group, version, kind)).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_builtin_kind_but_extensions_is_known() {
        for resource in crate::builtin().iter() {
            let extension = resource.group.starts_with("api");
            assert_eq!(
                knows(&resource.group, &resource.version, &resource.kind),
                !extension,
                "{}",
                resource.qualified()
            );
        }
        assert!(knows("policy", "v1beta1", "Eviction") && knows("", "v1", "DeleteOptions"));
    }

    #[test]
    fn what_is_no_body_is_refused() {
        let envelope = |inner: &[u8]| [MAGIC, inner].concat();
        assert_eq!(decode(b"{}"), Err(DecodeError::NoMagic));
        let custom = envelope(b"\x0a\x0d\x0a\x08x.com/v1\x12\x01X");
        let error = decode(&custom).expect_err("a custom kind");
        assert_eq!(Status::from(error).code, 415);
        let cut = envelope(b"\x0a\x7f");
        assert!(matches!(decode(&cut), Err(DecodeError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(raw in prop::collection::vec(any::<u8>(), 0..300), kind in prop::sample::select(vec!["Pod", "Secret", "Service", "Node"])) {
            let mut body = MAGIC.to_vec();
            let type_meta = [&[0x0a, 2], b"v1".as_slice(), &[0x12, u8::try_from(kind.len()).unwrap()], kind.as_bytes()].concat();
            body.extend([0x0a, u8::try_from(type_meta.len()).unwrap()]);
            body.extend(type_meta);
            let mut with_raw = body.clone();
            with_raw.push(0x12);
            with_raw.extend(varint(raw.len()));
            with_raw.extend(&raw);
            let _ = decode(&with_raw);
            body.extend(&raw);
            let _ = decode(&body);
        }
    }

    fn varint(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7f {
            bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    }
}
