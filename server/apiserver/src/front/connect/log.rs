//! `pods/log`: the container's log from its node.

use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;
use skiff_api::{
    request::Request,
    status::{ApiError, FieldError, Reason},
};

use super::{
    flag,
    forward::{Answering, Outgoing, send, streamed},
    no_body, option, query, target,
};
use crate::front::{Call, Front, body::Body, limits::MAX_NODE_ERROR_BYTES, respond::Reply};

/// The flags that are passed on.
const FLAGS: [&str; 3] = ["follow", "previous", "timestamps"];
/// The numbers that are passed on, with the least that each may be.
const NUMBERS: [(&str, i64); 3] = [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)];

/// Answers a request for a log.
pub async fn answer(front: &Front, call: &Call, request: &Request) -> Result<Reply, ApiError> {
    if call.parts.method != Method::GET {
        return Err(ApiError::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        ));
    }
    let name = request.name.as_deref().unwrap_or_default();
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let options = options(request, name)?;
    let pod = target::get(front, "pods", Some(namespace), name).await?;
    let container = target::container(&pod, option(request, "container").unwrap_or_default())?;
    let Some(node) = pod.str_at(&["spec", "nodeName"]).filter(|node| !node.is_empty()) else {
        // A pod that is nowhere yet has said nothing.
        let mut nothing = Reply::new(Body::empty());
        *nothing.status_mut() = http::StatusCode::NO_CONTENT;
        return Ok(nothing);
    };
    let endpoint = target::node_of(front, node).await?;
    let pairs: Vec<(&str, &str)> = options.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let path_and_query = format!("/containerLogs/{namespace}/{name}/{container}?{}", query(&pairs));
    let outgoing =
        Outgoing { endpoint, method: Method::GET, path_and_query, headers: HeaderMap::new(), body: no_body() };
    let url = outgoing.url();
    let unreachable = |error: ApiError| ApiError::internal(format!("Get {url:?}: {}", error.message));
    let answering = send(&front.connector.dial, outgoing).await.map_err(unreachable)?;
    if !answering.response.status().is_success() {
        return Err(node_error(answering, name).await);
    }
    let mut reply = streamed(front, call, answering)?;
    reply.headers_mut().remove(header::CONTENT_LENGTH);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(reply)
}

/// The options that are passed on, checked as Kubernetes does.
fn options(request: &Request, pod: &str) -> Result<Vec<(&'static str, String)>, ApiError> {
    let mut list: Vec<(&'static str, String)> =
        FLAGS.iter().filter(|name| flag(request, name)).map(|name| (*name, "true".to_owned())).collect();
    let mut errors = Vec::new();
    for (name, least) in NUMBERS {
        let Some(text) = option(request, name) else { continue };
        let number: i64 =
            text.parse().map_err(|_| ApiError::bad_request(format!("{name}: {text:?} is not a number")))?;
        if number < least {
            let words = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.push(FieldError::invalid(name, number, words));
        }
        list.push((name, number.to_string()));
    }
    let since_seconds = option(request, "sinceSeconds").is_some();
    if let Some(time) = option(request, "sinceTime").filter(|time| !time.is_empty()) {
        if since_seconds {
            errors.push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        let parsed: jiff::Timestamp =
            time.parse().map_err(|error| ApiError::bad_request(format!("sinceTime: {error}")))?;
        list.push(("sinceTime", parsed.to_string()));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid("", "PodLogOptions", pod, &errors));
    }
    Ok(list)
}

/// A node's refusal, mostly in the node's own words.
async fn node_error(answering: Answering, pod: &str) -> ApiError {
    let code = answering.response.status().as_u16();
    let body = Limited::new(answering.response.into_body(), MAX_NODE_ERROR_BYTES).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    match code {
        500 => ApiError::internal(text),
        400 => ApiError::bad_request(text),
        404 => {
            let message = format!("the server could not find the requested resource ( pods/log {pod})");
            let details = json!({"name": pod, "kind": "pods/log", "causes": [{"reason": "UnexpectedServerResponse", "message": text}]});
            ApiError { details, ..ApiError::new(Reason::NotFound, message) }
        }
        _ => ApiError { code, ..ApiError::new(Reason::Unknown, format!("an error on the node: {text}")) },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use skiff_api::request::Parsed;

    fn run(query: &str) -> Result<String, String> {
        let path = "/api/v1/namespaces/default/pods/web/log";
        let Parsed::Resource(request) = Request::parse("GET", path, Some(query)).unwrap() else { unreachable!() };
        let options = options(&request, "web").map_err(|error| error.message)?;
        Ok(options.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
    }

    #[test]
    fn options_are_checked_and_passed_on() {
        assert_eq!(
            run("follow=true&previous=false&tailLines=10&container=a"),
            Ok("follow=true&tailLines=10".to_owned())
        );
        assert_eq!(run("sinceTime=2026-01-02T03:04:05Z"), Ok("sinceTime=2026-01-02T03:04:05Z".to_owned()));
        for (query, error) in [
            ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
            ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
            (
                "sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ),
            ("tailLines=x", "tailLines: \"x\" is not a number"),
        ] {
            assert!(run(query).unwrap_err().contains(error), "{query}: {:?}", run(query));
        }
    }
}
