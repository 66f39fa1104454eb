//! OpenAPI documents: what `explain`, client-side validation and `apply` read.
//!
//! Version 2 exists for old clients, which only want to see that there is a
//! document in protobuf. Version 3 is one document per group and version, made
//! when asked for: together they are too large to keep.

mod document;

use http::{HeaderMap, Response, StatusCode};
use osc_api::{api_version, status::Status};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    paths::GIT_VERSION,
    request::{Query, accept},
    resources::{Served, Snapshot},
    response::{self, Body},
};

const TITLE: &str = "Kubernetes";
/// What the answer is called: the `@` clients write in Accept is no media type.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V2_ACCEPTED: &[&str] = &["application/com.github.proto-openapi.spec.v2@v1.0+protobuf", V2_PROTOBUF];

/// `/openapi/v2`.
pub(crate) fn v2(headers: &HeaderMap) -> Result<Response<Body>, Status> {
    for range in accept::ranges(headers) {
        match range.media_type.as_str() {
            name if V2_ACCEPTED.contains(&name) => {
                return Ok(response::bytes(StatusCode::OK, V2_PROTOBUF, v2_protobuf()));
            }
            "application/json" | "application/*" | "*/*" => {
                let document = json!({
                    "swagger": "2.0", "info": {"title": TITLE, "version": GIT_VERSION}, "paths": {}, "definitions": {},
                });
                return Ok(response::value(StatusCode::OK, crate::request::Wire::Json, &document));
            }
            _ => {}
        }
    }
    Err(Status::not_acceptable(&["application/json", V2_PROTOBUF]))
}

/// Document {1: swagger, 2: Info {1: title, 2: version}}.
fn v2_protobuf() -> Vec<u8> {
    let info = [field(1, TITLE.as_bytes()), field(2, GIT_VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info)].concat()
}

/// A length-delimited field; all of ours are shorter than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u8 = 2;
    let mut bytes = vec![number << 3 | LENGTH_DELIMITED, content.len() as u8];
    bytes.extend_from_slice(content);
    bytes
}

/// `/openapi/v3`: where the documents are, with a hash that changes when they do.
pub(crate) fn index(snapshot: &Snapshot) -> Result<Response<Body>, Status> {
    let mut paths = Map::new();
    for served in snapshot.iter() {
        let (group, version) = (&served.resource.group, &served.resource.version);
        let path = path_of(group, version);
        if !paths.contains_key(&path) {
            let hash = hash_of(snapshot, group, version);
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
        }
    }
    Ok(response::value(StatusCode::OK, crate::request::Wire::Json, &json!({"paths": paths})))
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{}", api_version(group, version)) }
}

/// Built-in documents change with the program, those of custom resources with their schema.
fn hash_of(snapshot: &Snapshot, group: &str, version: &str) -> String {
    let mut parts =
        vec![env!("CARGO_PKG_VERSION").to_owned(), GIT_VERSION.to_owned(), group.to_owned(), version.to_owned()];
    for served in of_group_version(snapshot, group, version) {
        if let Some(custom) = &served.custom {
            parts.push(served.resource.kind.clone());
            parts.push(osc_schema::to_openapi(&custom.schema).to_string());
        }
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    short_hash(&parts)
}

fn of_group_version<'a>(snapshot: &'a Snapshot, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Served> {
    let here = move |served: &&Served| served.resource.group == group && served.resource.version == version;
    snapshot.iter().map(AsRef::as_ref).filter(here)
}

/// 32 hexadecimal digits that stand for these texts.
pub(crate) fn short_hash(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    hex::encode_upper(&digest.finalize()[..16])
}

/// `/openapi/v3/<api/v1 or apis/group/version>`.
pub(crate) fn document(snapshot: &Snapshot, path: &str, query: &Query) -> Result<Response<Body>, Status> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => (String::new(), (*version).to_owned()),
        ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
        _ => return Err(Status::unknown_path()),
    };
    let served: Vec<&Served> = of_group_version(snapshot, &group, &version).collect();
    if served.is_empty() {
        return Err(Status::unknown_path());
    }
    let document: Value = document::make(&served);
    let mut answer = response::value(StatusCode::OK, crate::request::Wire::Json, &document);
    // Asked for by its hash, it never changes.
    if query.get("hash").is_some() {
        answer.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("public, immutable"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_a_protobuf_document() {
        let bytes = v2_protobuf();
        assert_eq!(&bytes[..5], b"\x0a\x032.0");
        assert_eq!(bytes[5], 0x12);
        assert_eq!(usize::from(bytes[6]), bytes.len() - 7);
    }
}
