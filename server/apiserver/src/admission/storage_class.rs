//! DefaultStorageClass: a claim that names no class has the cluster's default one.

use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};

/// The annotation of the default class.
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// The annotation by which old claims name their class.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Sets the class of a new claim: of several default classes the newest, then the first by name.
pub(super) fn mutate(world: &dyn World, write: &Write<'_>, claim: &mut Object) -> Result<(), ApiError> {
    let named = claim.at(&["spec", "storageClassName"]).is_some()
        || claim.at(&["metadata", "annotations", OLD_CLASS]).is_some();
    if named || !write.is(Operation::Create, "", "persistentvolumeclaims") {
        return Ok(());
    }
    let classes = world.all("storage.k8s.io", "storageclasses", None);
    if let Some(class) = super::newest_default(&classes, IS_DEFAULT) {
        claim.set_at(&["spec", "storageClassName"], class);
    }
    Ok(())
}
