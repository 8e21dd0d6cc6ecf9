//! `scale`: how many replicas an object has and wants, the same for every kind that has replicas.

use serde_json::{Value, json};
use skiff_api::{
    object::Object,
    request::{ContentType, Verb},
    selector::LabelSelector,
    status::{ApiError, FieldError},
};

use super::{
    super::{
        Answer,
        call::Call,
        create, forms,
        update::{self, Proposal},
    },
    json_value,
};
use crate::strategy::Part;

/// The selector of an object's pods as text.
fn selector_text(object: &Object) -> String {
    let Some(selector) = object.at(&["spec", "selector"]) else { return String::new() };
    if object.kind() == "ReplicationController" {
        return LabelSelector::from_pairs(object.pairs_at(&["spec", "selector"])).to_string();
    }
    LabelSelector::from_value(Some(selector)).map(|selector| selector.to_string()).unwrap_or_default()
}

/// An object as a `Scale`.
fn of_object(object: &Object) -> Object {
    let mut scale = Object::default();
    scale.set_at(&["kind"], "Scale");
    scale.set_at(&["apiVersion"], "autoscaling/v1");
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&["metadata", field]) {
            scale.set_at(&["metadata", field], value.clone());
        }
    }
    scale.set_at(&["spec"], json!({}));
    if let Some(replicas) = object.int_at(&["spec", "replicas"]).filter(|replicas| *replicas != 0) {
        scale.set_at(&["spec", "replicas"], replicas);
    }
    scale.set_at(&["status", "replicas"], object.int_at(&["status", "replicas"]).unwrap_or_default());
    let selector = selector_text(object);
    if !selector.is_empty() {
        scale.set_at(&["status", "selector"], selector);
    }
    scale
}

/// The `Scale` of an object.
pub(super) async fn get(call: &Call<'_>) -> Result<Answer, ApiError> {
    let entry = call.fetch(call.name()).await?.ok_or_else(|| call.not_found(call.name()))?;
    Ok(json_value(200, Value::Object(of_object(&call.parse(&entry)?).0)))
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

/// An object with the replicas that a `Scale` asks for.
fn scaled(call: &Call<'_>, object: &Object) -> Result<Proposal, ApiError> {
    let there = of_object(object);
    let scale = asked(call, &there)?;
    let replicas = scale.int_at(&["spec", "replicas"]).unwrap_or_default();
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        create::refuse_invalid(call, call.name(), &[error])?;
    }
    let mut object = object.clone();
    object.set_at(&["spec", "replicas"], replicas);
    let version = scale.at(&["metadata", "resourceVersion"]).cloned().filter(|version| *version != "");
    let pinned = version.is_some()
        && (call.request.verb == Verb::Update || version.as_ref() != there.at(&["metadata", "resourceVersion"]));
    if let (true, Some(version)) = (pinned, version) {
        object.set_at(&["metadata", "resourceVersion"], version);
    }
    if !scale.uid().is_empty() {
        object.set_at(&["metadata", "uid"], scale.uid());
    }
    Ok(Proposal { object, pinned })
}

/// Changes how many replicas an object wants.
pub(super) async fn change(call: &Call<'_>) -> Result<Answer, ApiError> {
    let make = |object: &Object| scaled(call, object);
    let Some(written) = update::change(call, call.name(), Part::Main, &make).await? else {
        return Err(call.not_found(call.name()));
    };
    Ok(json_value(200, Value::Object(of_object(&written.object(call)?).0)))
}
