//! The words that a field may only have, from the schemas.

use serde_json::Value;

use super::cursor::Errors;
use crate::{
    kinds::ResourceDef,
    object::Object,
    schema::{SchemaRef, Schemas},
    status::FieldError,
};

/// Every enumerated field of a built-in kind has one of its words. Fields that a rule has already found wrong are
/// not told again. Status is written by controllers and may be newer than the schema.
pub(super) fn enums(def: &ResourceDef, object: &Object, errors: &mut Errors) {
    let Some(schema) = Schemas::builtin().of_kind(&def.gvk) else { return };
    let mut path = String::new();
    for (name, value) in object.0.iter().filter(|(name, _)| !matches!(name.as_str(), "status" | "metadata")) {
        if let Some(field) = schema.property(name) {
            path.clear();
            path.push_str(name);
            walk(value, field, &mut path, errors);
        }
    }
}

fn walk(value: &Value, schema: SchemaRef<'_>, path: &mut String, errors: &mut Errors) {
    let length = path.len();
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                let Some(field) = schema.property(name) else { continue };
                path.push('.');
                path.push_str(name);
                walk(child, field, path, errors);
                path.truncate(length);
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items() else { return };
            for (index, child) in list.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(child, items, path, errors);
                path.truncate(length);
            }
        }
        // An empty text is an unset field, which the kind's own rules know of.
        Value::String(text) if !text.is_empty() => {
            let words = schema.enum_values();
            if !words.is_empty() && !words.contains(value) && !errors.has(path) {
                let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
                errors.add(FieldError::not_supported(path.as_str(), text.as_str(), &words));
            }
        }
        _ => {}
    }
}
