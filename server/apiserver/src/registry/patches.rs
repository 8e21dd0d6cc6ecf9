//! Patches and applies as they were sent: what is unknown or double in them, and what is done about it.

use serde_json::Value;
use skiff_api::{
    decode::{self, FieldValidation, Parsed},
    defaults, go,
    kinds::GroupVersionKind,
    object::Object,
    request::ContentType,
    status::{ApiError, FieldError},
};

use super::{call::Call, forms};

/// The fields of an operation of a JSON Patch.
const OPERATION_FIELDS: [&str; 4] = ["op", "path", "from", "value"];

/// 422, as the original words what a patch makes of an object.
fn misfit(shown: String, why: &str) -> ApiError {
    ApiError::invalid("", "", "", &[FieldError::invalid("patch", shown, why)])
}

/// The object that a patch made, with defaults; warned of or refused where it has unknown or double fields.
pub(super) fn checked(call: &Call<'_>, patched: Object, gvk: &GroupVersionKind) -> Result<Object, ApiError> {
    let request = call.request;
    let validation = forms::field_validation(request)?;
    // Printed before it is taken apart, for the words of a refusal.
    let shown = (validation == FieldValidation::Strict).then(|| shown(request.content_type, &request.body, &patched));
    let duplicates = if validation == FieldValidation::Ignore { Vec::new() } else { doubles(request) };
    let fallback = || self::shown(request.content_type, &request.body, &Object::default());
    let parsed = Parsed { value: Value::Object(patched.0), duplicates };
    let (mut object, findings) = decode::into_kind(parsed, gvk, forms::form(gvk)?)
        .map_err(|why| misfit(shown.clone().unwrap_or_else(fallback), &why))?;
    match validation {
        FieldValidation::Strict if !findings.is_empty() => {
            let why = format!("strict decoding error: {}", findings.join(", "));
            return Err(misfit(shown.unwrap_or_default(), &why));
        }
        FieldValidation::Warn => call.warn(findings),
        FieldValidation::Ignore | FieldValidation::Strict => {}
    }
    defaults::apply(gvk, &mut object);
    Ok(object)
}

/// What a refusal shows: of a strategic merge patch the patch as Go prints it, of others the object that they made.
fn shown(content_type: ContentType, body: &[u8], patched: &Object) -> String {
    if content_type == ContentType::StrategicMergePatch {
        let patch: Value = serde_json::from_slice(body).unwrap_or_default();
        return go::print(&patch);
    }
    String::from_utf8(patched.to_vec()).unwrap_or_default()
}

/// The double fields of a patch, and the unknown ones of the operations of a JSON Patch.
fn doubles(request: &skiff_api::request::Request) -> Vec<String> {
    let Ok(parsed) = decode::parse(&request.body, false) else { return Vec::new() };
    if request.content_type != ContentType::JsonPatch {
        return parsed.duplicates;
    }
    let mut found = parsed.duplicates;
    for (index, operation) in parsed.value.as_array().into_iter().flatten().enumerate() {
        let fields = operation.as_object().into_iter().flatten().map(|(name, _)| name);
        let unknown = fields.filter(|name| !OPERATION_FIELDS.contains(&name.as_str()));
        found.extend(unknown.map(|name| format!("unknown field \"[{index}].{name}\"")));
    }
    found.truncate(decode::MAX_FINDINGS);
    found.into_iter().map(|finding| format!("json patch {finding}")).collect()
}

/// What a client applies.
pub(super) struct Applied {
    /// As it was sent.
    pub(super) object: Object,
    duplicates: Vec<String>,
}

/// The body of an apply; it must say of what kind it is.
pub(super) fn applied_body(call: &Call<'_>, gvk: &GroupVersionKind) -> Result<Applied, ApiError> {
    let refuse = |why: &str| ApiError::bad_request(format!("error decoding patch: {why}"));
    let Parsed { value, duplicates } = decode::parse(&call.request.body, true).map_err(|why| refuse(&why))?;
    let Value::Object(map) = value else {
        return Err(refuse("json: cannot unmarshal array into Go value of type map[string]interface {}"));
    };
    let object = Object(map);
    let given = GroupVersionKind::parse(object.api_version(), object.kind());
    if given != *gvk {
        let GroupVersionKind { group, version, kind } = given;
        return Err(ApiError::bad_request(format!("invalid object type: {group}/{version}, Kind={kind}")));
    }
    Ok(Applied { object, duplicates })
}

impl Applied {
    /// Warns of double fields, or refuses them.
    pub(super) fn check(&self, call: &Call<'_>) -> Result<(), ApiError> {
        let keys: Vec<String> =
            self.duplicates.iter().map(|finding| already_set(&call.request.body, finding)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let why = format!("error converting YAML to JSON: yaml: unmarshal errors:\n{}", keys.join("\n"));
        match forms::field_validation(call.request)? {
            FieldValidation::Strict => Err(ApiError::bad_request(format!("error strict decoding patch: {why}"))),
            FieldValidation::Warn => {
                call.warn([why]);
                Ok(())
            }
            FieldValidation::Ignore => Ok(()),
        }
    }
}

/// A double field in the words of Go's YAML parser: with the line of its second appearance.
fn already_set(body: &[u8], finding: &str) -> String {
    let key = finding.trim_end_matches('"').rsplit(['.', '"']).next().unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let has_key = |line: &&str| {
        let mut rest = *line;
        let mut count = 0;
        while let Some((_, after)) = rest.split_once(key) {
            count += usize::from(after.trim_start_matches('"').trim_start().starts_with(':'));
            rest = after;
        }
        count > 0
    };
    let lines = text.lines().enumerate().filter(|(_, line)| has_key(line)).map(|(index, _)| index + 1);
    let line = lines.take(2).last().unwrap_or(1);
    format!("  line {line}: key {key:?} already set in map")
}
