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
    let is_default = |class: &&Object| class.str_at(&["metadata", "annotations", IS_DEFAULT]) == Some("true");
    let created = |class: &Object| class.str_at(&["metadata", "creationTimestamp"]).unwrap_or_default().to_owned();
    let newest = classes
        .iter()
        .filter(is_default)
        .max_by(|a, b| created(a).cmp(&created(b)).then_with(|| b.name().cmp(a.name())));
    if let Some(class) = newest {
        claim.set_at(&["spec", "storageClassName"], class.name());
    }
    Ok(())
}
