//! Tokens of service accounts.

use http::{Response, StatusCode};
use osc_access::token::{Named, Request};
use osc_api::{
    meta,
    status::{Cause, Status},
};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::{call::Call, objects, response::Body, write};

/// Seconds a token lives when nothing is said.
const LIFETIME: i64 = 3600;
/// Shortest life a client may ask for, in seconds.
const SHORTEST: i64 = 600;
/// Longest life a client may ask for, in seconds.
const LONGEST: i64 = 1 << 32;

/// `POST` to `serviceaccounts/<name>/token`.
pub(super) async fn create(call: &Call) -> Result<Response<Body>, Status> {
    let mut review = write::body::foreign(call, "authentication.k8s.io/v1", "TokenRequest")?;
    let (namespace, name) = (&call.path.namespace, &call.path.name);
    let account = objects::expect(&call.api.store, &call.served, namespace, name)?;
    let spec = &review["spec"];
    let mut audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(call.api.authenticator.signer.issuer().to_owned());
    }
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(LIFETIME);
    if !(SHORTEST..=LONGEST).contains(&seconds) {
        let message = format!(
            "Invalid value: {seconds}: may not specify a duration less than 10 minutes or larger than 2^32 seconds"
        );
        let cause = Cause::new("FieldValueInvalid", message, "spec.expirationSeconds");
        return Err(Status::invalid_kind("authentication.k8s.io", "TokenRequest", name, [cause]));
    }
    let bound = Bound::read(call, &spec["boundObjectRef"])?;
    let uid = account["metadata"]["uid"].as_str().unwrap_or_default();
    let request = Request {
        namespace,
        account: Named { name: name.clone(), uid: uid.to_owned() },
        pod: bound.pod,
        node: bound.node,
        secret: bound.secret,
        audiences: audiences.clone(),
        lifetime: Duration::seconds(seconds),
    };
    let token = call.api.authenticator.signer.issue(&request, OffsetDateTime::now_utc()).map_err(Status::internal)?;
    let expires = jiff::Timestamp::from_second(token.expires.unix_timestamp()).map_err(Status::internal)?;
    review["spec"]["audiences"] = audiences.into();
    review["spec"]["expirationSeconds"] = seconds.into();
    review["metadata"]["name"] = name.as_str().into();
    review["metadata"]["namespace"] = namespace.as_str().into();
    review["metadata"]["creationTimestamp"] = meta::format_time(jiff::Timestamp::now()).into();
    review["status"] = serde_json::json!({"token": token.text, "expirationTimestamp": meta::format_time(expires)});
    call.plain(StatusCode::CREATED, &review)
}

/// What the token dies with, besides the account.
#[derive(Default)]
struct Bound {
    pod: Option<Named>,
    node: Option<Named>,
    secret: Option<Named>,
}

impl Bound {
    fn read(call: &Call, reference: &Value) -> Result<Self, Status> {
        if reference.is_null() {
            return Ok(Self::default());
        }
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let (plural, namespace) = match text("kind") {
            "Pod" => ("pods", call.path.namespace.as_str()),
            "Secret" => ("secrets", call.path.namespace.as_str()),
            "Node" => ("nodes", ""),
            other => return Err(Status::bad_request(format!("cannot bind token to a {other}"))),
        };
        let served = call.snapshot.find("", "v1", plural).ok_or_else(Status::unknown_path)?;
        let object = objects::expect(&call.api.store, served, namespace, text("name"))?;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if !text("uid").is_empty() && text("uid") != uid {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record ({uid})",
                text("uid")
            );
            return Err(Status::conflict(&served.resource, text("name"), why));
        }
        let named = || Some(Named { name: text("name").to_owned(), uid: uid.to_owned() });
        Ok(match plural {
            "pods" => {
                let node = object["spec"]["nodeName"].as_str().filter(|node| !node.is_empty());
                let node = node.and_then(|name| Self::node(call, name));
                Self { pod: named(), node, secret: None }
            }
            "secrets" => Self { secret: named(), ..Self::default() },
            _ => Self { node: named(), ..Self::default() },
        })
    }

    fn node(call: &Call, name: &str) -> Option<Named> {
        let node = call.api.reader.get("", "nodes", "", name).ok()??;
        Some(Named { name: name.to_owned(), uid: node["metadata"]["uid"].as_str()?.to_owned() })
    }
}
