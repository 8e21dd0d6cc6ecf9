//! From bodies to objects and back: what the registry asks of `skiff-api`.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;
use skiff_api::{
    apply, convert,
    decode::{self, FieldValidation, Form, Parsed},
    defaults,
    kinds::{GroupVersionKind, Kinds, ResourceDef, stored_field},
    object::Object,
    patch,
    request::{ContentType, Request},
    schema::Schemas,
    status::{ApiError, FieldError},
    validate,
    wire::Entry,
};

use super::{call::Call, patches};
use crate::strategy::{Part, qos_class};

/// Who is said to manage what was written by a client that did not say who it is.
const UNKNOWN_MANAGER: &str = "unknown";

/// The kind of `binding`'s bodies.
pub(super) fn binding() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Binding")
}

/// The kind of `eviction`'s bodies.
pub(super) fn eviction() -> GroupVersionKind {
    GroupVersionKind::new("policy", "v1", "Eviction")
}

/// The kind of `token`'s bodies.
pub(super) fn token_request() -> GroupVersionKind {
    GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest")
}

/// The kind of `scale`'s bodies.
pub(super) fn scale() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

/// The form of a kind's objects. The place of custom resources' own schemas is here.
pub(super) fn form(gvk: &GroupVersionKind) -> Result<Form<'static>, ApiError> {
    Form::builtin(gvk).ok_or_else(|| ApiError::internal(format!("{} has no schema", gvk.kind)))
}

/// What the client wants done about unknown fields.
pub(super) fn field_validation(request: &Request) -> Result<FieldValidation, ApiError> {
    FieldValidation::parse(request.options.field_validation.as_deref())
}

/// The object in the body, of the resource's kind.
pub(super) fn decode(call: &Call<'_>) -> Result<Object, ApiError> {
    decode_as(call, &call.def.gvk)
}

/// The object in the body, of a kind, with defaults.
pub(super) fn decode_as(call: &Call<'_>, gvk: &GroupVersionKind) -> Result<Object, ApiError> {
    let request = call.request;
    let validation = field_validation(request)?;
    let decoded = decode::decode(&request.body, request.content_type, gvk, form(gvk)?, validation)?;
    call.warn(decoded.warnings);
    let mut object = decoded.object;
    defaults::apply(gvk, &mut object);
    Ok(object)
}

/// What an object becomes by the patch in the body.
pub(super) fn patched(call: &Call<'_>, old: &Object) -> Result<Object, ApiError> {
    patched_as(call, old, &call.def.gvk)
}

/// What an object of a kind becomes by the patch in the body, with defaults.
pub(super) fn patched_as(call: &Call<'_>, old: &Object, gvk: &GroupVersionKind) -> Result<Object, ApiError> {
    let request = call.request;
    if request.content_type == ContentType::ApplyPatch {
        return applied(call, Some(old), gvk);
    }
    let patched = patch::apply(request.content_type, gvk, old, &request.body, field_validation(request)?)?;
    patches::checked(call, patched, gvk)
}

/// What an apply made, as an object of its kind, with defaults.
fn shaped(call: &Call<'_>, object: Object, gvk: &GroupVersionKind) -> Result<Object, ApiError> {
    let parsed = Parsed { value: Value::Object(object.0), duplicates: Vec::new() };
    let decoded = decode::decode_value(parsed, gvk, form(gvk)?, field_validation(call.request)?)?;
    call.warn(decoded.warnings);
    let mut object = decoded.object;
    defaults::apply(gvk, &mut object);
    Ok(object)
}

/// The object that a server-side apply makes where there is none.
pub(super) fn applied_new(call: &Call<'_>) -> Result<Object, ApiError> {
    applied(call, None, &call.def.gvk)
}

/// What an object becomes by the apply in the body. What is applied is taken as it was sent: what decoding adds is not
/// the client's, and is not to be managed by it.
fn applied(call: &Call<'_>, live: Option<&Object>, gvk: &GroupVersionKind) -> Result<Object, ApiError> {
    let sent = patches::applied_body(call, gvk)?;
    let object = apply_object(call, live, &sent.object)?;
    sent.check(call)?;
    shaped(call, object, gvk)
}

/// What an object becomes when a manager applies what it wants of it.
pub(super) fn apply_object(call: &Call<'_>, live: Option<&Object>, wanted: &Object) -> Result<Object, ApiError> {
    apply::apply(&managed(call)?, live, wanted, call.request.options.force.unwrap_or_default())
}

/// The write as far as the management of fields is concerned.
fn managed<'a>(call: &'a Call<'_>) -> Result<apply::Operation<'a>, ApiError> {
    let def = &call.def;
    let schema = Schemas::builtin().of_kind(&def.gvk);
    let manager = call.request.options.field_manager.as_deref().filter(|manager| !manager.is_empty());
    Ok(apply::Operation {
        schema: schema.ok_or_else(|| ApiError::internal(format!("{} has no schema", def.gvk.kind)))?,
        manager: manager.unwrap_or(UNKNOWN_MANAGER),
        subresource: call.request.subresource.as_deref().unwrap_or_default(),
        has_status: def.subresources.iter().any(|subresource| subresource.name == "status"),
        now: call.now,
    })
}

/// Defaults once more, for what admission and the strategy added.
pub(super) fn apply_defaults(call: &Call<'_>, object: &mut Object) {
    defaults::apply(&call.def.gvk, object);
}

/// What is wrong with a new object.
pub(super) fn validate_create(call: &Call<'_>, object: &Object) -> Vec<FieldError> {
    validate::create(&call.def, object)
}

/// What is wrong with a changed object. A part of a pod that has a subresource of its own has its own rules, and what
/// the server itself changes is held to none.
pub(super) fn validate_update(call: &Call<'_>, object: &Object, old: &Object, part: Part) -> Vec<FieldError> {
    match part {
        Part::Whole => Vec::new(),
        Part::Only(_) if call.def.gvk.kind == "Pod" => validate::ephemeral_containers(object, old),
        Part::Resize => validate::resize(object, old, qos_class(object), qos_class(old)),
        Part::Main | Part::Status | Part::Only(_) => validate::update(&call.def, object, old),
    }
}

/// Adds errors of which the same has not been said yet.
pub(super) fn add_errors(errors: &mut Vec<FieldError>, more: Vec<FieldError>) {
    for error in more {
        if !errors.iter().any(|known| known.path == error.path && known.detail == error.detail) {
            errors.push(error);
        }
    }
}

/// Notes in `metadata.managedFields` who set what. An apply has done so itself.
pub(super) fn track(call: &Call<'_>, object: &mut Object, old: Option<&Object>) -> Result<(), ApiError> {
    if call.request.content_type != ContentType::ApplyPatch {
        apply::track_update(&managed(call)?, old, object);
    }
    Ok(())
}

/// Whether a resource's objects are stored in another version than its own.
fn has_twin(kinds: &Kinds, def: &ResourceDef) -> bool {
    kinds.stored_as(&def.storage).is_some_and(|stored| stored.gvk != def.gvk)
}

/// Gives entries in the version of a resource. Made once for a list or a watch: whether there is anything to do is a
/// question to the whole table of kinds.
pub(super) struct Presenter(Option<Arc<ResourceDef>>);

impl Presenter {
    /// For answers about a resource.
    pub(super) fn new(def: &Arc<ResourceDef>) -> Self {
        Self(has_twin(Kinds::builtin(), def).then(|| Arc::clone(def)))
    }

    /// An entry in that version: as it is, in nearly all cases.
    pub(super) fn present(&self, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
        let Some(def) = &self.0 else { return Ok(entry) };
        let object = convert::to_version(entry.object().map_err(ApiError::internal)?, &def.gvk);
        let (resource_version, head) = (entry.resource_version, entry.head.clone());
        Ok(Arc::new(Entry { resource_version, head, json: object.to_vec().into() }))
    }
}

/// An object in the version in which objects of its resource are stored.
pub(super) fn to_stored<'a>(kinds: &Kinds, object: &'a Object, def: &ResourceDef) -> Cow<'a, Object> {
    match kinds.stored_as(&def.storage) {
        Some(stored) if stored.gvk != def.gvk => Cow::Owned(convert::to_version(object.clone(), &stored.gvk)),
        _ => Cow::Borrowed(object),
    }
}

/// A field selector in the words of the stored version.
pub(super) fn stored_field_selector(text: &str, def: &ResourceDef) -> Result<String, ApiError> {
    if !has_twin(Kinds::builtin(), def) {
        return Ok(text.to_owned());
    }
    let term = |term: &str| {
        let end = term.find(['=', '!']).unwrap_or(term.len());
        let (field, rest) = term.split_at(end);
        let known = field.starts_with("metadata.") || def.selectable.contains(&field) || field.is_empty();
        if !known {
            return Err(ApiError::bad_request(format!("field label not supported: {field}")));
        }
        Ok(format!("{}{rest}", stored_field(field)))
    };
    let terms: Vec<String> = text.split(',').map(term).collect::<Result<_, _>>()?;
    Ok(terms.join(","))
}

/// The `DeleteOptions` in the body of a deletion.
pub(super) fn options_body(request: &Request) -> Result<Value, ApiError> {
    let is_yaml = request.content_type == ContentType::Yaml;
    let parsed = decode::parse(&request.body, is_yaml).map_err(|why| ApiError::bad_request(why.to_string()))?;
    let kind = parsed.value.get("kind").and_then(Value::as_str).unwrap_or("DeleteOptions");
    if !parsed.value.is_object() || kind != "DeleteOptions" {
        return Err(ApiError::bad_request("decoded object cannot be converted to DeleteOptions"));
    }
    Ok(parsed.value)
}
