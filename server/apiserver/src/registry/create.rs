//! `create`.

use skiff_api::{
    object::Object,
    status::{ApiError, FieldError},
};

use super::{
    Answer,
    call::{Call, Swap, Written},
    config::MAX_NAME_TRIES,
    forms, grants, meta, quota,
};
use crate::{admission, admission::Operation, strategy};

/// Makes the object in the body.
pub(super) async fn create(call: &Call<'_>) -> Result<Answer, ApiError> {
    let object = forms::decode(call)?;
    create_object(call, object).await?.answer(call, 201)
}

/// Makes an object. Where it only brings the beginning of a name, several names are tried.
pub(super) async fn create_object(call: &Call<'_>, mut object: Object) -> Result<Written, ApiError> {
    if object.str_at(&["metadata", "resourceVersion"]).is_some_and(|version| !version.is_empty()) {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    meta::place(&call.def, &mut object, call.namespace())?;
    let base = object.str_at(&["metadata", "generateName"]).unwrap_or_default().to_owned();
    if !object.name().is_empty() || base.is_empty() {
        let name = object.name().to_owned();
        return try_create(call, object).await?.ok_or_else(|| exists(call, &name));
    }
    let mut name = String::new();
    for _ in 0..MAX_NAME_TRIES {
        let mut attempt = object.clone();
        name = meta::generated_name(&base, (call.registry.config.random)());
        attempt.set_at(&["metadata", "name"], name.as_str());
        if let Some(written) = try_create(call, attempt).await? {
            return Ok(written);
        }
    }
    Err(exists(call, &name))
}

/// 409: an object of that name is there.
fn exists(call: &Call<'_>, name: &str) -> ApiError {
    ApiError::already_exists(&call.def.gvk.group, &call.def.resource, name)
}

/// 422 with what is wrong, if anything is.
pub(super) fn refuse_invalid(call: &Call<'_>, name: &str, errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&call.def.gvk.group, &call.def.gvk.kind, name, errors))
}

/// Makes an object under its name; `None` where there is one of that name.
async fn try_create(call: &Call<'_>, mut object: Object) -> Result<Option<Written>, ApiError> {
    meta::fill_new(&mut object, call.now, (call.registry.config.random)());
    let name = object.name().to_owned();
    let write = call.write(Operation::Create, &name, None);
    admission::mutate(call.registry, &write, &mut object)?;
    grants::check(call, &object, None)?;
    let mut cx = call.context();
    strategy::prepare_create(&call.def, &mut cx, &mut object);
    forms::apply_defaults(call, &mut object);
    let mut errors = std::mem::take(&mut cx.errors);
    forms::add_errors(&mut errors, forms::validate_create(call, &object));
    refuse_invalid(call, &name, &errors)?;
    admission::validate(call.registry, &write, &object)?;
    let _turn = quota::charge(call, &write, &object).await?;
    forms::track(call, &mut object, None)?;
    if call.dry_run {
        let there = call.fetch(&name).await?.is_some();
        return Ok((!there).then_some(Written::Dry(object)));
    }
    match call.swap(&name, None, Some(&object), cx).await? {
        Swap::Done(entry) => Ok(Some(Written::Stored(entry))),
        Swap::Lost => Ok(None),
    }
}
