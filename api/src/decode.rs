//! From the body of a request to an object: strict about what Kubernetes is strict about, in its words.
//!
//! Built-in kinds are decoded as Go decodes into structs: unknown fields are dropped (and found), nulls are the
//! same as absent, amounts and times take their canonical form, empty lists and maps that are not required vanish,
//! and fields that Go always prints are there. Custom resources keep their values; unknown fields are pruned.

use serde_json::{Map, Value};

use crate::{
    kinds::GroupVersionKind,
    object::Object,
    request::ContentType,
    schema::{SchemaRef, Schemas},
    status::ApiError,
};

mod parse;
mod shape;
mod syntax;

pub(crate) use parse::json;
pub use parse::{Parsed, parse};
pub(crate) use shape::json_word;
pub use shape::{Shaped, shape_custom, shape_typed};

/// How many findings are told of one body; Kubernetes stops there too.
pub const MAX_FINDINGS: usize = 100;

/// How much of a body is quoted in the error that says it is no object.
const SUMMARY_BYTES: usize = 30;

/// The fields of the Go struct that says of what kind a body is.
const KIND_FIELDS: &str = r#"APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"""#;

/// What to do with unknown and duplicate fields, `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// From the query parameter; absent or empty means [`Self::Warn`].
    pub fn parse(word: Option<&str>) -> Result<Self, ApiError> {
        match word.unwrap_or_default() {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => Err(ApiError::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// What fields the objects have.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// A built-in kind.
    Typed(SchemaRef<'a>),
    /// A custom resource.
    Custom(SchemaRef<'a>),
}

impl Form<'static> {
    /// The form of a built-in kind.
    pub fn builtin(gvk: &GroupVersionKind) -> Option<Self> {
        Schemas::builtin().of_kind(gvk).map(Self::Typed)
    }
}

/// A decoded object, and what there is to warn of.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind` of the kind expected.
    pub object: Object,
    /// One text a `Warning` header.
    pub warnings: Vec<String>,
}

/// Decodes the body of a create or an update.
///
/// `apiVersion` and `kind` may be absent from the body. Errors are 400s.
pub fn decode(
    body: &[u8],
    content_type: ContentType,
    expected: &GroupVersionKind,
    form: Form<'_>,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let unrecognized =
        |why: &str| unrecognized(expected, &format!("couldn't get version/kind; json parse error: {why}"), body);
    let is_yaml = content_type == ContentType::Yaml || content_type == ContentType::ApplyPatch;
    let mut parsed = parse(body, is_yaml).map_err(|why| unrecognized(&why))?;
    if parsed.value.is_null() {
        parsed.value = Value::Object(Map::new());
    }
    if let Some(why) = no_kind(&parsed.value) {
        return Err(unrecognized(&why));
    }
    decode_value(parsed, expected, form, validation)
}

/// Why Go's decoder finds no `apiVersion` and `kind` in a value, if it does not.
fn no_kind(value: &Value) -> Option<String> {
    let Value::Object(map) = value else {
        let word = json_word(value);
        return Some(format!("json: cannot unmarshal {word} into Go value of type struct {{ {KIND_FIELDS} }}"));
    };
    let is_odd = |(name, value): &(&String, &Value)| {
        matches!(name.as_str(), "apiVersion" | "kind") && !value.is_string() && !value.is_null()
    };
    let (name, value) = map.iter().find(is_odd)?;
    Some(format!("json: cannot unmarshal {} into Go struct field .{name} of type string", json_word(value)))
}

/// Decodes what has been parsed, or what a patch has made.
pub fn decode_value(
    parsed: Parsed,
    expected: &GroupVersionKind,
    form: Form<'_>,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    check_kind(&parsed.value, expected)?;
    let (object, findings) = into_kind(parsed, expected, form).map_err(|why| cannot_be_handled(expected, &why))?;
    let warnings = match validation {
        FieldValidation::Strict if !findings.is_empty() => {
            return Err(cannot_be_handled(expected, &format!("strict decoding error: {}", findings.join(", "))));
        }
        FieldValidation::Warn => findings,
        FieldValidation::Ignore | FieldValidation::Strict => Vec::new(),
    };
    Ok(Decoded { object, warnings })
}

/// A value in the shape of a kind, with what was found on the way: `unknown field "a"`, `duplicate field "b"`. The
/// error is the sentence of Go's decoder.
pub fn into_kind(parsed: Parsed, expected: &GroupVersionKind, form: Form<'_>) -> Result<(Object, Vec<String>), String> {
    let Value::Object(mut map) = parsed.value else { return Err("not an object".to_owned()) };
    map.insert("apiVersion".to_owned(), expected.api_version().into());
    map.insert("kind".to_owned(), expected.kind.as_str().into());
    let shaped = match form {
        Form::Typed(schema) => shape_typed(Value::Object(map), schema),
        Form::Custom(schema) => shape_custom(Value::Object(map), schema),
    }?;
    let mut findings = parsed.duplicates;
    findings.extend(shaped.unknown.iter().map(|path| format!("unknown field {path:?}")));
    findings.truncate(MAX_FINDINGS);
    let Value::Object(map) = shaped.value else { return Err("not an object".to_owned()) };
    Ok((Object(map), findings))
}

/// The body's own `apiVersion` and `kind`, where it has them, must be those that the path calls for.
fn check_kind(map: &Value, expected: &GroupVersionKind) -> Result<(), ApiError> {
    let text = |name: &str| map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let expected_version = expected.api_version();
    if let Some(version) = text("apiVersion").filter(|version| *version != expected_version) {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected_version})"
        )));
    }
    if let Some(kind) = text("kind").filter(|kind| *kind != expected.kind) {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: converting ({}.{kind}) to ({}.{}): unknown conversion",
            expected.version,
            expected.kind,
            expected.version,
            expected.group.split('.').next().filter(|name| !name.is_empty()).unwrap_or("core"),
            expected.kind
        )));
    }
    Ok(())
}

fn cannot_be_handled(expected: &GroupVersionKind, why: &str) -> ApiError {
    let GroupVersionKind { version, kind, .. } = expected;
    ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

fn unrecognized(expected: &GroupVersionKind, why: &str, body: &[u8]) -> ApiError {
    let kind = &expected.kind;
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

/// The beginning of a body: as text where it looks like JSON, else in hexadecimal.
fn summary(body: &[u8]) -> String {
    let front = &body[..body.len().min(SUMMARY_BYTES)];
    let more = if body.len() > SUMMARY_BYTES { " ..." } else { "" };
    match front.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(front)),
        Some(_) => format!("{}{more}", front.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

#[cfg(test)]
mod tests;
