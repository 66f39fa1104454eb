//! Answers: objects, failures, warnings, streams.

use bytes::Bytes;
use futures::Stream;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, RETRY_AFTER},
};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use osc_api::status::Status;
use serde_json::Value;

use crate::request::Wire;

/// Any error of a streaming body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Body of every answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

const WARNING: HeaderName = HeaderName::from_static("warning");
/// Longer warnings are cut: clients bound their headers.
const WARNING_CHARACTERS: usize = 256;
/// Warnings beyond this number are dropped.
const MOST_WARNINGS: usize = 32;

/// An answer whose bytes are at hand.
pub fn bytes(code: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    with_body(code, media_type, Full::new(body.into()).map_err(|never| match never {}).boxed_unsync())
}

/// A line of text, as `/healthz` gives.
pub fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", body)
}

/// A value in the encoding the client asked for.
pub fn value(code: StatusCode, wire: Wire, value: &Value) -> Response<Body> {
    let encoded = match wire {
        Wire::Json => serde_json::to_vec(value).ok(),
        Wire::Yaml => serde_yaml_ng::to_string(value).ok().map(String::into_bytes),
    };
    // Values have string keys and finite numbers: both encoders take them all.
    bytes(code, wire.media_type(), encoded.unwrap_or_default())
}

/// A failure; always JSON, as `kubectl` expects.
pub fn error(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value(code, Wire::Json, &status.to_value());
    if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An answer that goes on: every item is flushed at once.
pub fn stream<S>(media_type: &str, items: S) -> Response<Body>
where
    S: Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
{
    use futures::StreamExt;
    let frames = items.map(|item| item.map(Frame::data));
    with_body(StatusCode::OK, media_type, StreamBody::new(frames).boxed_unsync())
}

fn with_body(code: StatusCode, media_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    if let Ok(media_type) = HeaderValue::from_str(media_type) {
        response.headers_mut().insert(CONTENT_TYPE, media_type);
    }
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Adds `Warning: 299 - "text"` headers (RFC 7234, section 5.5).
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(MOST_WARNINGS) {
        let text: String = warning
            .chars()
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .take(WARNING_CHARACTERS)
            .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
            .collect();
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted() {
        let mut response = text(StatusCode::OK, "ok");
        warn(&mut response, &["unknown field \"a\\b\"".into(), "line\nbreak ü".into()]);
        let seen: Vec<_> = response.headers().get_all(WARNING).iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(seen, [r#"299 - "unknown field \"a\\b\"""#, "299 - \"line?break ?\""]);
    }
}
