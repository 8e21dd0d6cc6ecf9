//! The places of the plugins that limit: LimitRanger, PodSecurity and ResourceQuota. Each lets everything pass until
//! its rules are written; the order in which they are asked is already that of Kubernetes.

use skiff_api::{object::Object, status::ApiError};

use super::{World, Write};

/// LimitRanger: defaults and bounds from the namespace's LimitRanges.
pub(super) fn apply_limit_ranges(_: &dyn World, _: &Write<'_>, _: &mut Object) -> Result<(), ApiError> {
    Ok(())
}

/// PodSecurity: the level that the namespace's labels ask for.
pub(super) fn check_pod_security(_: &dyn World, _: &Write<'_>, _: &Object) -> Result<(), ApiError> {
    Ok(())
}

/// ResourceQuota: what the namespace may still use.
pub(super) fn check_quota(_: &dyn World, _: &Write<'_>, _: &Object) -> Result<(), ApiError> {
    Ok(())
}
