//! Endpoints, the older form of EndpointSlices, which some clients still read.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
};
use skiff_api::status::ApiError;
use skiff_client::{Informer, Key};

use crate::{
    endpointslice::{
        decide::{HEADLESS, backends, hostname, is_headless, is_selecting, target, target_port},
        matters, services_of,
    },
    frame::{Again, Context, Controller, Frame},
    meta::{is_deleting, is_ready, name, namespace, node_of},
    pods::is_namespace_terminating,
};

/// The controller's identity.
pub const NAME: &str = "endpoint-controller";

/// How many addresses there are at most; with more the object says that it is truncated.
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

/// Keys worked on at once.
const WORKERS: usize = 5;

struct Controllers {
    context: Context,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    endpoints: Arc<Informer<Endpoints>>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let of = &context.informers;
    let (services, pods, endpoints) = (of.of::<Service>(), of.of::<Pod>(), of.of::<Endpoints>());
    let cancel = context.cancel.clone();
    let of_pods = Arc::clone(&services);
    let controller = Controllers {
        context,
        services: Arc::clone(&services),
        pods: Arc::clone(&pods),
        endpoints: Arc::clone(&endpoints),
    };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&services, |service| vec![Key::of(service)])
        .watch_if(&pods, matters, move |pod| services_of(pod, &of_pods))
        .watch(&endpoints, |endpoints| vec![Key::of(endpoints)])
        .run(WORKERS)
        .await;
}

#[async_trait]
impl Controller for Controllers {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let known = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            return self.drop_leftover(known).await;
        };
        if !is_selecting(&service) || is_deleting(&service.metadata) {
            return Ok(None);
        }
        let wanted = endpoints_of(&service, &self.pods.list_in(&key.namespace), known.as_deref());
        let client = &self.context.client;
        let written = match known {
            None => client.create(&wanted).await,
            Some(known) if same(&known, &wanted) => return Ok(None),
            Some(_) => client.update(&wanted).await,
        };
        match written {
            Ok(endpoints) => self.endpoints.observe(endpoints),
            Err(error) if is_namespace_terminating(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(None)
    }
}

impl Controllers {
    /// Endpoints go with their Service, if this controller has made them.
    async fn drop_leftover(&self, known: Option<Arc<Endpoints>>) -> Result<Again, ApiError> {
        let is_ours = |one: &Arc<Endpoints>| {
            one.metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(MANAGED_BY.0))
                .is_some_and(|by| by == MANAGED_BY.1)
        };
        let Some(known) = known.filter(is_ours) else { return Ok(None) };
        let (namespace, name) = (namespace(&known.metadata), name(&known.metadata));
        match self.context.client.delete::<Endpoints>(namespace, name, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(None),
        }
    }
}

fn same(a: &Endpoints, b: &Endpoints) -> bool {
    a.subsets.as_deref().unwrap_or(&[]) == b.subsets.as_deref().unwrap_or(&[])
        && a.metadata.labels == b.metadata.labels
        && a.metadata.annotations == b.metadata.annotations
}

/// The Endpoints of a Service, on the ground of those that are there.
pub fn endpoints_of(service: &Service, pods: &[Arc<Pod>], known: Option<&Endpoints>) -> Endpoints {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    let (subsets, truncated) = subsets(service, pods);
    let fresh = ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    };
    let mut metadata = known.map_or(fresh, |known| known.metadata.clone());
    metadata.labels = Some(labels);
    if truncated {
        metadata.annotations.get_or_insert_default().insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) }
}

type Port = (String, i32, String, Option<String>);

#[derive(Default)]
struct Addresses {
    ready: BTreeMap<String, EndpointAddress>,
    not_ready: BTreeMap<String, EndpointAddress>,
}

/// Addresses with the same ports together, in order.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let mut groups: BTreeMap<Vec<Port>, Addresses> = BTreeMap::new();
    let (mut count, mut truncated) = (0, false);
    for pod in backends(service, pods) {
        if is_deleting(&pod.metadata) && !publish {
            continue;
        }
        let ports = ports(service, pod);
        if ports.is_empty() && !is_headless(service) {
            continue;
        }
        count += 1;
        truncated = count > MAX_ADDRESSES;
        if truncated {
            break;
        }
        let address = address(service, pod);
        let group = groups.entry(ports).or_default();
        let list = if is_ready(pod) || publish { &mut group.ready } else { &mut group.not_ready };
        list.insert(address.ip.clone(), address);
    }
    (groups.into_iter().map(|(ports, addresses)| subset(ports, addresses)).collect(), truncated)
}

fn subset(ports: Vec<Port>, addresses: Addresses) -> EndpointSubset {
    let list = |map: BTreeMap<String, EndpointAddress>| (!map.is_empty()).then(|| map.into_values().collect());
    let port = |(name, port, protocol, app_protocol): Port| EndpointPort {
        name: (!name.is_empty()).then_some(name),
        port,
        protocol: Some(protocol),
        app_protocol,
    };
    EndpointSubset {
        addresses: list(addresses.ready),
        not_ready_addresses: list(addresses.not_ready),
        ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
    }
}

fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut found: Vec<Port> = ports
        .filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let number = target_port(pod, port.target_port.as_ref(), port.port, protocol)?;
            Some((port.name.clone().unwrap_or_default(), number, protocol.to_owned(), port.app_protocol.clone()))
        })
        .collect();
    found.sort();
    found
}

fn address(service: &Service, pod: &Pod) -> EndpointAddress {
    EndpointAddress {
        ip: pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default(),
        hostname: hostname(service, pod),
        node_name: Some(node_of(pod).to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(target(pod)),
    }
}
