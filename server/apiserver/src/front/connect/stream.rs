//! `pods/exec`, `pods/attach` and `pods/portforward`: a tunnel to the pod's node.

use http::StatusCode;
use hyper::body::Incoming;
use skiff_api::{request::Request, status::ApiError};

use super::{
    flag,
    forward::{Outgoing, passed_on, send, streamed, tunnel, upgrade_of},
    no_body, option, query, target,
};
use crate::front::{Call, Front, respond::Reply};

/// The streams of a session: what the API calls each, and what a node does.
const STREAMS: [(&str, &str); 4] = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];

/// Opens a session.
pub async fn answer(front: &Front, call: &mut Call, request: &Request, _body: Incoming) -> Result<Reply, ApiError> {
    if upgrade_of(&call.parts.headers).is_none() {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let name = request.name.as_deref().unwrap_or_default();
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let pod = target::get(front, "pods", Some(namespace), name).await?;
    let path_and_query = match request.subresource.as_deref() {
        Some("portforward") => format!("/portForward/{namespace}/{name}?{}", ports(request)),
        sub => {
            let container = target::container(&pod, option(request, "container").unwrap_or_default())?;
            let action = if sub == Some("exec") { "exec" } else { "attach" };
            format!("/{action}/{namespace}/{name}/{container}?{}", session(request))
        }
    };
    let Some(node) = pod.str_at(&["spec", "nodeName"]).filter(|node| !node.is_empty()) else {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    };
    let endpoint = target::node_of(front, node).await?;
    let mut headers = passed_on(&call.parts.headers);
    headers.remove(http::header::HOST);
    headers.remove(http::header::CONTENT_LENGTH);
    let method = call.parts.method.clone();
    let outgoing = Outgoing { endpoint, method, path_and_query, headers, body: no_body() };
    let answering = send(&front.connector.dial, outgoing).await.map_err(|error| ApiError::internal(error.message))?;
    if answering.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        tunnel(front, call, answering)
    } else {
        streamed(front, call, answering)
    }
}

/// The query of an exec or attach in the node's words.
fn session(request: &Request) -> String {
    let others = &request.options.other;
    let commands = others.iter().filter(|(name, _)| name == "command").map(|(_, value)| ("command", value.as_str()));
    let mut pairs: Vec<(&str, &str)> = commands.collect();
    pairs.extend(STREAMS.iter().filter(|(name, _)| flag(request, name)).map(|(_, theirs)| (*theirs, "1")));
    query(&pairs)
}

/// The query of a port forward: WebSockets name their ports there.
fn ports(request: &Request) -> String {
    let named = request.options.other.iter().filter(|(name, _)| name == "ports");
    let ports: Vec<(&str, &str)> = named.flat_map(|(_, value)| value.split(',')).map(|port| ("port", port)).collect();
    query(&ports)
}
