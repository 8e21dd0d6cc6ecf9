//! Where a pod, node or Service is: read from the objects, decided by pure functions.

use skiff_api::{
    object::Object,
    request::{GroupVersionResource, Options, Request, Verb},
    status::ApiError,
    user::UserInfo,
};

use super::dial::{Endpoint, Security};
use crate::{front::Front, registry::Answer};

/// The port of a node's API where the node does not say.
const DEFAULT_KUBELET_PORT: u16 = 10250;

/// The API server itself, as a user.
fn ourselves() -> UserInfo {
    UserInfo {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:authenticated".to_owned(), "system:masters".to_owned()],
        ..UserInfo::default()
    }
}

fn request(verb: Verb, group: &str, resource: &str, namespace: Option<&str>, name: Option<&str>) -> Request {
    Request {
        verb,
        resource: GroupVersionResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
        },
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        subresource: None,
        subpath: None,
        options: Options::default(),
        content_type: skiff_api::request::ContentType::Json,
        body: bytes::Bytes::new(),
    }
}

/// One object of the core group.
pub async fn get(front: &Front, resource: &str, namespace: Option<&str>, name: &str) -> Result<Object, ApiError> {
    let request = request(Verb::Get, "", resource, namespace, Some(name));
    match front.dispatch.dispatch(&ourselves(), request).await?.answer {
        Answer::Object { entry, .. } => entry.object().map_err(ApiError::internal),
        _ => Err(ApiError::internal("no object where one was asked for")),
    }
}

/// The EndpointSlices of a Service.
pub async fn endpoint_slices(front: &Front, namespace: &str, service: &str) -> Result<Vec<Object>, ApiError> {
    let mut request = request(Verb::List, "discovery.k8s.io", "endpointslices", Some(namespace), None);
    request.options.label_selector = Some(format!("kubernetes.io/service-name={service}"));
    match front.dispatch.dispatch(&ourselves(), request).await?.answer {
        Answer::List { list, .. } => {
            list.entries.iter().map(|entry| entry.object().map_err(ApiError::internal)).collect()
        }
        _ => Err(ApiError::internal("no list where one was asked for")),
    }
}

/// The API of the node that a pod is on.
pub async fn node_of(front: &Front, node: &str) -> Result<Endpoint, ApiError> {
    node_endpoint(&get(front, "nodes", None, node).await?)
}

/// The API of a node.
pub fn node_endpoint(node: &Object) -> Result<Endpoint, ApiError> {
    let addresses = node.at(&["status", "addresses"]).and_then(serde_json::Value::as_array);
    let of = |kind: &str| {
        let mut found = addresses.into_iter().flatten().filter(|address| address["type"] == kind);
        found.find_map(|address| address["address"].as_str()).map(str::to_owned)
    };
    let host = of("InternalIP").or_else(|| of("ExternalIP")).or_else(|| of("Hostname"));
    let host = host.ok_or_else(|| {
        ApiError::internal(format!("no preferred addresses found; known addresses: [] of node {}", node.name()))
    })?;
    let port = node.int_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(DEFAULT_KUBELET_PORT);
    Ok(Endpoint { host, port, security: Security::Node, node: Some(node.name().to_owned()) })
}

fn names_at<'a>(pod: &'a Object, field: &str) -> Vec<&'a str> {
    let list = pod.at(&["spec", field]).and_then(serde_json::Value::as_array);
    list.into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
}

/// The container that is meant: the one asked for, or the only one.
pub fn container(pod: &Object, asked: &str) -> Result<String, ApiError> {
    let (containers, init) = (names_at(pod, "containers"), names_at(pod, "initContainers"));
    let ephemeral = names_at(pod, "ephemeralContainers");
    let name = pod.name();
    if !asked.is_empty() {
        let known = containers.iter().chain(&init).chain(&ephemeral).any(|container| *container == asked);
        let error = || ApiError::bad_request(format!("container {asked} is not valid for pod {name}"));
        return known.then(|| asked.to_owned()).ok_or_else(error);
    }
    match containers.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
            for (kind, names) in [("init", init), ("ephemeral", ephemeral)] {
                if !names.is_empty() {
                    message.push_str(&format!(" or one of the {kind} containers: [{}]", names.join(" ")));
                }
            }
            Err(ApiError::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn object(value: serde_json::Value) -> Object {
        serde_json::from_value(value).map(Object).unwrap()
    }

    #[test]
    fn the_container_that_is_meant() {
        let pod = |containers: &[&str], init: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|n| serde_json::json!({"name": n})).collect::<Vec<_>>();
            object(
                serde_json::json!({"metadata": {"name": "web"}, "spec": {"containers": list(containers), "initContainers": list(init)}}),
            )
        };
        let run = |pod: &Object, asked| container(pod, asked).map_err(|error| (error.code, error.message));
        assert_eq!(run(&pod(&["a"], &[]), ""), Ok("a".to_owned()));
        assert_eq!(run(&pod(&["a", "b"], &["i"]), "i"), Ok("i".to_owned()));
        assert_eq!(
            run(&pod(&["a", "b"], &["i"]), ""),
            Err((400, "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]".to_owned()))
        );
        assert_eq!(run(&pod(&["a"], &[]), "x"), Err((400, "container x is not valid for pod web".to_owned())));
    }

    #[test]
    fn a_node_is_reached_by_its_internal_address() {
        let node = object(serde_json::json!({"metadata": {"name": "n1"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.7"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10999}}}}));
        let endpoint = node_endpoint(&node).unwrap();
        assert_eq!((endpoint.authority().as_str(), endpoint.security), ("10.0.0.7:10999", Security::Node));
        assert!(node_endpoint(&object(serde_json::json!({"metadata": {"name": "n1"}}))).is_err());
    }
}
