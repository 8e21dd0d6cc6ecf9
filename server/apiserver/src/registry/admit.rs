//! Admission of a write, timed: what it is changed to, then whether it is let pass.

use std::time::Instant;

use skiff_api::{object::Object, status::ApiError};

use super::{
    Registry,
    call::Call,
    quota::{self, Turn},
};
use crate::{
    admission::{self, Write},
    spans::Step,
};

/// Lets every plugin change the object.
pub(super) fn mutate(call: &Call<'_>, write: &Write<'_>, object: &mut Object) -> Result<(), ApiError> {
    let began = Instant::now();
    let changed = admission::mutate(call.registry, write, object);
    call.registry.spans.admitted(write.operation, Step::Admit, began, &changed);
    changed
}

/// Asks every plugin, and charges quotas; what is charged is held for as long as the turn is.
pub(super) async fn validate(call: &Call<'_>, write: &Write<'_>, object: &Object) -> Result<Turn, ApiError> {
    let began = Instant::now();
    let passed = async {
        admission::validate(call.registry, write, object)?;
        quota::charge(call, write, object).await
    };
    let passed = passed.await;
    call.registry.spans.admitted(write.operation, Step::Validate, began, &passed);
    passed
}

/// Asks every plugin about a write that no quota counts.
pub(super) fn validate_uncounted(registry: &Registry, write: &Write<'_>, object: &Object) -> Result<(), ApiError> {
    let began = Instant::now();
    let passed = admission::validate(registry, write, object);
    registry.spans.admitted(write.operation, Step::Validate, began, &passed);
    passed
}
