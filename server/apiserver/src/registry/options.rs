//! The options of a write: which are valid, and whether it is a dry run.

use serde_json::{Value, json};
use skiff_api::{
    request::{ContentType, Request, Verb},
    status::{ApiError, FieldError, FieldErrorKind},
};

use super::{config::MAX_FIELD_MANAGER_BYTES, reads};

/// The group that errors in options are told of.
pub(super) const META_GROUP: &str = "meta.k8s.io";

/// The kind of a verb's options.
fn kind(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        _ => "DeleteOptions",
    }
}

/// What is wrong with `dryRun`.
pub(super) fn dry_run_errors(given: &[String]) -> Option<FieldError> {
    given.iter().any(|value| value != "All").then(|| FieldError::not_supported("dryRun", json!(given), &["All"]))
}

/// What is wrong with the options of a patch.
fn patch_errors(request: &Request) -> Option<FieldError> {
    let options = &request.options;
    let applies = request.content_type == ContentType::ApplyPatch;
    if applies && options.field_manager.as_deref().unwrap_or_default().is_empty() {
        return Some(FieldError::required("fieldManager", "is required for apply patch"));
    }
    (!applies && options.force.is_some())
        .then(|| FieldError::forbidden("force", "may not be specified for non-apply patch"))
}

/// About what Go's `unicode.IsPrint` says.
fn prints(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace())
}

/// What is wrong with `fieldManager` and `fieldValidation`.
fn field_errors(request: &Request) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let manager = request.options.field_manager.as_deref().unwrap_or_default();
    if manager.len() > MAX_FIELD_MANAGER_BYTES {
        let detail = format!("may not be more than {MAX_FIELD_MANAGER_BYTES} bytes");
        errors.push(FieldError { kind: FieldErrorKind::TooLong, detail, ..FieldError::required("fieldManager", "") });
    }
    for (at, odd) in manager.char_indices().filter(|(_, letter)| !prints(*letter)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(odd));
        errors.push(FieldError::invalid("fieldManager", manager, why));
    }
    let validation = request.options.field_validation.as_deref().unwrap_or_default();
    if !["", "Ignore", "Warn", "Strict"].contains(&validation) {
        let words = ["", "Ignore", "Strict", "Warn"];
        errors.push(FieldError::not_supported("fieldValidation", validation, &words));
    }
    errors
}

/// Refuses options that are not valid; says whether the write is a dry run.
pub(super) fn check(request: &Request) -> Result<bool, ApiError> {
    if reads(request.verb) {
        return Ok(false);
    }
    let mut errors: Vec<FieldError> = dry_run_errors(&request.options.dry_run).into_iter().collect();
    if matches!(request.verb, Verb::Create | Verb::Update | Verb::Patch) {
        errors.extend(field_errors(request));
    }
    if request.verb == Verb::Patch {
        errors.extend(patch_errors(request));
    }
    if errors.is_empty() {
        return Ok(!request.options.dry_run.is_empty());
    }
    Err(ApiError::invalid(META_GROUP, kind(request.verb), "", &errors))
}

/// The strings of a list in a body of options.
pub(super) fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}
