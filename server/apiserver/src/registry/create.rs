//! `create`.

use serde_json::json;
use skiff_api::{
    object::Object,
    status::{ApiError, FieldError},
    warn,
};

use super::{
    Answer, admit,
    call::{Call, Swap, Written},
    claims,
    config::{MAX_NAME_TRIES, MAX_SWAPS},
    forms, grants, meta,
};
use crate::{admission::Operation, strategy};

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
    call.warn(meta::dedup_owners(&mut object));
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
    let details = json!({"name": name, "kind": call.def.resource, "group": call.def.gvk.group, "retryAfterSeconds": 1});
    let message = format!("{}, the server was not able to generate a unique name for the object", exists(call, &name));
    Err(ApiError { details, message, ..exists(call, &name) })
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
    // Only with other servers may it have to be tried again.
    let spare = claims::may_clash(call.registry, &call.def).then(|| object.clone());
    for _ in 0..MAX_SWAPS {
        match attempt(call, object).await? {
            Tried::Written(written) => return Ok(Some(written)),
            Tried::Exists => return Ok(None),
            Tried::Taken => object = spare.clone().unwrap_or_default(),
        }
    }
    Err(ApiError::internal("other servers take every address or port that this one tries to give"))
}

/// How a try to make an object ended.
enum Tried {
    Written(Written),
    /// There is one of that name.
    Exists,
    /// Another server has given out an address or port that this try had chosen.
    Taken,
}

async fn attempt(call: &Call<'_>, mut object: Object) -> Result<Tried, ApiError> {
    meta::fill_new(&mut object, call.now, (call.registry.config.random)());
    let name = object.name().to_owned();
    let write = call.write(Operation::Create, &name, None);
    admit::mutate(call, &write, &mut object)?;
    grants::check(call, &object, None)?;
    let mut cx = call.context();
    strategy::prepare_create(&call.def, &mut cx, &mut object);
    forms::apply_defaults(call, &mut object);
    let mut errors = std::mem::take(&mut cx.errors);
    forms::add_errors(&mut errors, forms::validate_create(call, &object));
    refuse_invalid(call, &name, &errors)?;
    call.warn(warn::of_write(&call.def, &object, None));
    let _turn = admit::validate(call, &write, &object).await?;
    forms::track(call, &mut object, None)?;
    if call.dry_run {
        let there = call.fetch(&name).await?.is_some();
        return Ok(if there { Tried::Exists } else { Tried::Written(Written::Dry(object)) });
    }
    let Some(made) = claims::secure(call.registry, &object, &mut cx.holds).await? else { return Ok(Tried::Taken) };
    match call.swap(&name, None, Some(&object), cx).await? {
        Swap::Done(entry) => Ok(Tried::Written(Written::Stored(entry))),
        Swap::Lost => {
            claims::give_up(call.registry, made).await;
            Ok(Tried::Exists)
        }
    }
}
