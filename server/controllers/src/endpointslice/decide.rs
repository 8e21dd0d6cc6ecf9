//! Which slices a Service should have, and the least that must be written to get there. No I/O.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, Pod, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use skiff_api::selector::{LabelSelector, Labels};

use crate::meta::{controller_reference, is_deleting, is_ready, is_terminal, name, namespace, node_of};

/// How many endpoints a slice has at most.
pub const MAX_ENDPOINTS: usize = 100;
/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who keeps the slices of this controller.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The label of the slices and Endpoints of headless Services.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What is known when deciding.
pub struct View<'a> {
    /// The Service.
    pub service: &'a Service,
    /// The pods of its namespace.
    pub pods: &'a [Arc<Pod>],
    /// The slices that this controller keeps for it.
    pub slices: &'a [Arc<EndpointSlice>],
    /// A node by its name.
    pub node: &'a (dyn Fn(&str) -> Option<Arc<Node>> + Sync),
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Decision {
    /// New slices.
    pub create: Vec<EndpointSlice>,
    /// Slices with new content.
    pub update: Vec<EndpointSlice>,
    /// Slices that nothing is left in.
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Whether a Service's endpoints are found by a selector at all.
pub fn is_selecting(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()) && spec.type_.as_deref() != Some("ExternalName")
}

/// The pods of a list that a Service selects and that have an address.
pub fn backends<'a>(service: &Service, pods: &'a [Arc<Pod>]) -> Vec<&'a Arc<Pod>> {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let pairs = selector.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    let selector = LabelSelector::from_pairs(pairs);
    let is_backend =
        |pod: &&Arc<Pod>| !is_terminal(pod) && pod_ip(pod).is_some() && selector.matches(&pod.metadata.labels);
    pods.iter().filter(is_backend).collect()
}

fn pod_ip(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())
}

/// A pod's address of a family, `IPv4` or `IPv6`.
fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let is_family = |ip: &&str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == (family == "IPv6"));
    all.into_iter().find(is_family)
}

/// The number of the container port that a Service's port goes to on a pod.
pub fn target_port(pod: &Pod, target: Option<&IntOrString>, port: i32, protocol: &str) -> Option<i32> {
    let wanted = match target {
        None | Some(IntOrString::Int(0)) => return Some(port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let is_sidecar = |c: &&k8s_openapi::api::core::v1::Container| c.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(is_sidecar));
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let is_it = |known: &&k8s_openapi::api::core::v1::ContainerPort| {
        known.name.as_ref() == Some(wanted) && known.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.find(is_it).map(|known| known.container_port)
}

fn ports_of(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(pod, port.target_port.as_ref(), port.port, protocol)?),
                protocol: Some(protocol.to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

/// The name that a pod has in the Service's domain, if it asks for one.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain.as_deref() == service.metadata.name.as_deref()).then_some(hostname)
}

/// The reference to a pod that endpoints carry.
pub fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn endpoint(view: &View<'_>, pod: &Pod, ip: &str) -> Endpoint {
    let publish = view.service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let (serving, terminating) = (is_ready(pod), is_deleting(&pod.metadata));
    let node = Some(node_of(pod)).filter(|node| !node.is_empty());
    let zone = node.and_then(view.node).and_then(|node| node.metadata.labels.label(ZONE).map(str::to_owned));
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(view.service, pod),
        node_name: node.map(str::to_owned),
        target_ref: Some(target(pod)),
        zone,
        ..Endpoint::default()
    }
}

/// Ports in a form that can be compared and sorted.
type PortsKey = Vec<(String, i32, String, String)>;

fn ports_key(ports: &[EndpointPort]) -> PortsKey {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let mut key: PortsKey = ports
        .iter()
        .map(|port| (text(&port.name), port.port.unwrap_or_default(), text(&port.protocol), text(&port.app_protocol)))
        .collect();
    key.sort();
    key
}

/// Decides on the slices of a Service.
pub fn decide(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let families = families(view.service);
    for slice in view.slices.iter().filter(|slice| !families.contains(&slice.address_type)) {
        decision.delete.push(Arc::clone(slice));
    }
    for family in &families {
        decide_family(view, family, &mut decision);
    }
    decision
}

fn families(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if !named.is_empty() {
        return named;
    }
    let is_v6 = spec.and_then(|spec| spec.cluster_ip.as_deref()).is_some_and(|ip| ip.contains(':'));
    vec![if is_v6 { "IPv6" } else { "IPv4" }.to_owned()]
}

struct Group {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
}

fn decide_family(view: &View<'_>, family: &str, decision: &mut Decision) {
    let mut groups: BTreeMap<PortsKey, Group> = BTreeMap::new();
    let group = |ports: Vec<EndpointPort>| Group { ports, endpoints: Vec::new(), slices: Vec::new() };
    for pod in backends(view.service, view.pods) {
        let Some(ip) = address(pod, family) else { continue };
        let ports = ports_of(view.service, pod);
        let group = groups.entry(ports_key(&ports)).or_insert_with(|| group(ports));
        group.endpoints.push(endpoint(view, pod, ip));
    }
    if groups.is_empty() {
        // One slice without endpoints says that there are none.
        groups.insert(Vec::new(), group(Vec::new()));
    }
    let mut left_over = Vec::new();
    for slice in view.slices.iter().filter(|slice| slice.address_type == family) {
        match groups.get_mut(&ports_key(slice.ports.as_deref().unwrap_or(&[]))) {
            Some(group) => group.slices.push(Arc::clone(slice)),
            None => left_over.push(Arc::clone(slice)),
        }
    }
    for group in groups.into_values() {
        fill(view, family, group, &mut left_over, decision);
    }
    decision.delete.append(&mut left_over);
}

/// Identifies an endpoint from one version to the next.
fn identity(endpoint: &Endpoint) -> (String, String) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    (uid, endpoint.addresses.first().cloned().unwrap_or_default())
}

/// Keeps endpoints in the slices that they are in, puts new ones where there is room, and makes as few writes as
/// that takes.
fn fill(view: &View<'_>, family: &str, group: Group, spare: &mut Vec<Arc<EndpointSlice>>, decision: &mut Decision) {
    let mut wanted: HashMap<_, Endpoint> = group.endpoints.into_iter().map(|one| (identity(&one), one)).collect();
    let mut contents: Vec<Vec<Endpoint>> = Vec::new();
    for slice in &group.slices {
        let known = slice.endpoints.iter().flatten();
        contents.push(known.filter_map(|one| wanted.remove(&identity(one))).collect());
    }
    let mut fresh: Vec<Endpoint> = wanted.into_values().collect();
    fresh.sort_by_key(identity);
    for content in &mut contents {
        let room = MAX_ENDPOINTS.saturating_sub(content.len()).min(fresh.len());
        content.extend(fresh.drain(..room));
    }
    let any = contents.iter().any(|content| !content.is_empty()) || !fresh.is_empty();
    let mut kept_empty = false;
    for (slice, content) in group.slices.iter().zip(contents) {
        if content.is_empty() && (any || kept_empty) {
            decision.delete.push(Arc::clone(slice));
            continue;
        }
        kept_empty |= content.is_empty();
        let new = with_content(view.service, slice, &group.ports, content);
        if new != **slice {
            decision.update.push(new);
        }
    }
    if !any && !kept_empty {
        place(view, family, &group.ports, Vec::new(), spare, decision);
    }
    while !fresh.is_empty() {
        let chunk = fresh.drain(..fresh.len().min(MAX_ENDPOINTS)).collect();
        place(view, family, &group.ports, chunk, spare, decision);
    }
}

/// Puts content into a slice of other ports that is not needed any more, or else into a new one.
fn place(
    view: &View<'_>,
    family: &str,
    ports: &[EndpointPort],
    content: Vec<Endpoint>,
    spare: &mut Vec<Arc<EndpointSlice>>,
    decision: &mut Decision,
) {
    match spare.pop() {
        Some(slice) => decision.update.push(with_content(view.service, &slice, ports, content)),
        None => decision.create.push(with_content(view.service, &new_slice(view.service, family), ports, content)),
    }
}

fn new_slice(service: &Service, family: &str) -> EndpointSlice {
    EndpointSlice {
        address_type: family.to_owned(),
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(&service.metadata))),
            namespace: Some(namespace(&service.metadata).to_owned()),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        ..EndpointSlice::default()
    }
}

fn with_content(
    service: &Service,
    slice: &EndpointSlice,
    ports: &[EndpointPort],
    content: Vec<Endpoint>,
) -> EndpointSlice {
    let mut slice = slice.clone();
    slice.metadata.labels = Some(labels(service));
    // An empty list is read back as an empty list or as none: both are the same.
    let is_same = slice.ports.as_deref().unwrap_or(&[]) == ports;
    if !is_same || slice.metadata.name.is_none() {
        slice.ports = Some(ports.to_vec());
    }
    if slice.endpoints.as_deref().unwrap_or(&[]) != content.as_slice() || slice.metadata.name.is_none() {
        slice.endpoints = Some(content);
    }
    slice
}

/// The Service's labels, and those by which slices are found.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), name(&service.metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// Whether a Service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}
