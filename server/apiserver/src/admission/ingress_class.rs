//! DefaultIngressClass: an Ingress that names no class has the cluster's default one.

use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};

/// The API group.
const GROUP: &str = "networking.k8s.io";

/// The annotation of the default class.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// The annotation by which old Ingresses name their class.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// Sets the class of a new Ingress: of several default classes the newest, then the first by name.
pub(super) fn mutate(world: &dyn World, write: &Write<'_>, ingress: &mut Object) -> Result<(), ApiError> {
    let named = ingress.at(&["spec", "ingressClassName"]).is_some()
        || ingress.at(&["metadata", "annotations", OLD_CLASS]).is_some();
    if named || !write.is(Operation::Create, GROUP, "ingresses") {
        return Ok(());
    }
    let classes = world.all(GROUP, "ingressclasses", None);
    if let Some(class) = super::newest_default(&classes, IS_DEFAULT) {
        ingress.set_at(&["spec", "ingressClassName"], class);
    }
    Ok(())
}
