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
        forms, patches,
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
        _ => forms::patched_as(call, there, &forms::scale()),
    }
}

/// The object once a `Scale` has been applied to it: the same as an apply of its replicas alone.
fn applied(call: &Call<'_>, object: &Object) -> Result<Object, ApiError> {
    let sent = patches::applied_body(call, &forms::scale())?;
    let mut wanted = Object::default();
    wanted.set_at(&["apiVersion"], object.api_version());
    wanted.set_at(&["kind"], object.kind());
    for field in ["name", "namespace"] {
        if let Some(value) = object.at(&["metadata", field]) {
            wanted.set_at(&["metadata", field], value.clone());
        }
    }
    if let Some(replicas) = sent.object.at(&["spec", "replicas"]) {
        wanted.set_at(&["spec", "replicas"], replicas.clone());
    }
    let scaled = forms::apply_object(call, Some(object), &wanted)?;
    sent.check(call)?;
    // The same checks of name, version and number as for any other change of a scale.
    let mut scale = sent.object;
    scale.set_at(&["spec", "replicas"], scaled.at(&["spec", "replicas"]).cloned().unwrap_or_default());
    scale::apply(object, &scale, &call.def.gvk.group, &call.def.resource)?;
    Ok(scaled)
}

/// Changes how many replicas an object wants.
pub(super) async fn change(call: &Call<'_>) -> Result<Answer, ApiError> {
    let make = |object: &Object| {
        if call.request.content_type == ContentType::ApplyPatch {
            return Ok(Proposal { object: applied(call, object)?, pinned: false });
        }
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
