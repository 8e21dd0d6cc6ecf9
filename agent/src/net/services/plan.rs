//! Which listeners there are to be, and the endpoints behind each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::EndpointSlice,
};

/// The label that names an EndpointSlice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u64 = 10_800;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// Address and port.
    pub address: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
}

/// What is behind a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Namespace and name of the Service.
    pub service: (String, String),
    /// The endpoints, in order; never empty.
    pub endpoints: Vec<SocketAddr>,
    /// How long a client stays with its endpoint, with `sessionAffinity: ClientIP`.
    pub affinity: Option<Duration>,
}

/// The listeners that the Services ask for; those without an endpoint get none.
pub fn plan(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> BTreeMap<Frontend, Backend> {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        if let Some(name) = name {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            by_service.entry((namespace, name)).or_default().push(slice);
        }
    }
    let mut wanted = BTreeMap::new();
    for service in services {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let Some(spec) = &service.spec else { continue };
        let slices = by_service.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
        for port in spec.ports.iter().flatten() {
            let endpoints = endpoints(port, slices);
            if endpoints.is_empty() {
                continue;
            }
            let backend =
                Backend { service: (namespace.to_owned(), name.to_owned()), endpoints, affinity: affinity(spec) };
            wanted.extend(frontends(spec, port).into_iter().map(|frontend| (frontend, backend.clone())));
        }
    }
    wanted
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    let is_on = spec.session_affinity.as_deref() == Some("ClientIP");
    is_on.then(|| Duration::from_secs(seconds.unwrap_or(AFFINITY_SECONDS)))
}

fn frontends(spec: &ServiceSpec, port: &ServicePort) -> Vec<Frontend> {
    let Some(protocol) = protocol(port.protocol.as_deref()) else { return vec![] };
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    let single = spec.cluster_ip.iter().cloned().collect();
    let ips = spec.cluster_ips.clone().filter(|ips| !ips.is_empty()).unwrap_or(single);
    let cluster = ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).zip(std::iter::repeat(number(port.port)));
    let node = [(IpAddr::V4(Ipv4Addr::LOCALHOST), port.node_port.and_then(number))];
    cluster
        .chain(node)
        .filter_map(|(ip, port)| Some(Frontend { address: SocketAddr::new(ip, port?), protocol }))
        .collect()
}

/// The ready endpoints of a port; where there are none, those that still serve while they end.
fn endpoints(port: &ServicePort, slices: &[&EndpointSlice]) -> Vec<SocketAddr> {
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let named = slice.ports.iter().flatten().find(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                && protocol(candidate.protocol.as_deref()) == protocol(port.protocol.as_deref())
        });
        let Some(number) = named.and_then(|named| u16::try_from(named.port?).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let addresses =
                endpoint.addresses.iter().filter_map(|ip| ip.parse().ok()).map(|ip| SocketAddr::new(ip, number));
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            if conditions.ready.unwrap_or(true) {
                ready.extend(addresses);
            } else if conditions.serving == Some(true) && conditions.terminating == Some(true) {
                ending.extend(addresses);
            }
        }
    }
    if ready.is_empty() { ending } else { ready }.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn service(extra: serde_json::Value) -> Arc<Service> {
        let mut spec = json!({"clusterIP": "127.43.0.9", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "d"}, "spec": spec})).unwrap())
    }

    fn slice(endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        Arc::new(serde_json::from_value(json!({
            "metadata": {"name": "web-x", "namespace": "d", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        })).unwrap())
    }

    #[test]
    fn a_listener_for_each_address_with_the_ready_endpoints() {
        let service = service(json!({"ports": [{"name": "http", "port": 80, "nodePort": 30080}]}));
        let slice = slice(json!([
            {"addresses": ["127.64.0.2"], "conditions": {"ready": true}},
            {"addresses": ["127.64.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]));
        let wanted = plan(&[service], &[slice]);
        let addresses: Vec<String> = wanted.keys().map(|frontend| frontend.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:30080", "127.43.0.9:80"]);
        assert!(wanted.values().all(|backend| backend.endpoints == ["127.64.0.2:8080".parse().unwrap()]));
    }

    #[test]
    fn endpoints_that_end_serve_where_no_other_does_and_none_means_no_listener() {
        let ending = slice(
            json!([{"addresses": ["127.64.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}]),
        );
        assert_eq!(plan(&[service(json!({}))], &[ending]).len(), 1);
        let unready = slice(json!([{"addresses": ["127.64.0.3"], "conditions": {"ready": false, "serving": false}}]));
        assert!(plan(&[service(json!({}))], &[unready]).is_empty());
        let ready = slice(json!([{"addresses": ["127.64.0.3"]}]));
        assert!(plan(&[service(json!({"clusterIP": "None"}))], &[ready]).is_empty());
    }
}
