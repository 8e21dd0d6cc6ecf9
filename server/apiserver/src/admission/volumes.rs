//! StorageObjectInUseProtection and PersistentVolumeClaimResize.

use serde_json::Value;
use skiff_api::{object::Object, quantity::Quantity, status::ApiError};

use super::{Operation, World, Write};

/// Keeps a volume, or a claim, until nothing uses it.
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";

/// Adds the finalizer to a new volume or claim.
pub(super) fn protect(_: &dyn World, write: &Write<'_>, object: &mut Object) -> Result<(), ApiError> {
    let finalizer = if write.is(Operation::Create, "", "persistentvolumes") {
        VOLUME_FINALIZER
    } else if write.is(Operation::Create, "", "persistentvolumeclaims") {
        CLAIM_FINALIZER
    } else {
        return Ok(());
    };
    let mut finalizers: Vec<Value> = object.finalizers().map(Value::from).collect();
    if !finalizers.iter().any(|one| one == finalizer) {
        finalizers.push(finalizer.into());
        object.set_at(&["metadata", "finalizers"], finalizers);
    }
    Ok(())
}

fn requested(claim: &Object) -> Option<Quantity> {
    claim.str_at(&["spec", "resources", "requests", "storage"])?.parse().ok()
}

/// Refuses to let a claim grow that is not bound, or whose class does not let it.
pub(super) fn check_resize(world: &dyn World, write: &Write<'_>, claim: &Object) -> Result<(), ApiError> {
    let Some(old) = write.old.filter(|_| write.is(Operation::Update, "", "persistentvolumeclaims")) else {
        return Ok(());
    };
    let grows = matches!((requested(old), requested(claim)), (Some(before), Some(after)) if after > before);
    if !grows {
        return Ok(());
    }
    if old.str_at(&["status", "phase"]) != Some("Bound") {
        return Err(write.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = |of: &Object| of.str_at(&["spec", "storageClassName"]).unwrap_or_default().to_owned();
    let may_grow = !class(claim).is_empty()
        && class(claim) == class(old)
        && world
            .find("storage.k8s.io", "storageclasses", "", &class(claim))
            .is_some_and(|class| class.at(&["allowVolumeExpansion"]).and_then(Value::as_bool) == Some(true));
    if may_grow {
        return Ok(());
    }
    Err(write.forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
         resize",
    ))
}
