//! `proxy` of pods, Services and nodes: plain HTTP (and upgrades) to the endpoint.

use std::net::IpAddr;

use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde_json::Value;
use skiff_api::{
    object::Object,
    request::Request,
    status::{ApiError, Reason},
};

use super::{
    dial::{Endpoint, Security},
    forward::{Outgoing, passed_on, send, streamed, tunnel},
    no_body, target,
};
use crate::front::{
    Call, Front,
    body::Body,
    respond::{Reply, text},
};

/// What the name in a proxy path says: `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    name: &'a str,
    port: &'a str,
    security: Security,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return Err(ApiError::bad_request(format!("invalid proxy request {text:?}"))),
        };
        let security = match scheme {
            "" | "http" => Security::Plain,
            "https" => Security::Unverified,
            _ => return Err(ApiError::bad_request(format!("invalid proxy request {text:?}"))),
        };
        Ok(Self { name, port, security })
    }
}

/// Passes a request on.
pub async fn answer(front: &Front, call: &mut Call, request: &Request, body: Incoming) -> Result<Reply, ApiError> {
    let path = call.parts.uri.path();
    let Some(rest) = after_proxy(path, request.namespace.is_some()) else {
        return Err(ApiError::bad_request("invalid proxy request"));
    };
    let query = call.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if rest.is_empty() && matches!(call.parts.method, Method::GET | Method::HEAD) {
        return redirect(&format!("{path}/{query}"));
    }
    let path_and_query = if rest.is_empty() { format!("/{query}") } else { format!("{rest}{query}") };
    let prefix = path[..path.len() - rest.len()].to_owned();
    let endpoint = endpoint(front, request).await?;
    let mut headers = passed_on(&call.parts.headers);
    if let Some(host) = headers.remove(header::HOST) {
        headers.insert("x-forwarded-host", host);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    for (name, value) in [("x-forwarded-uri", prefix + rest), ("x-forwarded-for", call.peer.address.ip().to_string())] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    let body = if body.is_end_stream() { no_body() } else { passed_body(body) };
    let outgoing = Outgoing { endpoint, method: call.parts.method.clone(), path_and_query, headers, body };
    let answering = send(&front.connector.dial, outgoing).await?;
    if answering.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return tunnel(front, call, answering);
    }
    streamed(front, call, answering)
}

fn passed_body(body: Incoming) -> Body {
    use futures::TryStreamExt as _;
    Body::Stream(Box::pin(body.into_data_stream().map_err(std::io::Error::other)))
}

/// What stands after `/proxy` in a path, as the client encoded it.
fn after_proxy(path: &str, namespaced: bool) -> Option<&str> {
    // /api/v1/namespaces/NS/pods/NAME/proxy... or /api/v1/nodes/NAME/proxy...
    let segments_before = if namespaced { 7 } else { 5 };
    let (at, _) = path.match_indices('/').nth(segments_before - 1)?;
    path[at..].strip_prefix("/proxy").filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn redirect(location: &str) -> Result<Reply, ApiError> {
    let mut reply = text(301, "");
    reply.headers_mut().insert(header::LOCATION, location.parse().map_err(ApiError::internal)?);
    Ok(reply)
}

async fn endpoint(front: &Front, request: &Request) -> Result<Endpoint, ApiError> {
    let text = request.name.as_deref().unwrap_or_default();
    let named = Named::parse(text)?;
    let namespace = request.namespace.as_deref();
    match request.resource.resource.as_str() {
        "nodes" => {
            let node = target::node_endpoint(&target::get(front, "nodes", None, named.name).await?)?;
            node_port(node, &named)
        }
        "pods" => pod_endpoint(&target::get(front, "pods", namespace, named.name).await?, &named),
        _ => {
            let namespace = namespace.unwrap_or_default();
            let service = target::get(front, "services", Some(namespace), named.name).await?;
            let slices = target::endpoint_slices(front, namespace, named.name).await?;
            #[allow(clippy::cast_possible_truncation, reason = "any of the random bits")]
            let random = uuid::Uuid::new_v4().as_u128() as usize;
            service_endpoint(&service, &slices, &named, random)
        }
    }
}

fn port_number(text: &str) -> Result<u16, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request(format!("invalid port {text:?}")))
}

/// A port of a node; its API's where none is named.
fn node_port(node: Endpoint, named: &Named<'_>) -> Result<Endpoint, ApiError> {
    if named.port.is_empty() {
        return Ok(node);
    }
    let port = port_number(named.port)?;
    let security = if port == node.port { Security::Node } else { named.security };
    Ok(Endpoint { port, security, ..node })
}

/// Whether an address may be one of a pod. Those who write pod addresses and endpoints must not find a way to the
/// server's own loopback services or to a cloud's metadata service; the part of 127.0.0.0/8 from 127.64.0.0 on is
/// where `skiff dev` has its pods.
fn proxyable(host: &str) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            let loopback = ip.is_loopback() && ip.octets()[1] < 64;
            !(loopback || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
        }
        Ok(IpAddr::V6(ip)) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast())
                && ip.to_ipv4_mapped().is_none()
        }
        Err(_) => false,
    }
}

/// A port of a pod; its first where none is named.
fn pod_endpoint(pod: &Object, named: &Named<'_>) -> Result<Endpoint, ApiError> {
    let host = pod.str_at(&["status", "podIP"]).filter(|ip| !ip.is_empty());
    let host = host.ok_or_else(|| ApiError::bad_request("address not allowed"))?.to_owned();
    if !proxyable(&host) {
        return Err(ApiError::bad_request("address not allowed"));
    }
    let port = if named.port.is_empty() {
        let containers = pod.at(&["spec", "containers"]).and_then(Value::as_array);
        let ports = containers.into_iter().flatten().filter_map(|c| c["ports"].as_array()).flatten();
        ports.filter_map(|port| port["containerPort"].as_u64()).find_map(|port| u16::try_from(port).ok()).unwrap_or(80)
    } else {
        port_number(named.port)?
    };
    let node = pod.str_at(&["spec", "nodeName"]).map(str::to_owned);
    Ok(Endpoint { host, port, security: named.security, node })
}

/// One of the ready endpoints of a Service's port.
fn service_endpoint(
    service: &Object,
    slices: &[Object],
    named: &Named<'_>,
    random: usize,
) -> Result<Endpoint, ApiError> {
    let ports = service.at(&["spec", "ports"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let found = match named.port {
        "" if ports.len() == 1 => ports.first(),
        text => {
            let number = text.parse::<u64>().ok();
            ports.iter().find(|port| port["name"] == text || number.is_some() && port["port"].as_u64() == number)
        }
    };
    let unavailable = || {
        let message = format!("no endpoints available for service {:?}", named.name);
        ApiError::new(Reason::ServiceUnavailable, message)
    };
    let no_port = || {
        ApiError::new(
            Reason::ServiceUnavailable,
            format!("no service port {:?} found for service {:?}", named.port, named.name),
        )
    };
    let port_name = found.ok_or_else(no_port)?["name"].as_str().unwrap_or_default();
    let mut candidates: Vec<(String, u16, Option<String>)> = Vec::new();
    for slice in slices {
        let ports = slice.at(&["ports"]).and_then(Value::as_array);
        let mut ports = ports.into_iter().flatten();
        let Some(port) = ports.find(|port| port["name"].as_str().unwrap_or_default() == port_name) else { continue };
        let Some(port) = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else { continue };
        let endpoints = slice.at(&["endpoints"]).and_then(Value::as_array);
        let ready =
            endpoints.into_iter().flatten().filter(|endpoint| endpoint["conditions"]["ready"] != Value::Bool(false));
        candidates.extend(ready.filter_map(|endpoint| {
            let node = endpoint["nodeName"].as_str().map(str::to_owned);
            Some((endpoint["addresses"][0].as_str()?.to_owned(), port, node))
        }));
    }
    let at = random.checked_rem(candidates.len()).ok_or_else(unavailable)?;
    let (host, port, node) = candidates.swap_remove(at);
    if !proxyable(&host) {
        return Err(ApiError::bad_request("address not allowed"));
    }
    Ok(Endpoint { host, port, security: named.security, node })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use serde_json::json;

    #[test]
    fn names_with_schemes_and_ports() {
        let named = |text| Named::parse(text).map(|n| (n.name, n.port, n.security)).map_err(|e| e.code);
        assert_eq!(named("web"), Ok(("web", "", Security::Plain)));
        assert_eq!(named("web:8080"), Ok(("web", "8080", Security::Plain)));
        assert_eq!(named("https:web:"), Ok(("web", "", Security::Unverified)));
        assert_eq!(named("ftp:web:1"), Err(400));
        assert_eq!(named("a:b:c:d"), Err(400));
    }

    #[test]
    fn the_path_behind_proxy_stays_as_it_is() {
        let pod = "/api/v1/namespaces/d/pods/https:web:80/proxy";
        assert_eq!(after_proxy(pod, true), Some(""));
        assert_eq!(after_proxy(&format!("{pod}/a%2Fb/proxy"), true), Some("/a%2Fb/proxy"));
        assert_eq!(after_proxy("/api/v1/nodes/n1/proxy/stats", false), Some("/stats"));
    }

    #[test]
    fn a_service_leads_to_a_ready_endpoint_of_the_port() {
        let object = |value: Value| Object(value.as_object().unwrap().clone());
        let service = object(json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}}));
        let slice = object(
            json!({"ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9000}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.2"], "conditions": {"ready": true}}]}),
        );
        let run = |name: &str, slices: &[Object]| {
            service_endpoint(&service, slices, &Named::parse(name).unwrap(), 7)
                .map(|e| e.authority())
                .map_err(|e| e.message)
        };
        let slices = [slice];
        assert_eq!(run("web:http", &slices), Ok("10.0.0.2:8080".to_owned()));
        assert_eq!(run("web:81", &slices), Ok("10.0.0.2:9000".to_owned()));
        assert!(run("web", &slices).unwrap_err().starts_with("no service port"));
        assert_eq!(run("web:http", &[]), Err("no endpoints available for service \"web\"".to_owned()));
    }
}
