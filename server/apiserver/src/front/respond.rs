//! Answers as HTTP: the headers that every one has, errors as `Status`, JSON as YAML or indented.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use skiff_api::{
    protobuf::{self, ProtobufError},
    status::{ApiError, Reason},
};

use super::{
    body::Body,
    limits::{GZIP_ABOVE_BYTES, MAX_WARNINGS_BYTES},
    negotiate::{Encoding, Form, META_OFFER, negotiate},
};

/// An HTTP answer.
pub type Reply = Response<Body>;

/// A status from its number; 500 for what is none.
fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An answer of one media type.
pub fn reply(status: u16, media_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = code(status);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

/// Plain text as Go's `http.Error` and the health endpoints write it.
pub fn text(status: u16, body: impl Into<Bytes>) -> Reply {
    let mut reply = reply(status, "text/plain; charset=utf-8", Body::full(body));
    reply.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// Encoded JSON in the form asked for: as it is, indented, as YAML or as protobuf. What has no form in protobuf is
/// answered as JSON.
pub fn json_in_form(status: u16, json: Bytes, form: Form) -> Result<Reply, ApiError> {
    if form.encoding == Encoding::Protobuf {
        match protobuf::encode(&json) {
            Ok(bytes) => return Ok(compressed(reply(status, protobuf::MEDIA_TYPE, Body::full(bytes)), form)),
            Err(ProtobufError::UnknownKind { .. }) => {}
            Err(error) => return Err(ApiError::internal(error)),
        }
    }
    let bytes = match form.encoding {
        Encoding::Yaml => yaml(&json)?,
        Encoding::Json | Encoding::Protobuf if form.pretty => indented(&json)?,
        Encoding::Json | Encoding::Protobuf => json,
    };
    let encoding = if form.encoding == Encoding::Yaml { Encoding::Yaml } else { Encoding::Json };
    Ok(compressed(reply(status, encoding.media_type(), Body::full(bytes)), form))
}

/// The answer, compressed where that is asked for and worth it.
pub fn compressed(mut reply: Reply, form: Form) -> Reply {
    if !form.gzip || reply.body().exact_len().is_none_or(|len| len <= GZIP_ABOVE_BYTES) {
        return reply;
    }
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    reply.map(Body::gzip)
}

/// JSON as YAML with sorted keys, as Kubernetes prints it.
fn yaml(json: &[u8]) -> Result<Bytes, ApiError> {
    let mut value: Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    value.sort_all_objects();
    serde_yaml_ng::to_string(&value).map(Bytes::from).map_err(ApiError::internal)
}

/// JSON for people.
fn indented(json: &[u8]) -> Result<Bytes, ApiError> {
    let value: Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(ApiError::internal)?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// An error as the `Status` that its client can read.
pub fn error(error: &ApiError, headers: &HeaderMap, query: Option<&str>) -> Reply {
    let form = negotiate(headers, query, META_OFFER).unwrap_or_default();
    let status = error.to_status();
    let json = Bytes::from(status.to_string());
    let mut reply = json_in_form(error.code, json.clone(), form)
        .unwrap_or_else(|_| reply(error.code, Encoding::Json.media_type(), Body::full(json)));
    if let Some(seconds) = retry_after(error) {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

/// After how many seconds the client may try again, where the error says so.
fn retry_after(error: &ApiError) -> Option<u64> {
    let asked = error.details.get("retryAfterSeconds").and_then(Value::as_u64);
    let asked = asked.or((error.reason == Reason::TooManyRequests).then_some(1));
    // 0 is for when nobody knows: clients wait as long as they think fit.
    asked.filter(|seconds| *seconds > 0)
}

/// Adds the `Warning` headers (RFC 7234: code, agent, quoted text), as many as fit.
pub fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    let mut left = MAX_WARNINGS_BYTES;
    for warning in warnings {
        let mut quoted = String::with_capacity(warning.len() + 10);
        quoted.push_str("299 - \"");
        for character in warning.chars().filter(|c| !c.is_control()) {
            if matches!(character, '"' | '\\') {
                quoted.push('\\');
            }
            quoted.push(character);
        }
        quoted.push('"');
        let Some(rest) = left.checked_sub(quoted.len()) else { return };
        left = rest;
        if let Ok(value) = HeaderValue::from_bytes(quoted.as_bytes()) {
            headers.append(header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn warnings_are_quoted_and_bounded() {
        let mut headers = HeaderMap::new();
        let long = "x".repeat(MAX_WARNINGS_BYTES);
        add_warnings(&mut headers, &["say \"no\"\r\n".to_owned(), long]);
        let all: Vec<&str> = headers.get_all(header::WARNING).iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(all, [r#"299 - "say \"no\"""#]);
    }

    #[test]
    fn yaml_has_sorted_keys() {
        let text = yaml(br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","labels":{"x":"1"}}}"#).unwrap();
        assert_eq!(text, "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    x: '1'\n  name: a\n");
    }
}
