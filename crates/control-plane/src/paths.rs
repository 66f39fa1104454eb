//! Everything that is no object: discovery, OpenAPI, version, health.

use std::sync::Arc;

use http::{Method, Response, StatusCode, request::Parts};
use osc_api::status::Status;
use serde_json::json;

use crate::{
    api::Api,
    discovery, health, metrics, openapi,
    request::{Accept, Path, Query},
    response::{self, Body},
};

/// Version of Kubernetes whose API this is.
pub(crate) const GIT_VERSION: &str = "v1.34.1";

/// Answers a path outside the resources.
pub(crate) fn answer(api: &Arc<Api>, parts: &Parts, path: &Path, query: &Query) -> Result<Response<Body>, Status> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let snapshot = api.catalog.snapshot();
    match path {
        Path::CoreVersions | Path::Groups | Path::Group(_) | Path::GroupVersion(..) => {
            discovery::answer(&snapshot, path, &parts.headers, &api.config)
        }
        Path::Other => match parts.uri.path().trim_end_matches('/') {
            "" => plain(
                parts,
                &json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
            ),
            "/metrics" => Ok(response::bytes(StatusCode::OK, "text/plain; version=0.0.4", metrics::text(api))),
            "/version" => plain(parts, &version()),
            "/openapi/v2" => openapi::second(&snapshot, &parts.headers),
            "/openapi/v3" => openapi::index(&snapshot),
            "/.well-known/openid-configuration" => plain(parts, &issuer(api)),
            "/openid/v1/jwks" => plain(parts, &api.authenticator.signer.key_set()),
            other => match other.strip_prefix("/openapi/v3/") {
                Some(group_version) => openapi::document(&snapshot, group_version, query),
                None => health::answer(api, other, query).unwrap_or_else(|| Err(Status::unknown_path())),
            },
        },
        Path::Resource(_) => Err(Status::unknown_path()),
    }
}

fn plain(parts: &Parts, value: &serde_json::Value) -> Result<Response<Body>, Status> {
    let accept = Accept::negotiate(&parts.headers).ok_or_else(|| Status::not_acceptable(&["application/json"]))?;
    Ok(response::value(StatusCode::OK, accept.wire, value))
}

fn version() -> serde_json::Value {
    json!({
        "major": "1",
        "minor": "34",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The machine's architecture as Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn issuer(api: &Api) -> serde_json::Value {
    let issuer = api.authenticator.signer.issuer();
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}
