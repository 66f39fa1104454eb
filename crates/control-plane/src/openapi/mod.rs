//! OpenAPI documents: what `explain`, client-side validation and `apply` read.
//!
//! Version 2 is one document in protobuf, for clients up to 1.28: they validate,
//! explain and dry-run by it. Version 3 is one document per group and version, made
//! when asked for: together they are too large to keep.

mod document;
mod v2;
mod wire;

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};
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
pub(crate) fn second(snapshot: &Snapshot, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    for range in accept::ranges(headers) {
        match range.media_type.as_str() {
            name if V2_ACCEPTED.contains(&name) => return Ok(v2_protobuf(snapshot, headers)),
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

/// The document is kept compressed: clients ask for it before every write, and
/// take it so.
fn v2_protobuf(snapshot: &Snapshot, headers: &HeaderMap) -> Response<Body> {
    let takes = |name: &str| {
        let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        accepted.split(',').any(|part| part.split(';').next().unwrap_or_default().trim() == name)
    };
    if !takes("gzip") {
        return response::bytes(StatusCode::OK, V2_PROTOBUF, v2::document(snapshot));
    }
    let compressed = snapshot.documents.openapi_v2.get_or_init(|| compress(&v2::document(snapshot)).into());
    let mut answer = response::bytes(StatusCode::OK, V2_PROTOBUF, compressed.clone());
    answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // A vector takes everything.
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("compression into memory does not fail")
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
