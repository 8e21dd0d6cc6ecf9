//! Requests on paths that are no resources: discovery, OpenAPI, health, version, metrics, the list of all of them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use serde_json::json;
use skiff_api::{
    openapi,
    status::{ApiError, Reason},
    user::UserInfo,
};

use super::{
    Front,
    body::Body,
    catalog::{Document, DocumentForm},
    negotiate::{Form, META_OFFER, Offer, PLAIN_OFFER, clauses, negotiate, takes_gzip},
    respond::{Reply, compressed, json_in_form, reply, text},
};
use crate::{
    authz::{Attributes, Target},
    tokens::discovery::{CONFIGURATION_PATH, KEYS_PATH},
};

/// The media type of aggregated discovery.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a path that is no resource.
pub async fn answer(front: &Front, user: &UserInfo, parts: &Parts, path: &str) -> Result<Reply, ApiError> {
    let verb = parts.method.as_str().to_ascii_lowercase();
    let verb = if parts.method == Method::HEAD { "get" } else { verb.as_str() };
    front.authorize(Attributes { user, verb, target: Target::Path(path), fields: "" })?;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(ApiError::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        ));
    }
    let query = parts.uri.query();
    if let Some(reply) = front.health.answer(path, query).await {
        return Ok(reply);
    }
    match path {
        "/" => return index(front, parts),
        "/version" | "/version/" => return plain_answer(front.version.to_json().to_string().into(), parts),
        "/metrics" => return Ok(metrics(front, &parts.headers)),
        _ => {}
    }
    if let Some((media_type, body)) = front.issuer.as_ref().and_then(|issuer| issuer.get(path)) {
        return Ok(issuer_document(media_type, body));
    }
    documents(front, parts, path).ok_or_else(ApiError::no_such_path)?
}

fn plain_answer(body: Bytes, parts: &Parts) -> Result<Reply, ApiError> {
    offered(body, PLAIN_OFFER, parts)
}

fn offered(body: Bytes, offer: Offer<'_>, parts: &Parts) -> Result<Reply, ApiError> {
    json_in_form(200, body, negotiate(&parts.headers, parts.uri.query(), offer)?)
}

/// A document on the tokens that are issued here: the same for all, and for long.
fn issuer_document(media_type: &'static str, body: Bytes) -> Reply {
    let mut reply = reply(200, media_type, Body::full(body));
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    reply
}

fn metrics(front: &Front, headers: &HeaderMap) -> Reply {
    let form = Form { gzip: takes_gzip(headers), ..Form::default() };
    let body = Body::full(front.metrics.render());
    compressed(reply(200, "text/plain; version=0.0.4; charset=utf-8", body), form)
}

/// The list of paths.
fn index(front: &Front, parts: &Parts) -> Result<Reply, ApiError> {
    let mut paths = front.health.paths();
    paths.extend(["/metrics", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/version"].map(str::to_owned));
    paths.extend(["/api", "/api/v1", "/apis", "/apis/"].map(str::to_owned));
    if front.issuer.is_some() {
        paths.extend([CONFIGURATION_PATH, KEYS_PATH].map(str::to_owned));
    }
    paths.extend(group_paths(front));
    paths.sort();
    paths.dedup();
    plain_answer(json!({"paths": paths}).to_string().into(), parts)
}

/// `/apis/GROUP` and `/apis/GROUP/VERSION` of every group, as discovery tells.
fn group_paths(front: &Front) -> Vec<String> {
    let groups = front.catalog.document("/apis", DocumentForm::Plain);
    let groups: serde_json::Value =
        groups.and_then(|document| serde_json::from_slice(&document.body).ok()).unwrap_or_default();
    let mut paths = Vec::new();
    for group in groups["groups"].as_array().into_iter().flatten() {
        paths.push(format!("/apis/{}", group["name"].as_str().unwrap_or_default()));
        let versions = group["versions"].as_array().into_iter().flatten();
        paths.extend(versions.map(|v| format!("/apis/{}", v["groupVersion"].as_str().unwrap_or_default())));
    }
    paths
}

/// Discovery and OpenAPI.
fn documents(front: &Front, parts: &Parts, path: &str) -> Option<Result<Reply, ApiError>> {
    let trimmed = path.trim_end_matches('/');
    if matches!(trimmed, "/api" | "/apis") {
        if wants_aggregated(&parts.headers)
            && let Some(document) = front.catalog.document(trimmed, DocumentForm::Aggregated)
        {
            return Some(Ok(tagged(&document, AGGREGATED, parts)));
        }
        let document = front.catalog.document(trimmed, DocumentForm::Plain)?;
        let mut reply = offered(document.body, META_OFFER, parts);
        if let Ok(reply) = &mut reply {
            reply.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
        }
        return Some(reply);
    }
    if trimmed == "/openapi/v2" && wants_protobuf(&parts.headers) {
        let document = front.catalog.document(trimmed, DocumentForm::Protobuf)?;
        return Some(Ok(tagged(&document, openapi::V2_MEDIA_TYPE, parts)));
    }
    let document = front.catalog.document(trimmed, DocumentForm::Plain)?;
    match trimmed.strip_prefix("/openapi/") {
        Some("v2" | "v3") => Some(Ok(tagged(&document, "application/json", parts))),
        Some(_) => Some(Ok(hashed(&document, parts))),
        None => Some(offered(document.body, META_OFFER, parts)),
    }
}

/// Whether discovery is wanted in one document.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    clauses(headers).first().is_some_and(|clause| {
        clause.matches("application/json")
            && clause.param("as") == "APIGroupDiscoveryList"
            && clause.param("g") == "apidiscovery.k8s.io"
            && clause.param("v") == "v2"
    })
}

/// Whether an OpenAPI document is wanted in protobuf.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let first = clauses(headers).into_iter().next();
    first.is_some_and(|clause| clause.matches(openapi::V2_MEDIA_TYPE) && !clause.matches("application/json"))
}

/// A document with its ETag; 304 for a client that has it.
fn tagged(document: &Document, media_type: &'static str, parts: &Parts) -> Reply {
    let tag = format!("\"{}\"", document.digest);
    let has_it = parts.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let has_it = has_it.flat_map(|value| value.split(',')).any(|one| one.trim().trim_start_matches("W/") == tag);
    let mut reply = if has_it {
        let mut unchanged = reply(304, media_type, Body::empty());
        unchanged.headers_mut().remove(header::CONTENT_TYPE);
        unchanged
    } else {
        let form = Form { gzip: takes_gzip(&parts.headers), ..Form::default() };
        compressed(reply(200, media_type, Body::full(document.body.clone())), form)
    };
    let headers = reply.headers_mut();
    if let Ok(value) = tag.parse() {
        headers.insert(header::ETAG, value);
    }
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
    reply
}

/// An OpenAPI v3 document: `?hash=` of its present digest may be kept for good, another one is sent to the present.
fn hashed(document: &Document, parts: &Parts) -> Reply {
    let query = parts.uri.query().unwrap_or_default();
    match query.split('&').find_map(|pair| pair.strip_prefix("hash=")) {
        None | Some("") => tagged(document, "application/json", parts),
        Some(hash) if hash.eq_ignore_ascii_case(&document.digest) => {
            let mut reply = tagged(document, "application/json", parts);
            let forever = HeaderValue::from_static("public, immutable");
            reply.headers_mut().insert(header::CACHE_CONTROL, forever);
            reply
        }
        Some(_) => {
            let mut reply = text(301, "");
            let location = format!("{}?hash={}", parts.uri.path(), document.digest);
            if let Ok(value) = location.parse() {
                reply.headers_mut().insert(header::LOCATION, value);
            }
            reply
        }
    }
}
