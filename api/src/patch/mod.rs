//! Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes' strategic merge patch.
//!
//! Server-side apply is not here: it merges by ownership, not by what the client knows of the object.

mod json;
mod merge;
mod order;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use merge::merge;
pub use strategic::strategic;

use crate::{
    decode::{self, FieldValidation},
    kinds::GroupVersionKind,
    object::Object,
    request::ContentType,
    schema::Schemas,
    status::{ApiError, Reason},
};

/// The object that a patch makes of another one. The kind's schema is looked up among the built-in ones; a kind
/// without one (a custom resource) takes no strategic merge patch.
///
/// Errors: 400 where the patch is malformed, 413 where it asks for too much work, 415 where its form is not
/// taken, 422 where it does not fit the object (a failed test, a missing path). What is wrong with a patch is said in
/// other words where its fields are not to be looked at.
pub fn apply(
    content_type: ContentType,
    gvk: &GroupVersionKind,
    original: &Object,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<Object, ApiError> {
    let is_looked_at = validation != FieldValidation::Ignore;
    match content_type {
        ContentType::JsonPatch => json::apply(original, patch, is_looked_at),
        ContentType::MergePatch => {
            let patch = parse_map(patch).map_err(|why| match is_looked_at {
                true => ApiError::bad_request(format!("error decoding patch: {why}")),
                false => ApiError::bad_request("Invalid JSON Patch"),
            })?;
            let mut result = original.0.clone();
            merge(&mut result, patch);
            Ok(Object(result))
        }
        ContentType::StrategicMergePatch => {
            let schema = Schemas::builtin().of_kind(gvk).ok_or_else(|| unsupported(false))?;
            let patch = parse_map(patch).map_err(ApiError::bad_request)?;
            strategic(original.0.clone(), patch, schema).map(Object)
        }
        ContentType::Json | ContentType::Yaml | ContentType::ApplyPatch => Err(unsupported(true)),
    }
}

fn parse_map(patch: &[u8]) -> Result<Map<String, Value>, String> {
    match decode::json(patch)?.value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        other => Err(unmarshal(&other, "value of type map[string]interface {}")),
    }
}

/// A value that does not fit, in the words of Go's decoder.
fn unmarshal(value: &Value, into: &str) -> String {
    format!("json: cannot unmarshal {} into Go {into}", decode::json_word(value))
}

/// 415: the form of the patch is not one that the resource takes.
fn unsupported(takes_strategic: bool) -> ApiError {
    let strategic = if takes_strategic { "application/strategic-merge-patch+json, " } else { "" };
    ApiError::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, {strategic}application/apply-patch+yaml"
        ),
    )
}

/// 422: the patch is well formed and does not fit the object. The original does not say why either.
fn unprocessable() -> ApiError {
    let message = "the server rejected our request due to an error in our request";
    ApiError { details: serde_json::json!({}), ..ApiError::new(Reason::Invalid, message) }
}
