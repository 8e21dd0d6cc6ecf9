//! `scale`: how many replicas an object has and wants, the same for every kind that has replicas.

use serde_json::Value;
use skiff_api::{
    object::Object,
    request::{ContentType, Verb},
    scale,
    status::ApiError,
};

use super::{
    super::{
        Answer,
        call::Call,
        forms,
        update::{self, Proposal},
    },
    json_value,
};
use crate::strategy::Part;

/// The `Scale` of an object as an answer.
fn answer(object: &Object) -> Answer {
    json_value(200, Value::Object(scale::of(object).0))
}

/// The `Scale` of an object.
pub(super) async fn get(call: &Call<'_>) -> Result<Answer, ApiError> {
    let entry = call.fetch(call.name()).await?.ok_or_else(|| call.not_found(call.name()))?;
    Ok(answer(&call.parse(&entry)?))
}

/// The `Scale` that a request asks for, where this one is there.
fn asked(call: &Call<'_>, there: &Object) -> Result<Object, ApiError> {
    match call.request.verb {
        Verb::Update => forms::decode_as(call, &forms::scale()),
        _ if call.request.content_type == ContentType::ApplyPatch => {
            Err(ApiError::bad_request("a scale is patched with a JSON or merge patch"))
        }
        _ => forms::patched_as(call, there, &forms::scale()),
    }
}

/// Changes how many replicas an object wants.
pub(super) async fn change(call: &Call<'_>) -> Result<Answer, ApiError> {
    let make = |object: &Object| {
        let asked = asked(call, &scale::of(object))?;
        // A version that the client named is compared here, so the update itself may be tried again.
        let object = scale::apply(object, &asked, &call.def.gvk.group, &call.def.resource)?;
        Ok(Proposal { object, pinned: false })
    };
    let Some(written) = update::change(call, call.name(), Part::Main, &make).await? else {
        return Err(call.not_found(call.name()));
    };
    Ok(answer(&written.object(call)?))
}
