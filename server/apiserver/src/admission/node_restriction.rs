//! NodeRestriction: what a node writes is about itself. The Node authorizer limits what has a name in the URL; this
//! limits what has its name only in the body.

use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};
use crate::authz::node::node_name;

/// The annotation of a mirror pod, the only kind of pod that a node may create.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Refuses what a node creates for another.
pub(super) fn validate(_: &dyn World, write: &Write<'_>, object: &Object) -> Result<(), ApiError> {
    let Some(node) = node_name(write.user) else { return Ok(()) };
    if write.operation != Operation::Create {
        return Ok(());
    }
    let named_alike = write.is_on("", "nodes")
        || write.is_on("storage.k8s.io", "csinodes")
        || write.is_on("coordination.k8s.io", "leases");
    if named_alike && object.name() != node {
        let (what, name) = (&write.def.resource, object.name());
        return Err(write.forbidden(format!("node {node:?} is not allowed to create {what} {name:?}")));
    }
    if write.is(Operation::Create, "", "pods") {
        return mirror_pod(write, node, object);
    }
    Ok(())
}

/// Refuses a pod that is no mirror of one that the node itself runs.
fn mirror_pod(write: &Write<'_>, node: &str, pod: &Object) -> Result<(), ApiError> {
    if pod.str_at(&["metadata", "annotations", MIRROR]).is_none() {
        return Err(write
            .forbidden(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods")));
    }
    if pod.str_at(&["spec", "nodeName"]) != Some(node) {
        return Err(write.forbidden(format!("node {node:?} can only create pods with spec.nodeName set to itself")));
    }
    Ok(())
}
