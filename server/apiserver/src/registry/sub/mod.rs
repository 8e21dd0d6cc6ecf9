//! Subresources that are no part of an object, and resources that are only answered.

mod binding;
mod eviction;
pub(super) mod identity;
mod reviews;
mod scale;

use serde_json::{Value, json};
use skiff_api::{object::Object, request::Verb, status::ApiError};
use skiff_client::List;

use super::{
    Answer,
    call::{Call, json as json_answer},
    route,
};

/// Answers a request on a subresource that is an action.
pub(super) async fn action(call: &Call<'_>, name: &str) -> Result<Answer, ApiError> {
    match (name, call.request.verb) {
        ("scale", Verb::Get) => scale::get(call).await,
        ("scale", Verb::Update | Verb::Patch) => scale::change(call).await,
        ("binding", Verb::Create) => binding::bind(call).await,
        ("eviction", Verb::Create) => eviction::evict(call).await,
        ("token", Verb::Create) => identity::issue_token(call).await,
        // Connections to a node are made by the front.
        _ => Err(route::method_not_allowed()),
    }
}

/// Answers a request on a resource that is not stored.
pub(super) async fn unstored(call: &Call<'_>) -> Result<Answer, ApiError> {
    match (call.def.resource.as_str(), call.request.verb) {
        ("bindings", Verb::Create) => binding::bind(call).await,
        ("componentstatuses", Verb::List) => {
            let resource_version = call.registry.cacher().revision();
            let list = List { resource_version, entries: Vec::new(), continue_token: None };
            Ok(Answer::List { list, remaining: None })
        }
        ("componentstatuses", _) => Err(call.not_found(call.name())),
        (_, Verb::Create) => reviews::review(call).await,
        _ => Err(route::method_not_allowed()),
    }
}

/// 201 with a `Status` that says no more than that it was done.
fn success() -> Answer {
    json_value(201, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
}

/// An answer that is made here.
fn json_value(status: u16, value: Value) -> Answer {
    json_answer(status, &Object(value.as_object().cloned().unwrap_or_default()))
}
