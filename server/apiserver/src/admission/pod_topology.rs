//! PodTopologyLabels: a pod that is given to a node carries the node's zone and region, so that what runs in it can
//! know them (KEP-4742). The `binding` subresource asks for [`labels`] too: what it writes is no object of its own.

use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};

/// The labels that a pod takes over from its node.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// The topology of a node, as labels; none for a node that is not there.
pub(crate) fn labels(world: &dyn World, node: &str) -> Vec<(&'static str, String)> {
    let node = world.find("", "nodes", "", node).unwrap_or_default();
    let value = |name: &&'static str| Some((*name, node.str_at(&["metadata", "labels", *name])?.to_owned()));
    TOPOLOGY.iter().filter_map(value).collect()
}

/// Labels a pod that is created on a node, as far as it does not say otherwise.
pub(super) fn mutate(world: &dyn World, write: &Write<'_>, pod: &mut Object) -> Result<(), ApiError> {
    let node = pod.str_at(&["spec", "nodeName"]).unwrap_or_default().to_owned();
    if node.is_empty() || !write.is(Operation::Create, "", "pods") {
        return Ok(());
    }
    for (name, value) in labels(world, &node) {
        if pod.at(&["metadata", "labels", name]).is_none() {
            pod.set_at(&["metadata", "labels", name], value);
        }
    }
    Ok(())
}
