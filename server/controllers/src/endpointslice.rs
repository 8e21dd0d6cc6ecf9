//! EndpointSlices: which pods are behind a Service.

pub mod decide;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::DeleteOptions,
};
use skiff_api::{
    selector::{LabelSelector, Labels},
    status::ApiError,
};
use skiff_client::{Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{is_deleting, is_ready, is_terminal, name, namespace},
    pods::is_namespace_terminating,
};
use decide::{MANAGED_BY, MANAGER, SERVICE_NAME, View, decide, is_selecting};

/// The controller's identity.
pub const NAME: &str = "endpointslice-controller";

/// Keys worked on at once.
const WORKERS: usize = 5;

const BY_SERVICE: &str = "endpointslice/service";

struct Slices {
    context: Context,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    slices: Arc<Informer<EndpointSlice>>,
    nodes: Arc<Informer<Node>>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let of = &context.informers;
    let (services, pods, slices, nodes) =
        (of.of::<Service>(), of.of::<Pod>(), of.of::<EndpointSlice>(), of.of::<Node>());
    slices.index(BY_SERVICE, |slice| key_of_slice(slice).iter().map(ToString::to_string).collect());
    let cancel = context.cancel.clone();
    let of_pods = Arc::clone(&services);
    let controller = Slices {
        context,
        services: Arc::clone(&services),
        pods: Arc::clone(&pods),
        slices: Arc::clone(&slices),
        nodes: Arc::clone(&nodes),
    };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&services, |service| vec![Key::of(service)])
        .watch_if(&pods, matters, move |pod| services_of(pod, &of_pods))
        .watch(&slices, |slice| key_of_slice(slice).into_iter().collect())
        .run(WORKERS)
        .await;
}

/// The Service of a slice that this controller keeps.
fn key_of_slice(slice: &EndpointSlice) -> Option<Key> {
    let labels = &slice.metadata.labels;
    let service = labels.label(SERVICE_NAME).filter(|_| labels.label(MANAGED_BY) == Some(MANAGER))?;
    Some(Key::new(namespace(&slice.metadata), service))
}

/// Whether a change of a pod can change endpoints.
pub fn matters(old: &Pod, new: &Pod) -> bool {
    let address = |pod: &Pod| pod.status.as_ref().map(|s| (s.pod_ip.clone(), s.pod_ips.clone()));
    old.metadata.labels != new.metadata.labels
        || is_deleting(&old.metadata) != is_deleting(&new.metadata)
        || is_ready(old) != is_ready(new)
        || is_terminal(old) != is_terminal(new)
        || address(old) != address(new)
}

/// The Services that select a pod.
pub fn services_of(pod: &Pod, services: &Informer<Service>) -> Vec<Key> {
    let selects = |service: &&Arc<Service>| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let pairs = selector.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
        is_selecting(service) && LabelSelector::from_pairs(pairs).matches(&pod.metadata.labels)
    };
    services.list_in(namespace(&pod.metadata)).iter().filter(selects).map(|service| Key::of(&**service)).collect()
}

#[async_trait]
impl Controller for Slices {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let slices = self.slices.indexed(BY_SERVICE, &key.to_string());
        let service = self.services.get(&key.namespace, &key.name);
        let Some(service) = service.filter(|service| is_selecting(service) && !is_deleting(&service.metadata)) else {
            // The slices of a Service that is gone are the garbage collector's; those of one that selects no longer
            // stay as they are, as in Kubernetes.
            return Ok(None);
        };
        let mut slices = slices;
        slices.sort_by_key(|slice| slice.metadata.name.clone());
        let pods = self.pods.list_in(&key.namespace);
        let node = |name: &str| self.nodes.get("", name);
        let decision = decide(&View { service: &service, pods: &pods, slices: &slices, node: &node });
        for slice in &decision.create {
            match self.context.client.create(slice).await {
                Ok(slice) => self.slices.observe(slice),
                Err(error) if is_namespace_terminating(&error) => {}
                Err(error) => return Err(error),
            }
        }
        for slice in &decision.update {
            self.slices.observe(self.context.client.update(slice).await?);
        }
        for slice in &decision.delete {
            self.delete(slice).await?;
        }
        Ok(None)
    }
}

impl Slices {
    async fn delete(&self, slice: &EndpointSlice) -> Result<(), ApiError> {
        let (namespace, name) = (namespace(&slice.metadata), name(&slice.metadata));
        match self.context.client.delete::<EndpointSlice>(namespace, name, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
