//! What is passed on to nodes, pods and Services: `log`, `exec`, `attach`, `portforward`, `proxy`.
//!
//! One mechanism for all: find the endpoint ([`target`]), connect ([`dial`], over
//! [`tunnels`] where nodes have opened such), send the request on and stream the
//! answer back, or, where it is 101, tunnel bytes both ways ([`forward`]). Whether a tunnel carries WebSocket or
//! SPDY is between client and node. A client that goes away ends the node's request.

pub mod dial;
pub mod forward;
pub mod log;
pub mod proxy;
pub mod stream;
pub mod target;
pub mod tunnels;

use std::sync::Arc;

use hyper::body::Incoming;
use skiff_api::{request::Request, status::ApiError, user::UserInfo};

use self::dial::Dial;
use super::{Call, Front, access, body::Body, respond::Reply};

/// The way to nodes, pods and Services.
#[derive(Clone)]
pub struct Connector {
    /// Opens connections.
    pub dial: Arc<dyn Dial>,
}

/// Whether a request is passed on and not the registry's.
pub fn is_connect(request: &Request) -> bool {
    let Some(sub) = request.subresource.as_deref() else { return false };
    let gvr = &request.resource;
    gvr.group.is_empty()
        && gvr.version == "v1"
        && match gvr.resource.as_str() {
            "pods" => matches!(sub, "log" | "exec" | "attach" | "portforward" | "proxy"),
            "services" | "nodes" => sub == "proxy",
            _ => false,
        }
}

/// Authorizes a request and passes it on.
pub async fn answer(
    front: &Front,
    user: &Arc<UserInfo>,
    call: &mut Call,
    request: Request,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let sub = request.subresource.as_deref().unwrap_or_default();
    let verb = verb(&call.parts.method)?;
    front.authorize(access::attributes(user, verb, &request))?;
    // What a WebSocket can do with `get` is what a POST needs `create` for.
    if verb == "get" && matches!(sub, "exec" | "attach" | "portforward") {
        front.authorize(access::attributes(user, "create", &request))?;
    }
    match sub {
        "log" => log::answer(front, call, &request).await,
        "proxy" => proxy::answer(front, call, &request, body).await,
        _ => stream::answer(front, call, &request, body).await,
    }
}

/// The verb that a method needs.
fn verb(method: &http::Method) -> Result<&'static str, ApiError> {
    match method.as_str() {
        "GET" | "HEAD" | "OPTIONS" => Ok("get"),
        "POST" => Ok("create"),
        "PUT" => Ok("update"),
        "PATCH" => Ok("patch"),
        "DELETE" => Ok("delete"),
        _ => Err(ApiError::new(
            skiff_api::status::Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )),
    }
}

/// The value of a query parameter.
fn option<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.options.other.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// A query parameter as Kubernetes reads flags: there and not `false` or `0`.
fn flag(request: &Request, name: &str) -> bool {
    option(request, name).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
}

/// The body of a request that has none.
fn no_body() -> Body {
    Body::empty()
}

/// A query from pairs.
fn query(pairs: &[(&str, &str)]) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let one = |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    pairs.iter().map(one).collect::<Vec<_>>().join("&")
}
