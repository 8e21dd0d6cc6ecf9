//! NamespaceLifecycle: nothing is made in a namespace that is not there or is being terminated, and the namespaces
//! that a cluster cannot do without are not deleted.

use serde_json::json;
use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};

/// Namespaces that may not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses what is to be made in a namespace that is missing or terminating. Nothing is changed; this happens with
/// the changing plugins so that it is said before anything is said of the object's fields.
pub(super) fn admit(world: &dyn World, write: &Write<'_>, _: &mut Object) -> Result<(), ApiError> {
    if write.namespace.is_empty() || write.is_on("", "namespaces") || !write.def.stored {
        return Ok(());
    }
    let Some(namespace) = world.find("", "namespaces", "", write.namespace) else {
        return Err(ApiError::not_found("", "namespaces", write.namespace));
    };
    if write.operation != Operation::Create || !namespace.is_deleting() {
        return Ok(());
    }
    Err(terminating(write))
}

/// Refuses the deletion of a namespace that is needed.
pub(super) fn validate(_: &dyn World, write: &Write<'_>, _: &Object) -> Result<(), ApiError> {
    if write.is(Operation::Delete, "", "namespaces") && IMMORTAL.contains(&write.name) {
        return Err(write.forbidden("this namespace may not be deleted"));
    }
    Ok(())
}

/// The refusal of a create in a terminating namespace, with the cause by which clients know it.
fn terminating(write: &Write<'_>) -> ApiError {
    let namespace = write.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut error = write.forbidden(why);
    error.details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    error
}
